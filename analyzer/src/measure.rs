//! The figures an analyzer gives to Prometheus.

use std::time::Duration;

use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::end::{Tally, appended};

pub(crate) const PROCESSING: &str = "processing";
pub(crate) const COMPLETED: &str = "completed";
pub(crate) const FAILED: &str = "failed";
pub(crate) const DEAD_LETTERED: &str = "dead_lettered";
pub(crate) const RETRY_SCHEDULED: &str = "retry_scheduled";
pub(crate) const SHADOWED: &str = "shadowed";

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    insightforge_inference::batch::describe_metrics();
    describe_counter!("if_tasks_started_total", "Attempts begun, by what was asked for: a version or an alias");
    describe_counter!(
        "if_tasks_finished_total",
        "Attempts ended, by the version that was asked and outcome: completed, failed, retried, lost, expired"
    );
    describe_histogram!("if_inference_batch_size", "Tasks a model was asked about at once");
    describe_histogram!("if_inference_duration_seconds", Unit::Seconds, "Duration of a micro-batch in the model");
    describe_histogram!("if_queue_wait_seconds", Unit::Seconds, "From a task's submission to its first attempt");
    describe_gauge!("if_tasks_in_flight", "Tasks taken and not yet ended");
    describe_counter!("if_leases_reaped_total", "Entries of silent holders dealt with, by outcome");
    describe_gauge!("if_last_read_timestamp_seconds", Unit::Seconds, "When this process last took a task (Unix time)");
    describe_counter!("if_events_appended_total", "Events appended to the journal, by type");
    describe_counter!("if_model_changes_total", "Models loaded, reloaded, unloaded or refused");
    describe_counter!("if_shadow_results_total", "What shadows said beside an answer: agrees, differs, failed");
    describe_counter!("if_shadow_dropped_total", "Answers that no shadow was compared with, by reason");
    describe_gauge!("if_lane_tasks", "Tasks on a lane that wait for an attempt or are in one");
    describe_gauge!("if_lane_oldest_seconds", Unit::Seconds, "Since when the oldest task on a lane lies there");
    // At zero from the start: a counter that appears with its first count has not risen for Prometheus.
    for event_type in [PROCESSING, COMPLETED, FAILED, DEAD_LETTERED, RETRY_SCHEDULED, SHADOWED] {
        counter!("if_events_appended_total", "type" => event_type).increment(0);
    }
    for change in ["loaded", "reloaded", "unloaded", "refused"] {
        counter!("if_model_changes_total", "change" => change).increment(0);
    }
    for reason in ["queue_full", "not_here", "overloaded", "too_late", "not_written"] {
        counter!("if_shadow_dropped_total", "reason" => reason).increment(0);
    }
    for outcome in ["dropped", "requeued", "retried", "failed"] {
        counter!("if_leases_reaped_total", "outcome" => outcome).increment(0);
    }
}

/// The handles of one lane, looked up once.
pub(crate) struct LaneMeters {
    pub(crate) in_flight: Gauge,
    started: Counter,
    lost: Counter,
    queue_wait: Histogram,
}

impl LaneMeters {
    pub(crate) fn new(lane: &Lane) -> Self {
        let (task_type, model_version) = (lane.task_type.clone(), lane.model_version.clone());
        Self {
            in_flight: gauge!("if_tasks_in_flight"),
            started: counter!("if_tasks_started_total", "task_type" => task_type.clone(),
                "model_version" => model_version.clone()),
            lost: counter!("if_tasks_finished_total", "task_type" => task_type.clone(),
                "model_version" => model_version, "outcome" => "lost"),
            queue_wait: histogram!("if_queue_wait_seconds", "task_type" => task_type),
        }
    }

    pub(crate) fn started(&self, count: usize) {
        self.started.increment(count as u64);
        events(PROCESSING, count);
    }

    /// A task's time from its submission to now, by two processes' clocks.
    pub(crate) fn waited(&self, waited_us: i64) {
        self.queue_wait.record(waited_us.max(0) as f64 / 1e6);
    }

    /// Attempts that were taken away before they ended.
    pub(crate) fn lost(&self, count: usize) {
        self.lost.increment(count as u64);
    }
}

/// A call of a model for tasks of a lane.
pub(crate) fn inferred(lane: &Lane, batch_size: usize, took: Duration) {
    histogram!("if_inference_batch_size", "task_type" => lane.task_type.clone()).record(batch_size as f64);
    histogram!("if_inference_duration_seconds", "task_type" => lane.task_type.clone()).record(took);
}

/// Attempts ended, by the version that was asked; what was asked for when none was.
pub(crate) fn ended(task_type: &str, model_version: &str, tally: Tally) {
    for (outcome, count) in
        [("completed", tally.completed), ("failed", tally.failed), ("retried", tally.retried), ("lost", tally.lost)]
    {
        if count > 0 {
            counter!("if_tasks_finished_total", "task_type" => task_type.to_owned(),
                "model_version" => model_version.to_owned(), "outcome" => outcome)
            .increment(count as u64);
        }
    }
    for (event_type, count) in appended(tally) {
        events(event_type, count);
    }
}

/// Tasks of a lane that were ended because their deadline had passed.
pub(crate) fn expired(lane: &Lane, count: usize) {
    if count > 0 {
        counter!("if_tasks_finished_total", "task_type" => lane.task_type.clone(),
            "model_version" => lane.model_version.clone(), "outcome" => "expired")
        .increment(count as u64);
        events(FAILED, count);
    }
}

/// Something happened to a model of this process.
pub(crate) fn models(change: &'static str) {
    counter!("if_model_changes_total", "change" => change).increment(1);
}

/// A shadow's result was noted.
pub(crate) fn shadowed(task_type: &str, model_version: &str, outcome: &'static str) {
    counter!("if_shadow_results_total", "task_type" => task_type.to_owned(),
        "model_version" => model_version.to_owned(), "outcome" => outcome)
    .increment(1);
    events(SHADOWED, 1);
}

/// A shadow was not asked, or what it said was not noted.
pub(crate) fn shadow_dropped(reason: &'static str) {
    counter!("if_shadow_dropped_total", "reason" => reason).increment(1);
}

/// Counts events of a type that were appended.
pub(crate) fn events(event_type: &'static str, count: usize) {
    if count > 0 {
        counter!("if_events_appended_total", "type" => event_type).increment(count as u64);
    }
}

pub(crate) fn reaped(outcome: &'static str) {
    counter!("if_leases_reaped_total", "outcome" => outcome).increment(1);
}

/// What lies on a lane of a partition now.
pub(crate) fn waiting(partition: Partition, lane: &Lane, tasks: u64, oldest_s: f64) {
    let (partition, lane) = (partition.to_string(), lane.to_string());
    gauge!("if_lane_tasks", "partition" => partition.clone(), "lane" => lane.clone()).set(tasks as f64);
    gauge!("if_lane_oldest_seconds", "partition" => partition, "lane" => lane).set(oldest_s);
}

pub(crate) fn last_read(at_ms: i64) {
    gauge!("if_last_read_timestamp_seconds").set(at_ms as f64 / 1e3);
}
