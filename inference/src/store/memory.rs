//! The memory budget: kept free before it is taken, by unloading what was used longest ago.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::served::Served;

/// Everything that may be in memory, with the order of its use.
pub(super) struct Memory {
    budget: u64,
    clock: AtomicU64,
    known: Mutex<Vec<Weak<Served>>>,
    /// Bytes kept for models on their way into memory. Held while anybody counts, so that no two promise the same bytes.
    promised: Mutex<u64>,
}

/// Bytes kept for a model on its way into memory; free again when dropped.
pub(super) struct Promise {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, clock: AtomicU64::new(0), known: Mutex::default(), promised: Mutex::default() })
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// A number greater than all before: who used last has the greatest.
    pub(super) fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn watch(&self, served: &Arc<Served>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|served| served.strong_count() > 0);
        known.push(Arc::downgrade(served));
    }

    pub(super) fn resident(&self) -> u64 {
        self.all().iter().map(|served| served.resident_bytes()).sum()
    }

    /// Keeps so many bytes, all there are when it is more, for a model on its way into memory: what was used longest ago
    /// and is idle is unloaded for it. `None`, and nothing is unloaded, while those in use leave too little.
    pub(super) fn promise(self: &Arc<Self>, bytes: u64) -> Option<Promise> {
        let bytes = bytes.min(self.budget);
        let mut promised = self.promised();
        let most = self.budget.checked_sub(*promised + bytes)?;
        if bytes > 0 && !self.unload_down_to(most, None) {
            return None;
        }
        *promised += bytes;
        Some(Promise { memory: self.clone(), bytes })
    }

    /// Unloads what was used longest ago and is idle until everything fits; says whether it does. `keep` is spared.
    pub(super) fn make_room(&self, keep: &Served) -> bool {
        let promised = self.promised();
        self.unload_down_to(self.budget.saturating_sub(*promised), Some(keep))
    }

    fn unload_down_to(&self, most: u64, keep: Option<&Served>) -> bool {
        let mut all = self.all();
        all.sort_by_key(|served| served.last_used());
        let spared = |served: &Arc<Served>| keep.is_some_and(|keep| std::ptr::eq(&raw const **served, keep));
        let mut resident: u64 = all.iter().map(|served| served.resident_bytes()).sum();
        let idle: u64 = all.iter().filter(|served| !spared(served)).map(|served| served.idle_bytes()).sum();
        if resident.saturating_sub(idle) > most {
            return false;
        }
        for served in all.iter().filter(|served| !spared(served)) {
            if resident <= most {
                break;
            }
            resident = resident.saturating_sub(served.unload());
        }
        resident <= most
    }

    fn all(&self) -> Vec<Arc<Served>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(Weak::upgrade).collect()
    }

    fn promised(&self) -> MutexGuard<'_, u64> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Promise {
    /// The model is in memory once `install` has run: it counts itself from there.
    pub(super) fn redeem(mut self, install: impl FnOnce()) {
        let memory = self.memory.clone();
        let mut promised = memory.promised();
        install();
        *promised -= std::mem::take(&mut self.bytes);
    }

    /// Keeps nothing any longer.
    pub(super) fn give_up(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            *self.memory.promised() -= bytes;
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.give_up();
    }
}
