//! The tasks of a query as a file: rows are read page by page by key while the file is being sent, so that its size costs no
//! memory and no snapshot.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::types::Json as JsonColumn;
use sqlx::{FromRow, MySql, QueryBuilder};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::list::{self, LOOKED_INTO, Mark, looked_to, take_query};
use crate::params::Params;
use crate::problem::Problem;
use crate::query::{Query, sql};
use crate::shape::utc;

/// Rows of one page. Each brings two documents.
const PAGE: u32 = 100;
/// Exports at once; more are told to come back.
pub(crate) const AT_ONCE: usize = 4;
const RETRY_AFTER_S: u32 = 10;

const COLUMNS: [&str; 14] = [
    "task_id",
    "status",
    "task_type",
    "model_version",
    "attempt",
    "error_code",
    "error_message",
    "created_at",
    "started_at",
    "completed_at",
    "batch_id",
    "batch_line",
    "data",
    "result",
];

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(export))
}

/// Which tasks, and how they are written.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the parameters; they are read one by one")]
pub(crate) struct Wanted {
    /// As of `GET /api/tasks`.
    q: Option<String>,
    /// `csv`, which it is unless given, or `jsonl`.
    format: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Csv,
    Jsonl,
}

/// Export tasks
///
/// All that fit, newest first, with their documents and results, streamed. In CSV a cell that a spreadsheet would take for a
/// formula begins with an apostrophe. A file that breaks off is not whole: it then ends without the last chunk.
#[utoipa::path(
    get, path = "/api/tasks/export", operation_id = "exportTasks", tag = "tasks", params(Wanted),
    responses(
        (status = 200, description = "The file", content((String = "text/csv"), (String = "application/x-ndjson"))),
        Invalid, Unavailable
    )
)]
pub(crate) async fn export(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let mut params = Params::parse(query.as_deref());
    let query = take_query(&mut params);
    let format = params.take("format", |text| match text {
        "csv" => Ok(Format::Csv),
        "jsonl" => Ok(Format::Jsonl),
        _ => Err("must be csv or jsonl"),
    });
    params.finish()?;
    let format = format.unwrap_or(Format::Csv);
    let Ok(place) = app.exports.clone().try_acquire_owned() else {
        let detail = format!("{AT_ONCE} exports are under way, as many as there may be");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too busy", detail);
        return Err(problem.retry_after(RETRY_AFTER_S));
    };
    let mut pages = Pages { app, query, now: Utc::now(), format, mark: None, more: true, _place: place };
    // The first page before the header, so that what cannot be read is still said in the usual way.
    let first = pages.next().await?;
    let head = if format == Format::Csv { COLUMNS.join(",") + "\r\n" } else { String::new() };
    let first = futures_util::stream::iter([Ok(Bytes::from(head + &first))]);
    let rest = futures_util::stream::try_unfold(pages, async |mut pages: Pages| {
        if !pages.more {
            return Ok(None);
        }
        match pages.next().await {
            Ok(text) => Ok(Some((Bytes::from(text), pages))),
            Err(problem) => Err(std::io::Error::other(problem.detail)),
        }
    });
    let (kind, name) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"tasks.csv\""),
        Format::Jsonl => ("application/x-ndjson", "attachment; filename=\"tasks.jsonl\""),
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, Body::from_stream(futures_util::StreamExt::chain(first, rest))).into_response())
}

/// What is still to be written.
struct Pages {
    app: Arc<App>,
    query: Query,
    /// Ages are of the beginning, however long it takes.
    now: DateTime<Utc>,
    format: Format,
    mark: Option<Mark>,
    more: bool,
    _place: OwnedSemaphorePermit,
}

impl Pages {
    /// The next rows as text; empty when a stretch of the search brought none.
    async fn next(&mut self) -> Result<String, Problem> {
        if self.app.shutdown.is_cancelled() {
            return Err(Problem::unavailable("this process"));
        }
        let rows: Vec<Row> = ask(self.question().build_query_as().fetch_all(&self.app.pool)).await?;
        let full = rows.len() == PAGE as usize;
        let last = rows.last().map(|row| Mark::of(row.task.created_at, row.task.id));
        let end = if full || !self.query.has_text() {
            last.filter(|_| full)
        } else {
            looked_to(&self.app, |ask| self.push_conditions(ask)).await?
        };
        self.more = end.is_some();
        self.mark = end;
        let mut text = String::new();
        for row in &rows {
            match self.format {
                Format::Csv => write_csv(&mut text, row),
                Format::Jsonl => {
                    text.push_str(&serde_json::to_string(&Line::from(row)).unwrap_or_default());
                    text.push('\n');
                }
            }
        }
        Ok(text)
    }

    fn question(&self) -> QueryBuilder<MySql> {
        let near = if self.query.has_text() { LOOKED_INTO } else { PAGE };
        let mut ask = QueryBuilder::new(
            "SELECT t.id, t.task_id, t.status, t.task_type, t.model_version, t.attempt, t.error_code, t.error_message, \
             t.dead_lettered, t.batch_id, t.batch_line, t.created_at, t.started_at, t.completed_at, t.data_payload, r.result_data \
             FROM (SELECT id near_id FROM analysis_tasks WHERE TRUE",
        );
        self.push_conditions(&mut ask);
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(near);
        ask.push(
            ") near STRAIGHT_JOIN analysis_tasks t ON t.id = near_id \
             LEFT JOIN analysis_results r ON r.analysis_task_id = t.id WHERE TRUE",
        );
        sql::push_texts(&mut ask, &self.query);
        ask.push(" ORDER BY t.created_at DESC, t.id DESC LIMIT ").push_bind(PAGE);
        ask
    }

    fn push_conditions(&self, ask: &mut QueryBuilder<MySql>) {
        sql::push(ask, &self.query, self.now);
        if let Some(mark) = self.mark {
            mark.push(ask);
        }
    }
}

#[derive(FromRow)]
struct Row {
    #[sqlx(flatten)]
    task: list::Row,
    data_payload: JsonColumn<Box<RawValue>>,
    result_data: Option<JsonColumn<Box<RawValue>>>,
}

/// A row as one line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    task_id: &'a str,
    status: &'a str,
    task_type: &'a str,
    model_version: &'a str,
    attempt: u16,
    error_code: Option<&'a str>,
    error_message: Option<&'a str>,
    created_at: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    batch_id: Option<&'a str>,
    batch_line: Option<u32>,
    data: &'a RawValue,
    result: Option<&'a RawValue>,
}

impl<'a> From<&'a Row> for Line<'a> {
    fn from(Row { task, data_payload, result_data }: &'a Row) -> Self {
        Self {
            task_id: &task.task_id,
            status: &task.status,
            task_type: &task.task_type,
            model_version: &task.model_version,
            attempt: task.attempt,
            error_code: task.error_code.as_deref(),
            error_message: task.error_message.as_deref(),
            created_at: written(task.created_at),
            started_at: task.started_at.map(written),
            completed_at: task.completed_at.map(written),
            batch_id: task.batch_id.as_deref(),
            batch_line: task.batch_line,
            data: &data_payload.0,
            result: result_data.as_ref().map(|result| &*result.0),
        }
    }
}

fn written(at: NaiveDateTime) -> String {
    utc(at).to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn write_csv(text: &mut String, row: &Row) {
    let line = Line::from(row);
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let cells: [&str; COLUMNS.len()] = [
        line.task_id,
        line.status,
        line.task_type,
        line.model_version,
        &line.attempt.to_string(),
        line.error_code.unwrap_or_default(),
        line.error_message.unwrap_or_default(),
        &line.created_at,
        line.started_at.as_deref().unwrap_or_default(),
        line.completed_at.as_deref().unwrap_or_default(),
        line.batch_id.unwrap_or_default(),
        &number(line.batch_line),
        line.data.get(),
        line.result.map(RawValue::get).unwrap_or_default(),
    ];
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_cell(text, cell);
    }
    text.push_str("\r\n");
}

/// RFC 4180; and no cell that a spreadsheet would run (OWASP, CSV injection).
fn write_cell(text: &mut String, cell: &str) {
    let runs = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']);
    let guard = if runs { "'" } else { "" };
    if cell.contains([',', '"', '\r', '\n']) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\"{guard}{}\"", cell.replace('"', "\"\""));
    } else {
        text.push_str(guard);
        text.push_str(cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_quoted_where_it_must_be_and_never_runs() {
        for (cell, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"a\"", "\"say \"\"a\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1)\""),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@a", "'@a"),
            ("\t=1", "'\t=1"),
            ("＝1", "'＝1"),
            ("好,消息", "\"好,消息\""),
        ] {
            let mut text = String::new();
            write_cell(&mut text, cell);
            assert_eq!(text, expected);
        }
    }
}
