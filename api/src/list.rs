//! Many tasks: filtered, newest first, page by page. A page begins where the last one ended (keyset), so that the
//! thousandth costs what the first does.
//!
//! Texts are looked for in a bounded number of tasks that fit everything else, since no index finds them; a page that found
//! little goes on where that bound was.

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
use crate::query::{Query, sql};
use crate::shape::{TaskStatus, utc};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MOST: u32 = 200;
/// Tasks whose documents one request looks into for a text.
pub(crate) const LOOKED_INTO: u32 = 20_000;

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
    /// Words that must all fit: `status:failed type:sentiment_analysis model:v1.0 error:timeout age:>5m batch:<id> id:<beginning>
    /// from:2026-11-25 to:2026-11-26 text:"no answer"`; `-` before a word turns it round, `type:a,b` is either. `status` can
    /// also be `open` or `dead`. A word without a name is an id's beginning or a text. Texts are looked for in the newest 20,000
    /// tasks that fit the rest; the page says so, and `next` goes on behind them.
    #[param(value_type = Option<String>, max_length = 2000, example = "status:failed age:<2h")]
    q: Query,
    /// How many at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: u32,
    /// `next` of the page before. Keep the filters as they were.
    #[param(value_type = Option<String>)]
    cursor: Option<Mark>,
}

/// Where a page ended. Opaque to callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
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
    /// `cursor` of the next page; `null` at the end. A search for a text can give a short page that is not the last.
    next: Option<String>,
    /// Of a search for a text: how far this page looked.
    searched: Option<Searched>,
}

/// How far a search for a text looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Searched {
    /// The most tasks whose documents one page looks into.
    tasks: u32,
    /// Whether the end was reached; else `next` goes on.
    all: bool,
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
    let now = Utc::now();
    let mut rows: Vec<Row> = ask(filter.question(now).build_query_as().fetch_all(&app.pool)).await?;
    let more = rows.len() > filter.limit as usize;
    rows.truncate(filter.limit as usize);
    let mut next = rows.last().filter(|_| more).map(|row| Mark::of(row.created_at, row.id));
    let mut searched = None;
    if filter.q.has_text() {
        if !more {
            next = looked_to(&app, |ask| filter.push_conditions(ask, now)).await?;
        }
        searched = Some(Searched { tasks: LOOKED_INTO, all: next.is_none() });
    }
    let next = next.map(Mark::encode);
    Ok(Json(TaskPage { tasks: rows.into_iter().map(ListedTask::from).collect(), next, searched }))
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
            q: take_query(&mut params),
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
    fn question(&self, now: DateTime<Utc>) -> QueryBuilder<MySql> {
        const COLUMNS: &str = "id, task_id, status, task_type, model_version, attempt, error_code, \
             LEFT(error_message, 255) error_message, dead_lettered, batch_id, batch_line, created_at, started_at, completed_at";
        let mut ask = QueryBuilder::new("SELECT ");
        ask.push(COLUMNS).push(" FROM ");
        if self.q.has_text() {
            ask.push("(SELECT id near_id FROM analysis_tasks WHERE TRUE");
            self.push_conditions(&mut ask, now);
            ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(LOOKED_INTO);
            ask.push(") near STRAIGHT_JOIN analysis_tasks ON id = near_id WHERE TRUE");
            sql::push_texts(&mut ask, &self.q);
        } else {
            ask.push("analysis_tasks WHERE TRUE");
            self.push_conditions(&mut ask, now);
        }
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(self.limit + 1);
        ask
    }

    /// Everything but texts, the order and the limit.
    fn push_conditions(&self, ask: &mut QueryBuilder<MySql>, now: DateTime<Utc>) {
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
        sql::push(ask, &self.q, now);
        if let Some(mark) = self.cursor {
            mark.push(ask);
        }
    }
}

/// Where a search for a text stopped looking, of what fits the other conditions; `None` when it came to the end.
pub(crate) async fn looked_to(
    app: &App,
    push_conditions: impl FnOnce(&mut QueryBuilder<MySql>),
) -> Result<Option<Mark>, Problem> {
    let mut last = QueryBuilder::new("SELECT created_at, id FROM analysis_tasks WHERE TRUE");
    push_conditions(&mut last);
    last.push(" ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET ").push_bind(LOOKED_INTO - 1);
    let last: Option<(NaiveDateTime, u64)> = ask(last.build_query_as().fetch_optional(&app.pool)).await?;
    Ok(last.map(|(created_at, id)| Mark::of(created_at, id)))
}

/// Which tasks, where nothing but a query says so.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the parameters; they are read one by one")]
pub(crate) struct Meant {
    /// As of `GET /api/tasks`; of a batch `batch:<id>`.
    q: Option<String>,
}

impl Meant {
    /// # Errors
    /// 422 that names what is wrong.
    pub(crate) fn parse(query: Option<&str>) -> Result<Query, Problem> {
        let mut params = Params::parse(query);
        let query = take_query(&mut params);
        params.finish()?;
        Ok(query)
    }
}

/// The parameter `q`.
pub(crate) fn take_query(params: &mut Params) -> Query {
    let read = params.take("q", |text| Ok(text.parse::<Query>()));
    match read {
        None => Query::default(),
        Some(Ok(query)) => query,
        Some(Err(error)) => {
            params.wrong("q", error.to_string());
            Query::default()
        }
    }
}

impl Mark {
    pub(crate) fn of(created_at: NaiveDateTime, id: u64) -> Self {
        Self { created_us: utc(created_at).timestamp_micros(), id }
    }

    /// Only what comes behind it. Not `(created_at, id) < (…)`: neither server finds the place in the index by that.
    pub(crate) fn push(self, ask: &mut QueryBuilder<MySql>) {
        let at = insightforge_schema::tables::datetime(self.created_us);
        ask.push(" AND created_at <= ").push_bind(at);
        ask.push(" AND (created_at < ").push_bind(at).push(" OR id < ").push_bind(self.id).push(")");
    }

    pub(crate) fn encode(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}", self.created_us, self.id))
    }

    pub(crate) fn decode(text: &str) -> Result<Self, &'static str> {
        let read = || {
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let (created_us, id) = text.split_once('.')?;
            Some(Self { created_us: created_us.parse().ok()?, id: id.parse().ok()? })
        };
        read().ok_or("must be `next` of an earlier page")
    }
}

/// A row of `analysis_tasks`, without its documents.
#[derive(FromRow)]
pub(crate) struct Row {
    pub(crate) id: u64,
    pub(crate) task_id: String,
    pub(crate) status: String,
    pub(crate) task_type: String,
    pub(crate) model_version: String,
    pub(crate) attempt: u16,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) dead_lettered: bool,
    pub(crate) batch_id: Option<String>,
    pub(crate) batch_line: Option<u32>,
    pub(crate) created_at: NaiveDateTime,
    pub(crate) started_at: Option<NaiveDateTime>,
    pub(crate) completed_at: Option<NaiveDateTime>,
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
    use crate::query::plan;

    #[test]
    fn a_mark_survives_the_way_to_the_caller_and_back() {
        let mark = Mark { created_us: 1_764_072_000_000_000, id: 13_104 };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        for bad in ["", "%%%", "MTIz", "YS5i", "LTEuLTE"] {
            assert!(Mark::decode(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_is_rare_is_found_by_an_index_of_it() {
        const FOUND_BY: [(&str, &str); 4] = [
            ("model:rare", "analysis_tasks_model"),
            ("error:timeout", "analysis_tasks_error"),
            ("status:failed", "analysis_tasks_status"),
            ("0193b2c4-5d6e", "analysis_tasks_task_id"),
        ];
        let filter = |q: &str| Filter::parse(Some(&format!("q={q}"))).unwrap();
        for plans in plan::of(|| FOUND_BY.map(|(q, _)| filter(q).question(Utc::now())).into()).await {
            for ((q, key), plan) in FOUND_BY.iter().zip(plans) {
                assert_eq!(plan.0.len(), 1, "{q}: {:?}", plan.0);
                assert_eq!(plan.0[0].0, *key, "{q}");
            }
        }
    }

    #[test]
    fn an_interval_that_holds_nothing_is_named() {
        let errors = Filter::parse(Some("from=2026-01-02&to=2026-01-02")).unwrap_err().errors;
        assert_eq!(errors["to"], ["must be later than `from`"]);
    }
}
