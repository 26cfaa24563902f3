//! What the run knows of each task: when it was sent, answered, seen completed and announced.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use uuid::Uuid;

/// Microseconds since the run's start.
pub(super) type Micros = u64;

#[derive(Default)]
pub(super) struct Ledger {
    started: Cell<Option<Instant>>,
    tasks: RefCell<HashMap<Uuid, Task>>,
    /// Accepted tasks of this run.
    accepted: Cell<u64>,
    /// Accepted tasks with at least one webhook.
    announced: Cell<u64>,
    bad_webhooks: RefCell<Vec<String>>,
    progress: Notify,
    sample_every: Micros,
    next_sample: Cell<Micros>,
    watches: Watches,
    /// Sampled tasks whose row is not yet seen completed, oldest first.
    rows_wanted: RefCell<Vec<Uuid>>,
    /// Sampled tasks whose result is not yet asked for, and how many are being asked for.
    results_wanted: RefCell<Vec<Uuid>>,
    results_open: Cell<usize>,
    sampled: Notify,
}

/// What is watched of sampled tasks.
#[derive(Clone, Copy, Default)]
pub(super) struct Watches {
    pub(super) rows: bool,
    pub(super) results: bool,
    pub(super) samples_per_s: u32,
}

#[derive(Clone, Default)]
pub(super) struct Task {
    /// The scheduled time in the open loop. `None`: known from a webhook only, not (yet) accepted by this run.
    pub(super) sent: Option<Micros>,
    pub(super) answered: Option<Micros>,
    pub(super) row: Option<Micros>,
    pub(super) visible: Option<Micros>,
    pub(super) webhook: Option<Micros>,
    /// Webhooks that said `completed`, and that said anything else.
    pub(super) completed: u32,
    pub(super) otherwise: u32,
}

impl Ledger {
    pub(super) fn new(watches: Watches) -> Self {
        Self { sample_every: 1_000_000 / u64::from(watches.samples_per_s.max(1)), watches, ..Self::default() }
    }

    /// Time zero.
    pub(super) fn start(&self) {
        self.started.set(Some(Instant::now()));
    }

    pub(super) fn now(&self) -> Micros {
        self.started.get().map_or(0, |started| started.elapsed().as_micros() as Micros)
    }

    /// The instant of a moment of this run.
    pub(super) fn instant(&self, at: Micros) -> Instant {
        self.started.get().unwrap_or_else(Instant::now) + Duration::from_micros(at)
    }

    /// A 202 named this task. `sample` forces it to be watched.
    pub(super) fn accept(&self, id: Uuid, sent: Micros, sample: bool) {
        let now = self.now();
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.entry(id).or_default();
        // The same id answered twice would be one task counted twice: the audit sees it as a missing one.
        if task.sent.is_none() {
            self.accepted.set(self.accepted.get() + 1);
            if task.webhook.is_some() {
                self.announced.set(self.announced.get() + 1);
            }
        }
        (task.sent, task.answered) = (Some(sent), Some(now));
        if sample || now >= self.next_sample.get() {
            // Steady on average: a task that came late does not push the next sample away, within a few.
            let oldest = now.saturating_sub(8 * self.sample_every);
            self.next_sample.set((self.next_sample.get() + self.sample_every).max(oldest));
            if self.watches.rows {
                self.rows_wanted.borrow_mut().push(id);
            }
            if self.watches.results {
                self.results_wanted.borrow_mut().push(id);
            }
            self.sampled.notify_waiters();
        }
    }

    /// A webhook told the outcome of this task.
    pub(super) fn announce(&self, id: Uuid, completed: bool) {
        let now = self.now();
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.entry(id).or_default();
        if completed {
            task.completed += 1;
        } else {
            task.otherwise += 1;
        }
        if task.webhook.is_none() {
            task.webhook = Some(now);
            if task.sent.is_some() {
                self.announced.set(self.announced.get() + 1);
            }
            self.progress.notify_waiters();
        }
    }

    /// A webhook that cannot be believed.
    pub(super) fn reject_webhook(&self, why: String) {
        self.bad_webhooks.borrow_mut().push(why);
    }

    /// Sampled rows seen completed just now.
    pub(super) fn rows_seen(&self, ids: &[Uuid]) {
        let now = self.now();
        let mut tasks = self.tasks.borrow_mut();
        for id in ids {
            tasks.entry(*id).or_default().row = Some(now);
        }
        self.rows_wanted.borrow_mut().retain(|id| !ids.contains(id));
        self.progress.notify_waiters();
    }

    /// A sampled result seen completed just now.
    pub(super) fn result_seen(&self, id: Uuid) {
        let now = self.now();
        self.tasks.borrow_mut().entry(id).or_default().visible = Some(now);
        self.progress.notify_waiters();
    }

    /// The oldest sampled tasks whose row is not yet seen completed, and the age of the first.
    pub(super) fn rows_wanted(&self, most: usize) -> (Vec<Uuid>, Duration) {
        let wanted: Vec<Uuid> = self.rows_wanted.borrow().iter().take(most).copied().collect();
        let tasks = self.tasks.borrow();
        let sent = wanted.first().and_then(|id| tasks.get(id)?.sent).unwrap_or_default();
        (wanted, Duration::from_micros(self.now().saturating_sub(sent)))
    }

    /// Sampled tasks whose result nobody asks for yet; the caller does.
    pub(super) fn take_results_wanted(&self) -> Vec<Uuid> {
        self.results_wanted.take()
    }

    /// Whether one more result may be watched beside at most `most`; then it counts.
    pub(super) fn result_watch_began(&self, most: usize) -> bool {
        let free = self.results_open.get() < most;
        self.results_open.set(self.results_open.get() + usize::from(free));
        free
    }

    pub(super) fn result_watch_ended(&self) {
        self.results_open.set(self.results_open.get() - 1);
        self.progress.notify_waiters();
    }

    /// Whether a sampled task is still being watched.
    pub(super) fn watching(&self) -> bool {
        !self.rows_wanted.borrow().is_empty() || self.results_open.get() > 0
    }

    /// Returns when a task was sampled.
    pub(super) async fn sampled(&self) {
        self.sampled.notified().await;
    }

    /// Returns when a task got further.
    pub(super) async fn progress(&self) {
        self.progress.notified().await;
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    pub(super) fn announced(&self) -> u64 {
        self.announced.get()
    }

    pub(super) fn bad_webhooks(&self) -> Vec<String> {
        self.bad_webhooks.borrow().clone()
    }

    /// The tasks this run was told are accepted.
    pub(super) fn accepted_tasks(&self) -> Vec<(Uuid, Task)> {
        let tasks = self.tasks.borrow();
        tasks.iter().filter(|(_, task)| task.sent.is_some()).map(|(id, task)| (*id, task.clone())).collect()
    }

    /// Webhooks for tasks this run did not upload, or whose answer it never got.
    pub(super) fn foreign(&self) -> usize {
        self.tasks.borrow().values().filter(|task| task.sent.is_none()).count()
    }
}
