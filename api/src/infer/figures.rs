//! The figures of the synchronous door.

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

const REQUESTS: &str = "if_infer_requests_total";
const SECONDS: &str = "if_infer_duration_seconds";

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_counter!(
        REQUESTS,
        "Inputs answered at the synchronous door, by task type, version that answered and outcome; \
         no version when none was found"
    );
    describe_histogram!(SECONDS, Unit::Seconds, "From an input read at the synchronous door to its answer");
}

/// One version's figures, looked up once.
pub(super) struct Figures {
    task_type: String,
    version: String,
    answered: Counter,
    seconds: Histogram,
}

impl Figures {
    pub(super) fn of(task_type: &str, version: &str) -> Self {
        let (task_type, version) = (task_type.to_owned(), version.to_owned());
        let answered =
            counter!(REQUESTS, "task_type" => task_type.clone(), "version" => version.clone(), "outcome" => "ok");
        let seconds = histogram!(SECONDS, "task_type" => task_type.clone(), "version" => version.clone());
        Self { task_type, version, answered, seconds }
    }

    pub(super) fn answered(&self, inputs: u64, seconds: f64) {
        self.answered.increment(inputs);
        self.seconds.record(seconds);
    }

    pub(super) fn failed(&self, code: &str) {
        let (task_type, version) = (self.task_type.clone(), self.version.clone());
        counter!(REQUESTS, "task_type" => task_type, "version" => version, "outcome" => code.to_owned()).increment(1);
    }
}

/// Counts a request that no version answered. What a caller wrote is no label: its values would be without number.
pub(super) fn unresolved(code: &'static str) {
    counter!(REQUESTS, "task_type" => "", "version" => "", "outcome" => code).increment(1);
}
