//! How long a model takes for a unit of cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Nanoseconds, smoothed; 0 before the first call.
#[derive(Default)]
pub(crate) struct Pace(AtomicU64);

impl Pace {
    /// Unknown is long.
    pub(crate) fn estimate(&self, cost: u64) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            pace => Duration::from_nanos(pace.saturating_mul(cost)),
        }
    }

    pub(crate) fn saw(&self, cost: u64, took: Duration) {
        let seen = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / cost.max(1);
        let old = self.0.load(Ordering::Relaxed);
        // One call that lost its processor to another says little: no sample counts for more than twice the old pace.
        let new = if old == 0 { seen } else { old - old / 16 + seen.min(old * 2) / 16 };
        self.0.store(new.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_sample_that_was_slow_is_corrected_by_those_after_it() {
        let pace = Pace::default();
        assert_eq!(pace.estimate(1), Duration::MAX);
        pace.saw(10, Duration::from_millis(100));
        assert_eq!(pace.estimate(10), Duration::from_millis(100));
        for _ in 0..200 {
            pace.saw(100, Duration::from_micros(100));
        }
        assert!(pace.estimate(100) < Duration::from_micros(150), "{:?}", pace.estimate(100));
        pace.saw(1, Duration::from_secs(10));
        assert!(pace.estimate(100) < Duration::from_micros(200), "one that lost its processor");
    }
}
