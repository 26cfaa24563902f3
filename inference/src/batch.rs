//! The micro-batcher of one loaded model: inputs wait in a bounded queue, OS threads take batches from it.
//!
//! Work-conserving: a free thread takes what is there at once; batches form only while all threads are busy. Oldest first,
//! then the nearest lengths ([`pick`]). What nobody waits for any more is dropped before it costs anything. All models of
//! a process share [`Compute`], so that their threads do not fight for its cores.

mod call;
mod compute;
mod meters;
mod pace;
mod pick;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::compute::Compute;
pub(crate) use self::compute::aside;
pub(crate) use self::meters::Meters;
pub use self::meters::describe_metrics;
pub use self::pick::{Limits, pick};

use self::call::Caller;
use self::compute::Permit;
use crate::loaded::Loaded;
use crate::model::{InferError, Prepared};

/// An input's answer: the result document as JSON text.
pub type Answer = Result<String, InferError>;

/// How a model's batches are made and run.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// Inputs that may wait; more are turned away.
    pub max_queue: usize,
    /// Calls of the model at once: threads.
    pub instances: usize,
    /// A call that takes longer is left behind; `None` when the model keeps to its time itself.
    pub timeout: Option<Duration>,
    /// `None` for a model that computes elsewhere.
    pub compute: Option<Arc<Compute>>,
}

/// A loaded model with its queue and threads. The threads end when it is dropped.
pub struct Batcher {
    shared: Arc<Shared>,
}

struct Shared {
    loaded: Arc<Loaded>,
    settings: Settings,
    state: Mutex<State>,
    arrived: Condvar,
    meters: Arc<Meters>,
    stuck: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Waiting>,
    /// Threads without a batch.
    free: usize,
    /// Places kept for inputs that are being read.
    kept: usize,
    closed: bool,
}

/// Places in the queue for inputs that are yet to be read; free again when dropped.
pub(crate) struct Places {
    shared: Arc<Shared>,
    count: usize,
}

struct Waiting {
    prepared: Prepared,
    since: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Batcher {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(loaded: Arc<Loaded>, settings: Settings) -> std::io::Result<Self> {
        let meters = Arc::new(Meters::new(&loaded.package.manifest));
        Self::with_meters(loaded, settings, meters)
    }

    pub(crate) fn with_meters(loaded: Arc<Loaded>, settings: Settings, meters: Arc<Meters>) -> std::io::Result<Self> {
        let name = format!("infer-{}", loaded.package.manifest.task_type);
        let state = Mutex::new(State { free: settings.instances, ..State::default() });
        let shared = Shared { loaded, settings, state, arrived: Condvar::new(), meters, stuck: Arc::default() };
        // From here on a drop ends the threads that have been started.
        let batcher = Self { shared: Arc::new(shared) };
        for _ in 0..batcher.shared.settings.instances {
            let shared = batcher.shared.clone();
            std::thread::Builder::new().name(name.clone()).spawn(move || work(&shared))?;
        }
        Ok(batcher)
    }

    /// Queues inputs. Those that find no place are told so at once; dropping a receiver cancels its input.
    #[must_use]
    pub fn submit(&self, inputs: Vec<Prepared>, deadline: Instant) -> Vec<oneshot::Receiver<Answer>> {
        let since = Instant::now();
        let mut state = self.shared.lock();
        let mut rejected = 0;
        let receivers: Vec<_> = inputs
            .into_iter()
            .map(|prepared| {
                let (answer, receiver) = oneshot::channel();
                if state.queue.len() < self.shared.settings.max_queue {
                    state.queue.push_back(Waiting { prepared, since, deadline, answer });
                } else {
                    rejected += 1;
                    give(answer, Err(overloaded(self.shared.settings.max_queue)));
                }
                receiver
            })
            .collect();
        drop(state);
        match receivers.len() {
            0 => {}
            1 => self.shared.arrived.notify_one(),
            _ => self.shared.arrived.notify_all(),
        }
        self.shared.meters.rejected(rejected);
        receivers
    }

    /// Keeps up to so many places for inputs that are yet to be read; those that find none are turned away unread.
    pub(crate) fn keep_places(&self, wanted: usize) -> Places {
        let mut state = self.shared.lock();
        let count = wanted.min(self.shared.settings.max_queue.saturating_sub(state.queue.len() + state.kept));
        state.kept += count;
        drop(state);
        self.shared.meters.rejected((wanted - count) as u64);
        Places { shared: self.shared.clone(), count }
    }

    /// What an input that finds no place is told.
    pub(crate) fn turned_away(&self) -> InferError {
        overloaded(self.shared.settings.max_queue)
    }

    /// Inputs that wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Calls that were given up on and still run.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Relaxed)
    }

    /// Whether so many of them run that the model is asked no more until one comes back.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.stuck() >= call::HANG_MOST
    }
}

impl Places {
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.shared.lock().kept -= self.count;
    }
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
    }
}

/// A thread's life.
fn work(shared: &Shared) {
    let mut caller = Caller::new(shared.loaded.clone(), shared.settings.timeout, shared.stuck.clone());
    while let Some((batch, permit)) = shared.take() {
        shared.answer(&mut caller, batch);
        drop(permit);
        shared.lock().free += 1;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work and for leave to compute, then takes the batch that is best at that moment. `None` when the batcher
    /// is gone.
    fn take(&self) -> Option<(Vec<Waiting>, Option<Permit>)> {
        loop {
            let mut state = self.lock();
            while state.queue.is_empty() {
                if state.closed {
                    return None;
                }
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            let permit = self.settings.compute.as_ref().map(Compute::acquire);
            let mut state = self.lock();
            self.drop_unwanted(&mut state.queue);
            if state.queue.is_empty() {
                continue;
            }
            let costs: Vec<u32> = state.queue.iter().take(pick::WINDOW).map(|waiting| waiting.prepared.cost).collect();
            let picked = pick(&costs, &self.share(&state));
            state.free -= 1;
            // From behind, so that the places of the others stay.
            let mut batch: Vec<Waiting> = picked.iter().rev().filter_map(|place| state.queue.remove(*place)).collect();
            batch.reverse();
            return Some((batch, permit));
        }
    }

    /// Free threads share what waits: two half batches at once are done before one whole.
    fn share(&self, state: &State) -> Limits {
        let cores = self.settings.compute.as_ref().map_or(usize::MAX, |compute| compute.permits());
        let takers = state.free.min(cores).max(1);
        let max_items = self.settings.limits.max_items.min(state.queue.len().div_ceil(takers));
        Limits { max_items, ..self.settings.limits }
    }

    fn drop_unwanted(&self, queue: &mut VecDeque<Waiting>) {
        let now = Instant::now();
        let mut expired = 0;
        queue.retain(|waiting| {
            let late = waiting.deadline <= now;
            expired += u64::from(late);
            // The receiver of a late one tells its caller so.
            !late && !waiting.answer.is_closed()
        });
        self.meters.expired(expired);
    }

    fn answer(&self, caller: &mut Caller, batch: Vec<Waiting>) {
        let begun = Instant::now();
        let mut askers = Vec::with_capacity(batch.len());
        let mut inputs = Vec::with_capacity(batch.len());
        for Waiting { prepared, since, deadline, answer } in batch {
            self.meters.queued(begun - since);
            askers.push((answer, deadline));
            inputs.push(prepared);
        }
        self.meters.batch(&inputs, self.settings.limits.cost);
        let cost = inputs.iter().map(|input| u64::from(input.cost)).sum();
        let wanted = |place: usize| {
            let (asker, deadline) = &askers[place];
            !asker.is_closed() && *deadline > Instant::now()
        };
        let answers = caller.ask(inputs, wanted);
        let took = begun.elapsed();
        self.meters.inferred(took);
        if answers.iter().any(Result::is_ok) {
            self.meters.pace.saw(cost, took);
        }
        for ((asker, _), answer) in askers.into_iter().zip(answers) {
            give(asker, answer);
        }
    }
}

/// Answers somebody who may have left.
fn give(asker: oneshot::Sender<Answer>, answer: Answer) {
    drop(asker.send(answer));
}

fn overloaded(places: usize) -> InferError {
    InferError::unavailable("overloaded", format!("{places} inputs wait for this model already"))
}
