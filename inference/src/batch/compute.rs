//! Leave to compute: as many threads of all models at once as the process has cores.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A number of permits, given in the order they were asked for, so that no busy model starves another.
#[derive(Debug)]
pub struct Compute {
    permits: usize,
    tickets: Mutex<Tickets>,
    returned: Condvar,
}

/// Ticket `n` may compute once `n - permits` have come back.
#[derive(Debug, Default)]
struct Tickets {
    drawn: u64,
    returned: u64,
}

/// One thread's leave; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit(Arc<Compute>);

impl Compute {
    /// At least one permit.
    #[must_use]
    pub fn new(permits: usize) -> Arc<Self> {
        Arc::new(Self { permits: permits.max(1), tickets: Mutex::default(), returned: Condvar::new() })
    }

    #[must_use]
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// Waits for its turn.
    pub(super) fn acquire(self: &Arc<Self>) -> Permit {
        let mut tickets = self.lock();
        let mine = tickets.drawn;
        tickets.drawn += 1;
        while mine >= tickets.returned + self.permits as u64 {
            tickets = self.returned.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
        Permit(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().returned += 1;
        self.0.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn never_more_threads_compute_than_there_are_permits_and_each_has_its_turn() {
        let compute = Compute::new(2);
        let (inside, most, turns) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let permit = compute.acquire();
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        turns.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), turns.into_inner()), (2, 1_600));
    }
}
