//! What the tables know of a task: its row, how far they are behind the journal, and its announcements.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::id::{TaskId, position_of_row};
use insightforge_schema::journal;
use insightforge_schema::task::Status;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use super::{End, LastError, Sources, Stand, Why, patiently};
use crate::ask::ask;
use crate::problem::Problem;
use crate::shape::{TaskStatus, utc};

/// For the tables: who asks why something hangs is not to hang as well.
const PATIENCE: Duration = Duration::from_secs(3);

/// How far the tables are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rows {
    /// The database could be asked.
    pub answer: bool,
    /// Status in the task's row; `null` when there is none yet.
    pub status: Option<String>,
    /// Events of the task's partition that are in the journal and not in the tables.
    pub behind_events: Option<u64>,
    /// When the projector last moved on in this partition.
    pub folded_at: Option<DateTime<Utc>>,
}

/// One endpoint that is told of the task's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Announcement {
    /// `task` for the task's own webhook, else the configured endpoint's name.
    pub endpoint: String,
    /// `due`, `sending`, `delivered` or `given_up`.
    #[schema(example = "delivered")]
    pub state: &'static str,
    pub attempts: u16,
    /// The next attempt; while it is being sent, the end of the sender's lease.
    pub due_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Status of the last answer, when there was one.
    pub last_status_code: Option<u16>,
    /// Why the last attempt failed without an answer.
    pub last_error: Option<String>,
    pub last_attempt_at: Option<DateTime<Utc>>,
}

/// The task's row.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Row {
    id: u64,
    task_type: String,
    model_version: String,
    status: String,
    attempt: u16,
    error_code: Option<String>,
    error_message: Option<String>,
    redriven_as: Option<String>,
    dead_lettered: bool,
    completed_at: Option<NaiveDateTime>,
    created_at: NaiveDateTime,
    expires_at: Option<String>,
}

const ROW: &str = "\
SELECT t.id, t.task_type, t.model_version, t.status, t.attempt, t.error_code, t.error_message, t.redriven_as,
    t.dead_lettered, t.completed_at, t.created_at, JSON_UNQUOTE(JSON_EXTRACT(l.details, '$.expires_at')) AS expires_at
FROM analysis_tasks t LEFT JOIN task_logs l ON l.id = t.id WHERE t.task_id = ?";

pub(super) async fn read(sources: Sources<'_>, task: TaskId) -> Result<Option<Row>, Problem> {
    soon(sqlx::query_as(ROW).bind(task.to_string()).fetch_optional(sources.pool)).await
}

async fn soon<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Problem> {
    let answer = tokio::time::timeout(PATIENCE, ask(question)).await;
    answer.unwrap_or_else(|_| Err(Problem::unavailable("the database")))
}

impl Row {
    pub(super) fn error(&self) -> Option<LastError> {
        let code = self.error_code.clone()?;
        Some(LastError { code, message: self.error_message.clone().unwrap_or_default() })
    }
}

/// A task that only the tables know: over for longer than records are kept, or Redis does not answer.
pub(super) fn of_row(task: TaskId, row: &Row) -> Why {
    let status = Status::parse(&row.status).map_or(TaskStatus::Pending, TaskStatus::from);
    let over = status.is_final();
    Why {
        task_id: task,
        status,
        stand: if over { Stand::Ended } else { Stand::Unknown },
        sentences: Vec::new(),
        task_type: row.task_type.clone(),
        model_version: row.model_version.clone(),
        position: position_of_row(row.id).to_string(),
        submitted_at: Some(utc(row.created_at)),
        expires_at: row
            .expires_at
            .as_deref()
            .and_then(|text| DateTime::parse_from_rfc3339(text).ok())
            .map(|at| at.to_utc()),
        attempt: row.attempt.into(),
        attempts_limit: None,
        last_error: row.error(),
        queue: None,
        holder: None,
        next_attempt: None,
        end: over.then(|| End {
            at: row.completed_at.map(utc),
            dead_letter: row.dead_lettered,
            redriven_as: row.redriven_as.clone(),
        }),
        analyzers: Vec::new(),
        remedy: None,
        rows: Rows::default(),
        webhooks: None,
    }
}

/// Adds how far the tables are and what became of the announcements. What cannot be read is left out.
pub(super) async fn add(sources: Sources<'_>, task: TaskId, row: Result<Option<Row>, Problem>, why: &mut Why) {
    let Ok(row) = row else { return };
    let partition = sources.partitions.of_task(task);
    let checkpoint = sqlx::query_as::<_, (u64, NaiveDateTime)>(
        "SELECT last_n, updated_at FROM projection_checkpoint WHERE projection = 'live' AND part = ?",
    );
    // The tables first: what is folded meanwhile must not look like a negative lag.
    let Ok(folded) = soon(checkpoint.bind(partition.0).fetch_optional(sources.pool)).await else { return };
    let last = patiently(journal::last_number(sources.link, sources.keys, partition)).await.ok();
    why.rows = Rows {
        answer: true,
        status: row.as_ref().map(|row| row.status.clone()),
        behind_events: last.map(|last| last.saturating_sub(folded.map_or(0, |(n, _)| n))),
        folded_at: folded.map(|(_, at)| utc(at)),
    };
    if let (Some(row), Some(end)) = (&row, &mut why.end) {
        end.redriven_as.clone_from(&row.redriven_as);
    }
    why.webhooks = soon(sqlx::query_as::<_, Owed>(OWED).bind(task.to_string()).fetch_all(sources.pool))
        .await
        .ok()
        .map(|owed| owed.into_iter().map(Announcement::from).collect());
}

/// The outbox is keyed by the terminal event's position, which the task's log knows.
const OWED: &str = "\
SELECT o.endpoint, o.state, o.attempts, o.due_at, o.finished_at, a.status_code, a.error, a.created_at AS tried_at
FROM analysis_tasks t
JOIN task_logs l ON l.analysis_task_id = t.id AND l.event_type IN ('completed', 'failed', 'cancelled')
JOIN webhook_outbox o ON o.id = l.id
LEFT JOIN webhook_attempts a ON a.id =
    (SELECT MAX(b.id) FROM webhook_attempts b WHERE b.outbox_id = o.id AND b.endpoint = o.endpoint)
WHERE t.task_id = ? ORDER BY o.endpoint LIMIT 50";

#[derive(FromRow)]
struct Owed {
    endpoint: String,
    state: u8,
    attempts: u16,
    due_at: NaiveDateTime,
    finished_at: Option<NaiveDateTime>,
    status_code: Option<u16>,
    error: Option<String>,
    tried_at: Option<NaiveDateTime>,
}

impl From<Owed> for Announcement {
    fn from(owed: Owed) -> Self {
        let state = match owed.state {
            0 => "due",
            1 => "sending",
            2 => "delivered",
            _ => "given_up",
        };
        Self {
            endpoint: owed.endpoint,
            state,
            attempts: owed.attempts,
            due_at: matches!(owed.state, 0 | 1).then(|| utc(owed.due_at)),
            finished_at: owed.finished_at.map(utc),
            last_status_code: owed.status_code,
            last_error: owed.error,
            last_attempt_at: owed.tried_at.map(utc),
        }
    }
}
