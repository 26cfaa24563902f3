//! A model in memory with its batcher: answers documents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use crate::batch::{Answer, Batcher, Compute, Limits, Meters, Settings};
use crate::loaded::Loaded;
use crate::manifest::{Backend, Manifest};
use crate::model::{InferError, Prepared};

/// An answer expected to take less is computed where it is asked for: a hand-over to another thread costs as much. Also how
/// long an async thread computes before it lets others in.
const INLINE: Duration = Duration::from_micros(250);
/// Documents longer than this are read on a thread that may compute.
const READ_INLINE_BYTES: usize = 1 << 16;
/// Bytes of a document to a unit of cost, at most: what a manifest counts (items, say) may not grow with the document.
const BYTES_PER_COST: u64 = 4;
/// Tries of a package's first check, of which the fastest tells the pace.
const TRIES: usize = 5;

pub(super) struct Running {
    pub(super) loaded: Arc<Loaded>,
    /// What it keeps in memory.
    pub(super) bytes: u64,
    batcher: Batcher,
    meters: Arc<Meters>,
    /// Whether it is one of our own models: they end, and use one thread.
    native: bool,
    compute: Arc<Compute>,
    /// Long documents that are read at once: as many as may compute.
    readers: Semaphore,
}

impl Running {
    pub(super) fn start(loaded: Loaded, compute: &Arc<Compute>) -> std::io::Result<Self> {
        let loaded = Arc::new(loaded);
        let manifest = &loaded.package.manifest;
        let meters = Arc::new(Meters::new(manifest));
        let batcher = Batcher::with_meters(loaded.clone(), settings(&loaded, compute), meters.clone())?;
        let native = native(&loaded);
        let bytes = loaded.resident_bytes();
        meters.resident.increment(bytes as f64);
        let running = Self {
            bytes,
            batcher,
            meters,
            native,
            compute: compute.clone(),
            readers: Semaphore::new(compute.permits()),
            loaded,
        };
        running.try_pace();
        Ok(running)
    }

    pub(super) async fn infer(&self, documents: Vec<String>, deadline: Instant) -> Vec<Answer> {
        let bytes: usize = documents.iter().map(String::len).sum();
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(documents.len());
        let (mut places, mut queued) = (Vec::new(), Vec::new());
        // Nothing is read that nobody could ask about; the places are the queue's own again once the inputs stand in it.
        let kept = (bytes > READ_INLINE_BYTES).then(|| self.batcher.keep_places(documents.len()));
        if let Some(kept) = &kept {
            let mut documents = documents;
            let count = documents.len();
            documents.truncate(kept.count());
            for (place, prepared) in self.read_elsewhere(documents).await.into_iter().enumerate() {
                answers.push(None);
                match prepared {
                    Ok(prepared) => {
                        places.push(place);
                        queued.push(prepared);
                    }
                    Err(error) => answers[place] = Some(Err(error)),
                }
            }
            answers.resize_with(count, || Some(Err(self.batcher.turned_away())));
        } else {
            let mut turn = Instant::now();
            for (place, document) in documents.iter().enumerate() {
                let answer = match self.loaded.read(document) {
                    Err(error) => Some(Err(error)),
                    Ok(prepared) if self.is_short(document, &prepared) => Some(self.answer_here(prepared)),
                    Ok(prepared) => {
                        places.push(place);
                        queued.push(prepared);
                        None
                    }
                };
                answers.push(answer);
                if turn.elapsed() > INLINE {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
            }
        }
        drop(kept);
        let receivers = self.batcher.submit(queued, deadline);
        for (place, receiver) in places.into_iter().zip(receivers) {
            answers[place] = Some(wait(receiver, deadline).await);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(no_answer()))).collect()
    }

    pub(super) async fn infer_one(&self, document: &str, deadline: Instant) -> Answer {
        if document.len() > READ_INLINE_BYTES {
            return self.infer(vec![document.to_owned()], deadline).await.remove(0);
        }
        let prepared = self.loaded.read(document)?;
        if self.is_short(document, &prepared) {
            return self.answer_here(prepared);
        }
        let receiver = self.batcher.submit(vec![prepared], deadline).remove(0);
        wait(receiver, deadline).await
    }

    pub(super) fn waiting(&self) -> usize {
        self.batcher.waiting()
    }

    pub(super) fn stuck(&self) -> usize {
        self.batcher.stuck()
    }

    pub(super) fn hangs(&self) -> bool {
        self.batcher.hangs()
    }

    /// Reads long documents on a thread that may compute, in its turn.
    async fn read_elsewhere(&self, documents: Vec<String>) -> Vec<Result<Prepared, InferError>> {
        let (loaded, compute, count) = (self.loaded.clone(), self.compute.clone(), documents.len());
        let _reader = self.readers.acquire().await;
        let read = move || {
            let _permit = compute.acquire();
            documents.iter().map(|document| loaded.read(document)).collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| vec![Err(no_answer()); count])
    }

    fn is_short(&self, document: &str, prepared: &Prepared) -> bool {
        let cost = u64::from(prepared.cost).max(document.len() as u64 / BYTES_PER_COST);
        self.native && self.meters.pace.estimate(cost) <= INLINE
    }

    fn answer_here(&self, prepared: Prepared) -> Answer {
        let begun = Instant::now();
        let batch = std::slice::from_ref(&prepared);
        let answer = self.loaded.infer(batch).pop().unwrap_or_else(|| Err(no_answer()));
        let took = begun.elapsed();
        self.meters.pace.saw(u64::from(prepared.cost), took);
        self.meters.batch(batch, self.loaded.package.manifest.batch.cost);
        self.meters.inferred(took);
        answer
    }

    /// Learns its pace from the package's first check, which has been answered before and so is warm.
    fn try_pace(&self) {
        if !self.native {
            return;
        }
        let Some(check) = self.loaded.package.manifest.checks.first() else { return };
        if let Ok(prepared) = self.loaded.read(&check.input) {
            let try_it = || {
                let begun = Instant::now();
                drop(self.loaded.infer(std::slice::from_ref(&prepared)));
                begun.elapsed()
            };
            // The others lost their processor to somebody.
            if let Some(fastest) = (0..TRIES).map(|_| try_it()).min() {
                self.meters.pace.saw(u64::from(prepared.cost), fastest);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.meters.resident.decrement(self.bytes as f64);
    }
}

fn native(loaded: &Loaded) -> bool {
    let backend = loaded.package.manifest.runtime.backend;
    !loaded.apart && matches!(backend, Backend::Linear | Backend::Tagger | Backend::Trees)
}

fn settings(loaded: &Loaded, compute: &Arc<Compute>) -> Settings {
    let manifest = &loaded.package.manifest;
    let remote = matches!(manifest.runtime.backend, Backend::Oip | Backend::JsonHttp);
    // What is asked over a socket or a pipe keeps to its time itself.
    let keeps_time = remote || loaded.apart;
    let mut limits = Limits::of(&manifest.batch);
    if remote && !takes_lists(manifest) {
        // It is asked one by one: each thread takes one.
        limits.max_items = 1;
    }
    Settings {
        limits,
        max_queue: manifest.batch.max_queue,
        instances: manifest.runtime.instances,
        timeout: (!keeps_time).then(|| Duration::from_millis(manifest.runtime.timeout_ms)),
        compute: (!remote).then(|| compute.clone()),
    }
}

fn takes_lists(manifest: &Manifest) -> bool {
    let (section, unless_said) = match manifest.runtime.backend {
        Backend::Oip => (&manifest.oip, true),
        _ => (&manifest.json_http, false),
    };
    let said = section.as_ref().and_then(|section| section.get("batch")).and_then(toml::Value::as_bool);
    said.unwrap_or(unless_said)
}

async fn wait(receiver: oneshot::Receiver<Answer>, deadline: Instant) -> Answer {
    match tokio::time::timeout_at(deadline.into(), receiver).await {
        Ok(Ok(answer)) => answer,
        // Dropped unanswered: its deadline passed while it waited.
        Ok(Err(_)) | Err(_) => Err(InferError::unavailable("timeout", "the model gave no answer before the deadline")),
    }
}

fn no_answer() -> InferError {
    InferError::unavailable("panic", "the input was left without an answer")
}
