//! What a run of events makes of the rows: pure, no I/O, no clock.
//!
//! [`Fold::add`] is called with every event in the order of its partition; [`Fold::finish`] gives the rows to write. A task
//! that is not in [`Known`] and not submitted within the run must be loaded first ([`missing`]).

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use insightforge_schema::event::{Change, Completed, Event, Shadowed, Submitted};
use insightforge_schema::task::{IllegalEvent, Task, apply};
use lru::LruCache;

/// Tasks that are not over yet, by the row id of their `submitted` event. The cache spares the hot path every `SELECT`.
pub struct Known {
    tasks: LruCache<u64, Task>,
    capacity: usize,
    /// Completed tasks too: where there are shadows, one more event follows soon.
    keep_completed: bool,
}

impl Known {
    /// Keeps `capacity` tasks; the least recently used go first and are loaded again when needed. They go when a fold has
    /// ended, never before: what is loaded for a fold must not push out what the same fold needs.
    #[must_use]
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self { tasks: LruCache::unbounded(), capacity: capacity.get(), keep_completed: false }
    }

    /// Takes in a task as the tables have it.
    pub fn insert(&mut self, task: Task) {
        self.tasks.put(task.first.row_id(), task);
    }

    fn forget_the_oldest(&mut self) {
        while self.tasks.len() > self.capacity {
            self.tasks.pop_lru();
        }
    }

    /// Forgets everything: after a transaction that failed, the tables know better.
    pub fn clear(&mut self) {
        self.tasks.clear();
    }
}

/// Row ids of the tasks that a fold of `events` needs and `known` does not have.
#[must_use]
pub fn missing(events: &[Event], known: &Known) -> Vec<u64> {
    let mut needed: Vec<u64> = events
        .iter()
        .filter(|event| event.first != event.position)
        .map(|event| event.first.row_id())
        .filter(|id| !known.tasks.contains(id))
        .collect();
    needed.sort_unstable();
    needed.dedup();
    let begun: HashSet<u64> =
        events.iter().filter(|event| event.first == event.position).map(|event| event.position.row_id()).collect();
    needed.retain(|id| !begun.contains(id));
    needed
}

/// What to write for a run of events.
#[derive(Debug, Default)]
pub struct Rows<'e> {
    /// Tasks submitted within the run, as they are after it.
    pub new_tasks: Vec<(Task, &'e Submitted)>,
    /// Tasks that had a row before.
    pub changed_tasks: Vec<Task>,
    pub results: Vec<(&'e Event, &'e Completed)>,
    pub shadows: Vec<(&'e Event, &'e Shadowed)>,
    /// One row an event of a task.
    pub logs: Vec<&'e Event>,
    /// Ends of batch uploads.
    pub batches: Vec<&'e Event>,
    /// Terminal events, each with its task as it was then.
    pub ended: Vec<(Task, &'e Event)>,
    pub faults: Vec<(&'e Event, IllegalEvent)>,
}

/// A fold in progress.
pub struct Fold<'e> {
    /// Tasks touched by the run, in the order of their first touch.
    order: Vec<u64>,
    touched: HashMap<u64, Touched<'e>>,
    rows: Rows<'e>,
}

struct Touched<'e> {
    task: Task,
    submitted: Option<&'e Submitted>,
}

/// Folds a run of events. `refused` are row ids of `submitted` and `batch_received` events whose id already has another
/// row: such an event is a fault, and so is all that follows from it.
#[must_use]
pub fn fold<'e>(events: &'e [Event], known: &mut Known, refused: &HashSet<u64>) -> Rows<'e> {
    let mut fold = Fold { order: Vec::new(), touched: HashMap::with_capacity(events.len()), rows: Rows::default() };
    for event in events {
        fold.add(event, known, refused);
    }
    fold.finish(known)
}

impl<'e> Fold<'e> {
    fn add(&mut self, event: &'e Event, known: &mut Known, refused: &HashSet<u64>) {
        let is_refused = refused.contains(&event.position.row_id());
        if let Change::BatchReceived(_) = event.change {
            if is_refused {
                self.rows.faults.push((event, IllegalEvent::BatchEndedTwice { position: event.position }));
            } else {
                self.rows.batches.push(event);
            }
            return;
        }
        let id = event.first.row_id();
        if is_refused {
            let first = event.first;
            self.rows.faults.push((event, IllegalEvent::SubmittedTwice { position: event.position, first }));
            return;
        }
        let before = match self.touched.get(&id) {
            Some(touched) => Some(touched.task.clone()),
            None => known.tasks.pop(&id),
        };
        let returned = before.clone();
        match apply(before, event) {
            Ok(task) => self.take_in(id, task, event),
            Err(illegal) => {
                if let (Some(task), false) = (returned, self.touched.contains_key(&id)) {
                    known.insert(task);
                }
                self.rows.faults.push((event, illegal));
            }
        }
    }

    fn take_in(&mut self, id: u64, task: Task, event: &'e Event) {
        match &event.change {
            Change::Completed(completed) => self.rows.results.push((event, completed)),
            Change::Shadowed(shadowed) => self.rows.shadows.push((event, shadowed)),
            Change::Submitted(submitted) => {
                self.touched.insert(id, Touched { task: task.clone(), submitted: Some(submitted) });
                self.order.push(id);
            }
            _ => {}
        }
        if event.change.is_terminal() {
            self.rows.ended.push((task.clone(), event));
        }
        self.rows.logs.push(event);
        if let Some(touched) = self.touched.get_mut(&id) {
            touched.task = task;
        } else {
            self.touched.insert(id, Touched { task, submitted: None });
            self.order.push(id);
        }
    }

    fn finish(mut self, known: &mut Known) -> Rows<'e> {
        known.keep_completed |= !self.rows.shadows.is_empty();
        for id in self.order {
            let Some(Touched { task, submitted }) = self.touched.remove(&id) else { continue };
            if !task.status.is_terminal() || task.error.is_some() || known.keep_completed {
                known.insert(task.clone());
            }
            match submitted {
                Some(submitted) => self.rows.new_tasks.push((task, submitted)),
                None => self.rows.changed_tasks.push(task),
            }
        }
        known.forget_the_oldest();
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Meta, Processing};
    use insightforge_schema::id::{Partition, Position, TaskId};

    use super::*;

    fn event(n: u64, first: u64, change: Change) -> Event {
        let at = |n| Position { partition: Partition(0), n };
        let meta = Meta { at_us: 1, tenant: String::new(), actor: String::new(), attempt: 1, trace: None };
        Event { position: at(n), task: TaskId(uuid::Uuid::from_u128(first.into())), first: at(first), meta, change }
    }

    fn submitted(n: u64) -> Event {
        let change = Submitted {
            task_type: "t".to_owned(),
            model_version: "v1".to_owned(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        };
        event(n, n, Change::Submitted(change))
    }

    fn processing(n: u64, first: u64) -> Event {
        event(n, first, Change::Processing(Processing { worker: "w".to_owned() }))
    }

    #[test]
    fn once_there_are_shadows_completed_tasks_stay_known() {
        let completed = |n, first| {
            let change = Completed {
                task_type: "t".to_owned(),
                model_version: "v1".to_owned(),
                result: "{}".to_owned(),
                inference_us: 1,
                batch_size: 1,
                route: None,
            };
            event(n, first, Change::Completed(change))
        };
        let shadowed = |n, first| {
            let change = Shadowed {
                task_type: "t".to_owned(),
                model_version: "v2".to_owned(),
                digest: String::new(),
                backend: String::new(),
                device: String::new(),
                result: None,
                error: None,
                agrees: false,
                took_us: 1,
                batch_size: 1,
            };
            event(n, first, Change::Shadowed(change))
        };
        let mut known = Known::new(NonZeroUsize::new(9).unwrap());
        let one = [submitted(1), processing(2, 1), completed(3, 1)];
        assert!(fold(&one, &mut known, &HashSet::new()).faults.is_empty());
        assert_eq!(missing(&[shadowed(4, 1)], &known), [one[0].position.row_id()]);
        let two = [submitted(5), processing(6, 5), completed(7, 5), shadowed(8, 5)];
        assert_eq!(fold(&two, &mut known, &HashSet::new()).shadows.len(), 1);
        let three = [submitted(9), processing(10, 9), completed(11, 9)];
        assert!(fold(&three, &mut known, &HashSet::new()).faults.is_empty());
        let later = [shadowed(12, 9)];
        assert!(missing(&later, &known).is_empty());
        assert!(fold(&later, &mut known, &HashSet::new()).faults.is_empty());
    }

    #[test]
    fn loading_what_a_fold_lacks_does_not_push_out_what_it_needs() {
        let mut known = Known::new(NonZeroUsize::new(2).unwrap());
        let three = [submitted(1), submitted(2), submitted(3)];
        assert!(fold(&three, &mut known, &HashSet::new()).faults.is_empty());
        assert_eq!(known.tasks.len(), 2, "the first is in the tables only");

        let begun = [processing(4, 1), processing(5, 2), processing(6, 3)];
        let wanted = missing(&begun, &known);
        assert_eq!(wanted, [three[0].position.row_id()]);
        known.insert(apply(None, &three[0]).unwrap());
        let rows = fold(&begun, &mut known, &HashSet::new());
        assert_eq!((rows.changed_tasks.len(), &rows.faults[..]), (3, &[][..]));
        assert_eq!(known.tasks.len(), 2);
    }
}
