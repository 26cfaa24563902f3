//! The process's one live reader of the journal. It reads only while somebody listens; each event is decoded once and
//! handed to all listeners: to those that want many in batches, to those that want one task by looking that up.
//!
//! Nothing slips through between asking and listening: what is appended after [`Tail::subscribe`] returned is heard, or
//! the listener is told that it missed something and reads again from its own cursor. Errors make events late, never
//! lost: the reader goes on from the numbers it holds. When it is so far behind that the journal was trimmed before it,
//! all are told that they missed something.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use insightforge_schema::event::Event;
use insightforge_schema::follow::Follower;
use insightforge_schema::id::{Cursor, Partition, PartitionCount, Position, TaskId};
use insightforge_schema::journal::{last_number, read_entry};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::script;
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::find::terminal_event;
use crate::live::told::Told;

/// How long a read waits for the first new event; also how soon the reader notices that nobody listens any more.
const BLOCK: Duration = Duration::from_secs(2);
/// Events of one partition in one read. Small, because an event carries its document and a batch is held until the
/// slowest listener has taken it.
const READ_EVENTS: usize = 64;
/// Batches a listener may be behind before it is told that it missed some.
const BEHIND: usize = 128;
/// Events that may wait for one who watches tasks before it is told that it missed some.
const UNHEARD: usize = 256;
/// With more listeners than this, events are gathered before all of them are woken: to wake one and to write to its
/// connection costs the same for one event as for many.
const MANY: usize = 64;
const GATHER_LEAST: Duration = Duration::from_millis(15);
const GATHER_MOST: Duration = Duration::from_millis(50);
/// What one listener more adds to it, up to the most.
const GATHER_EACH: Duration = Duration::from_micros(10);
/// The pause after a failed read; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Events in the order they were read, which within a partition is the journal's.
pub type Batch = Arc<[Arc<Told>]>;

/// The live end of the journal. Cheap to clone.
#[derive(Clone)]
pub struct Tail(Arc<Shared>);

struct Shared {
    link: Link,
    keys: Keys,
    partitions: PartitionCount,
    state: Mutex<State>,
    /// Somebody came while the reader was parked.
    wake: Notify,
    shutdown: CancellationToken,
}

struct State {
    /// Set while the reader is at work: where it began or now stands.
    reading: Option<Cursor>,
    listeners: broadcast::Sender<Heard>,
    /// Who waits for the end of one task. They are many and each wants one event, so they are looked up by task instead
    /// of each looking through everything.
    waiters: HashMap<TaskId, Vec<oneshot::Sender<Arc<Event>>>>,
    /// Who follows single tasks, by task for the same reason.
    watchers: HashMap<TaskId, Vec<Arc<Unheard>>>,
}

/// What a listener hears.
#[derive(Debug, Clone)]
pub enum Heard {
    Batch(Batch),
    /// Some batches went by: read again from your own cursor; what comes next is heard.
    Missed,
    /// This listener hears nothing more, because the process stops or the journal has moved back: subscribe again.
    Over,
}

/// One who hears every event.
pub struct Listener(broadcast::Receiver<Heard>, CancellationToken);

/// One who hears the events of some tasks.
pub struct Watch {
    tail: Tail,
    tasks: Vec<TaskId>,
    unheard: Arc<Unheard>,
}

/// What was told to one who watches and has not been heard yet.
#[derive(Default)]
struct Unheard {
    queue: Mutex<Queue>,
    told: Notify,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Told>>,
    missed: bool,
    over: bool,
}

/// What the reader has read.
struct Read {
    events: Vec<Arc<Told>>,
    /// Some were trimmed before it came to them.
    gap: bool,
    /// There is more at once.
    more: bool,
}

/// What came of waiting for a task's end.
#[derive(Debug, Clone)]
pub enum Waited {
    /// The terminal event.
    Ended(Arc<Event>),
    /// Not by the deadline.
    Running,
    /// Redis has no record of the task: it never was, or ended longer ago than records are kept.
    Unknown,
}

impl Tail {
    /// Starts the reader, parked; it ends with `shutdown`.
    #[must_use]
    pub fn start(link: &Link, keys: &Keys, partitions: PartitionCount, shutdown: &CancellationToken) -> Self {
        let state = State {
            reading: None,
            listeners: broadcast::Sender::new(BEHIND),
            waiters: HashMap::new(),
            watchers: HashMap::new(),
        };
        let tail = Self(Arc::new(Shared {
            link: link.clone(),
            keys: keys.clone(),
            partitions,
            state: Mutex::new(state),
            wake: Notify::new(),
            shutdown: shutdown.clone(),
        }));
        tokio::spawn(tail.clone().run());
        tail
    }

    /// Begins to listen: every event appended after this returned is heard. Some from just before may be, too.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn subscribe(&self) -> Result<Listener, LinkError> {
        self.join(|state| Listener(state.listeners.subscribe(), self.0.shutdown.clone())).await
    }

    /// Begins to watch `task`: every event of it that is appended after this returned is heard.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn watch(&self, task: TaskId) -> Result<Watch, LinkError> {
        let mut watch = Watch { tail: self.clone(), tasks: Vec::new(), unheard: Arc::default() };
        watch.add(task).await?;
        Ok(watch)
    }

    /// Where the reader stands: whatever it told has been put where those who watch find it.
    #[must_use]
    pub fn stands_at(&self) -> Option<Cursor> {
        self.state().reading.clone()
    }

    /// Waits for the terminal event of `task`; also finds one that lies in the past, as long as Redis has the record.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn wait_for_end(&self, task: TaskId, deadline: Instant) -> Result<Waited, LinkError> {
        let _waiting = Waiting { tail: self, task };
        loop {
            let (tell, told) = oneshot::channel();
            self.join(|state| state.waiters.entry(task).or_default().push(tell)).await?;
            match self.look(task).await? {
                Waited::Running => {}
                known => return Ok(known),
            }
            tokio::select! {
                event = told => match event {
                    Ok(event) => return Ok(Waited::Ended(event)),
                    // The reader had to let go of its waiters: look again.
                    Err(_) => continue,
                },
                () = tokio::time::sleep_until(deadline) => {}
                () = self.0.shutdown.cancelled() => {}
            }
            return Ok(Waited::Running);
        }
    }

    /// Whether the reader is at work.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        self.state().reading.is_some()
    }

    /// Adds somebody who is to hear everything from now on. The reader cannot park meanwhile: it does so only under the
    /// lock and when nobody is there.
    async fn join<T>(&self, add: impl FnOnce(&mut State) -> T) -> Result<T, LinkError> {
        {
            let mut state = self.state();
            if state.reading.is_some() {
                return Ok(add(&mut state));
            }
        }
        let ends = self.ends().await?;
        let mut state = self.state();
        let added = add(&mut state);
        if state.reading.is_none() {
            state.reading = Some(ends);
            self.0.wake.notify_one();
        }
        Ok(added)
    }

    /// The task as its record says now.
    async fn look(&self, task: TaskId) -> Result<Waited, LinkError> {
        let partition = self.0.partitions.of_task(task);
        let Some(view) = script::view(&self.0.link, &self.0.keys, partition, task).await? else {
            return Ok(Waited::Unknown);
        };
        let first = Position { partition, n: view.first };
        Ok(terminal_event(task, first, &view).map_or(Waited::Running, |event| Waited::Ended(Arc::new(event))))
    }

    /// The last number of every partition.
    async fn ends(&self) -> Result<Cursor, LinkError> {
        let asked = self.0.partitions.iter().map(|partition| last_number(&self.0.link, &self.0.keys, partition));
        Ok(Cursor(futures_util::future::try_join_all(asked).await?))
    }

    async fn run(self) {
        let work = async {
            let Shared { link, keys, partitions, wake, .. } = &*self.0;
            let mut follower = Follower::new(link, keys, *partitions);
            loop {
                wake.notified().await;
                self.read_while_heard(&mut follower).await;
            }
        };
        // A read that is cut off here leaves nothing behind: it takes nothing from anybody, and its connection goes too.
        self.0.shutdown.run_until_cancelled(work).await;
    }

    async fn read_while_heard(&self, follower: &mut Follower) {
        let Some(mut cursor) = self.state().reading.clone() else { return };
        let mut pause = FIRST_PAUSE;
        while !self.park_if_unheard() {
            match self.read(follower, &mut cursor).await {
                Ok(Read { events, gap, more }) => {
                    pause = FIRST_PAUSE;
                    if gap {
                        self.miss();
                    }
                    if let Some(pause) = gathering(self.tell(events, &cursor), more) {
                        tokio::time::sleep(pause).await;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the journal's live end cannot be read; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn park_if_unheard(&self) -> bool {
        let mut state = self.state();
        let unheard = state.listeners.receiver_count() == 0 && state.waiters.is_empty() && state.watchers.is_empty();
        if unheard {
            state.reading = None;
        }
        unheard
    }

    async fn read(&self, follower: &mut Follower, cursor: &mut Cursor) -> Result<Read, LinkError> {
        let followed = follower.read(&cursor.0, READ_EVENTS, BLOCK).await?;
        let (mut events, mut gap) = (Vec::new(), false);
        for (partition, entries) in &followed.entries {
            for entry in &entries.0 {
                let event = read_entry(*partition, entry);
                gap |= event.position.n > cursor.at(*partition) + 1;
                cursor.advance(event.position);
                events.push(Arc::new(Told::new(event, cursor.clone())));
            }
        }
        self.follow_back(cursor, &followed.moved_back);
        Ok(Read { events, gap, more: followed.more })
    }

    /// After a failover to a server that had not seen everything, numbers are given out again: go on from its end, and
    /// make everybody look for themselves.
    fn follow_back(&self, cursor: &mut Cursor, moved_back: &[(Partition, u64)]) {
        if moved_back.is_empty() {
            return;
        }
        let held = cursor.clone();
        for (partition, end) in moved_back {
            cursor.0[usize::from(partition.0)] = *end;
        }
        tracing::error!(%held, found = %cursor, "the journal has moved back: events were lost by the server");
        self.let_go();
    }

    /// Makes everybody look for themselves at what went by; what comes next is heard.
    fn miss(&self) {
        tracing::warn!("the reader of the journal's live end is behind what was trimmed; followers read it themselves");
        let mut state = self.state();
        // Nobody there: nobody missed anything.
        let _unheard = state.listeners.send(Heard::Missed);
        state.waiters.clear();
        state.watchers.values().flatten().for_each(|unheard| unheard.miss());
    }

    /// Says how many listen.
    fn tell(&self, events: Vec<Arc<Told>>, cursor: &Cursor) -> usize {
        let mut state = self.state();
        if events.is_empty() {
            return state.listeners.receiver_count();
        }
        if !state.waiters.is_empty() {
            for event in events.iter().filter(|event| event.change.is_terminal()) {
                for waiter in state.waiters.remove(&event.task).unwrap_or_default() {
                    // One that has just given up is gone.
                    let _gone = waiter.send(Arc::new(Event::clone(event)));
                }
            }
        }
        if !state.watchers.is_empty() {
            for event in &events {
                state.watchers.get(&event.task).into_iter().flatten().for_each(|unheard| unheard.add(event));
            }
        }
        state.reading = Some(cursor.clone());
        // Nobody there: only waiters and watchers keep the reader at work.
        state.listeners.send(Heard::Batch(events.into())).unwrap_or(0)
    }

    fn let_go(&self) {
        let mut state = self.state();
        state.listeners = broadcast::Sender::new(BEHIND);
        state.waiters.clear();
        for unheard in state.watchers.drain().flat_map(|(_, watchers)| watchers) {
            unheard.queue().over = true;
            unheard.told.notify_one();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics under the lock; if it did, the state would still be whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long events are gathered for so many listeners; a reader that is behind has enough of them.
fn gathering(listeners: usize, more: bool) -> Option<Duration> {
    let listeners = u32::try_from(listeners).unwrap_or(u32::MAX);
    let pause = GATHER_EACH.saturating_mul(listeners).clamp(GATHER_LEAST, GATHER_MOST);
    (listeners as usize > MANY && !more).then_some(pause)
}

impl Listener {
    /// What comes next.
    pub async fn next(&mut self) -> Heard {
        match self.1.run_until_cancelled(self.0.recv()).await {
            Some(Ok(heard)) => heard,
            Some(Err(broadcast::error::RecvError::Lagged(_))) => Heard::Missed,
            Some(Err(broadcast::error::RecvError::Closed)) | None => Heard::Over,
        }
    }
}

impl Watch {
    /// Watches one task more.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn add(&mut self, task: TaskId) -> Result<(), LinkError> {
        if !self.tasks.contains(&task) {
            // Noted first: whatever happens, it is taken off the list again.
            self.tasks.push(task);
            let unheard = self.unheard.clone();
            self.tail.join(|state| state.watchers.entry(task).or_default().push(unheard)).await?;
        }
        Ok(())
    }

    /// Watches a task no longer.
    pub fn remove(&mut self, task: TaskId) {
        self.tasks.retain(|watched| *watched != task);
        self.forget(&[task]);
    }

    /// What comes next.
    pub async fn next(&mut self) -> Heard {
        loop {
            let told = self.unheard.told.notified();
            {
                let mut queue = self.unheard.queue();
                if std::mem::take(&mut queue.missed) {
                    return Heard::Missed;
                }
                if !queue.events.is_empty() {
                    return Heard::Batch(queue.events.drain(..).collect());
                }
                if queue.over {
                    return Heard::Over;
                }
            }
            if self.tail.0.shutdown.run_until_cancelled(told).await.is_none() {
                return Heard::Over;
            }
        }
    }

    /// Where a reader stands that has heard everything that was told; `None` while something is unheard.
    #[must_use]
    pub fn heard_up_to(&self) -> Option<Cursor> {
        let stands = self.tail.stands_at();
        let queue = self.unheard.queue();
        stands.filter(|_| queue.events.is_empty() && !queue.missed)
    }

    fn forget(&self, tasks: &[TaskId]) {
        let mut state = self.tail.state();
        for task in tasks {
            if let Some(watchers) = state.watchers.get_mut(task) {
                watchers.retain(|unheard| !Arc::ptr_eq(unheard, &self.unheard));
                if watchers.is_empty() {
                    state.watchers.remove(task);
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.forget(&self.tasks);
    }
}

impl Unheard {
    fn add(&self, event: &Arc<Told>) {
        let mut queue = self.queue();
        if queue.events.len() == UNHEARD {
            queue.events.clear();
            queue.missed = true;
        }
        if !queue.missed {
            queue.events.push_back(event.clone());
        }
        drop(queue);
        self.told.notify_one();
    }

    fn miss(&self) {
        let mut queue = self.queue();
        queue.events.clear();
        queue.missed = true;
        drop(queue);
        self.told.notify_one();
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        // Nothing panics under the lock; if it did, the queue would still be whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a waiter's entry off the list when it goes, whatever made it go.
struct Waiting<'t> {
    tail: &'t Tail,
    task: TaskId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.tail.state();
        if let Some(waiters) = state.waiters.get_mut(&self.task) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                state.waiters.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_hear_at_once_and_many_in_larger_pieces_within_bounds() {
        let counts = [0, 64, 65, 3_000, 5_000, usize::MAX];
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(counts.map(|count| gathering(count, false)), [None, None, ms(15), ms(30), ms(50), ms(50)]);
        assert_eq!(counts.map(|count| gathering(count, true)), [None; 6], "a reader that is behind does not rest");
    }
}
