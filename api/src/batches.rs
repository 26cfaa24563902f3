//! What became of a batch upload: how far it is, and its results line by line.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::stream;
use insightforge_schema::link::LinkError;
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json as JsonColumn;
use sqlx::{FromRow, MySql, QueryBuilder};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::params::{self, Params, batch_id};
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::{Document, TaskStatus, utc};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 1_000;
/// Rows of one question while a whole batch is streamed.
const STREAM_STEP: u32 = 500;
const NDJSON: &str = "application/x-ndjson";

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(progress)).routes(routes!(results))
}

/// How far a batch is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchProgress {
    batch_id: Uuid,
    /// Whether the upload has ended; until then `accepted` and `rejected` are not known.
    received: bool,
    /// Lines that became tasks.
    accepted: Option<u32>,
    /// Lines that were refused; the upload's answer says why.
    rejected: Option<u32>,
    /// Its tasks by status, as far as they are folded into the tables; `null` while the tables cannot be read.
    tasks: Option<Counts>,
    /// Accepted tasks that are not in the tables yet.
    not_folded: Option<u64>,
    /// Every accepted task has ended.
    done: bool,
    received_at: Option<DateTime<Utc>>,
    results: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct Counts {
    pending: u64,
    processing: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

/// The progress of a batch upload
#[utoipa::path(
    get, path = "/api/batches/{batch_id}", operation_id = "getBatch", tag = "batches",
    params(("batch_id" = Uuid, Path, description = "The id from the upload's answer")),
    responses((status = 200, description = "How far it is", body = BatchProgress), Absent, Invalid, Unavailable)
)]
pub(crate) async fn progress(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
) -> Result<Json<BatchProgress>, Problem> {
    let batch = batch_id(&text)?;
    let (received, counts, row) = tokio::join!(received(&app, batch), counts(&app, batch), row(&app, batch));
    let progress = match (received, counts, row) {
        (_, Ok(counts), Ok(Some(row))) => {
            BatchProgress::new(batch, Some((row.accepted, row.rejected)), Some(counts), Some(utc(row.created_at)))
        }
        (Ok(Some(received)), counts, _) => BatchProgress::new(batch, Some(received), counts.ok(), None),
        (Ok(None), Ok(counts), Ok(None)) if counts.all() > 0 => BatchProgress::new(batch, None, Some(counts), None),
        (Ok(None), Ok(_), Ok(None)) => return Err(Problem::not_found(format!("there is no batch {batch}"))),
        (Err(error), _, _) => return Err(error.into()),
        (_, Err(problem), _) | (_, _, Err(problem)) => return Err(problem),
    };
    Ok(Json(progress))
}

impl BatchProgress {
    fn new(
        batch_id: Uuid,
        received: Option<(u32, u32)>,
        tasks: Option<Counts>,
        received_at: Option<DateTime<Utc>>,
    ) -> Self {
        let (accepted, rejected) = received.unzip();
        let not_folded = accepted.zip(tasks).map(|(accepted, tasks)| u64::from(accepted).saturating_sub(tasks.all()));
        let done = not_folded == Some(0) && tasks.is_some_and(|tasks| tasks.pending + tasks.processing == 0);
        let results = format!("/api/batches/{batch_id}/results");
        Self {
            batch_id,
            received: received.is_some(),
            accepted,
            rejected,
            tasks,
            not_folded,
            done,
            received_at,
            results,
        }
    }
}

impl Counts {
    fn all(self) -> u64 {
        self.pending + self.processing + self.completed + self.failed + self.cancelled
    }
}

/// The summary that is there before the tables have it: accepted and rejected lines.
async fn received(app: &App, batch: Uuid) -> Result<Option<(u32, u32)>, LinkError> {
    let key = app.keys.batch(app.config.partitions.of(batch.as_bytes()), batch);
    let (accepted, rejected): (Option<u32>, Option<u32>) =
        app.link.query(redis::cmd("HMGET").arg(key).arg("accepted").arg("rejected")).await?;
    Ok(accepted.zip(rejected))
}

async fn counts(app: &App, batch: Uuid) -> Result<Counts, Problem> {
    let question = sqlx::query_as("SELECT status, COUNT(*) FROM analysis_tasks WHERE batch_id = ? GROUP BY status");
    let rows: Vec<(String, i64)> = ask(question.bind(batch.to_string()).fetch_all(&app.pool)).await?;
    let mut counts = Counts::default();
    for (status, count) in rows {
        let count = count.unsigned_abs();
        match status.as_str() {
            "pending" => counts.pending = count,
            "processing" => counts.processing = count,
            "completed" => counts.completed = count,
            "failed" => counts.failed = count,
            "cancelled" => counts.cancelled = count,
            _ => {}
        }
    }
    Ok(counts)
}

#[derive(FromRow)]
struct BatchRow {
    accepted: u32,
    rejected: u32,
    created_at: NaiveDateTime,
}

async fn row(app: &App, batch: Uuid) -> Result<Option<BatchRow>, Problem> {
    let question = sqlx::query_as("SELECT accepted, rejected, created_at FROM analysis_batches WHERE batch_id = ?");
    ask(question.bind(batch.to_string()).fetch_optional(&app.pool)).await
}

/// Which results.
#[derive(Debug, Clone, Copy, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only tasks that stand there now.
    status: Option<TaskStatus>,
    /// The last line that is known already.
    #[param(default = 0)]
    after: u32,
    /// How many at most. As NDJSON: all, unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// What became of one line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineResult {
    /// Its place in the upload, from 1.
    line: u32,
    task_id: String,
    status: TaskStatus,
    #[schema(value_type = Option<Object>)]
    result: Option<Document>,
    error_code: Option<String>,
    error_message: Option<String>,
}

/// Results in the order of their lines.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResultPage {
    results: Vec<LineResult>,
    /// `after` of the next page; `null` at the end.
    next: Option<u32>,
}

/// The results of a batch upload
///
/// Page by page as JSON, or with `Accept: application/x-ndjson` all of them as a stream of one JSON object a line.
#[utoipa::path(
    get, path = "/api/batches/{batch_id}/results", operation_id = "getBatchResults", tag = "batches",
    params(("batch_id" = Uuid, Path, description = "The batch"), Wanted),
    responses(
        (status = 200, description = "A page, or all lines", content(
            (ResultPage = "application/json"), (LineResult = "application/x-ndjson"))),
        Absent, Invalid, Unavailable
    )
)]
pub(crate) async fn results(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let batch = batch_id(&text)?;
    let wanted = Wanted::parse(query.as_deref())?;
    if accepts_ndjson(&headers) {
        return stream_lines(app, batch, wanted).await;
    }
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    let mut results = lines(&app, batch, wanted, limit + 1).await?;
    if results.is_empty() {
        check_known(&app, batch).await?;
    }
    let more = results.len() > limit as usize;
    results.truncate(limit as usize);
    let next = results.last().filter(|_| more).map(|last| last.line);
    Ok(Json(ResultPage { results, next }).into_response())
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let limit = params.limit("limit", 0, LIMIT_MOST);
        let wanted = Self {
            status: params.take("status", TaskStatus::parse),
            after: params.take("after", params::whole).unwrap_or(0),
            limit: (limit > 0).then_some(limit),
        };
        params.finish()?;
        Ok(wanted)
    }
}

fn accepts_ndjson(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepts
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == NDJSON))
}

/// Every page is asked for when the caller has taken the one before; no connection to the tables is held meanwhile.
async fn stream_lines(app: Arc<App>, batch: Uuid, wanted: Wanted) -> Result<Response, Problem> {
    let left = wanted.limit.unwrap_or(u32::MAX);
    // The first page now: a problem can still be answered as such.
    let first = lines(&app, batch, wanted, left.min(STREAM_STEP)).await?;
    if first.is_empty() {
        check_known(&app, batch).await?;
    }
    let state = (app, wanted, left, Some(first));
    let pages = stream::try_unfold(state, move |(app, mut wanted, mut left, page)| async move {
        let page = match page {
            Some(page) => page,
            None if left == 0 => return Ok(None),
            None => lines(&app, batch, wanted, left.min(STREAM_STEP)).await.map_err(|problem| problem.detail)?,
        };
        let Some(last) = page.last() else { return Ok::<_, String>(None) };
        wanted.after = last.line;
        left -= u32::try_from(page.len()).unwrap_or(left).min(left);
        Ok(Some((written(&page), (app, wanted, left, None))))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response())
}

fn written(page: &[LineResult]) -> Bytes {
    let mut text = Vec::new();
    for line in page {
        serde_json::to_writer(&mut text, line).expect("numbers, texts and documents are JSON");
        text.push(b'\n');
    }
    text.into()
}

/// # Errors
/// 404 for a batch that nobody knows.
async fn check_known(app: &App, batch: Uuid) -> Result<(), Problem> {
    if received(app, batch).await.is_ok_and(|received| received.is_some()) || row(app, batch).await?.is_some() {
        return Ok(());
    }
    let any: Option<(u64,)> = ask(sqlx::query_as("SELECT id FROM analysis_tasks WHERE batch_id = ? LIMIT 1")
        .bind(batch.to_string())
        .fetch_optional(&app.pool))
    .await?;
    any.map(|_| ()).ok_or_else(|| Problem::not_found(format!("there is no batch {batch}")))
}

async fn lines(app: &App, batch: Uuid, wanted: Wanted, limit: u32) -> Result<Vec<LineResult>, Problem> {
    let mut question: QueryBuilder<MySql> = QueryBuilder::new(
        "SELECT t.batch_line, t.task_id, t.status, t.error_code, t.error_message, r.result_data FROM analysis_tasks t \
         LEFT JOIN analysis_results r ON r.analysis_task_id = t.id WHERE t.batch_id = ",
    );
    question.push_bind(batch.to_string()).push(" AND t.batch_line > ").push_bind(wanted.after);
    if let Some(status) = wanted.status {
        question.push(" AND t.status = ").push_bind(status.as_str());
    }
    question.push(" ORDER BY t.batch_line LIMIT ").push_bind(limit);
    let rows: Vec<Line> = ask(question.build_query_as().fetch_all(&app.pool)).await?;
    Ok(rows.into_iter().map(LineResult::from).collect())
}

#[derive(FromRow)]
struct Line {
    batch_line: u32,
    task_id: String,
    status: String,
    error_code: Option<String>,
    error_message: Option<String>,
    result_data: Option<JsonColumn<Box<RawValue>>>,
}

impl From<Line> for LineResult {
    fn from(row: Line) -> Self {
        Self {
            line: row.batch_line,
            task_id: row.task_id,
            status: TaskStatus::parse(&row.status).unwrap_or(TaskStatus::Pending),
            result: row.result_data.map(|result| result.0.into()),
            error_code: row.error_code,
            error_message: row.error_message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ndjson_is_recognized_among_what_a_caller_accepts() {
        for (accept, ndjson) in [
            ("application/x-ndjson", true),
            ("text/html, application/x-ndjson;q=0.9", true),
            ("application/json", false),
            ("*/*", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(accepts_ndjson(&headers), ndjson, "{accept}");
        }
    }

    #[test]
    fn a_batch_is_done_when_every_accepted_line_has_ended() {
        let done = |accepted, counts| BatchProgress::new(Uuid::nil(), accepted, counts, None).done;
        let ended = Counts { completed: 2, failed: 1, ..Counts::default() };
        assert!(done(Some((3, 1)), Some(ended)));
        assert!(done(Some((0, 4)), Some(Counts::default())));
        assert!(!done(Some((4, 0)), Some(ended)), "one is not folded yet");
        assert!(!done(Some((4, 0)), Some(Counts { pending: 1, ..ended })));
        assert!(!done(None, Some(ended)), "the upload goes on");
        assert!(!done(Some((3, 1)), None));
    }
}
