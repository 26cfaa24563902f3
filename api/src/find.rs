//! One task, wherever it is known: the live record in Redis, the row in the tables, or both. The record is the
//! authority while there is one; the row remembers longer and more.

use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::RESULT_TTL_S;
use insightforge_schema::event::{Change, Event, Meta, decode, now_us};
use insightforge_schema::id::{Position, TaskId, position_of_row};
use insightforge_schema::journal;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, LiveView};
use insightforge_schema::task::Status;
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json;

use crate::app::App;
use crate::ask::ask;
use crate::folded;
use crate::problem::Problem;
use crate::shape::{Document, TaskStatus, time_of, utc};

/// A reader has the tables to turn to; it does not wait for Redis as long as an upload does.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a task.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) task: TaskId,
    pub(crate) first: Position,
    pub(crate) tenant: Option<String>,
    pub(crate) user_id: Option<u64>,
    pub(crate) task_type: String,
    pub(crate) model_version: String,
    /// `None` when the journal no longer holds the event and the tables cannot be read.
    pub(crate) data: Option<Document>,
    pub(crate) status: TaskStatus,
    /// The attempt running or last run; 0 before the first.
    pub(crate) attempt: u32,
    pub(crate) worker: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) result: Option<Document>,
    pub(crate) inference_us: Option<u64>,
    /// The package that answered, by its digest; what ran it; why that version.
    pub(crate) model_digest: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) route_reason: Option<String>,
    pub(crate) batch: Option<(String, u32)>,
    pub(crate) retry_of: Option<String>,
    pub(crate) redriven_as: Option<String>,
    pub(crate) dead_lettered: bool,
    pub(crate) webhook_url: Option<String>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) created_at: Option<DateTime<Utc>>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) completed_at: Option<DateTime<Utc>>,
    pub(crate) updated_at: Option<DateTime<Utc>>,
}

/// A task as Redis has it.
pub(crate) struct Live {
    pub(crate) found: Found,
    /// Number of the terminal event, once ended.
    pub(crate) terminal: Option<u64>,
    /// `false` when an event it rests on has left the journal: the tables know more.
    whole: bool,
    ended_for_s: Option<u64>,
}

impl Live {
    /// Whether it is running, or ended within the cache's time. Records of tasks whose id came from the caller live on
    /// for a day, to know a repeated request; as a cache they count no longer than others.
    pub(crate) fn is_cached(&self) -> bool {
        self.ended_for_s.is_none_or(|seconds| seconds <= RESULT_TTL_S)
    }

    /// Whether it may be answered without a look at the tables.
    fn is_fresh(&self) -> bool {
        self.whole && self.is_cached()
    }
}

/// The task from Redis while that is fresh, else from the tables; `None` when neither knows it.
///
/// # Errors
/// 503 when what was asked could not be found out: a task is never said to be unknown because a server is down.
pub(crate) async fn find(app: &App, task: TaskId) -> Result<Option<Found>, Problem> {
    match live(app, task).await {
        Ok(Some(live)) if live.is_fresh() => Ok(Some(live.found)),
        live => join_in_time(app, task, live, row(app, task).await).await,
    }
}

/// The task with all that both know of it.
///
/// # Errors
/// See [`find`].
pub(crate) async fn find_all(app: &App, task: TaskId) -> Result<Option<Found>, Problem> {
    let (live, row) = tokio::join!(live(app, task), row(app, task));
    join_in_time(app, task, live, row).await
}

/// A task that has no record any more has ended: where its row does not say so, the tables may only be late.
async fn join_in_time(
    app: &App,
    task: TaskId,
    live: Result<Option<Live>, Problem>,
    row: Result<Option<Found>, Problem>,
) -> Result<Option<Found>, Problem> {
    if let (Ok(None), Ok(row)) = (&live, &row)
        && !row.as_ref().is_some_and(|row| row.status.is_final())
        && let Some(seconds) = too_late(app, task).await?
    {
        let detail = format!(
            "the tables are {seconds:.0} s behind the journal, and this task may be in what they lack; ask again"
        );
        return Err(
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "late", "Not in the tables yet", detail).retry_after(5)
        );
    }
    join(live, row)
}

/// How many seconds the tables are behind, when that is longer than an ended task's record is kept.
async fn too_late(app: &App, task: TaskId) -> Result<Option<f64>, Problem> {
    let partition = app.config.partitions.of_task(task);
    let folded = ask(folded::of(app, partition)).await?;
    let next = journal::range(&app.link, &app.keys, partition, folded + 1, None, 1);
    let next = tokio::time::timeout(PATIENCE, next).await;
    let next = next.unwrap_or_else(|_| Err(LinkError::Unavailable("no answer in time".to_owned())))?;
    let age_s = next.first().map_or(0.0, |event| (now_us() - event.meta.at_us) as f64 / 1e6);
    // Clocks of two machines may be a little apart.
    Ok(Some(age_s).filter(|age_s| *age_s > RESULT_TTL_S as f64 * 0.9))
}

fn join(live: Result<Option<Live>, Problem>, row: Result<Option<Found>, Problem>) -> Result<Option<Found>, Problem> {
    match (live, row) {
        (Ok(Some(live)), Ok(Some(row))) => Ok(Some(overlay(live.found, row))),
        // The tables are behind or away: the record is enough.
        (Ok(Some(live)), _) => Ok(Some(live.found)),
        (_, Ok(Some(row))) => Ok(Some(row)),
        (Ok(None), Ok(None)) => Ok(None),
        (Err(problem), _) | (_, Err(problem)) => Err(problem),
    }
}

/// The row, brought up to what the record says.
fn overlay(live: Found, row: Found) -> Found {
    if row.status == live.status && row.attempt >= live.attempt {
        return row;
    }
    Found {
        status: live.status,
        attempt: live.attempt,
        worker: live.worker,
        model_version: live.model_version,
        result: live.result,
        inference_us: live.inference_us,
        model_digest: live.model_digest,
        backend: live.backend,
        route_reason: live.route_reason,
        // While an attempt is repeated, only the row knows what went wrong with the one before.
        error_code: live.error_code.or(row.error_code).filter(|_| live.status != TaskStatus::Completed),
        error_message: live.error_message.or(row.error_message).filter(|_| live.status != TaskStatus::Completed),
        completed_at: live.completed_at,
        updated_at: live.updated_at.or(row.updated_at),
        ..row
    }
}

/// The task's record in Redis.
///
/// # Errors
/// 503 when Redis does not answer.
pub(crate) async fn live(app: &App, task: TaskId) -> Result<Option<Live>, Problem> {
    let partition = app.config.partitions.of_task(task);
    let view = tokio::time::timeout(PATIENCE, script::view(&app.link, &app.keys, partition, task));
    let view = view.await.unwrap_or_else(|_| Err(LinkError::Unavailable("no answer in time".to_owned())))?;
    Ok(view.map(|view| read_live(task, Position { partition, n: view.first }, &view)))
}

fn read_live(task: TaskId, first: Position, view: &LiveView) -> Live {
    let (asked, submitted) = decode("submitted", &view.submitted);
    let end = view.terminal.as_ref().map(|(_, bytes)| decode(view.outcome.as_deref().unwrap_or(""), bytes));
    let lane = Lane::parse(&view.lane).unwrap_or_else(Lane::unroutable);
    let mut found = Found {
        task,
        first,
        tenant: None,
        user_id: None,
        task_type: lane.task_type,
        model_version: lane.model_version,
        data: None,
        status: status(view),
        attempt: attempt(view, end.as_ref()),
        worker: view.worker.clone(),
        error_code: None,
        error_message: None,
        result: None,
        inference_us: None,
        model_digest: None,
        backend: None,
        route_reason: None,
        batch: None,
        retry_of: None,
        redriven_as: None,
        dead_lettered: false,
        webhook_url: None,
        expires_at: None,
        created_at: time_of(asked.at_us),
        started_at: None,
        completed_at: None,
        updated_at: time_of(asked.at_us),
    };
    let mut whole = true;
    if let Change::Submitted(submitted) = submitted {
        found.tenant = Some(asked.tenant);
        found.user_id = submitted.user_id;
        found.task_type = submitted.task_type;
        found.model_version = submitted.model_version;
        found.data = Some(Document::from_text(&submitted.data));
        found.batch = submitted.batch.map(|batch| (batch.id.to_string(), batch.line));
        found.retry_of = submitted.retry_of.map(|id| id.to_string());
        found.webhook_url = submitted.webhook.map(|webhook| webhook.url);
        found.expires_at = submitted.expires_us.and_then(time_of);
    } else {
        whole = false;
    }
    if let Some((meta, change)) = end {
        whole &= take_in_end(&mut found, &meta, change);
    }
    Live { found, terminal: view.terminal.as_ref().map(|(n, _)| *n), whole, ended_for_s: view.ended_for_s }
}

/// `false` when the event cannot be read.
fn take_in_end(found: &mut Found, meta: &Meta, change: Change) -> bool {
    match change {
        Change::Completed(completed) => {
            found.model_version = completed.model_version;
            found.result = Some(Document::from_text(&completed.result));
            found.inference_us = Some(completed.inference_us);
            if let Some(route) = completed.route {
                found.model_digest = Some(route.digest);
                found.backend = Some(route.backend);
                found.route_reason = Some(route.reason);
            }
        }
        Change::Failed(failed) => {
            found.error_code = Some(failed.code);
            found.error_message = Some(failed.message);
        }
        Change::Cancelled(cancelled) => {
            found.error_code = Some("cancelled".to_owned());
            found.error_message = Some(cancelled.reason);
        }
        _ => return false,
    }
    found.completed_at = time_of(meta.at_us);
    found.updated_at = found.completed_at;
    true
}

fn status(view: &LiveView) -> TaskStatus {
    match view.state.as_str() {
        "P" => TaskStatus::Processing,
        "Z" => view.outcome.as_deref().and_then(Status::parse).map_or(TaskStatus::Failed, TaskStatus::from),
        _ => TaskStatus::Pending,
    }
}

/// While it waits, the record counts the attempt that comes next.
fn attempt(view: &LiveView, end: Option<&(Meta, Change)>) -> u32 {
    match (view.state.as_str(), end) {
        ("P", _) => view.attempt,
        ("Z", Some((meta, Change::Completed(_) | Change::Failed(_)))) => meta.attempt,
        ("Z", Some(_)) if view.worker.is_some() => view.attempt,
        _ => view.attempt.saturating_sub(1),
    }
}

/// The terminal event as [`script::view`] gives it, as an event.
pub(crate) fn terminal_event(task: TaskId, first: Position, view: &LiveView) -> Option<Event> {
    let (n, bytes) = view.terminal.as_ref()?;
    let (meta, change) = decode(view.outcome.as_deref().unwrap_or(""), bytes);
    Some(Event { position: Position { partition: first.partition, n: *n }, task, first, meta, change })
}

#[derive(FromRow)]
struct Row {
    id: u64,
    tenant: String,
    user_id: Option<u64>,
    task_type: String,
    data_payload: Json<Box<RawValue>>,
    model_version: String,
    status: String,
    attempt: u16,
    worker: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    batch_id: Option<String>,
    batch_line: Option<u32>,
    retry_of: Option<String>,
    redriven_as: Option<String>,
    dead_lettered: bool,
    webhook_url: Option<String>,
    expires_at: Option<String>,
    started_at: Option<NaiveDateTime>,
    completed_at: Option<NaiveDateTime>,
    created_at: NaiveDateTime,
    updated_at: NaiveDateTime,
    result_data: Option<Json<Box<RawValue>>>,
    inference_us: Option<u64>,
    model_digest: Option<String>,
    backend: Option<String>,
    route_reason: Option<String>,
}

/// The log row of the `submitted` event has the task's own key.
const ROW: &str = "\
SELECT t.id, t.tenant, t.user_id, t.task_type, t.data_payload, t.model_version, t.status, t.attempt, t.worker, t.error_code,
    t.error_message, t.batch_id, t.batch_line, t.retry_of, t.redriven_as, t.dead_lettered, t.webhook_url, t.started_at,
    t.completed_at, t.created_at, t.updated_at, r.result_data, r.inference_us, r.model_digest, r.backend,
    r.route_reason, JSON_UNQUOTE(JSON_EXTRACT(l.details, '$.expires_at')) AS expires_at
FROM analysis_tasks t
LEFT JOIN analysis_results r ON r.analysis_task_id = t.id
LEFT JOIN task_logs l ON l.id = t.id
WHERE t.task_id = ?";

/// The task's row.
///
/// # Errors
/// 503 when the tables cannot be read.
pub(crate) async fn row(app: &App, task: TaskId) -> Result<Option<Found>, Problem> {
    let row = ask(sqlx::query_as::<_, Row>(ROW).bind(task.to_string()).fetch_optional(&app.pool)).await?;
    Ok(row.map(|row| Found {
        task,
        first: position_of_row(row.id),
        tenant: Some(row.tenant),
        user_id: row.user_id,
        task_type: row.task_type,
        model_version: row.model_version,
        data: Some(row.data_payload.0.into()),
        status: Status::parse(&row.status).map_or(TaskStatus::Pending, TaskStatus::from),
        attempt: u32::from(row.attempt),
        worker: row.worker,
        error_code: row.error_code,
        error_message: row.error_message,
        result: row.result_data.map(|result| result.0.into()),
        inference_us: row.inference_us,
        model_digest: row.model_digest,
        backend: row.backend,
        route_reason: row.route_reason,
        batch: row.batch_id.zip(row.batch_line),
        retry_of: row.retry_of,
        redriven_as: row.redriven_as,
        dead_lettered: row.dead_lettered,
        webhook_url: row.webhook_url,
        expires_at: row.expires_at.and_then(|text| DateTime::parse_from_rfc3339(&text).ok()).map(|at| at.to_utc()),
        created_at: Some(utc(row.created_at)),
        started_at: row.started_at.map(utc),
        completed_at: row.completed_at.map(utc),
        updated_at: Some(utc(row.updated_at)),
    }))
}
