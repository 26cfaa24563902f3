//! The projector's metrics.

use std::time::Duration;

use crate::archive::Step;
use crate::retain;
use insightforge_schema::event::{EVENT_TYPES, Event, now_us};
use insightforge_schema::id::Partition;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

/// Says what the metrics mean; once, after the recorder is installed.
pub fn describe_metrics() {
    crate::webhook::describe_metrics();
    describe_gauge!("if_last_read_timestamp_seconds", Unit::Seconds, "When the journal was last read, Unix time");
    describe_gauge!("if_projector_lag_events", "Events of a partition that are not in the tables yet");
    describe_gauge!("if_projector_lag_seconds", Unit::Seconds, "Age of the oldest event that is not in the tables yet");
    describe_gauge!(
        "if_journal_moved_back",
        "1 while the tables have events that the journal has not, because Redis lost its end; nothing is folded then"
    );
    describe_counter!("if_projector_events_total", "Events folded, by type");
    describe_counter!("if_projector_transactions_total", "Transactions, by result");
    describe_histogram!(
        "if_projector_transaction_duration_seconds",
        Unit::Seconds,
        "From BEGIN to the answer to COMMIT"
    );
    describe_counter!("if_projector_illegal_events_total", "Events that could not be folded; see projection_faults");
    describe_histogram!("if_end_to_end_seconds", Unit::Seconds, "From the outcome's event to its row");
    describe_gauge!("if_archive_lag_events", "Folded events of a partition that are in Redis only");
    describe_counter!("if_archive_events_total", "Events that this process has proven to be in the archive");
    describe_counter!("if_journal_trimmed_events_total", "Events that left Redis");
    describe_counter!(
        "if_archive_failures_total",
        "Steps of archiving or trimming that failed; nothing was trimmed by them"
    );
    describe_counter!("if_rows_deleted_total", "Tasks and announcements whose rows were deleted as too old");
    describe_gauge!("if_dead_letters", "Tasks that failed for good and that nobody has repeated or purged");
    describe_counter!("if_dead_letters_expired_total", "Dead letters that this process took off the list as too old");
    describe_counter!(
        "if_tasks_restored_total",
        "Tasks that Redis had lost a part of and that this process put back as the journal has them"
    );
    describe_gauge!(
        "if_projection_check_timestamp_seconds",
        Unit::Seconds,
        "When this process last compared, Unix time"
    );
    describe_counter!("if_projection_check_tasks_total", "Tasks folded again and compared with their rows");
    describe_counter!(
        "if_projection_check_differences_total",
        "Differences from the journal that these comparisons found"
    );
    // At zero from the start: a counter that appears with its first count has not risen for Prometheus.
    faults(0);
    moved_back(false);
    counter!("if_archive_events_total").increment(0);
    counter!("if_journal_trimmed_events_total").increment(0);
    counter!("if_archive_failures_total").increment(0);
    deleted(retain::Step::Tasks(0));
    deleted(retain::Step::Deliveries(0));
    letters_purged(0);
    restored(0);
    counter!("if_projection_check_tasks_total").increment(0);
    counter!("if_projection_check_differences_total").increment(0);
    for event_type in EVENT_TYPES {
        counter!("if_projector_events_total", "type" => event_type).increment(0);
    }
}

pub(crate) fn moved_back(is_back: bool) {
    gauge!("if_journal_moved_back").set(if is_back { 1.0 } else { 0.0 });
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

/// How far the archive is behind the tables; without one its mark is 0.
pub(crate) fn archive(partition: Partition, mark: u64, folded: u64) {
    gauge!("if_archive_lag_events", "partition" => partition.to_string()).set(folded.saturating_sub(mark) as f64);
}

pub(crate) fn archived(step: Step) {
    match step {
        Step::Archived { first, last, .. } => counter!("if_archive_events_total").increment(last + 1 - first),
        Step::Trimmed { events, .. } => counter!("if_journal_trimmed_events_total").increment(events),
        Step::Overtaken { .. } | Step::Idle => {}
    }
}

pub(crate) fn deleted(step: retain::Step) {
    let (what, count) = match step {
        retain::Step::Tasks(tasks) => ("tasks", tasks as u64),
        retain::Step::Deliveries(deliveries) => ("deliveries", deliveries),
        retain::Step::Waiting | retain::Step::Idle => return,
    };
    counter!("if_rows_deleted_total", "what" => what).increment(count);
}

pub(crate) fn dead_letters(letters: u64) {
    gauge!("if_dead_letters").set(letters as f64);
}

pub(crate) fn letters_purged(letters: usize) {
    counter!("if_dead_letters_expired_total").increment(letters as u64);
}

pub(crate) fn restored(tasks: usize) {
    counter!("if_tasks_restored_total").increment(tasks as u64);
}

pub(crate) fn checked(tasks: u64, differences: u64) {
    gauge!("if_projection_check_timestamp_seconds").set(now_us() as f64 / 1e6);
    counter!("if_projection_check_tasks_total").increment(tasks);
    counter!("if_projection_check_differences_total").increment(differences);
}

pub(crate) fn archiving_failed() {
    counter!("if_archive_failures_total").increment(1);
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
