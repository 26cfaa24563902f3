//! The projector's metrics.

use std::time::Duration;

use insightforge_schema::event::{EVENT_TYPES, Event, now_us};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Says what the metrics mean; once, after the recorder is installed.
pub fn describe_metrics() {
    crate::webhook::describe_metrics();
    describe_gauge!("if_last_read_timestamp_seconds", Unit::Seconds, "When the journal was last read, Unix time");
    describe_gauge!("if_projector_lag_events", "Events of a partition that are not in the tables yet");
    describe_gauge!("if_projector_lag_seconds", Unit::Seconds, "Age of the oldest event that is not in the tables yet");
    describe_counter!("if_projector_events_total", "Events folded, by type");
    describe_counter!("if_projector_transactions_total", "Transactions, by result");
    describe_histogram!(
        "if_projector_transaction_duration_seconds",
        Unit::Seconds,
        "From BEGIN to the answer to COMMIT"
    );
    describe_counter!("if_projector_illegal_events_total", "Events that could not be folded; see projection_faults");
    describe_histogram!("if_end_to_end_seconds", Unit::Seconds, "From the outcome's event to its row");
    // At zero from the start: a counter that appears with its first count has not risen for Prometheus.
    faults(0);
    for event_type in EVENT_TYPES {
        counter!("if_projector_events_total", "type" => event_type).increment(0);
    }
}

pub(crate) fn read_now() {
    gauge!("if_last_read_timestamp_seconds").set(now_us() as f64 / 1e6);
}

pub(crate) fn transaction(result: &'static str, took: Duration) {
    counter!("if_projector_transactions_total", "result" => result).increment(1);
    histogram!("if_projector_transaction_duration_seconds").record(took);
}

pub(crate) fn faults(count: usize) {
    counter!("if_projector_illegal_events_total").increment(count as u64);
}

/// Counts a committed run; the handles are looked up once a type, not once an event.
pub(crate) fn folded(events: &[Event]) {
    let mut counts: Vec<(&str, u64)> = Vec::new();
    let now = now_us();
    let end_to_end = histogram!("if_end_to_end_seconds");
    for event in events {
        let event_type = event.change.event_type();
        match counts.iter_mut().find(|(known, _)| *known == event_type) {
            Some((_, count)) => *count += 1,
            None => counts.push((event_type, 1)),
        }
        if event.change.is_terminal() {
            end_to_end.record((now - event.meta.at_us).max(0) as f64 / 1e6);
        }
    }
    for (event_type, count) in counts {
        // What a later release writes is counted together: a label's values must be few.
        let label = EVENT_TYPES.into_iter().find(|known| *known == event_type).unwrap_or("unknown");
        counter!("if_projector_events_total", "type" => label).increment(count);
    }
}
