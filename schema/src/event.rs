//! What can happen to a task, and the bytes it is stored as.
//!
//! One state change is one entry of a partition's stream, with four fields:
//!
//! | field | content |
//! |---|---|
//! | `type` | the event's type, in plain text (`submitted`, `completed`, …) |
//! | `task` | the task's id, in plain text |
//! | `first` | number of the task's own `submitted` event in this partition, `0` in that event itself |
//! | `e` | the rest: MessagePack, named fields, see [`encode`] |
//!
//! The first three are readable in `redis-cli`; the entry's id is the event's number (see [`crate::id::Position`]).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::address::shown_url;
use crate::envelope;
use crate::id::{Position, TaskId};

/// The encoding's version, in every stored event. A reader of version N reads every version up to N.
pub const ENCODING: u8 = 1;

/// The types of event this release writes.
pub const EVENT_TYPES: [&str; 11] = [
    "submitted",
    "processing",
    "completed",
    "failed",
    "retry_scheduled",
    "cancelled",
    "dead_lettered",
    "redriven",
    "purged",
    "batch_received",
    "shadowed",
];

/// One thing that happened, as it stands in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub position: Position,
    pub task: TaskId,
    /// Where the task's `submitted` event stands (same partition); equal to `position` for that event itself.
    pub first: Position,
    pub meta: Meta,
    pub change: Change,
}

/// What every event carries, whatever happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it happened by the clock of the process that saw it, in microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    pub tenant: String,
    /// Who did it: `api`, `analyzer/<worker>`, `reaper/<worker>`, or the caller's name once callers have one.
    pub actor: String,
    /// The attempt this belongs to, counted from 1; 0 before the first.
    pub attempt: u32,
    /// W3C `traceparent` of the request that caused it. `None` when the caller sent none: the task's own id is the trace
    /// then (see [`Event::trace_id`]), which costs no byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl Event {
    /// The trace this event belongs to, as 32 hex digits: the caller's (W3C Trace Context §3.2.2.3), else the task's id.
    #[must_use]
    pub fn trace_id(&self) -> String {
        crate::trace::trace_id(self.task, self.meta.trace.as_deref())
    }
}

/// What happened. Past tense; one variant an event type.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Submitted(Submitted),
    Processing(Processing),
    Completed(Completed),
    Failed(Failed),
    RetryScheduled(RetryScheduled),
    Cancelled(Cancelled),
    DeadLettered(DeadLettered),
    Redriven(Redriven),
    Purged(Purged),
    BatchReceived(BatchReceived),
    Shadowed(Shadowed),
    /// An entry this release cannot read: a later release's type, or broken bytes. A value, so that no reader stops.
    Unknown(Unknown),
}

/// A task was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitted {
    pub task_type: String,
    pub model_version: String,
    /// The caller's document: JSON text, as it was sent.
    pub data: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<u64>,
    /// Where to announce the outcome, beside the configured endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// The upload it came in with, and its line there (counted from 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchLine>,
    /// The failed or cancelled task this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<TaskId>,
    /// No attempt may begin after this, in microseconds since 1970-01-01 UTC; whether it has passed, Redis' clock says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_us: Option<i64>,
}

/// A task's own webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    pub url: String,
    /// The signing secret, sealed (see [`crate::seal`]); never in clear.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes_option")]
    pub sealed_secret: Option<Vec<u8>>,
}

/// A task's place in a batch upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLine {
    pub id: uuid::Uuid,
    pub line: u32,
}

/// An analyzer began an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processing {
    pub worker: String,
}

/// The attempt gave a result: terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    pub task_type: String,
    /// The version that answered, resolved from what was asked for.
    pub model_version: String,
    /// The result document: JSON text.
    pub result: String,
    /// Time in the model, shared by all tasks of the micro-batch, in microseconds.
    pub inference_us: u64,
    /// How many tasks the micro-batch held.
    pub batch_size: u32,
    /// How the version was found and what it was. Absent in events of releases before there were routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
}

/// Which model answered, and why that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// What the caller asked for: a version or an alias.
    pub asked: String,
    /// Why this version: a word of [`crate::registry::Reason`].
    pub reason: String,
    /// SHA-256 of the package's manifest, in hex; it names the whole package.
    pub digest: String,
    /// The engine, such as `linear` or `rten 0.27`.
    pub backend: String,
    /// Such as `cpu`, `cuda:0`, `remote`.
    pub device: String,
    /// Number of the registry's last event that the choice took into account.
    pub registry_n: u64,
}

/// The task failed for good: terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub task_type: String,
    pub model_version: String,
    /// A stable word to filter by: `bad_input`, `timeout`, `panic`, `worker_lost`, `expired`, …
    pub code: String,
    /// For people.
    pub message: String,
    /// `true` when repeating could not have helped, `false` when the attempts were used up.
    pub permanent: bool,
    /// The model that was asked, when one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
}

/// The attempt failed and will be repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryScheduled {
    pub code: String,
    pub message: String,
    /// The attempt that comes next; equal to the one that ended when it was handed back without being used up.
    pub next_attempt: u32,
    /// When it is due, in microseconds since 1970-01-01 UTC.
    pub due_us: i64,
}

/// Somebody withdrew the task: terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    pub reason: String,
}

/// The failed task was put on the dead-letter list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettered {
    pub code: String,
}

/// The task was taken off the dead-letter list and repeated as another task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    pub as_task: TaskId,
    /// Why, when whoever did it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The task was taken off the dead-letter list and is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    pub reason: String,
}

/// A batch upload ended. Its event's `task` field is the batch's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchReceived {
    pub accepted: u32,
    pub rejected: u32,
}

/// A shadow version was asked too, after the answer: kept beside it, never the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadowed {
    pub task_type: String,
    pub model_version: String,
    pub digest: String,
    pub backend: String,
    pub device: String,
    /// The shadow's result document: JSON text. Absent when it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Why it gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ShadowError>,
    /// It says the same as the answer: the same top label, the same entities, or the same document.
    pub agrees: bool,
    /// From asking the shadow to its answer, in microseconds: the whole call.
    pub took_us: u64,
    /// How many documents it was asked about in that call.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub batch_size: u32,
}

impl Shadowed {
    /// An even part of the call that it was asked in, in microseconds.
    #[must_use]
    pub fn share_us(&self) -> u64 {
        self.took_us / u64::from(self.batch_size.max(1))
    }
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(count: &u32) -> bool {
    *count == 1
}

/// Why a shadow gave no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowError {
    pub code: String,
    pub message: String,
}

/// Why an entry could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    pub event_type: String,
    pub reason: String,
}

impl Change {
    /// The word in the stream's `type` field.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self {
            Self::Submitted(_) => "submitted",
            Self::Processing(_) => "processing",
            Self::Completed(_) => "completed",
            Self::Failed(_) => "failed",
            Self::RetryScheduled(_) => "retry_scheduled",
            Self::Cancelled(_) => "cancelled",
            Self::DeadLettered(_) => "dead_lettered",
            Self::Redriven(_) => "redriven",
            Self::Purged(_) => "purged",
            Self::BatchReceived(_) => "batch_received",
            Self::Shadowed(_) => "shadowed",
            Self::Unknown(unknown) => &unknown.event_type,
        }
    }

    /// What may be shown of it, as JSON: everything but secrets. Documents (the input, the result) appear as JSON when
    /// they are, else as text.
    #[must_use]
    pub fn public_data(&self) -> serde_json::Value {
        use serde_json::json;
        let document = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::from(text));
        match self {
            Self::Submitted(it) => json!({
                "task_type": it.task_type,
                "model_version": it.model_version,
                "data": document(&it.data),
                "user_id": it.user_id,
                "webhook_url": it.webhook.as_ref().map(|webhook| shown_url(&webhook.url)),
                "batch_id": it.batch.map(|batch| batch.id),
                "batch_line": it.batch.map(|batch| batch.line),
                "retry_of": it.retry_of,
                "expires_at": it.expires_us.and_then(rfc3339),
            }),
            Self::Processing(it) => json!(it),
            Self::Completed(it) => json!({
                "task_type": it.task_type,
                "model_version": it.model_version,
                "result": document(&it.result),
                "inference_us": it.inference_us,
                "batch_size": it.batch_size,
                "route": it.route,
            }),
            Self::Failed(it) => json!(it),
            Self::RetryScheduled(it) => json!(it),
            Self::Cancelled(it) => json!(it),
            Self::DeadLettered(it) => json!(it),
            Self::Redriven(it) => json!(it),
            Self::Purged(it) => json!(it),
            Self::BatchReceived(it) => json!(it),
            Self::Shadowed(it) => json!({
                "task_type": it.task_type,
                "model_version": it.model_version,
                "digest": it.digest,
                "backend": it.backend,
                "device": it.device,
                "result": it.result.as_deref().map(document),
                "error": it.error,
                "agrees": it.agrees,
                "took_us": it.took_us,
                "batch_size": it.batch_size,
            }),
            Self::Unknown(it) => json!({ "reason": it.reason }),
        }
    }

    /// Whether this ends a task. Exactly one such event a task is ever stored.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Failed(_) | Self::Cancelled(_))
    }
}

/// Encodes what goes into field `e`.
///
/// # Panics
/// On [`Change::Unknown`], which is only ever read.
#[must_use]
pub fn encode(meta: &Meta, change: &Change) -> Vec<u8> {
    match change {
        Change::Submitted(body) => envelope::pack(ENCODING, meta, body),
        Change::Processing(body) => envelope::pack(ENCODING, meta, body),
        Change::Completed(body) => envelope::pack(ENCODING, meta, body),
        Change::Failed(body) => envelope::pack(ENCODING, meta, body),
        Change::RetryScheduled(body) => envelope::pack(ENCODING, meta, body),
        Change::Cancelled(body) => envelope::pack(ENCODING, meta, body),
        Change::DeadLettered(body) => envelope::pack(ENCODING, meta, body),
        Change::Redriven(body) => envelope::pack(ENCODING, meta, body),
        Change::Purged(body) => envelope::pack(ENCODING, meta, body),
        Change::BatchReceived(body) => envelope::pack(ENCODING, meta, body),
        Change::Shadowed(body) => envelope::pack(ENCODING, meta, body),
        Change::Unknown(unknown) => unreachable!("{} is read, never written", unknown.event_type),
    }
}

/// Decodes field `e` of an entry of type `event_type`. Total: what cannot be read comes back as [`Change::Unknown`].
#[must_use]
pub fn decode(event_type: &str, bytes: &[u8]) -> (Meta, Change) {
    fn unpack<B: DeserializeOwned>(bytes: &[u8], wrap: fn(B) -> Change) -> Result<(Meta, Change), String> {
        let (meta, body) = envelope::unpack(ENCODING, bytes)?;
        Ok((meta, wrap(body)))
    }
    let decoded = match event_type {
        "submitted" => unpack(bytes, Change::Submitted),
        "processing" => unpack(bytes, Change::Processing),
        "completed" => unpack(bytes, Change::Completed),
        "failed" => unpack(bytes, Change::Failed),
        "retry_scheduled" => unpack(bytes, Change::RetryScheduled),
        "cancelled" => unpack(bytes, Change::Cancelled),
        "dead_lettered" => unpack(bytes, Change::DeadLettered),
        "redriven" => unpack(bytes, Change::Redriven),
        "purged" => unpack(bytes, Change::Purged),
        "batch_received" => unpack(bytes, Change::BatchReceived),
        "shadowed" => unpack(bytes, Change::Shadowed),
        _ => Err("this release knows no such event type".to_owned()),
    };
    decoded.unwrap_or_else(|reason| {
        let meta = Meta { at_us: 0, tenant: String::new(), actor: String::new(), attempt: 0, trace: None };
        (meta, Change::Unknown(Unknown { event_type: event_type.to_owned(), reason }))
    })
}

/// Microseconds since 1970-01-01 UTC by this machine's clock.
#[must_use]
pub fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Microseconds since 1970-01-01 UTC as people write a time; `None` beyond what a year can be.
#[must_use]
pub fn rfc3339(at_us: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_micros(at_us)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true))
}

/// MessagePack `bin` for an optional byte string (serde's default would write an array of numbers).
mod serde_bytes_option {
    use serde::{Deserializer, Serializer, de};

    #[expect(clippy::ref_option, reason = "serde's `with` passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_bytes(bytes),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        struct Bytes;
        impl<'de> de::Visitor<'de> for Bytes {
            type Value = Option<Vec<u8>>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a byte string or nothing")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Some(bytes.to_vec()))
            }
            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Partition;

    #[test]
    fn every_event_has_a_trace_the_callers_or_the_tasks_own() {
        let task: TaskId = "0190a6f0-0000-7000-8000-000000000001".parse().unwrap();
        let position = Position { partition: Partition(0), n: 1 };
        let event = |trace: Option<&str>| Event {
            position,
            task,
            first: position,
            meta: Meta {
                at_us: 0,
                tenant: "default".to_owned(),
                actor: "api".to_owned(),
                attempt: 0,
                trace: trace.map(str::to_owned),
            },
            change: Change::Cancelled(Cancelled { reason: String::new() }),
        };
        assert_eq!(event(None).trace_id(), "0190a6f0000070008000000000000001");
        let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(event(Some(sent)).trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn what_is_shown_of_an_event_has_no_secret_of_its_webhook() {
        let url = "https://example.com/hook?token=hidden".to_owned();
        let submitted = Submitted {
            task_type: "sentiment_analysis".to_owned(),
            model_version: "v1.0".to_owned(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: Some(Webhook { url, sealed_secret: Some(b"sealed".to_vec()) }),
            batch: None,
            retry_of: None,
            expires_us: None,
        };
        let shown = Change::Submitted(submitted).public_data();
        assert_eq!(shown["webhook_url"], "https://example.com/hook?…");
        let shown = shown.to_string();
        assert!(!shown.contains("hidden") && !shown.contains("seal"), "{shown}");
    }
}
