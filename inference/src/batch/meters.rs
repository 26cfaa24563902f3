//! The figures of models for Prometheus.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::pace::Pace;
use super::pick::Bill;
use crate::manifest::{Cost, Manifest};
use crate::model::Prepared;

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_histogram!("if_model_queue_seconds", Unit::Seconds, "Time an input waited for a thread of its model");
    describe_histogram!("if_model_batch_size", "Inputs a model was asked about at once");
    describe_histogram!("if_model_batch_cost_size", "Cost of a batch in the model's unit, padding included");
    describe_histogram!("if_model_padding_ratio", "Part of a padded batch that is padding, 0 to 1");
    describe_histogram!("if_model_infer_seconds", Unit::Seconds, "Duration of one call of a model");
    describe_counter!("if_model_rejected_total", "Inputs turned away because too many waited");
    describe_counter!("if_model_expired_total", "Inputs whose deadline passed before a thread was free");
    describe_counter!("if_model_restarts_total", "Processes of a model that died or were killed and are started again");
    describe_gauge!("if_model_resident_bytes", Unit::Bytes, "Memory a model keeps; 0 while it is unloaded");
}

/// The handles of one model version, looked up once.
pub(crate) struct Meters {
    queue: Histogram,
    batch_size: Histogram,
    batch_cost: Histogram,
    padding: Histogram,
    infer: Histogram,
    rejected: Counter,
    expired: Counter,
    pub(crate) resident: Gauge,
    pub(crate) pace: Pace,
}

impl Meters {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        let labels = || [("task_type", manifest.task_type.clone()), ("model_version", manifest.version.clone())];
        Self {
            queue: histogram!("if_model_queue_seconds", &labels()),
            batch_size: histogram!("if_model_batch_size", &labels()),
            batch_cost: histogram!("if_model_batch_cost_size", &labels()),
            padding: histogram!("if_model_padding_ratio", &labels()),
            infer: histogram!("if_model_infer_seconds", &labels()),
            rejected: counter!("if_model_rejected_total", &labels()),
            expired: counter!("if_model_expired_total", &labels()),
            resident: gauge!("if_model_resident_bytes", &labels()),
            pace: Pace::default(),
        }
    }

    pub(super) fn queued(&self, waited: Duration) {
        self.queue.record(waited);
    }

    pub(crate) fn batch(&self, inputs: &[Prepared], unit: Cost) {
        let Some(bill) = Bill::of(inputs.iter().map(|input| input.cost)) else { return };
        self.batch_size.record(inputs.len() as f64);
        self.batch_cost.record(bill.cost(unit) as f64);
        if unit == Cost::Tokens {
            self.padding.record(bill.padding());
        }
    }

    pub(crate) fn inferred(&self, took: Duration) {
        self.infer.record(took);
    }

    pub(super) fn rejected(&self, inputs: u64) {
        self.rejected.increment(inputs);
    }

    pub(super) fn expired(&self, inputs: u64) {
        self.expired.increment(inputs);
    }
}
