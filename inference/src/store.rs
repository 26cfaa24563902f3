//! The model versions a process serves: found, verified, opened and tried while others go on answering, and dropped when
//! their package is gone.
//!
//! [`Store::scan`] is one step; its caller repeats it (every 2 s, say) and tells the world what changed. What a caller has
//! got from [`Store::get`] answers until the caller drops it, whatever happens to the store meanwhile: a version that is
//! replaced or removed ends when its last call has.

mod beside;
mod built_in;
mod memory;
mod mirror;
mod opener;
mod running;
mod scan;
mod served;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use self::built_in::built_in;
pub use self::mirror::{Mirror, MirrorError, Pulled};
pub use self::opener::{Apart, InThisProcess, Open, Opener};
pub use self::served::{Served, State};

use self::memory::Memory;
use self::scan::Scanner;
use crate::batch::Compute;
use crate::loaded::Loaded;
use crate::open::OpenError;

/// What a store is made of. It reads no environment.
pub struct StoreOptions {
    /// Serve the packages that are part of the program.
    pub built_in: bool,
    /// Folders that hold `<task_type>/<version>/model.toml`.
    pub folders: Vec<PathBuf>,
    /// How a package becomes a model: [`Opener`], or a test's own way.
    pub open: Arc<dyn Open>,
    /// Models keep at most so many bytes in memory; least used ones are unloaded and come back when asked.
    pub memory_bytes: u64,
    /// Threads that compute at once, of all models together: as many as there are cores, as a rule.
    pub compute: usize,
}

/// The model versions this process serves.
pub struct Store {
    served: RwLock<BTreeMap<String, BTreeMap<String, Arc<Served>>>>,
    memory: Arc<Memory>,
    compute: Arc<Compute>,
    scanner: tokio::sync::Mutex<Scanner>,
}

/// What a scan changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// Served from now on.
    Loaded(Arc<Served>),
    /// Another content under the same name: `served` answers from now on, the one with digest `from` ends what it has.
    Reloaded { served: Arc<Served>, from: String },
    /// Its package is gone; no new work is taken for it.
    Unloaded { task_type: String, version: String, digest: String },
    /// It cannot be served; what ran goes on. Told once a reason.
    Refused { task_type: String, version: String, reason: String },
    /// What was refused is gone, or what is served lies in its place again.
    Withdrawn { task_type: String, version: String },
}

impl Store {
    /// An empty store: the first [`Store::scan`] fills it.
    #[must_use]
    pub fn new(options: StoreOptions) -> Arc<Self> {
        let StoreOptions { built_in, folders, open, memory_bytes, compute } = options;
        Arc::new(Self {
            served: RwLock::default(),
            memory: Memory::new(memory_bytes),
            compute: Compute::new(compute),
            scanner: tokio::sync::Mutex::new(Scanner::new(built_in, folders, open)),
        })
    }

    /// One look at all sources. Cheap when nothing changed. Packages are opened and tried on threads of their own; until a
    /// new one answers its checks, the old one serves. Waits for what it finds new, for a minute at most.
    pub async fn scan(&self) -> Vec<Change> {
        self.scan_within(scan::SLOW).await
    }

    /// As [`Store::scan`], for a caller with less patience: what is not open by then is told by a later look.
    pub async fn scan_within(&self, patience: Duration) -> Vec<Change> {
        self.scanner.lock().await.step(self, patience).await
    }

    /// Keeps to the packages that `wanted` names by task type and version, from the next scan on. Others are not even
    /// opened.
    pub async fn keep_to(&self, wanted: impl Fn(&str, &str) -> bool + Send + Sync + 'static) {
        self.scanner.lock().await.wanted = Box::new(wanted);
    }

    /// Packages that were refused at the last look and still lie there: task type and version.
    pub async fn refused(&self) -> Vec<(String, String)> {
        self.scanner.lock().await.refused()
    }

    /// Every version that is served, by task type and version.
    #[must_use]
    pub fn served(&self) -> Vec<Arc<Served>> {
        self.read().values().flat_map(BTreeMap::values).cloned().collect()
    }

    #[must_use]
    pub fn get(&self, task_type: &str, version: &str) -> Option<Arc<Served>> {
        self.read().get(task_type)?.get(version).cloned()
    }

    /// Serves a model that was opened elsewhere, under its package's name, until the process ends. It is never unloaded.
    ///
    /// # Errors
    /// [`OpenError`] when the system has no thread for it.
    pub fn serve(&self, loaded: Loaded) -> Result<Arc<Served>, OpenError> {
        let served = Served::pinned(loaded, &self.memory, &self.compute)?;
        self.put(&served);
        Ok(served)
    }

    /// Bytes of all models that are in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.memory.resident()
    }

    fn put(&self, served: &Arc<Served>) -> Option<Arc<Served>> {
        let manifest = served.manifest();
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(manifest.task_type.clone()).or_default().insert(manifest.version.clone(), served.clone())
    }

    fn remove(&self, task_type: &str, version: &str) -> Option<Arc<Served>> {
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        let versions = all.get_mut(task_type)?;
        let gone = versions.remove(version);
        if versions.is_empty() {
            all.remove(task_type);
        }
        gone
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, BTreeMap<String, Arc<Served>>>> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }
}
