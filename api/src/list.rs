//! Many tasks: filtered, newest first, page by page. A page begins where the last one ended (keyset), so that the
//! thousandth costs what the first does.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, MySql, QueryBuilder};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::params::{self, Params};
use crate::problem::Problem;
use crate::shape::{TaskStatus, utc};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MOST: u32 = 200;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(tasks))
}

/// Which tasks.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only tasks that stand there now.
    status: Option<TaskStatus>,
    #[param(max_length = 64)]
    task_type: Option<String>,
    /// As asked for; of completed tasks the version that answered.
    #[param(max_length = 64)]
    model_version: Option<String>,
    /// Submitted at this time or later: RFC 3339, or a day (its beginning in UTC).
    from: Option<DateTime<Utc>>,
    /// Submitted before this time.
    to: Option<DateTime<Utc>>,
    /// Only tasks of this batch upload.
    batch_id: Option<Uuid>,
    /// Only tasks with this error, such as `timeout`.
    #[param(max_length = 64)]
    error_code: Option<String>,
    /// `true`: only tasks on the dead-letter list.
    dead_lettered: Option<bool>,
    /// How many at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: u32,
    /// `next` of the page before. Keep the filters as they were.
    #[param(value_type = Option<String>)]
    cursor: Option<Mark>,
}

/// Where a page ended. Opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    created_us: i64,
    id: u64,
}

/// One task in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedTask {
    task_id: String,
    status: TaskStatus,
    task_type: String,
    model_version: String,
    attempt: u16,
    error_code: Option<String>,
    /// Its beginning; the task itself has all of it.
    error_message: Option<String>,
    dead_lettered: bool,
    batch_id: Option<String>,
    batch_line: Option<u32>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

/// A page of tasks, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskPage {
    tasks: Vec<ListedTask>,
    /// `cursor` of the next page; `null` at the end.
    next: Option<String>,
}

/// Tasks, newest first
///
/// Lists what has been folded into the tables, usually within milliseconds of the upload's answer; a single task is visible at
/// once under `/api/tasks/{task_id}`.
#[utoipa::path(
    get, path = "/api/tasks", operation_id = "listTasks", tag = "tasks", params(Filter),
    responses((status = 200, description = "A page", body = TaskPage), Invalid, Unavailable)
)]
pub(crate) async fn tasks(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<TaskPage>, Problem> {
    let filter = Filter::parse(query.as_deref())?;
    let mut question = filter.question();
    let mut rows = ask(question.build_query_as::<Row>().fetch_all(&app.pool)).await?;
    let more = rows.len() > filter.limit as usize;
    rows.truncate(filter.limit as usize);
    let next = rows.last().filter(|_| more).map(|row| Mark::of(row).encode());
    Ok(Json(TaskPage { tasks: rows.into_iter().map(ListedTask::from).collect(), next }))
}

impl Filter {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let filter = Self {
            status: params.take("status", TaskStatus::parse),
            task_type: params.take("task_type", params::name),
            model_version: params.take("model_version", params::name),
            from: params.take("from", params::time),
            to: params.take("to", params::time),
            batch_id: params.take("batch_id", params::uuid),
            error_code: params.take("error_code", params::name),
            dead_lettered: params.take("dead_lettered", params::yes_or_no),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST),
            cursor: params.take("cursor", Mark::decode),
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from >= to
        {
            params.wrong("to", "must be later than `from`");
        }
        params.finish()?;
        Ok(filter)
    }

    /// One row more than the page holds tells whether there is another page.
    fn question(&self) -> QueryBuilder<MySql> {
        let mut ask = QueryBuilder::new(
            "SELECT id, task_id, status, task_type, model_version, attempt, error_code, LEFT(error_message, 255) error_message, \
             dead_lettered, batch_id, batch_line, created_at, started_at, completed_at FROM analysis_tasks WHERE TRUE",
        );
        let texts = [
            (" AND task_type = ", self.task_type.clone()),
            (" AND model_version = ", self.model_version.clone()),
            (" AND batch_id = ", self.batch_id.map(|id| id.to_string())),
            (" AND error_code = ", self.error_code.clone()),
            (" AND status = ", self.status.map(|status| status.as_str().to_owned())),
        ];
        for (condition, value) in texts {
            if let Some(value) = value {
                ask.push(condition).push_bind(value);
            }
        }
        if let Some(dead) = self.dead_lettered {
            ask.push(" AND dead_lettered = ").push_bind(dead);
            if dead && self.status.is_none() {
                // Only failed tasks are on the list, and they have an index.
                ask.push(" AND status = 'failed'");
            }
        }
        if let Some(from) = self.from {
            ask.push(" AND created_at >= ").push_bind(from.naive_utc());
        }
        if let Some(to) = self.to {
            ask.push(" AND created_at < ").push_bind(to.naive_utc());
        }
        if let Some(mark) = self.cursor {
            // Not `(created_at, id) < (…)`: neither server finds the place in the index by that.
            let at = insightforge_schema::tables::datetime(mark.created_us);
            ask.push(" AND created_at <= ").push_bind(at);
            ask.push(" AND (created_at < ").push_bind(at).push(" OR id < ").push_bind(mark.id).push(")");
        }
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(self.limit + 1);
        ask
    }
}

impl Mark {
    fn of(row: &Row) -> Self {
        Self { created_us: utc(row.created_at).timestamp_micros(), id: row.id }
    }

    fn encode(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}", self.created_us, self.id))
    }

    fn decode(text: &str) -> Result<Self, &'static str> {
        let read = || {
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (created_us, id) = text.split_once('.')?;
            Some(Self { created_us: created_us.parse().ok()?, id: id.parse().ok()? })
        };
        read().ok_or("must be `next` of an earlier page")
    }
}

#[derive(FromRow)]
struct Row {
    id: u64,
    task_id: String,
    status: String,
    task_type: String,
    model_version: String,
    attempt: u16,
    error_code: Option<String>,
    error_message: Option<String>,
    dead_lettered: bool,
    batch_id: Option<String>,
    batch_line: Option<u32>,
    created_at: NaiveDateTime,
    started_at: Option<NaiveDateTime>,
    completed_at: Option<NaiveDateTime>,
}

impl From<Row> for ListedTask {
    fn from(row: Row) -> Self {
        Self {
            task_id: row.task_id,
            // The column's CHECK knows the same words.
            status: TaskStatus::parse(&row.status).unwrap_or(TaskStatus::Pending),
            task_type: row.task_type,
            model_version: row.model_version,
            attempt: row.attempt,
            error_code: row.error_code,
            error_message: row.error_message,
            dead_lettered: row.dead_lettered,
            batch_id: row.batch_id,
            batch_line: row.batch_line,
            created_at: utc(row.created_at),
            started_at: row.started_at.map(utc),
            completed_at: row.completed_at.map(utc),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_way_to_the_caller_and_back() {
        let mark = Mark { created_us: 1_764_072_000_000_000, id: 13_104 };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        for bad in ["", "%%%", "MTIz", "YS5i", "LTEuLTE"] {
            assert!(Mark::decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_interval_that_holds_nothing_is_named() {
        let errors = Filter::parse(Some("from=2026-01-02&to=2026-01-02")).unwrap_err().errors;
        assert_eq!(errors["to"], ["must be later than `from`"]);
    }
}
