//! Leave to compute: as many threads of all models at once as the process has cores.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

thread_local! {
    /// Whose leave this thread has.
    static HELD: RefCell<Option<Arc<Compute>>> = const { RefCell::new(None) };
}

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

/// This thread's leave; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(PhantomData<*const ()>);

/// Gives this thread's leave back for as long as it only waits, and takes its turn again.
pub(crate) fn aside<T>(wait: impl FnOnce() -> T) -> T {
    let held = HELD.take();
    if let Some(compute) = &held {
        compute.give_back();
    }
    let outcome = wait();
    if let Some(compute) = held {
        compute.draw();
        HELD.set(Some(compute));
    }
    outcome
}

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

    /// Waits for its turn. A thread asks once at a time.
    pub(crate) fn acquire(self: &Arc<Self>) -> Permit {
        self.draw();
        HELD.set(Some(self.clone()));
        Permit(PhantomData)
    }

    fn draw(&self) {
        let mut tickets = self.lock();
        let mine = tickets.drawn;
        tickets.drawn += 1;
        while mine >= tickets.returned + self.permits as u64 {
            tickets = self.returned.wait(tickets).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_back(&self) {
        self.lock().returned += 1;
        self.returned.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Tickets> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(compute) = HELD.take() {
            compute.give_back();
        }
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

    #[test]
    fn who_only_waits_lets_others_compute() {
        let compute = Compute::new(1);
        let permit = compute.acquire();
        aside(|| std::thread::scope(|scope| drop(scope.spawn(|| drop(compute.acquire())).join())));
        drop(permit);
        drop(compute.acquire());
    }
}
