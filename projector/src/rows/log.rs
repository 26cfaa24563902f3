//! What a row of `task_logs` says.

use insightforge_schema::event::{Change, Event, Route, rfc3339};
use insightforge_schema::id::TaskId;
use serde::Serialize;

use super::{Time, cut};

pub(crate) fn log(event: &Event) -> impl Serialize + '_ {
    let (description, facts) = say(event);
    let details =
        Details { attempt: event.meta.attempt, actor: &event.meta.actor, trace: event.meta.trace.as_deref(), facts };
    let details = serde_json::to_string(&details).expect("writing to memory cannot fail, and every key is text");
    let (id, task) = (event.position.row_id(), event.first.row_id());
    (id, task, event.change.event_type(), description, details, Time(event.meta.at_us))
}

/// What a log row says beside its columns. The documents have rows of their own.
#[derive(Serialize)]
struct Details<'e> {
    attempt: u32,
    actor: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'e str>,
    #[serde(flatten)]
    facts: Facts<'e>,
}

/// An event's small facts.
#[derive(Serialize)]
#[serde(untagged)]
enum Facts<'e> {
    Submitted {
        bytes: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<String>,
    },
    Processing {
        worker: &'e str,
    },
    Completed {
        batch_size: u32,
        inference_us: u64,
        #[serde(flatten)]
        route: Routed<'e>,
    },
    Failed {
        code: &'e str,
        message: &'e str,
        permanent: bool,
        #[serde(flatten)]
        route: Routed<'e>,
    },
    Shadowed {
        model_version: &'e str,
        digest: &'e str,
        agrees: bool,
        took_us: u64,
        code: Option<&'e str>,
    },
    RetryScheduled {
        code: &'e str,
        due_us: i64,
        message: &'e str,
        next_attempt: u32,
    },
    Cancelled {
        reason: &'e str,
    },
    DeadLettered {
        code: &'e str,
    },
    Redriven {
        as_task: TaskId,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'e str>,
    },
    Purged {
        reason: &'e str,
    },
    Nothing {},
}

/// How the model was found, where the event says so.
#[derive(Default, Serialize)]
struct Routed<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route_reason: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_n: Option<u64>,
}

fn routed<'e>(route: Option<&'e Route>, model_version: &'e str) -> Routed<'e> {
    let Some(route) = route else { return Routed::default() };
    Routed {
        asked: Some(&route.asked),
        route_reason: Some(&route.reason),
        model_version: Some(model_version),
        digest: Some(&route.digest),
        backend: Some(&route.backend),
        device: Some(&route.device),
        registry_n: Some(route.registry_n),
    }
}

/// An event for people, and its small facts.
fn say(event: &Event) -> (String, Facts<'_>) {
    let attempt = event.meta.attempt;
    let (description, facts) = match &event.change {
        Change::Submitted(it) => (
            format!("submitted: {} {}", it.task_type, it.model_version),
            Facts::Submitted { bytes: it.data.len(), expires_at: it.expires_us.and_then(rfc3339) },
        ),
        Change::Processing(it) => (format!("attempt {attempt} began"), Facts::Processing { worker: &it.worker }),
        Change::Completed(it) => (
            format!("completed by {} {}", it.task_type, it.model_version),
            Facts::Completed {
                batch_size: it.batch_size,
                inference_us: it.inference_us,
                route: routed(it.route.as_ref(), &it.model_version),
            },
        ),
        Change::Failed(it) => (
            format!("failed: {}", it.code),
            Facts::Failed {
                code: &it.code,
                message: &it.message,
                permanent: it.permanent,
                route: routed(it.route.as_ref(), &it.model_version),
            },
        ),
        Change::RetryScheduled(it) => (
            format!("attempt {attempt} failed ({}); attempt {} follows", it.code, it.next_attempt),
            Facts::RetryScheduled {
                code: &it.code,
                due_us: it.due_us,
                message: &it.message,
                next_attempt: it.next_attempt,
            },
        ),
        Change::Cancelled(it) => ("cancelled".to_owned(), Facts::Cancelled { reason: &it.reason }),
        Change::DeadLettered(it) => ("put on the dead-letter list".to_owned(), Facts::DeadLettered { code: &it.code }),
        Change::Redriven(it) => (
            format!("repeated as {}", it.as_task),
            Facts::Redriven { as_task: it.as_task, reason: it.reason.as_deref() },
        ),
        Change::Purged(it) => {
            ("taken off the dead-letter list for good".to_owned(), Facts::Purged { reason: &it.reason })
        }
        Change::Shadowed(it) => (
            format!("shadowed by {}: {}", it.model_version, if it.agrees { "agrees" } else { "differs" }),
            Facts::Shadowed {
                model_version: &it.model_version,
                digest: &it.digest,
                agrees: it.agrees,
                took_us: it.share_us(),
                code: it.error.as_ref().map(|error| error.code.as_str()),
            },
        ),
        Change::BatchReceived(_) | Change::Unknown(_) => (String::new(), Facts::Nothing {}),
    };
    (cut(&description, 255).to_owned(), facts)
}
