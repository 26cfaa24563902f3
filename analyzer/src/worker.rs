//! This process as its work sees it: settings, connection, its models and lanes, and what it holds of each.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use insightforge_inference::{Served, Store};
use insightforge_schema::event::{Meta, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::registry::event::Refused;
use insightforge_schema::registry::{Command, Registry};
use insightforge_schema::script::Context;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::measure::LaneMeters;
use crate::serve::View;
use crate::shadow;

/// What an analyzer needs from outside.
#[derive(Clone)]
pub struct Deps {
    pub link: Link,
    pub keys: Keys,
    /// The models; this process's analyzer is the one that scans it.
    pub store: Arc<Store>,
}

/// One analyzer process.
pub struct Worker {
    pub config: Config,
    pub link: Link,
    pub keys: Keys,
    pub store: Arc<Store>,
    pub registry: tokio::sync::Mutex<Registry>,
    view: watch::Sender<Arc<View>>,
    /// Every lane ever taken from: what is held of one stays known after it is left.
    lanes: Mutex<BTreeMap<(Partition, Lane), Arc<ServedLane>>>,
    /// Free places by task type.
    rooms: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// What the registry is still to be told of this process's models.
    untold: Mutex<VecDeque<Command>>,
    /// The packages this process refuses, by folder.
    refused: Mutex<BTreeMap<String, Refused>>,
    /// A task came for a model that the view has and this process has not.
    missed: AtomicBool,
    pub(crate) shadows: shadow::Queue,
    /// Told whenever a batch has ended.
    pub(crate) freed: Arc<Notify>,
    pub started_ms: i64,
    last_read_ms: AtomicI64,
    /// Batches being worked on.
    pub batches: TaskTracker,
    pub stop: Stop,
}

/// The three steps of stopping, in order.
#[derive(Clone, Default)]
pub struct Stop {
    /// Take nothing more; follows the process's shutdown.
    pub taking: CancellationToken,
    /// Wait for no model any more: hand back what has no answer yet.
    pub waiting: CancellationToken,
    /// Repeat no call to Redis any more.
    pub repeating: CancellationToken,
}

/// One lane of one partition.
pub struct ServedLane {
    pub partition: Partition,
    pub lane: Lane,
    /// Tasks of this lane in flight, of all partitions together.
    in_flight: Arc<AtomicUsize>,
    pub(crate) freed: Arc<Notify>,
    pub(crate) meters: LaneMeters,
    held: Mutex<HashMap<String, Held>>,
}

/// An attempt this process has in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub task: TaskId,
    /// W3C `traceparent` of its events, for the log.
    pub trace: Option<String>,
    pub since: Instant,
    /// Its `processing` event is written, so its lease is ours to renew.
    pub begun: bool,
}

impl Worker {
    /// A worker of `deps.store`'s models, which stops taking when `shutdown` is cancelled. It takes nothing before
    /// [`crate::packages::look`]. The settings are [`Config::check`]ed elsewhere.
    #[must_use]
    pub fn new(config: Config, deps: Deps, shutdown: &CancellationToken) -> Arc<Self> {
        let Deps { link, keys, store } = deps;
        let started_ms = now_us() / 1_000;
        Arc::new(Self {
            registry: tokio::sync::Mutex::new(Registry::new(link.clone(), keys.clone())),
            config,
            link,
            keys,
            store,
            view: watch::Sender::new(Arc::default()),
            lanes: Mutex::default(),
            rooms: Mutex::default(),
            untold: Mutex::default(),
            refused: Mutex::default(),
            missed: AtomicBool::new(false),
            shadows: shadow::Queue::default(),
            freed: Arc::default(),
            started_ms,
            last_read_ms: AtomicI64::new(started_ms),
            batches: TaskTracker::new(),
            stop: Stop { taking: shutdown.child_token(), ..Stop::default() },
        })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.worker_name
    }

    /// What it takes from now, and the routes that hold.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Told of every new view.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(crate) fn replace_view(&self, view: View) {
        self.view.send_replace(Arc::new(view));
    }

    /// Whether this process is to answer for a version; a setting can keep it to some.
    #[must_use]
    pub fn serves(&self, task_type: &str, version: &str) -> bool {
        self.config.serve.is_empty() || self.config.serve.iter().any(|pattern| pattern.matches(task_type, version))
    }

    /// The models this process answers with.
    #[must_use]
    pub fn served(&self) -> Vec<Arc<Served>> {
        let mut served = self.store.served();
        served.retain(|served| self.serves(&served.manifest().task_type, &served.manifest().version));
        served
    }

    pub(crate) fn model(&self, task_type: &str, version: &str) -> Option<Arc<Served>> {
        self.serves(task_type, version).then(|| self.store.get(task_type, version)).flatten()
    }

    /// Task type and version of each model, with the inputs that may wait for it.
    pub(crate) fn models(&self) -> BTreeMap<(String, String), usize> {
        let name = |served: Arc<Served>| {
            let manifest = served.manifest();
            ((manifest.task_type.clone(), manifest.version.clone()), manifest.batch.max_queue)
        };
        self.served().into_iter().map(name).collect()
    }

    /// A lane of a partition; the same one whenever it is asked for.
    #[must_use]
    pub fn lane(&self, partition: Partition, lane: &Lane) -> Arc<ServedLane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lanes.get(&(partition, lane.clone())) {
            return known.clone();
        }
        let others = lanes.values().find(|known| known.lane == *lane);
        let in_flight = others.map_or_else(Arc::default, |other| other.in_flight.clone());
        let new = Arc::new(ServedLane {
            partition,
            lane: lane.clone(),
            in_flight,
            freed: self.freed.clone(),
            meters: LaneMeters::new(lane),
            held: Mutex::default(),
        });
        lanes.insert((partition, lane.clone()), new.clone());
        new
    }

    /// Every lane of every partition that it took from since it started.
    #[must_use]
    pub fn lanes(&self) -> Vec<Arc<ServedLane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The partitions and task types to read: what each taker has.
    #[must_use]
    pub fn shifts(&self) -> Vec<(Partition, String)> {
        let view = self.view();
        let of_type = |task_type: &String| self.config.partitions.iter().map(|it| (it, task_type.clone())).collect();
        view.offers.keys().flat_map::<Vec<_>, _>(of_type).collect()
    }

    /// The free places of a task type.
    pub(crate) fn room(&self, task_type: &str) -> Arc<Semaphore> {
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(self.config.max_in_flight));
        rooms.entry(task_type.to_owned()).or_insert_with(new).clone()
    }

    /// Notes that the view promises what is not here; says so once to who asks by [`Worker::has_missed`].
    pub(crate) fn miss(&self) {
        self.missed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_missed(&self) -> bool {
        self.missed.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> MutexGuard<'_, BTreeMap<String, Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn untold(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every event of this process carries.
    pub(crate) fn meta(&self, at_us: i64, attempt: u32, context: &Context) -> Meta {
        Meta {
            at_us,
            tenant: context.tenant.clone(),
            actor: format!("analyzer/{}", self.name()),
            attempt,
            trace: context.trace.clone(),
        }
    }

    /// When it last took a task, in milliseconds since 1970-01-01 UTC; its start before the first.
    #[must_use]
    pub fn last_read_ms(&self) -> i64 {
        self.last_read_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn note_read(&self, at_ms: i64) {
        self.last_read_ms.store(at_ms, Ordering::Relaxed);
        crate::measure::last_read(at_ms);
    }

    /// Attempts in flight, begun or about to be.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lanes().iter().map(|lane| lane.held().len()).sum()
    }
}

impl ServedLane {
    /// The attempts in flight, by token.
    pub(crate) fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Every change of the map is a single call, so a panic elsewhere leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks of this lane in flight, of all partitions together.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A batch of so many tasks was taken.
    pub(crate) fn took(&self, count: usize) {
        self.in_flight.fetch_add(count, Ordering::Relaxed);
        self.meters.in_flight.increment(count as f64);
    }

    /// So many tasks are held no longer.
    pub(crate) fn gave_back(&self, count: usize) {
        self.in_flight.fetch_sub(count, Ordering::Relaxed);
        self.meters.in_flight.decrement(count as f64);
        self.freed.notify_waiters();
    }
}
