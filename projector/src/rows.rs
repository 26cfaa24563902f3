//! What the tables' rows are made of, told once: the columns, and how a task or an event fills them.
//!
//! A row is serialized in the order of its table's columns. [`crate::literal`] writes new rows as literals, [`crate::write`]
//! sends changed ones as JSON for the server to unfold, and a verification compares rows with what it reads.

mod log;

use std::borrow::Cow;

use insightforge_schema::event::{Change, Completed, Event, Shadowed, Submitted};
use insightforge_schema::id::TaskId;
use insightforge_schema::task::{IllegalEvent, Task};
use serde::{Serialize, Serializer};

pub(crate) use log::log;

use crate::document::document;

/// A table and its columns, in the order in which rows are serialized; `id` first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [Column],
}

/// A column's name and how its values are written.
pub(crate) type Column = (&'static str, Kind);

/// How a column's values are written in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As a number, of this SQL type.
    Number(&'static str),
    /// As text, of this SQL type.
    Text(&'static str),
    /// As a UUID.
    Id,
    /// As the text of a JSON document.
    Document,
    /// As [`Time`].
    Time,
    /// As [`Hex`].
    Bytes,
}

use Kind::{Bytes, Document, Id, Number, Text};

const KEY: Kind = Number("BIGINT UNSIGNED");
const TIME: Kind = Kind::Time;

/// Characters that the columns of names, of a worker and of an error's message hold; the last is bounded in bytes.
const NAME_CHARS: usize = 64;
const REASON_CHARS: usize = 16;
const WORKER_CHARS: usize = 255;
const MESSAGE_CHARS: usize = 65_535 / 4;

/// How many of the columns of [`TASKS`] later events change: the first ones.
pub(crate) const CHANGING: usize = 13;

pub(crate) const TASKS: Table = Table {
    name: "analysis_tasks",
    columns: &[
        ("id", KEY),
        ("model_version", Text("VARCHAR(64)")),
        ("status", Text("VARCHAR(16)")),
        ("attempt", Number("SMALLINT UNSIGNED")),
        ("worker", Text("VARCHAR(255)")),
        ("error_code", Text("VARCHAR(64)")),
        ("error_message", Text("TEXT")),
        ("redriven_as", Id),
        ("dead_lettered", Number("TINYINT")),
        ("last_n", Number("BIGINT UNSIGNED")),
        ("started_at", TIME),
        ("completed_at", TIME),
        ("updated_at", TIME),
        ("task_id", Id),
        ("tenant", Text("VARCHAR(64)")),
        ("user_id", Number("BIGINT UNSIGNED")),
        ("task_type", Text("VARCHAR(64)")),
        ("data_payload", Document),
        ("batch_id", Id),
        ("batch_line", Number("INT UNSIGNED")),
        ("retry_of", Id),
        ("webhook_url", Text("VARCHAR(2048)")),
        ("webhook_secret", Bytes),
        ("created_at", TIME),
    ],
};

pub(crate) const RESULTS: Table = Table {
    name: "analysis_results",
    columns: &[
        ("id", KEY),
        ("analysis_task_id", KEY),
        ("result_data", Document),
        ("inference_us", Number("BIGINT UNSIGNED")),
        ("model_version", Text("VARCHAR(64)")),
        ("model_digest", Text("VARCHAR(64)")),
        ("backend", Text("VARCHAR(64)")),
        ("route_reason", Text("VARCHAR(16)")),
        ("created_at", TIME),
        ("updated_at", TIME),
    ],
};

pub(crate) const SHADOWS: Table = Table {
    name: "analysis_shadow_results",
    columns: &[
        ("id", KEY),
        ("analysis_task_id", KEY),
        ("task_type", Text("VARCHAR(64)")),
        ("model_version", Text("VARCHAR(64)")),
        ("model_digest", Text("VARCHAR(64)")),
        ("backend", Text("VARCHAR(64)")),
        ("result_data", Document),
        ("error_code", Text("VARCHAR(64)")),
        ("error_message", Text("TEXT")),
        ("agrees", Number("TINYINT")),
        ("took_us", Number("BIGINT UNSIGNED")),
        ("created_at", TIME),
    ],
};

pub(crate) const LOGS: Table = Table {
    name: "task_logs",
    columns: &[
        ("id", KEY),
        ("analysis_task_id", KEY),
        ("event_type", Text("VARCHAR(32)")),
        ("description", Text("VARCHAR(255)")),
        ("details", Document),
        ("created_at", TIME),
    ],
};

pub(crate) const BATCHES: Table = Table {
    name: "analysis_batches",
    columns: &[
        ("id", KEY),
        ("batch_id", Id),
        ("tenant", Text("VARCHAR(64)")),
        ("accepted", Number("INT UNSIGNED")),
        ("rejected", Number("INT UNSIGNED")),
        ("created_at", TIME),
    ],
};

pub(crate) const FAULTS: Table = Table {
    name: "projection_faults",
    columns: &[
        ("id", KEY),
        ("task_id", Id),
        ("event_type", Text("VARCHAR(64)")),
        ("reason", Text("TEXT")),
        ("created_at", TIME),
    ],
};

/// Microseconds since 1970-01-01 UTC; a `DATETIME(6)` in the table.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Time(pub(crate) i64);

/// Bytes, as hexadecimal digits on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hex<'e>(pub(crate) &'e [u8]);

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct("Hex", &hex::encode(self.0))
    }
}

/// The first [`CHANGING`] columns of a task.
#[derive(Debug, Serialize)]
pub(crate) struct Changed<'t>(
    u64,
    &'t str,
    &'t str,
    u32,
    Option<&'t str>,
    Option<&'t str>,
    Option<&'t str>,
    Option<TaskId>,
    u8,
    u64,
    Option<Time>,
    Option<Time>,
    Time,
);

pub(crate) fn changed(task: &Task) -> Changed<'_> {
    Changed(
        task.first.row_id(),
        cut(&task.model_version, NAME_CHARS),
        task.status.as_str(),
        task.attempt.min(u16::MAX.into()),
        task.worker.as_deref().map(|worker| cut(worker, WORKER_CHARS)),
        task.error.as_ref().map(|error| cut(&error.code, NAME_CHARS)),
        task.error.as_ref().map(|error| cut(&error.message, MESSAGE_CHARS)),
        task.redriven_as,
        u8::from(task.dead_lettered),
        task.last_n,
        task.started_us.map(Time),
        task.finished_us.map(Time),
        Time(task.updated_us),
    )
}

/// All columns of a task.
#[derive(Debug, Serialize)]
pub(crate) struct New<'t>(
    u64,
    &'t str,
    &'t str,
    u32,
    Option<&'t str>,
    Option<&'t str>,
    Option<&'t str>,
    Option<TaskId>,
    u8,
    u64,
    Option<Time>,
    Option<Time>,
    Time,
    TaskId,
    &'t str,
    Option<u64>,
    &'t str,
    Cow<'t, str>,
    Option<uuid::Uuid>,
    Option<u32>,
    Option<TaskId>,
    Option<&'t str>,
    Option<Hex<'t>>,
    Time,
);

pub(crate) fn new<'t>(task: &'t Task, submitted: &'t Submitted) -> New<'t> {
    let webhook = submitted.webhook.as_ref();
    let it = changed(task);
    New(
        it.0,
        it.1,
        it.2,
        it.3,
        it.4,
        it.5,
        it.6,
        it.7,
        it.8,
        it.9,
        it.10,
        it.11,
        it.12,
        task.id,
        cut(&task.tenant, NAME_CHARS),
        submitted.user_id,
        cut(&task.task_type, NAME_CHARS),
        document(&submitted.data),
        submitted.batch.map(|batch| batch.id),
        submitted.batch.map(|batch| batch.line),
        submitted.retry_of,
        webhook.map(|webhook| webhook.url.as_str()),
        webhook.and_then(|webhook| webhook.sealed_secret.as_deref()).map(Hex),
        Time(task.submitted_us),
    )
}

pub(crate) fn result<'e>(event: &'e Event, completed: &'e Completed) -> impl Serialize + 'e {
    let (id, task) = (event.position.row_id(), event.first.row_id());
    let at = Time(event.meta.at_us);
    let route = completed.route.as_ref();
    (
        id,
        task,
        document(&completed.result),
        completed.inference_us,
        cut(&completed.model_version, NAME_CHARS),
        route.map(|route| cut(&route.digest, NAME_CHARS)),
        route.map(|route| cut(&route.backend, NAME_CHARS)),
        route.map(|route| cut(&route.reason, REASON_CHARS)),
        at,
        at,
    )
}

pub(crate) fn shadow<'e>(event: &'e Event, shadowed: &'e Shadowed) -> impl Serialize + 'e {
    let (id, task) = (event.position.row_id(), event.first.row_id());
    let error = shadowed.error.as_ref();
    (
        id,
        task,
        cut(&shadowed.task_type, NAME_CHARS),
        cut(&shadowed.model_version, NAME_CHARS),
        cut(&shadowed.digest, NAME_CHARS),
        cut(&shadowed.backend, NAME_CHARS),
        shadowed.result.as_deref().map(document),
        error.map(|error| cut(&error.code, NAME_CHARS)),
        error.map(|error| cut(&error.message, MESSAGE_CHARS)),
        u8::from(shadowed.agrees),
        shadowed.share_us(),
        Time(event.meta.at_us),
    )
}

/// `None` when the event is no end of a batch upload.
pub(crate) fn batch(event: &Event) -> Option<impl Serialize + '_> {
    let Change::BatchReceived(batch) = &event.change else { return None };
    let id = event.position.row_id();
    Some((id, event.task, cut(&event.meta.tenant, NAME_CHARS), batch.accepted, batch.rejected, Time(event.meta.at_us)))
}

pub(crate) fn fault<'e>(event: &'e Event, illegal: &IllegalEvent) -> impl Serialize + use<'e> {
    let event_type = cut(event.change.event_type(), NAME_CHARS);
    let reason = cut(&illegal.to_string(), 4_096).to_owned();
    (event.position.row_id(), event.task, event_type, reason, Time(event.meta.at_us))
}

/// The first `most` characters: an event with a longer text than a column holds would hold up all that follow it.
fn cut(text: &str, most: usize) -> &str {
    match text.char_indices().nth(most) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Meta, Webhook};
    use insightforge_schema::id::{Partition, Position};
    use insightforge_schema::task;

    use super::*;

    fn event(change: Change) -> Event {
        let position = Position { partition: Partition(3), n: 7 };
        let meta = Meta {
            at_us: 1_700_000_000_000_001,
            tenant: "acme".to_owned(),
            actor: "api".to_owned(),
            attempt: 2,
            trace: Some("00-aa-bb-01".to_owned()),
        };
        Event { position, task: TaskId(uuid::Uuid::nil()), first: position, meta, change }
    }

    fn submitted() -> Change {
        Change::Submitted(Submitted {
            task_type: "t".to_owned(),
            model_version: "v1".to_owned(),
            data: "no document".to_owned(),
            user_id: None,
            webhook: Some(Webhook { url: "https://example.org/".to_owned(), sealed_secret: Some(vec![0, 255]) }),
            batch: None,
            retry_of: None,
            expires_us: None,
        })
    }

    #[test]
    fn every_row_has_a_value_for_each_column_of_its_table() {
        let event = event(submitted());
        let Change::Submitted(it) = &event.change else { unreachable!("made above") };
        let task = task::apply(None, &event).unwrap();
        let row = serde_json::to_value(new(&task, it)).unwrap();
        assert_eq!(row.as_array().unwrap().len(), TASKS.columns.len());
        assert_eq!(row[17], "\"no document\"");
        assert_eq!((&row[22], &row[23]), (&"00ff".into(), &1_700_000_000_000_001_i64.into()));
        let row_changed = serde_json::to_value(changed(&task)).unwrap();
        assert_eq!(row_changed.as_array().unwrap()[..], row.as_array().unwrap()[..CHANGING]);
        let log = serde_json::to_value(log(&event)).unwrap();
        assert_eq!(log.as_array().unwrap().len(), LOGS.columns.len());
        assert_eq!(log[4], r#"{"attempt":2,"actor":"api","trace":"00-aa-bb-01","bytes":11}"#);
        let illegal = IllegalEvent::SubmittedTwice { position: event.position, first: event.position };
        let fault = serde_json::to_value(fault(&event, &illegal)).unwrap();
        assert_eq!(fault.as_array().unwrap().len(), FAULTS.columns.len());
    }
}
