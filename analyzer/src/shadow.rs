//! Asks shadow versions about documents that were answered already, and notes what they say beside the answer.
//!
//! Nothing waits for a shadow: what does not fit into the queue is dropped and counted, a shadow is asked only while no
//! task waits for a model, and what comes back too late is dropped as well. Its result is one `shadowed` event; it never
//! becomes an answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use insightforge_inference::{InferError, Served};
use insightforge_schema::event::{Change, ShadowError, Shadowed, encode, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::script::{self, Context, Noted, Shadow};
use tokio::sync::{Notify, mpsc};

use crate::agree::agree;
use crate::measure;
use crate::serve::Offer;
use crate::wait::pause;
use crate::worker::Worker;

/// Answered documents that may wait, and their bytes.
const QUEUE: usize = 1_024;
const QUEUE_BYTES: usize = 16 << 20;
/// Documents a shadow is asked about at once.
const BATCH: usize = 16;
/// Between two looks whether tasks wait.
const YIELD: Duration = Duration::from_millis(5);

/// An answered document.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) partition: Partition,
    pub(crate) task: TaskId,
    pub(crate) attempt: u32,
    pub(crate) context: Context,
    pub(crate) task_type: String,
    /// Who answered.
    pub(crate) version: String,
    pub(crate) document: String,
    pub(crate) answer: String,
}

impl Job {
    fn bytes(&self) -> usize {
        self.document.len() + self.answer.len()
    }
}

/// What waits for shadows in this process.
pub(crate) struct Queue {
    sender: mpsc::Sender<Job>,
    receiver: Mutex<Option<mpsc::Receiver<Job>>>,
    bytes: AtomicUsize,
    came: Notify,
}

impl Default for Queue {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver: Mutex::new(Some(receiver)), bytes: AtomicUsize::new(0), came: Notify::new() }
    }
}

impl Queue {
    /// Takes a document, or drops it when there is no room.
    pub(crate) fn offer(&self, job: Job) {
        let bytes = job.bytes();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES || self.sender.try_send(job).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            measure::shadow_dropped("queue_full");
        }
        self.came.notify_one();
    }

    fn take(&self, receiver: &mut mpsc::Receiver<Job>) -> Vec<Job> {
        let mut jobs = Vec::new();
        while jobs.len() < BATCH
            && let Ok(job) = receiver.try_recv()
        {
            self.bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
            jobs.push(job);
        }
        jobs
    }
}

/// Asks the shadows about what waits now; says how many events came of it. One caller at a time.
pub async fn step(worker: &Worker) -> usize {
    let receiver = worker.shadows.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut receiver) = receiver else { return 0 };
    let mut noted = 0;
    loop {
        let jobs = worker.shadows.take(&mut receiver);
        if jobs.is_empty() || !wait_for_idle(worker).await {
            break;
        }
        noted += ask(worker, jobs).await;
    }
    *worker.shadows.receiver.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
    noted
}

/// Whether tasks wait for a model: inputs in a batcher, or so many tasks held of a lane that more may lie on it. The models
/// that answer at once have no batcher, and one in flight now and then must not keep shadows from being asked at all.
#[must_use]
pub fn tasks_wait(worker: &Worker) -> bool {
    let (view, lanes) = (worker.view(), worker.lanes());
    let full = |offer: &Offer| {
        let held = lanes.iter().find(|it| it.lane == offer.lane).map_or(0, |it| it.in_flight());
        held > 0 && held >= offer.bound.min(worker.config.max_in_flight).div_ceil(2)
    };
    worker.served().iter().any(|served| served.waiting() > 0) || view.offers.values().flatten().any(full)
}

/// Returns once no task waits for a model; `false` when the process stops.
async fn wait_for_idle(worker: &Worker) -> bool {
    while tasks_wait(worker) {
        if !pause(YIELD, &worker.stop.taking).await {
            return false;
        }
    }
    !worker.stop.taking.is_cancelled()
}

async fn ask(worker: &Worker, jobs: Vec<Job>) -> usize {
    let view = worker.view();
    let mut noted = 0;
    let mut types: Vec<&str> = jobs.iter().map(|job| job.task_type.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    for task_type in types {
        let shadows = view.routes.task(task_type).map(|task| task.shadows.as_slice()).unwrap_or_default();
        for version in shadows {
            let its: Vec<&Job> =
                jobs.iter().filter(|job| job.task_type == task_type && job.version != *version).collect();
            match worker.model(task_type, version) {
                Some(served) if !its.is_empty() => noted += ask_one(worker, &served, &its).await,
                Some(_) => {}
                None => its.iter().for_each(|_| measure::shadow_dropped("not_here")),
            }
        }
    }
    noted
}

async fn ask_one(worker: &Worker, served: &Arc<Served>, jobs: &[&Job]) -> usize {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(worker.config.task_timeout_ms);
    let documents = jobs.iter().map(|job| job.document.clone()).collect();
    let answers = tokio::select! {
        answers = served.infer(documents, deadline) => answers,
        () = worker.stop.taking.cancelled() => return 0,
    };
    let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut notes: BTreeMap<Partition, Vec<Note>> = BTreeMap::new();
    for (job, answer) in jobs.iter().zip(answers) {
        if answer.as_ref().is_err_and(|error| error.code == "overloaded") {
            measure::shadow_dropped("overloaded");
            continue;
        }
        let note = Note::of(worker, served, job, answer, took_us, jobs.len());
        notes.entry(job.partition).or_default().push(note);
    }
    let mut noted = 0;
    for (partition, notes) in notes {
        noted += write(worker, served, partition, notes).await;
    }
    noted
}

/// A `shadowed` event to be.
struct Note {
    shadow: Shadow,
    outcome: &'static str,
}

impl Note {
    /// `took_us` is how long the call took that was about `batch_size` documents.
    fn of(
        worker: &Worker,
        served: &Served,
        job: &Job,
        answer: Result<String, InferError>,
        took_us: u64,
        batch_size: usize,
    ) -> Self {
        let (manifest, runs_on) = (served.manifest(), served.runs_on());
        let agrees = answer.as_ref().is_ok_and(|said| agree(&manifest.output.labels, &job.answer, said));
        let outcome = match &answer {
            Err(_) => "failed",
            Ok(_) if agrees => "agrees",
            Ok(_) => "differs",
        };
        let (result, error) = match answer {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(ShadowError { code: error.code.into_owned(), message: error.message })),
        };
        let shadowed = Shadowed {
            task_type: manifest.task_type.clone(),
            model_version: manifest.version.clone(),
            digest: served.digest().to_owned(),
            backend: runs_on.engine.clone(),
            device: runs_on.device.clone(),
            result,
            error,
            agrees,
            took_us,
            batch_size: u32::try_from(batch_size).unwrap_or(u32::MAX),
        };
        let event = encode(&worker.meta(now_us(), job.attempt, &job.context), &Change::Shadowed(shadowed));
        Self { shadow: Shadow { task: job.task, version: manifest.version.clone(), event }, outcome }
    }
}

/// Writes the events of a partition in one step; says how many did not come too late.
async fn write(worker: &Worker, served: &Served, partition: Partition, notes: Vec<Note>) -> usize {
    let manifest = served.manifest();
    let (shadows, outcomes): (Vec<Shadow>, Vec<_>) = notes.into_iter().map(|it| (it.shadow, it.outcome)).unzip();
    match script::shadow(&worker.link, &worker.keys, partition, &shadows).await {
        Ok(replies) => {
            for (reply, outcome) in replies.iter().zip(outcomes) {
                match reply {
                    Noted::Done => measure::shadowed(&manifest.task_type, &manifest.version, outcome),
                    Noted::Gone => measure::shadow_dropped("too_late"),
                }
            }
            replies.iter().filter(|reply| **reply == Noted::Done).count()
        }
        Err(error) => {
            tracing::warn!(%partition, %error, "what a shadow said could not be noted");
            shadows.iter().for_each(|_| measure::shadow_dropped("not_written"));
            0
        }
    }
}

/// Asks shadows until the process stops taking.
pub(crate) async fn run(worker: Arc<Worker>) {
    while !worker.stop.taking.is_cancelled() {
        step(&worker).await;
        tokio::select! {
            () = worker.shadows.came.notified() => {}
            () = worker.stop.taking.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize) -> Job {
        Job {
            partition: Partition(0),
            task: TaskId::new(),
            attempt: 1,
            context: Context::default(),
            task_type: "acting".to_owned(),
            version: "v1".to_owned(),
            document: "d".repeat(bytes),
            answer: String::new(),
        }
    }

    #[test]
    fn a_full_queue_drops_what_comes_and_has_room_again_for_what_was_taken() {
        for (bytes, fit) in [(1, QUEUE), (QUEUE_BYTES / 4, 4), (QUEUE_BYTES + 1, 0)] {
            let queue = Queue::default();
            let mut receiver = queue.receiver.lock().unwrap().take().unwrap();
            for _ in 0..2 {
                (0..fit + 3).for_each(|_| queue.offer(job(bytes)));
                let mut taken = 0;
                loop {
                    match queue.take(&mut receiver).len() {
                        0 => break,
                        count => taken += count,
                    }
                }
                assert_eq!((taken, queue.bytes.load(Ordering::Relaxed)), (fit, 0), "{bytes} bytes each");
            }
        }
    }
}
