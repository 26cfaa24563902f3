//! The figures the sender gives to Prometheus.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::schedule::Verdict;

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_counter!("if_webhook_attempts_total", "Delivery attempts, by outcome: delivered, retry, gave_up, blocked");
    describe_histogram!("if_webhook_attempt_duration_seconds", Unit::Seconds, "Duration of a delivery attempt");
    describe_gauge!("if_webhook_outbox_pending", "Outbox rows not yet delivered or given up, counted up to 100000");
    describe_gauge!("if_webhook_in_flight", "Deliveries being sent");
}

/// The handles, looked up once.
pub(super) struct Meters {
    delivered: Counter,
    retry: Counter,
    gave_up: Counter,
    blocked: Counter,
    duration: Histogram,
    pub(super) pending: Gauge,
    pub(super) in_flight: Gauge,
}

impl Meters {
    pub(super) fn new() -> Self {
        let attempts = |outcome: &'static str| counter!("if_webhook_attempts_total", "outcome" => outcome);
        Self {
            delivered: attempts("delivered"),
            retry: attempts("retry"),
            gave_up: attempts("gave_up"),
            blocked: attempts("blocked"),
            duration: histogram!("if_webhook_attempt_duration_seconds"),
            pending: gauge!("if_webhook_outbox_pending"),
            in_flight: gauge!("if_webhook_in_flight"),
        }
    }

    /// An attempt has been recorded.
    pub(super) fn attempted(&self, verdict: Verdict, took: Duration) {
        match verdict {
            Verdict::Delivered => self.delivered.increment(1),
            Verdict::Retry(_) => self.retry.increment(1),
            Verdict::GaveUp => self.gave_up.increment(1),
            Verdict::Blocked => self.blocked.increment(1),
        }
        self.duration.record(took);
    }
}
