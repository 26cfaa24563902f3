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

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_counter!("if_tasks_started_total", "Attempts begun");
    describe_counter!("if_tasks_finished_total", "Attempts ended, by outcome: completed, failed, retried, lost");
    describe_histogram!("if_inference_batch_size", "Tasks a model was asked about at once");
    describe_histogram!("if_inference_duration_seconds", Unit::Seconds, "Duration of a micro-batch in the model");
    describe_histogram!("if_queue_wait_seconds", Unit::Seconds, "From a task's submission to its first attempt");
    describe_gauge!("if_tasks_in_flight", "Tasks taken and not yet ended");
    describe_counter!("if_leases_reaped_total", "Entries of silent holders dealt with, by outcome");
    describe_gauge!("if_last_read_timestamp_seconds", Unit::Seconds, "When this process last took a task (Unix time)");
    describe_counter!("if_events_appended_total", "Events appended to the journal, by type");
    describe_gauge!("if_lane_tasks", "Tasks on a lane that wait for an attempt or are in one");
    describe_gauge!("if_lane_oldest_seconds", Unit::Seconds, "Since when the oldest task on a lane lies there");
    // At zero from the start: a counter that appears with its first count has not risen for Prometheus.
    for event_type in [PROCESSING, COMPLETED, FAILED, DEAD_LETTERED, RETRY_SCHEDULED] {
        counter!("if_events_appended_total", "type" => event_type).increment(0);
    }
    for outcome in ["dropped", "requeued", "retried", "failed"] {
        counter!("if_leases_reaped_total", "outcome" => outcome).increment(0);
    }
}

/// The handles of one lane, looked up once.
pub(crate) struct LaneMeters {
    pub(crate) in_flight: Gauge,
    started: Counter,
    completed: Counter,
    failed: Counter,
    retried: Counter,
    lost: Counter,
    batch_size: Histogram,
    inference: Histogram,
    queue_wait: Histogram,
}

impl LaneMeters {
    pub(crate) fn new(lane: &Lane) -> Self {
        let (task_type, model_version) = (lane.task_type.clone(), lane.model_version.clone());
        let finished = |outcome: &'static str| {
            counter!("if_tasks_finished_total", "task_type" => task_type.clone(),
                "model_version" => model_version.clone(), "outcome" => outcome)
        };
        Self {
            in_flight: gauge!("if_tasks_in_flight"),
            started: counter!("if_tasks_started_total", "task_type" => task_type.clone(),
                "model_version" => model_version.clone()),
            completed: finished("completed"),
            failed: finished("failed"),
            retried: finished("retried"),
            lost: finished("lost"),
            batch_size: histogram!("if_inference_batch_size", "task_type" => task_type.clone()),
            inference: histogram!("if_inference_duration_seconds", "task_type" => task_type.clone()),
            queue_wait: histogram!("if_queue_wait_seconds", "task_type" => task_type.clone()),
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

    pub(crate) fn inferred(&self, batch_size: usize, took: Duration) {
        self.batch_size.record(batch_size as f64);
        self.inference.record(took);
    }

    pub(crate) fn ended(&self, tally: Tally) {
        self.completed.increment(tally.completed as u64);
        self.failed.increment(tally.failed as u64);
        self.retried.increment(tally.retried as u64);
        self.lost.increment(tally.lost as u64);
        for (event_type, count) in appended(tally) {
            events(event_type, count);
        }
    }
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
