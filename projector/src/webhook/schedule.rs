//! When a delivery that failed is tried again. Pure: no clock, no randomness of its own.

use std::time::Duration;

/// How long to wait after each failed attempt; as many attempts as waits, and the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
}

/// The example schedule of Standard Webhooks 1.0.0 ("Deliverability and reliability"): 75.6 hours in all.
impl Default for Schedule {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        let seconds = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        Self::new(seconds.map(Duration::from_secs).to_vec())
    }
}

impl Schedule {
    /// From the waits after the first, second, … failed attempt. None at all: one attempt only.
    #[must_use]
    pub fn new(waits: Vec<Duration>) -> Self {
        Self { waits }
    }
}
