//! What is said of each ended attempt: a line in the log, and its span, where spans are collected.

use insightforge_schema::trace::{Told, below, trace_id};

use crate::end::Judged;
use crate::judge::Verdict;
use crate::worker::ServedLane;

/// Says it of attempts that began at `began_us`.
pub(crate) fn tell(lane: &ServedLane, ended: &[Judged<'_>], began_us: i64) {
    for judged in ended {
        log(judged);
        span(lane, judged, began_us);
    }
}

/// A failure for good is worth a look, unless the input was wrong: that is its caller's.
fn log(judged: &Judged<'_>) {
    let reference = judged.attempt.reference;
    let (task, attempt) = (reference.task, reference.attempt);
    let trace_id = || trace_id(task, reference.context.trace.as_deref());
    match &judged.verdict {
        Verdict::Completed { .. } => {
            tracing::debug!(task.id = %task, trace_id = trace_id(), attempt, "a task was completed");
        }
        Verdict::Failed { code, .. } if code == "bad_input" => {
            tracing::debug!(task.id = %task, trace_id = trace_id(), attempt, %code, "a task failed for good");
        }
        Verdict::Failed { code, message, .. } => {
            tracing::warn!(task.id = %task, trace_id = trace_id(), attempt, %code, error = message, "a task failed for good");
        }
        Verdict::Retry { code, next_attempt, .. } => {
            tracing::debug!(task.id = %task, trace_id = trace_id(), attempt, %code, next_attempt, "an attempt failed");
        }
    }
}

fn span(lane: &ServedLane, judged: &Judged<'_>, began_us: i64) {
    let reference = judged.attempt.reference;
    let Some(span) = below(reference.context.trace.as_deref()) else { return };
    let by = judged.by.as_deref();
    let (task, attempt) = (reference.task.to_string(), reference.attempt.to_string());
    let version = by.map_or(lane.lane.model_version.as_str(), |by| &by.version);
    let (in_model, batch) = by.map_or((0, 0), |by| (by.took.as_micros(), by.batch_size));
    let (in_model, batch) = (in_model.to_string(), batch.to_string());
    let about = [
        ("task.id", task.as_str()),
        ("attempt", &attempt),
        ("task_type", &lane.lane.task_type),
        ("model_version", version),
        ("inference_us", &in_model),
        ("batch_size", &batch),
    ];
    let error = match &judged.verdict {
        Verdict::Completed { .. } => None,
        Verdict::Failed { code, .. } | Verdict::Retry { code, .. } => Some(code.as_ref()),
    };
    span.tell(Told {
        name: "analyze",
        kind: "consumer",
        error,
        about: &about,
        start_us: Some(began_us),
        ..Told::default()
    });
}
