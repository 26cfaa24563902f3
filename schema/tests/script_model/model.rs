//! What the scripts ought to do, written down without Redis.

use std::collections::BTreeMap;

use insightforge_schema::id::TaskId;
use uuid::Uuid;

use crate::{Deadline, Derived, Step, TASKS};

/// When a delayed task is due whose place among the delayed ones was lost.
pub(crate) const PUT_BACK_DUE: i64 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    #[default]
    Queued,
    Processing,
    Delayed,
    Ended,
}

/// A task's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Task {
    pub(crate) id: TaskId,
    /// Which of the two requests under its id it is; nobody knows it any more when its record was lost.
    other_body: Option<bool>,
    pub(crate) state: State,
    /// The entry that is its attempt's token.
    pub(crate) token: Option<usize>,
    /// The token its last repetition was asked for under.
    retried: Option<usize>,
    pub(crate) worker: Option<usize>,
    pub(crate) attempt: u32,
    pub(crate) first: u64,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) due: Option<i64>,
    dead: bool,
    pub(crate) deadline: Deadline,
    /// It stands among those that wait with a deadline.
    waits: bool,
    /// It was taken off the dead letters.
    purged: bool,
    /// A shadow's answer is noted.
    noted: bool,
    /// The task that repeats it, by number.
    redriven: Option<usize>,
    ends: usize,
}

/// A lane entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) task: usize,
    on_lane: bool,
    /// Who it was delivered to and has not acknowledged it.
    holder: Option<usize>,
    delivered: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Callers' tasks by the number they are named by, then those that repeat others.
    pub(crate) tasks: BTreeMap<usize, Task>,
    pub(crate) lane: Vec<Entry>,
    /// Idempotency keys: which of the two requests they came with, and the task.
    keys: BTreeMap<usize, (bool, usize)>,
    journal: Vec<(&'static str, usize)>,
    /// Events that have left the stream.
    pub(crate) trimmed: usize,
}

/// A step with what it is about filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Prepared {
    Submit { task: usize, other_body: bool, key: Option<usize>, deadline: Deadline },
    Read { worker: usize },
    Start { worker: usize, entry: usize },
    Finish { entry: usize, event_type: &'static str },
    Retry { entry: usize, due: i64 },
    Reap { entry: usize, silent: bool, expected: &'static str, takeover: Takeover },
    Cancel { task: usize },
    Move { now: i64 },
    Redrive { old: usize, new: usize },
    Beat { worker: usize, entry: usize },
    LoseGroup,
    Lose(Derived),
    LoseRecord { task: usize },
    PutBack,
    TimePasses { task: usize },
    Expire,
    Purge { task: usize },
    Note { task: usize },
    Trim { upto: usize, ends: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takeover {
    Drop,
    Requeue,
    Retry,
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Accepted(u64),
    /// The task that was there before.
    Known(usize),
    Conflict(usize),
    /// The entry that was read, by number.
    Read(Option<usize>),
    Ours(u64),
    Busy,
    Done,
    Lost,
    /// Its deadline has passed.
    Late,
    Alive,
    Changed,
    Ended(&'static str),
    Unknown,
    Moved(u64),
    Held(bool),
    Expired(usize),
    Purged(bool),
    Noted(bool),
    Trimmed(usize),
}

/// All that can be compared, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) journal: Vec<(String, TaskId)>,
    /// Task of each entry on the lane, in order.
    pub(crate) lane: Vec<TaskId>,
    /// Number and holder of each pending entry.
    pub(crate) pending: Vec<(usize, String)>,
    pub(crate) delayed: Vec<(TaskId, i64)>,
    pub(crate) dead: Vec<TaskId>,
    /// Who waits with a deadline, whether that has passed.
    pub(crate) waiting: Vec<(TaskId, bool)>,
    pub(crate) keys: Vec<(usize, TaskId)>,
    /// State, token, attempt, worker, outcome of each record.
    pub(crate) records: Vec<(TaskId, String, Option<usize>, String, String, String)>,
}

impl Model {
    pub(crate) fn entries(&self) -> usize {
        self.lane.len()
    }

    /// Fills in what a step is about; `None` when there is nothing of the kind.
    pub(crate) fn prepare(&self, step: Step) -> Option<Prepared> {
        let entry_of = |entry: usize| (!self.lane.is_empty()).then(|| entry % self.lane.len());
        Some(match step {
            Step::Submit { task, other_body, key, deadline } => Prepared::Submit { task, other_body, key, deadline },
            Step::Read { worker } => Prepared::Read { worker },
            Step::Start { worker, entry } => Prepared::Start { worker, entry: entry_of(entry)? },
            Step::Finish { entry, failed } => {
                let event_type = if failed { "failed" } else { "completed" };
                Prepared::Finish { entry: entry_of(entry)?, event_type }
            }
            Step::Retry { entry, due } => Prepared::Retry { entry: entry_of(entry)?, due },
            Step::Reap { entry, silent, last, stale } => {
                let entry = entry_of(entry)?;
                let live = self.live(entry);
                // A decision on a state that has changed since must change nothing.
                let expected = if stale { if live == "P" { "Q" } else { "P" } } else { live };
                let takeover = match (expected, last) {
                    ("P", false) => Takeover::Retry,
                    ("Q", false) => Takeover::Requeue,
                    ("P" | "Q", true) => Takeover::Fail,
                    _ => Takeover::Drop,
                };
                Prepared::Reap { entry, silent, expected, takeover }
            }
            Step::Cancel { task } => Prepared::Cancel { task },
            Step::Move { now } => Prepared::Move { now },
            Step::Redrive { task } => {
                // Its caller has seen the outcome.
                let old = self.tasks.get(&task)?;
                let over = matches!(old.outcome, Some("failed" | "cancelled"));
                over.then(|| Prepared::Redrive { old: task, new: old.redriven.unwrap_or(task + TASKS) })?
            }
            Step::Beat { worker, entry } => Prepared::Beat { worker, entry: entry_of(entry)? },
            Step::LoseGroup => Prepared::LoseGroup,
            Step::Lose(what) => Prepared::Lose(what),
            Step::LoseRecord { task } => {
                // A record that is gone because the task ended stays so.
                let open = self.tasks.get(&task)?.state != State::Ended;
                open.then_some(Prepared::LoseRecord { task })?
            }
            Step::PutBack => Prepared::PutBack,
            Step::TimePasses { task } => {
                let far = self.tasks.get(&task)?.deadline == Deadline::Far;
                far.then_some(Prepared::TimePasses { task })?
            }
            Step::Expire => Prepared::Expire,
            // A letter can be purged that is none: the script looks itself.
            Step::Purge { task } => self.tasks.contains_key(&task).then_some(Prepared::Purge { task })?,
            Step::Note { task } => self.tasks.contains_key(&task).then_some(Prepared::Note { task })?,
            Step::Trim { keep } => {
                let ends = self.journal.len();
                Prepared::Trim { upto: ends.saturating_sub(keep.max(1)), ends }
            }
        })
    }

    /// The state of the entry's task if the entry is its token: what a reaper decides on.
    fn live(&self, entry: usize) -> &'static str {
        let task = &self.tasks[&self.lane[entry].task];
        match task.state {
            State::Queued if task.token == Some(entry) => "Q",
            State::Processing if task.token == Some(entry) => "P",
            _ => "",
        }
    }

    pub(crate) fn take(&mut self, step: Prepared) -> Answer {
        match step {
            Prepared::Submit { task, other_body, key, deadline } => self.submit(task, other_body, key, deadline),
            Prepared::Read { worker } => self.read(worker),
            Prepared::Start { worker, entry } => self.start(worker, entry),
            Prepared::Finish { entry, event_type } => self.finish(entry, event_type),
            Prepared::Retry { entry, due } => self.retry(entry, due),
            Prepared::Reap { entry, silent, expected, takeover } => self.reap(entry, silent, expected, takeover),
            Prepared::Cancel { task } => self.cancel(task),
            Prepared::Move { now } => self.move_due(now),
            Prepared::Redrive { old, new } => self.redrive(old, new),
            Prepared::Beat { worker, entry } => self.beat(worker, entry),
            Prepared::LoseGroup => self.lose_group(),
            Prepared::Lose(what) => self.lose(what),
            Prepared::LoseRecord { task } => self.lose_record(task),
            Prepared::PutBack => self.put_back(),
            Prepared::TimePasses { task } => {
                self.task(task).deadline = Deadline::Past;
                Answer::Nothing
            }
            Prepared::Expire => self.expire(),
            Prepared::Purge { task } => self.purge(task),
            Prepared::Note { task } => self.note(task),
            Prepared::Trim { upto, .. } => self.trim(upto),
        }
    }

    fn submit(&mut self, task: usize, other_body: bool, key: Option<usize>, deadline: Deadline) -> Answer {
        let before = key.and_then(|key| self.keys.get(&key).copied());
        let before = before.map(|(body, known)| (Some(body), known));
        let before = before.or_else(|| Some((self.tasks.get(&task)?.other_body, task)));
        if let Some((known_body, known)) = before {
            return if known_body == Some(other_body) { Answer::Known(known) } else { Answer::Conflict(known) };
        }
        let first = self.append("submitted", task);
        let token = Some(self.enter(task));
        let waits = deadline != Deadline::None;
        let other = Some(other_body);
        let new =
            Task { id: id_of(task), other_body: other, token, attempt: 1, first, deadline, waits, ..Task::default() };
        self.tasks.insert(task, new);
        if let Some(key) = key {
            self.keys.insert(key, (other_body, task));
        }
        Answer::Accepted(first)
    }

    fn read(&mut self, worker: usize) -> Answer {
        let next = self.lane.iter().position(|entry| entry.on_lane && !entry.delivered);
        if let Some(next) = next {
            self.lane[next].delivered = true;
            self.lane[next].holder = Some(worker);
        }
        Answer::Read(next)
    }

    fn start(&mut self, worker: usize, entry: usize) -> Answer {
        let number = self.lane[entry].task;
        let task = &self.tasks[&number];
        if task.token != Some(entry) || task.state == State::Ended {
            self.leave(entry);
            return Answer::Lost;
        }
        if task.state == State::Processing && task.worker != Some(worker) {
            return Answer::Busy;
        }
        if task.state == State::Queued && task.deadline == Deadline::Past {
            return Answer::Late;
        }
        if task.state == State::Queued {
            self.append("processing", number);
            let task = self.task(number);
            task.waits = false;
            task.state = State::Processing;
            task.worker = Some(worker);
        }
        Answer::Ours(self.tasks[&number].first)
    }

    fn finish(&mut self, entry: usize, event_type: &'static str) -> Answer {
        let number = self.lane[entry].task;
        let task = &self.tasks[&number];
        match task.state {
            _ if task.token != Some(entry) => Answer::Lost,
            State::Ended => Answer::Done,
            State::Processing => {
                self.end(number, event_type);
                self.leave(entry);
                Answer::Done
            }
            State::Queued | State::Delayed => Answer::Lost,
        }
    }

    fn end(&mut self, number: usize, event_type: &'static str) {
        self.append(event_type, number);
        let task = self.task(number);
        (task.state, task.outcome, task.due) = (State::Ended, Some(event_type), None);
        task.waits = false;
        task.ends += 1;
        if event_type == "failed" {
            task.dead = true;
            self.append("dead_lettered", number);
        }
    }

    fn retry(&mut self, entry: usize, due: i64) -> Answer {
        let number = self.lane[entry].task;
        let task = &self.tasks[&number];
        if task.token == Some(entry) && task.state == State::Processing {
            self.delay(number, due);
            self.task(number).retried = Some(entry);
            self.leave(entry);
            return Answer::Done;
        }
        if task.retried == Some(entry) { Answer::Done } else { Answer::Lost }
    }

    fn delay(&mut self, number: usize, due: i64) {
        self.append("retry_scheduled", number);
        let task = self.task(number);
        task.attempt += 1;
        task.waits = task.deadline != Deadline::None;
        (task.state, task.token, task.worker, task.due) = (State::Delayed, None, None, Some(due));
    }

    fn reap(&mut self, entry: usize, silent: bool, expected: &str, takeover: Takeover) -> Answer {
        if self.lane[entry].holder.is_none() || !silent {
            return Answer::Alive;
        }
        if self.live(entry) != expected {
            return Answer::Changed;
        }
        let number = self.lane[entry].task;
        match takeover {
            Takeover::Drop => {}
            Takeover::Requeue => {
                let token = self.enter(number);
                self.task(number).token = Some(token);
            }
            Takeover::Retry => self.delay(number, 1),
            Takeover::Fail => {
                self.end(number, "failed");
                self.task(number).token = None;
            }
        }
        self.leave(entry);
        Answer::Done
    }

    fn cancel(&mut self, number: usize) -> Answer {
        let Some(task) = self.tasks.get(&number) else { return Answer::Unknown };
        if task.state == State::Ended {
            return Answer::Ended(task.outcome.expect("it ended"));
        }
        let token = task.token;
        self.end(number, "cancelled");
        self.task(number).token = None;
        if let Some(token) = token {
            self.leave(token);
        }
        Answer::Done
    }

    fn move_due(&mut self, now: i64) -> Answer {
        let due: Vec<usize> = self.due(now);
        for number in &due {
            let token = self.enter(*number);
            let task = self.task(*number);
            (task.state, task.token, task.due) = (State::Queued, Some(token), None);
        }
        Answer::Moved(due.len() as u64)
    }

    /// Tasks whose time has come, in the order a janitor names them.
    pub(crate) fn due(&self, now: i64) -> Vec<usize> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.due.is_some_and(|due| due <= now))
            .map(|(number, _)| *number)
            .collect()
    }

    fn redrive(&mut self, old: usize, new: usize) -> Answer {
        if self.tasks.contains_key(&new) {
            return Answer::Known(new);
        }
        self.append("redriven", old);
        let first = self.append("submitted", new);
        let token = Some(self.enter(new));
        self.tasks.insert(new, Task { id: id_of(new), token, attempt: 1, first, ..Task::default() });
        let task = self.task(old);
        (task.dead, task.redriven) = (false, Some(new));
        Answer::Accepted(first)
    }

    fn beat(&mut self, worker: usize, entry: usize) -> Answer {
        let task = &self.tasks[&self.lane[entry].task];
        let held = task.state == State::Processing && task.token == Some(entry) && task.worker == Some(worker);
        if held && self.lane[entry].holder.is_some() {
            self.lane[entry].holder = Some(worker);
        }
        Answer::Held(held)
    }

    /// It is created anew from the first entry.
    fn lose_group(&mut self) -> Answer {
        for entry in &mut self.lane {
            (entry.holder, entry.delivered) = (None, false);
        }
        Answer::Nothing
    }

    /// Nothing that has a record needs it.
    fn lose(&mut self, what: Derived) -> Answer {
        match what {
            Derived::Lane => (0..self.lane.len()).for_each(|entry| self.leave(entry)),
            Derived::Delayed => self.tasks.values_mut().for_each(|task| task.due = None),
            Derived::Deadlines => self.tasks.values_mut().for_each(|task| task.waits = false),
        }
        Answer::Nothing
    }

    fn lose_record(&mut self, number: usize) -> Answer {
        // What waits for another attempt waits as it did after the last one, though it was due.
        let task = self.task(number);
        if task.state == State::Queued && task.attempt > 1 {
            (task.state, task.due) = (State::Delayed, None);
        }
        (task.other_body, task.retried, task.token) = (None, None, None);
        if task.state == State::Delayed {
            task.due = Some(task.due.unwrap_or(PUT_BACK_DUE));
        }
        task.waits = task.deadline != Deadline::None && task.state != State::Processing;
        if self.tasks[&number].state != State::Delayed {
            let token = self.enter(number);
            self.task(number).token = Some(token);
        }
        Answer::Done
    }

    fn put_back(&mut self) -> Answer {
        let mut count = 0;
        for number in self.tasks.keys().copied().collect::<Vec<_>>() {
            let task = &self.tasks[&number];
            let is_placed = match task.state {
                State::Queued | State::Processing => task.token.is_some_and(|token| self.lane[token].on_lane),
                State::Delayed => task.due.is_some(),
                State::Ended => continue,
            };
            let waits = task.deadline != Deadline::None && task.state != State::Processing;
            let is_dated = task.waits || !waits;
            if !is_placed && task.state == State::Delayed {
                self.task(number).due = Some(PUT_BACK_DUE);
            } else if !is_placed {
                let token = self.enter(number);
                self.task(number).token = Some(token);
            }
            self.task(number).waits = waits;
            count += u64::from(!is_placed || !is_dated);
        }
        Answer::Moved(count)
    }

    fn expire(&mut self) -> Answer {
        let waits = |task: &Task| matches!(task.state, State::Queued | State::Delayed);
        let late = |task: &Task| waits(task) && task.deadline == Deadline::Past;
        let late: Vec<usize> = self.tasks.iter().filter(|(_, task)| late(task)).map(|(number, _)| *number).collect();
        for number in &late {
            let token = self.tasks[number].token;
            // It is no dead letter: nobody can want it done any more.
            self.append("failed", *number);
            let task = self.task(*number);
            (task.state, task.outcome, task.due) = (State::Ended, Some("failed"), None);
            (task.token, task.waits) = (None, false);
            task.ends += 1;
            if let Some(token) = token {
                self.leave(token);
            }
        }
        Answer::Expired(late.len())
    }

    fn purge(&mut self, number: usize) -> Answer {
        let listed = self.tasks[&number].dead;
        if listed {
            self.append("purged", number);
            (self.task(number).dead, self.task(number).purged) = (false, true);
        }
        // The event is the same in every call here, so that a later one is taken for the first, made again.
        Answer::Purged(self.tasks[&number].purged)
    }

    fn note(&mut self, number: usize) -> Answer {
        let task = &self.tasks[&number];
        let completed = task.state == State::Ended && task.outcome == Some("completed");
        if completed && !task.noted {
            self.append("shadowed", number);
            self.task(number).noted = true;
        }
        Answer::Noted(completed)
    }

    /// What is needed of the events that go is in the records by then: a start answers the same.
    fn trim(&mut self, upto: usize) -> Answer {
        let before = self.trimmed;
        self.trimmed = before.max(upto);
        Answer::Trimmed(self.trimmed - before)
    }

    fn task(&mut self, number: usize) -> &mut Task {
        self.tasks.get_mut(&number).expect("it was submitted")
    }

    fn append(&mut self, event_type: &'static str, number: usize) -> u64 {
        self.journal.push((event_type, number));
        self.journal.len() as u64
    }

    fn enter(&mut self, task: usize) -> usize {
        self.lane.push(Entry { task, on_lane: true, holder: None, delivered: false });
        self.lane.len() - 1
    }

    fn leave(&mut self, entry: usize) {
        (self.lane[entry].on_lane, self.lane[entry].holder) = (false, None);
    }

    /// Entries on the lane, by number.
    pub(crate) fn on_lane(&self) -> Vec<usize> {
        (0..self.lane.len()).filter(|entry| self.lane[*entry].on_lane).collect()
    }

    pub(crate) fn lane_is_empty(&self) -> bool {
        self.on_lane().is_empty()
    }

    pub(crate) fn every_task_has_one_end(&self) -> bool {
        self.tasks.values().all(|task| task.ends == 1)
    }

    /// Tasks that no reader, reaper or mover will ever come to.
    pub(crate) fn out_of_reach(&self) -> Vec<usize> {
        let lost = |task: &Task| match task.state {
            State::Queued | State::Processing => !task.token.is_some_and(|token| {
                let entry = self.lane[token];
                entry.on_lane && (!entry.delivered || entry.holder.is_some())
            }),
            State::Delayed => task.due.is_none(),
            State::Ended => false,
        };
        self.tasks.iter().filter(|(_, task)| lost(task)).map(|(number, _)| *number).collect()
    }

    pub(crate) fn picture(&self) -> Picture {
        let of = |number: &usize| id_of(*number);
        let text = |worker: Option<usize>| worker.map_or_else(String::new, |worker| format!("w{worker}"));
        let mut delayed: Vec<_> = self.tasks.values().filter_map(|task| Some((task.id, task.due?))).collect();
        let mut dead: Vec<_> = self.tasks.values().filter(|task| task.dead).map(|task| task.id).collect();
        let mut records: Vec<_> = self
            .tasks
            .values()
            .map(|task| {
                let state = match task.state {
                    State::Queued => "Q",
                    State::Processing => "P",
                    State::Delayed => "D",
                    State::Ended => "Z",
                };
                let outcome = task.outcome.unwrap_or_default().to_owned();
                (task.id, state.to_owned(), task.token, task.attempt.to_string(), text(task.worker), outcome)
            })
            .collect();
        delayed.sort_unstable();
        dead.sort_unstable();
        records.sort_unstable();
        let pending = (0..self.lane.len()).filter_map(|entry| Some((entry, text(Some(self.lane[entry].holder?)))));
        Picture {
            journal: self.journal[self.trimmed..]
                .iter()
                .map(|(event_type, number)| ((*event_type).to_owned(), of(number)))
                .collect(),
            lane: self.on_lane().iter().map(|entry| of(&self.lane[*entry].task)).collect(),
            pending: pending.collect(),
            delayed,
            dead,
            waiting: self.waiting(),
            keys: self.keys.iter().map(|(key, (_, task))| (*key, of(task))).collect(),
            records,
        }
    }

    fn waiting(&self) -> Vec<(TaskId, bool)> {
        let waits = self.tasks.values().filter(|task| task.waits);
        let mut waiting: Vec<_> = waits.map(|task| (task.id, task.deadline == Deadline::Past)).collect();
        waiting.sort_unstable();
        waiting
    }
}

/// The number a task's id is made of.
pub(crate) fn number_of(id: TaskId) -> usize {
    usize::try_from(id.0.as_u128() - 1).expect("an id of these")
}

/// The id a task has that is named by a number.
pub(crate) fn id_of(number: usize) -> TaskId {
    TaskId(Uuid::from_u128(number as u128 + 1))
}
