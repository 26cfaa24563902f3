//! One model version that is served.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

use super::beside::beside;
use super::memory::{Memory, Promise};
use super::opener::Open;
use super::running::Running;
use crate::batch::{Answer, Compute};
use crate::loaded::Loaded;
use crate::manifest::Manifest;
use crate::model::{InferError, RunsOn};
use crate::open::OpenError;
use crate::package::Package;

/// A model version: in memory, or unloaded for want of it and back when asked.
///
/// Errors of its answers, by `code` ([`InferError`]): `bad_input` (permanent), `bad_output` (permanent), `panic`,
/// `wrong_answer_count`, `timeout` (the call or the deadline), `overloaded` (too many wait, it hangs or rests after crashes,
/// or the models in use leave no memory for it: HTTP 429), `server_overloaded` (a remote one said so), `model_crashed`, `out_of_memory`, `model_unavailable` (it could not be brought back into memory; a remote one did not answer).
pub struct Served {
    this: Weak<Self>,
    package: Arc<Package>,
    input_schema: Value,
    output_schema: Value,
    runs_on: RunsOn,
    running: Mutex<Option<Arc<Running>>>,
    /// What those wait for who asked for it while it was away: one load for all of them, which outlives each.
    waking: Mutex<Option<watch::Receiver<Option<Woken>>>>,
    /// Bytes it needs, as far as it has shown.
    bytes: u64,
    /// Its place holds something broken now: unloaded, it could not come back.
    kept: AtomicBool,
    last_used: AtomicU64,
    memory: Arc<Memory>,
    compute: Arc<Compute>,
    /// How it comes back; `None` when it never leaves.
    open: Option<Arc<dyn Open>>,
}

/// How a load ended.
type Woken = Result<Arc<Running>, InferError>;

/// Where a served model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    InMemory,
    /// Unloaded to save memory; the next input brings it back.
    Unloaded,
}

impl Served {
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.package.manifest
    }

    #[must_use]
    pub fn package(&self) -> &Arc<Package> {
        &self.package
    }

    /// SHA-256 of its manifest, in hex, which names the whole package.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.package.digest
    }

    #[must_use]
    pub fn runs_on(&self) -> &RunsOn {
        &self.runs_on
    }

    #[must_use]
    pub fn state(&self) -> State {
        if self.lock().is_some() { State::InMemory } else { State::Unloaded }
    }

    /// JSON Schema of input documents.
    #[must_use]
    pub fn input_schema(&self) -> &Value {
        &self.input_schema
    }

    /// JSON Schema of result documents.
    #[must_use]
    pub fn output_schema(&self) -> &Value {
        &self.output_schema
    }

    /// Answers each document (JSON text), in order, whatever the model does. Dropping the future cancels what waits.
    pub async fn infer(&self, documents: Vec<String>, deadline: Instant) -> Vec<Answer> {
        let count = documents.len();
        match self.running(deadline).await {
            Ok(running) => running.infer(documents, deadline).await,
            Err(error) => vec![Err(error); count],
        }
    }

    /// Answers one document (JSON text).
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn infer_one(&self, document: &str, deadline: Instant) -> Answer {
        self.running(deadline).await?.infer_one(document, deadline).await
    }

    /// Inputs that wait for a thread.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().as_ref().map_or(0, |running| running.waiting())
    }

    /// Calls that were given up on and still run.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.lock().as_ref().map_or(0, |running| running.stuck())
    }

    /// Whether so many calls hang that it is asked no more until one of them comes back.
    #[must_use]
    pub fn hangs(&self) -> bool {
        self.lock().as_ref().is_some_and(|running| running.hangs())
    }

    /// Bytes it keeps in memory now.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.lock().as_ref().map_or(0, |running| running.bytes)
    }

    pub(super) fn new(
        loaded: Loaded,
        memory: &Arc<Memory>,
        compute: &Arc<Compute>,
        open: Option<Arc<dyn Open>>,
        promise: Option<Promise>,
    ) -> Result<Arc<Self>, OpenError> {
        let package = loaded.package.clone();
        let (input_schema, output_schema) = (package.input_schema()?, package.output_schema()?);
        let bytes = loaded.resident_bytes();
        if bytes > memory.budget() {
            let budget = memory.budget();
            return Err(OpenError::Unavailable(format!("it needs {bytes} bytes; models may have {budget} together")));
        }
        let running = start(loaded, compute)?;
        let served = Arc::new_cyclic(|this| Self {
            this: this.clone(),
            package,
            input_schema,
            output_schema,
            runs_on: running.loaded.runs_on(),
            running: Mutex::new(Some(Arc::new(running))),
            waking: Mutex::default(),
            bytes,
            kept: AtomicBool::new(false),
            last_used: AtomicU64::new(memory.tick()),
            memory: memory.clone(),
            compute: compute.clone(),
            open,
        });
        match promise {
            Some(promise) => promise.redeem(|| memory.watch(&served)),
            None => memory.watch(&served),
        }
        if !memory.make_room(&served) {
            // It took more than it said, and all others are busy: it has shown that it answers, and comes back when it
            // is asked.
            served.unload();
        }
        Ok(served)
    }

    pub(super) fn pinned(loaded: Loaded, memory: &Arc<Memory>, compute: &Arc<Compute>) -> Result<Arc<Self>, OpenError> {
        Self::new(loaded, memory, compute, None, None)
    }

    /// Whether it is to stay in memory because it could not come back.
    pub(super) fn keep(&self, kept: bool) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    /// Drops the model unless a call is in flight or it cannot come back; the bytes that this frees.
    pub(super) fn unload(&self) -> u64 {
        let mut running = self.lock();
        if !self.is_idle(running.as_ref()) {
            return 0;
        }
        running.take().map_or(0, |running| running.bytes)
    }

    /// The bytes that [`Served::unload`] would free.
    pub(super) fn idle_bytes(&self) -> u64 {
        let running = self.lock();
        running.as_ref().filter(|running| self.is_idle(Some(running))).map_or(0, |running| running.bytes)
    }

    fn is_idle(&self, running: Option<&Arc<Running>>) -> bool {
        // Whoever uses it has a reference of its own, taken under the lock.
        let unused = running.is_some_and(|running| Arc::strong_count(running) == 1);
        unused && self.open.is_some() && !self.kept.load(Ordering::Relaxed)
    }

    async fn running(&self, deadline: Instant) -> Woken {
        self.last_used.store(self.memory.tick(), Ordering::Relaxed);
        if let Some(running) = self.lock().clone() {
            return Ok(running);
        }
        let mut waking = match self.wake() {
            Ok(waking) => waking,
            Err(running) => return Ok(running),
        };
        match tokio::time::timeout_at(deadline.into(), waking.wait_for(Option::is_some)).await {
            Ok(Ok(woken)) => woken.clone().unwrap_or_else(|| Err(unavailable("its load ended without an outcome"))),
            Ok(Err(_)) => Err(unavailable("its load ended without an outcome")),
            Err(_) => Err(InferError::unavailable("timeout", "the model was not back in memory before the deadline")),
        }
    }

    /// The load under way, begun unless there is one; the model itself when it has come back meanwhile.
    fn wake(&self) -> Result<watch::Receiver<Option<Woken>>, Arc<Running>> {
        let mut waking = self.waking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = self.lock().clone() {
            return Err(running);
        }
        if let Some(waking) = &*waking {
            return Ok(waking.clone());
        }
        let (sender, receiver) = watch::channel(None);
        if let Some(this) = self.this.upgrade() {
            *waking = Some(receiver.clone());
            tokio::spawn(async move {
                let woken = this.load().await;
                *this.waking.lock().unwrap_or_else(PoisonError::into_inner) = None;
                sender.send_replace(Some(woken));
            });
        }
        Ok(receiver)
    }

    async fn load(&self) -> Woken {
        let Some(open) = self.open.clone() else { return Err(unavailable("it is not in memory")) };
        let Some(promise) = self.memory.promise(self.bytes) else { return Err(no_room()) };
        let (package, compute) = (self.package.clone(), self.compute.clone());
        let running = match beside(move || start(open.open(unchanged(package)?)?, &compute)).await {
            Some(Ok(running)) => Arc::new(running),
            Some(Err(error)) => return Err(unavailable(&error.to_string())),
            None => return Err(unavailable("it panicked while it was opened")),
        };
        promise.redeem(|| *self.lock() = Some(running.clone()));
        if !self.memory.make_room(self) {
            // It takes more than it did.
            *self.lock() = None;
            return Err(no_room());
        }
        Ok(running)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let manifest = self.manifest();
        write!(f, "{}/{} {} {:?}", manifest.task_type, manifest.version, self.digest(), self.state())
    }
}

/// The package, if its folder still holds what it held: another content must not answer in this one's name.
fn unchanged(package: Arc<Package>) -> Result<Arc<Package>, OpenError> {
    let Some(folder) = package.folder() else { return Ok(package) };
    let now = Package::read(folder)?;
    if now.digest == package.digest {
        Ok(Arc::new(now))
    } else {
        Err(OpenError::Broken("its folder holds another package now".to_owned()))
    }
}

fn start(loaded: Loaded, compute: &Arc<Compute>) -> Result<Running, OpenError> {
    Running::start(loaded, compute).map_err(|error| OpenError::Unavailable(format!("no thread for it: {error}")))
}

fn no_room() -> InferError {
    InferError::unavailable("overloaded", "the models in use leave no memory for this one")
}

fn unavailable(reason: &str) -> InferError {
    InferError::unavailable("model_unavailable", format!("the model could not be loaded: {reason}"))
}
