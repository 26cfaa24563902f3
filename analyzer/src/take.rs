//! Step one: take references to waiting tasks off the lanes of one task type in one partition.
//!
//! One taker owns its connection and every read on it: a read that is dropped half-way leaves entries that Redis counts
//! as delivered and nobody works on. Places are reserved before the read, so that nothing taken ages in a queue of ours.

mod reply;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insightforge_schema::event::now_us;
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::Lane;
use insightforge_schema::link::{BlockingReader, LinkError};
use insightforge_schema::script::{self, Context};
use redis::RedisError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use reply::read_reference;
use reply::{Entries, read_reply};

use crate::process::process;
use crate::serve::{Offer, View};
use crate::worker::{Held, ServedLane, Worker};

/// One blocking read; also how long a stopping taker can take to notice.
const BLOCK: Duration = Duration::from_secs(2);
/// Beyond `BLOCK` the server is silent: the connection is given up and the own pending entries are read anew.
const SILENCE: Duration = Duration::from_secs(5);
/// Of so many reads one asks all lanes, also while others have much.
const READ_ALL_EVERY: usize = 4;
/// How soon lanes that were full are looked at again, whatever happens.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// After a read that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Largest batch of one lane: beyond it a script call's share of each task no longer falls, and its latency grows.
const BATCH_MAX: usize = 128;
/// Batches a taker has in flight: one is read while the other is in the model.
const BATCHES_IN_FLIGHT: usize = 2;

/// A lane entry: it refers to a task whose attempt is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The entry's id: the attempt's token.
    pub token: String,
    pub task: TaskId,
    pub attempt: u32,
    pub context: Context,
}

/// References of one lane, taken together, with the places they occupy until they are dropped.
pub struct Batch {
    pub lane: Arc<ServedLane>,
    pub references: Vec<Reference>,
    /// One place a reference.
    room: OwnedSemaphorePermit,
    /// The taker's next read waits for it.
    slot: Option<Arc<OwnedSemaphorePermit>>,
}

impl Drop for Batch {
    /// Whatever became of the attempts, this process holds them no longer.
    fn drop(&mut self) {
        let mut held = self.lane.held();
        for reference in &self.references {
            held.remove(&reference.token);
        }
        drop(held);
        self.lane.gave_back(self.references.len());
    }
}

/// Reads the lanes of one task type in one partition: those of the view of the moment.
pub struct Taker {
    worker: Arc<Worker>,
    partition: Partition,
    task_type: String,
    views: watch::Receiver<Arc<View>>,
    lanes: Vec<Taken>,
    room: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    reader: BlockingReader,
    /// Lanes of which entries may have been delivered to us unseen, later than these ids: they come before new ones.
    doubt: VecDeque<(usize, String)>,
    /// Counts reads.
    turn: usize,
    /// Lanes that had something in the last read of all.
    busy: Vec<usize>,
}

/// A lane that is read.
struct Taken {
    lane: Arc<ServedLane>,
    /// Its stream.
    key: String,
    /// Tasks of it that this process may hold.
    bound: usize,
}

/// What a read of the lanes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Took(usize),
    Idle,
}

/// Which entries a read asks for.
enum Want {
    /// Never delivered to anybody.
    New { block: bool },
    /// Delivered to us, later than this id; of one lane.
    Own { after: String },
}

impl Taker {
    /// A taker for the lanes of one task type in one partition.
    #[must_use]
    pub fn new(worker: Arc<Worker>, partition: Partition, task_type: &str) -> Self {
        let mut views = worker.views();
        views.mark_changed();
        Self {
            partition,
            task_type: task_type.to_owned(),
            views,
            lanes: Vec::new(),
            room: worker.room(task_type),
            slots: Arc::new(Semaphore::new(BATCHES_IN_FLIGHT)),
            reader: BlockingReader::new(&worker.link, &worker.keys.lanes(partition)),
            doubt: VecDeque::new(),
            turn: 0,
            busy: Vec::new(),
            worker,
        }
    }

    /// Takes and starts to process until the worker stops.
    pub async fn run(mut self) {
        while !self.worker.stop.taking.is_cancelled() {
            match self.step(true).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(partition = %self.partition, task_type = self.task_type, %error,
                        "reading waiting tasks failed; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Takes once and spawns the work; with `block` it waits for tasks when there are none.
    ///
    /// # Errors
    /// [`LinkError`] when Redis could not be read; the next step starts with what may have been delivered unseen.
    pub async fn step(&mut self, block: bool) -> Result<Step, LinkError> {
        let slot = tokio::select! {
            slot = self.slots.clone().acquire_owned() => slot.expect("the semaphore is never closed"),
            () = self.worker.stop.taking.cancelled() => return Ok(Step::Idle),
        };
        let batches = self.take(block).await?;
        let count = batches.iter().map(|batch| batch.references.len()).sum();
        let slot = Arc::new(slot);
        for mut batch in batches.into_iter().flat_map(apart) {
            // A repeated attempt travels alone and holds up nobody.
            batch.slot = batch.references.iter().all(|reference| reference.attempt <= 1).then(|| slot.clone());
            let worker = self.worker.clone();
            self.worker.batches.spawn(async move { process(&worker, batch).await });
        }
        Ok(if count == 0 { Step::Idle } else { Step::Took(count) })
    }

    /// Takes what waits, without processing it.
    ///
    /// # Errors
    /// See [`Self::step`].
    pub async fn take(&mut self, block: bool) -> Result<Vec<Batch>, LinkError> {
        self.follow_view();
        if self.lanes.is_empty() {
            if block {
                self.wait_for_view().await;
            }
            return Ok(Vec::new());
        }
        let batches = self.read(block).await.inspect_err(|_| self.doubt = from_the_first(self.lanes.len()))?;
        if !batches.is_empty() {
            self.worker.note_read(now_us() / 1_000);
        }
        Ok(batches)
    }

    /// Reads other lanes from now on when the view says so. No lane keeps its place then, and what was delivered unseen
    /// is looked for anew.
    fn follow_view(&mut self) {
        if !self.views.has_changed().unwrap_or(false) {
            return;
        }
        let view = self.views.borrow_and_update().clone();
        let offers = view.offers.get(&self.task_type).map(Vec::as_slice).unwrap_or_default();
        let same = self.lanes.iter().map(|taken| &taken.lane.lane).eq(offers.iter().map(|offer| &offer.lane));
        if same {
            self.lanes.iter_mut().zip(offers).for_each(|(taken, offer)| taken.bound = offer.bound);
            return;
        }
        let taken = |offer: &Offer| Taken {
            lane: self.worker.lane(self.partition, &offer.lane),
            key: self.worker.keys.lane(self.partition, &offer.lane),
            bound: offer.bound,
        };
        self.lanes = offers.iter().map(taken).collect();
        self.doubt = from_the_first(self.lanes.len());
        self.busy.clear();
    }

    async fn wait_for_view(&mut self) {
        tokio::select! {
            // The sender lives as long as the worker.
            _ = self.views.changed() => self.views.mark_changed(),
            () = self.worker.stop.taking.cancelled() => {}
        }
    }

    async fn read(&mut self, block: bool) -> Result<Vec<Batch>, LinkError> {
        while let Some((index, after)) = self.doubt.front().cloned() {
            if self.worker.stop.taking.is_cancelled() {
                return Ok(Vec::new());
            }
            let found = self.read_own(index, after).await?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        // Where there is much to do, few lanes have all of it: those are read alone most of the time, since a read shares
        // its places among all the lanes it asks.
        if !self.turn.is_multiple_of(READ_ALL_EVERY) && !self.busy.is_empty() {
            let (busy, most) = self.open_lanes(&self.busy);
            if !busy.is_empty() {
                let Some(room) = self.reserve(busy.len(), most).await else { return Ok(Vec::new()) };
                let found = self.call(Want::New { block: false }, &busy, room, most).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        self.read_all(block).await
    }

    async fn read_all(&mut self, block: bool) -> Result<Vec<Batch>, LinkError> {
        let freed = self.worker.freed.clone();
        let freed = freed.notified();
        let all: Vec<usize> = (0..self.lanes.len()).collect();
        let (which, most) = self.open_lanes(&all);
        if which.is_empty() {
            // Everything the models let wait is here: places come back with the batches.
            if block {
                self.wait_a_little(freed).await;
            }
            return Ok(Vec::new());
        }
        let Some(room) = self.reserve(which.len(), most).await else { return Ok(Vec::new()) };
        let mut found = self.call(Want::New { block: false }, &which, room, most).await?;
        if found.is_empty() && block && which.len() < self.lanes.len() {
            // A read that waits for these lanes would not see the others.
            self.wait_a_little(freed).await;
        } else if found.is_empty() && block {
            // Nobody waits: hold few places while blocking, so that the others of this type have the rest.
            let share = self.worker.config.max_in_flight / (4 * usize::from(self.worker.config.partitions.get()));
            let few = share.clamp(1, BATCH_MAX).min(most);
            let Some(room) = self.reserve(which.len(), few).await else { return Ok(Vec::new()) };
            found = self.call(Want::New { block: true }, &which, room, few).await?;
        }
        let had_some = |index: &usize| found.iter().any(|batch| Arc::ptr_eq(&batch.lane, &self.lanes[*index].lane));
        self.busy = all.into_iter().filter(had_some).collect();
        Ok(found)
    }

    async fn wait_a_little(&self, freed: impl Future<Output = ()>) {
        tokio::select! {
            () = freed => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = self.worker.stop.taking.cancelled() => {}
        }
    }

    /// Those of `lanes` that may be read now, and how many entries of each at most.
    fn open_lanes(&self, lanes: &[usize]) -> (Vec<usize>, usize) {
        // Every taker of the type needs a place for each lane it reads, at the same time. When there are too many lanes
        // for that, each read begins with another one.
        let partitions = usize::from(self.worker.config.partitions.get());
        let fit = (self.worker.config.max_in_flight / partitions).max(1);
        let from = if lanes.len() > fit { self.turn } else { 0 };
        let free = |index: usize| self.lanes[index].bound.saturating_sub(self.lanes[index].lane.in_flight());
        let turned = (from..from + lanes.len()).map(|place| lanes[place % lanes.len()]);
        let which: Vec<usize> = turned.filter(|index| free(*index) > 0).take(fit).collect();
        let most = which.iter().map(|index| free(*index)).min().unwrap_or(0).min(BATCH_MAX);
        (which, most)
    }

    /// The next entries of a lane delivered to this consumer that no batch of ours holds: a reply was lost on its way. The
    /// doubt about the lane is over when there are no more.
    async fn read_own(&mut self, index: usize, after: String) -> Result<Vec<Batch>, LinkError> {
        let Some(room) = self.reserve(1, BATCH_MAX).await else { return Ok(Vec::new()) };
        let Some(reply) = self.ask(&Want::Own { after }, &[index], room.num_permits()).await? else {
            return Ok(Vec::new());
        };
        match reply.first().and_then(|(_, entries)| entries.last()) {
            Some((last, _)) => self.doubt[0].1.clone_from(last),
            None => drop(self.doubt.pop_front()),
        }
        self.batches(reply, room).await
    }

    /// Places for at least one task of each of so many lanes, at most `most` a lane; `None` when the worker stops.
    async fn reserve(&self, lanes: usize, most: usize) -> Option<OwnedSemaphorePermit> {
        let least = u32::try_from(lanes).expect("a process serves few lanes");
        let mut room = tokio::select! {
            biased;
            () = self.worker.stop.taking.cancelled() => return None,
            room = self.room.clone().acquire_many_owned(least) => room.expect("the semaphore is never closed"),
        };
        let more = self.room.available_permits().min(most.saturating_sub(1) * lanes) / lanes * lanes;
        if let Ok(extra) = self.room.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            room.merge(extra);
        }
        Some(room)
    }

    async fn call(
        &mut self,
        want: Want,
        which: &[usize],
        room: OwnedSemaphorePermit,
        most: usize,
    ) -> Result<Vec<Batch>, LinkError> {
        match self.ask(&want, which, (room.num_permits() / which.len()).min(most)).await? {
            Some(reply) => self.batches(reply, room).await,
            None => Ok(Vec::new()),
        }
    }

    /// One `XREADGROUP` of some lanes, `count` entries of each at most. `None` when a group had to be created anew.
    async fn ask(
        &mut self,
        want: &Want,
        which: &[usize],
        count: usize,
    ) -> Result<Option<Vec<(usize, Entries)>>, LinkError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.task_type).arg(self.worker.name()).arg("COUNT").arg(count);
        if matches!(want, Want::New { block: true }) {
            command.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        command.arg("STREAMS");
        for index in which {
            command.arg(&self.lanes[*index].key);
        }
        match want {
            Want::New { .. } => command.arg(vec![">"; which.len()]),
            Want::Own { after } => command.arg(after),
        };
        // A server that has not answered by then is gone without a word. Giving the call up is safe here only because
        // the connection goes with it and the own pending entries are read next.
        match self.reader.read(&command, BLOCK + SILENCE).await {
            Err(error) if error.code() == Some("NOGROUP") => {
                tracing::warn!(partition = %self.partition, task_type = self.task_type,
                    "the consumer group was gone; creating it anew from the lane's first entry");
                for taken in &self.lanes {
                    create_group(&self.worker, self.partition, &taken.lane.lane).await?;
                }
                Ok(None)
            }
            Err(error) => Err(read_error(&error)),
            Ok(reply) => {
                let index: HashMap<&str, usize> =
                    self.lanes.iter().enumerate().map(|(index, taken)| (taken.key.as_str(), index)).collect();
                read_reply(reply, &index)
                    .map(Some)
                    .ok_or_else(|| LinkError::Refused("not a reply of XREADGROUP".to_owned()))
            }
        }
    }

    /// Makes batches of entries, leaving out those that one of our batches holds already: a group created anew
    /// delivers them again.
    async fn batches(
        &self,
        reply: Vec<(usize, Entries)>,
        mut room: OwnedSemaphorePermit,
    ) -> Result<Vec<Batch>, LinkError> {
        let since = Instant::now();
        let mut batches = Vec::new();
        for (index, entries) in reply {
            let lane = &self.lanes[index].lane;
            let mut references = Vec::with_capacity(entries.len());
            let mut broken = Vec::new();
            {
                let mut held = lane.held();
                for (token, fields) in entries {
                    if held.contains_key(&token) {
                        continue;
                    }
                    match read_reference(&token, fields) {
                        Some(reference) => {
                            held.insert(
                                token,
                                Held {
                                    task: reference.task,
                                    trace: reference.context.trace.clone(),
                                    since,
                                    begun: false,
                                },
                            );
                            references.push(reference);
                        }
                        None => broken.push(token),
                    }
                }
            }
            lane.took(references.len());
            if !references.is_empty() {
                let places = room.split(references.len()).expect("a read returns at most what was reserved");
                batches.push(Batch { lane: lane.clone(), references, room: places, slot: None });
            }
            if !broken.is_empty() {
                self.discard(index, &broken).await?;
            }
        }
        Ok(batches)
    }

    /// Takes entries off a lane that refer to nothing: deleted under us, or written by a stranger.
    async fn discard(&self, index: usize, tokens: &[String]) -> Result<(), LinkError> {
        tracing::warn!(partition = %self.partition, lane = %self.lanes[index].lane.lane, count = tokens.len(),
            "entries that name no task were taken off the lane");
        let key = &self.lanes[index].key;
        let _: i64 = self.worker.link.query(redis::cmd("XACK").arg(key).arg(&self.task_type).arg(tokens)).await?;
        let _: i64 = self.worker.link.query(redis::cmd("XDEL").arg(key).arg(tokens)).await?;
        Ok(())
    }
}

/// Creates a lane's group where it does not exist.
pub(crate) async fn create_group(worker: &Worker, partition: Partition, lane: &Lane) -> Result<(), LinkError> {
    script::create_group(&worker.link, &worker.keys, partition, lane).await
}

/// First attempts stay together; each repeated one goes alone, so that an input that hangs or kills takes nobody along
/// a second time.
fn apart(mut batch: Batch) -> Vec<Batch> {
    let repeated = |reference: &Reference| reference.attempt > 1;
    if batch.references.len() == 1 || !batch.references.iter().any(repeated) {
        return vec![batch];
    }
    let (alone, together): (Vec<_>, Vec<_>) = std::mem::take(&mut batch.references).into_iter().partition(repeated);
    let mut parts: Vec<Batch> = alone
        .into_iter()
        .map(|reference| {
            let room = batch.room.split(1).expect("a batch has a place for each reference");
            Batch { lane: batch.lane.clone(), references: vec![reference], room, slot: None }
        })
        .collect();
    batch.references = together;
    parts.push(batch);
    parts
}

fn from_the_first(lanes: usize) -> VecDeque<(usize, String)> {
    (0..lanes).map(|index| (index, "0".to_owned())).collect()
}

fn read_error(error: &RedisError) -> LinkError {
    LinkError::Unavailable(error.to_string())
}
