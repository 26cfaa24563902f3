//! This process as its work sees it: settings, connection, the lanes it serves, and what it holds of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use insightforge_schema::event::{Meta, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::Context;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::infer::Engine;
use crate::measure::LaneMeters;
use crate::model::Registry;

/// What an analyzer needs from outside.
#[derive(Clone)]
pub struct Deps {
    pub link: Link,
    pub keys: Keys,
    pub registry: Registry,
}

/// One analyzer process.
pub struct Worker {
    pub config: Config,
    pub link: Link,
    pub keys: Keys,
    pub registry: Registry,
    lanes: Vec<Arc<ServedLane>>,
    /// Free places by task type.
    rooms: HashMap<String, Arc<Semaphore>>,
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
    /// `None` for the lane of tasks that no model answers (see [`Lane::unroutable`]).
    pub engine: Option<Engine>,
    pub(crate) meters: LaneMeters,
    held: Mutex<HashMap<String, Held>>,
}

/// An attempt this process has in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub task: TaskId,
    pub since: Instant,
    /// Its `processing` event is written, so its lease is ours to renew.
    pub begun: bool,
}

impl Worker {
    /// A worker that serves all of `deps.registry` and stops taking when `shutdown` is cancelled. The settings are
    /// [`Config::check`]ed elsewhere.
    #[must_use]
    pub fn new(config: Config, deps: Deps, shutdown: &CancellationToken) -> Arc<Self> {
        let Deps { link, keys, registry } = deps;
        let mut lanes = Vec::new();
        let mut rooms = HashMap::new();
        let engines: Vec<(Lane, Option<Engine>)> = registry
            .lanes()
            .into_iter()
            .map(|lane| {
                let model = registry.get(&lane).expect("the registry lists only what it has");
                (lane, Some(Engine::new(model, &config)))
            })
            .chain([(Lane::unroutable(), None)])
            .collect();
        for partition in config.partitions.iter() {
            for (lane, engine) in &engines {
                rooms.entry(lane.task_type.clone()).or_insert_with(|| Arc::new(Semaphore::new(config.max_in_flight)));
                lanes.push(Arc::new(ServedLane::new(partition, lane.clone(), engine.clone())));
            }
        }
        let started_ms = now_us() / 1_000;
        let stop = Stop { taking: shutdown.child_token(), ..Stop::default() };
        Arc::new(Self {
            config,
            link,
            keys,
            registry,
            lanes,
            rooms,
            started_ms,
            last_read_ms: AtomicI64::new(started_ms),
            batches: TaskTracker::new(),
            stop,
        })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.config.worker_name
    }

    /// Every lane of every partition that this process serves.
    #[must_use]
    pub fn lanes(&self) -> &[Arc<ServedLane>] {
        &self.lanes
    }

    /// Every model with its threads, once.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        let first = self.lanes.first().map(|lane| lane.partition);
        self.lanes.iter().filter(move |lane| Some(lane.partition) == first).filter_map(|lane| lane.engine.as_ref())
    }

    /// The lanes by partition and task type: what one taker reads.
    #[must_use]
    pub fn shifts(&self) -> BTreeMap<(Partition, String), Vec<Arc<ServedLane>>> {
        let mut shifts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for lane in &self.lanes {
            shifts.entry((lane.partition, lane.lane.task_type.clone())).or_default().push(lane.clone());
        }
        shifts
    }

    /// The free places of a task type this process serves.
    pub(crate) fn room(&self, task_type: &str) -> Arc<Semaphore> {
        self.rooms.get(task_type).cloned().expect("every served task type has a room")
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
        self.lanes.iter().map(|lane| lane.held().len()).sum()
    }
}

impl ServedLane {
    fn new(partition: Partition, lane: Lane, engine: Option<Engine>) -> Self {
        let meters = LaneMeters::new(&lane);
        Self { partition, lane, engine, meters, held: Mutex::default() }
    }

    /// The attempts in flight, by token.
    pub(crate) fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        // Every change of the map is a single call, so a panic elsewhere leaves it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
