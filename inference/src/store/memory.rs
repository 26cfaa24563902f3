//! The memory budget: what is unloaded when models need more than there is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::served::Served;

/// Everything that may be in memory, with the order of its use.
pub(super) struct Memory {
    budget: u64,
    clock: AtomicU64,
    known: Mutex<Vec<Weak<Served>>>,
}

impl Memory {
    pub(super) fn new(budget: u64) -> Arc<Self> {
        Arc::new(Self { budget, clock: AtomicU64::new(0), known: Mutex::default() })
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

    /// Unloads what was used longest ago and is idle until everything fits; says whether it does. `keep` is spared.
    pub(super) fn make_room(&self, keep: &Served) -> bool {
        let mut all = self.all();
        all.sort_by_key(|served| served.last_used());
        let mut resident: u64 = all.iter().map(|served| served.resident_bytes()).sum();
        for served in all {
            if resident <= self.budget {
                break;
            }
            if !std::ptr::eq(&raw const *served, keep) {
                resident = resident.saturating_sub(served.unload());
            }
        }
        resident <= self.budget
    }

    fn all(&self) -> Vec<Arc<Served>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().filter_map(Weak::upgrade).collect()
    }
}
