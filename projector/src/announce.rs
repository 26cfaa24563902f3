//! The webhook of an ended task: who is told, and the bytes.

use bytes::Bytes;
use insightforge_schema::event::{Change, Event};
use insightforge_schema::task::{Status, Task};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::document::document;
use crate::webhook::{Endpoint, TASK_ENDPOINT};

/// The body of a webhook: the wire contract's fields first, then what was added.
#[derive(Serialize)]
struct Body<'a> {
    task_id: String,
    /// `completed` or `failed`; a cancelled task is `failed` with the error code `cancelled`.
    status: &'static str,
    result: Option<Box<RawValue>>,
    error_message: Option<&'a str>,
    model_version: &'a str,
    error_code: Option<&'a str>,
    task_type: &'a str,
    attempt: u32,
    /// Position of the event in the journal: the same at every repetition.
    position: String,
    /// RFC 3339, UTC.
    occurred_at: String,
}

/// An outbox row to be.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Row id of the terminal event.
    pub id: u64,
    pub endpoint: String,
    pub task: Task,
    pub url: Option<String>,
    pub sealed_secret: Option<Vec<u8>>,
    pub body: Bytes,
    /// W3C `traceparent` of the terminal event.
    pub trace: Option<String>,
}

/// The announcements of a terminal event: one for the task's own URL, one for each configured endpoint.
#[must_use]
pub fn announce(task: &Task, event: &Event, endpoints: &[Endpoint]) -> Vec<Announcement> {
    if endpoints.is_empty() && task.webhook.is_none() {
        return Vec::new();
    }
    let body = body(task, event);
    let announcement = |endpoint: &str, url, sealed_secret| Announcement {
        id: event.position.row_id(),
        endpoint: endpoint.to_owned(),
        task: task.clone(),
        url,
        sealed_secret,
        body: body.clone(),
        trace: event.meta.trace.clone(),
    };
    let own = task.webhook.as_ref();
    own.map(|own| announcement(TASK_ENDPOINT, Some(own.url.clone()), own.sealed_secret.clone()))
        .into_iter()
        .chain(endpoints.iter().map(|endpoint| announcement(&endpoint.name, None, None)))
        .collect()
}

fn body(task: &Task, event: &Event) -> Bytes {
    let result = match &event.change {
        Change::Completed(completed) => RawValue::from_string(document(&completed.result).into_owned()).ok(),
        _ => None,
    };
    let error = task.error.as_ref();
    let body = Body {
        task_id: task.id.to_string(),
        status: if task.status == Status::Completed { "completed" } else { "failed" },
        result,
        error_message: error.map(|error| error.message.as_str()),
        model_version: &task.model_version,
        error_code: error.map(|error| error.code.as_str()),
        task_type: &task.task_type,
        attempt: task.attempt,
        position: event.position.to_string(),
        occurred_at: insightforge_schema::tables::datetime(event.meta.at_us).and_utc().to_rfc3339(),
    };
    serde_json::to_vec(&body).expect("writing to memory cannot fail, and every key is text").into()
}
