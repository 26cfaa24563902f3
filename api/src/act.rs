//! All tasks that a query means are cancelled or repeated: counted first, then so many a request, each with an event that says
//! who did it and why. A request goes on where the one before ended, so that what cannot be dealt with is passed by, and what
//! the tables do not tell yet is not met again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use chrono::{DateTime, NaiveDateTime, Utc};
use futures_util::future::join_all;
use insightforge_schema::id::TaskId;
use serde::Deserialize;
use sqlx::{FromRow, MySql, QueryBuilder};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::cancel::cancel_one;
use crate::dead_letters::act::{Acted, By, Deed};
use crate::describe::{Backlogged, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::list::{LOOKED_INTO, Mark};
use crate::members::Members;
use crate::problem::Problem;
use crate::query::{Query, sql};
use crate::redrive::redrive_one;
use crate::trace;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 1_000;
/// Tasks that one request counts.
const COUNTED: u32 = 50_000;
/// Tasks dealt with at once.
const AT_ONCE: usize = 8;
/// Who is written down as having done what callers ask for.
const ACTOR: &str = "api";

/// What concerns many at once is served only where nobody from outside comes.
pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(cancel_many)).routes(routes!(retry_many))
}

/// Which tasks, how many, and whether it is to be done.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct TasksBody {
    /// As of `GET /api/tasks`; left out, all tasks are meant.
    #[schema(example = "type:sentiment_analysis age:>1h")]
    q: Option<String>,
    /// `next` of the request before, to go on behind what it dealt with. Keep `q` as it was.
    cursor: Option<String>,
    /// The most of one request: 1 to 1000, 100 unless given.
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `true`, which it is unless given, only counts.
    #[schema(default = true)]
    dry_run: Option<bool>,
    /// For people; 500 characters at most.
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Cancel,
    Retry,
}

/// Cancel many tasks
///
/// Those that the query means and that wait or run, newest first; until `dry_run` is `false` they are only counted, up to 50,000
/// a request. `next` as `cursor` goes on behind them, also where a text was looked for in 20,000 tasks and not found. A 503 that
/// comes after some were dealt with tells of those as `acted`.
#[utoipa::path(
    post, path = "/api/tasks/cancel", operation_id = "cancelMany", tag = "tasks", request_body = TasksBody,
    responses(
        (status = 200, description = "What was counted or done", body = Acted),
        Malformed, TooLarge, Unsupported, Invalid, Unavailable,
    ),
)]
pub(crate) async fn cancel_many(State(app): State<Arc<App>>, request: Request) -> Result<Json<Acted>, Problem> {
    many(&app, Act::Cancel, request).await
}

/// Repeat many failed or cancelled tasks
///
/// Those that the query means, that failed or were cancelled and have not been repeated, newest first; until `dry_run` is `false`
/// they are only counted, up to 50,000 a request. `next` as `cursor` goes on behind them, also where a text was looked for in
/// 20,000 tasks and not found. A 429 or 503 that comes after some were dealt with tells of those as `acted`.
#[utoipa::path(
    post, path = "/api/tasks/retry", operation_id = "retryMany", tag = "tasks", request_body = TasksBody,
    responses(
        (status = 200, description = "What was counted or done", body = Acted),
        Malformed, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn retry_many(State(app): State<Arc<App>>, request: Request) -> Result<Json<Acted>, Problem> {
    many(&app, Act::Retry, request).await
}

async fn many(app: &App, act: Act, request: Request) -> Result<Json<Acted>, Problem> {
    let (parts, body) = request.into_parts();
    let mut members = Members::of(app, &parts.headers, body).await?;
    let query = query(&mut members);
    let cursor = members.text("cursor", Mark::decode);
    let limit = members.limit(LIMIT_DEFAULT, LIMIT_MOST);
    let dry_run = members.dry_run();
    let by = By { actor: ACTOR.to_owned(), reason: members.reason(), trace: trace::read(&parts.headers) };
    let query = members.finish(query)?;
    let most = if dry_run { COUNTED } else { limit };
    let rows = ask(act.question(&query, cursor, most, Utc::now()).build_query_as().fetch_all(&app.pool)).await?;
    let page = Page::of(rows, most as usize);
    let mut acted = Acted { dry_run, ..Acted::default() };
    if dry_run {
        acted.matched = page.tasks.len() as u64;
    } else {
        on_page(app, act, &page, cursor, &by, &mut acted).await?;
    }
    acted.go_on_at(page.next.map(Mark::encode));
    Ok(Json(acted))
}

/// What cannot be done to any is told with what was done, and with a cursor in front of the first that it was not done to.
async fn on_page(
    app: &App,
    act: Act,
    page: &Page,
    cursor: Option<Mark>,
    by: &By,
    acted: &mut Acted,
) -> Result<(), Problem> {
    let mut behind = cursor;
    for some in page.tasks.chunks(AT_ONCE) {
        let outcomes = join_all(some.iter().map(|(_, task)| act.on(app, *task, by))).await;
        let mut stopped = None;
        for ((mark, task), outcome) in some.iter().zip(outcomes) {
            match acted.count(*task, outcome) {
                Ok(()) => {
                    acted.matched += 1;
                    behind = if stopped.is_none() { Some(*mark) } else { behind };
                }
                Err(problem) => stopped = stopped.or(Some(problem)),
            }
        }
        if let Some(problem) = stopped {
            return Err(std::mem::take(acted).told_with(problem, behind.map(Mark::encode)));
        }
    }
    Ok(())
}

fn query(members: &mut Members) -> Query {
    let mut wrong = None;
    let read = members.text("q", |text| match text.parse::<Query>() {
        Ok(query) => Ok(query),
        Err(error) => {
            wrong = Some(error.to_string());
            Ok(Query::default())
        }
    });
    if let Some(what) = wrong {
        members.faults.add("q", what);
    }
    read.unwrap_or_default()
}

impl Act {
    async fn on(self, app: &App, task: TaskId, by: &By) -> Result<Deed, Problem> {
        match self {
            Self::Cancel => cancel_one(app, task, by).await,
            Self::Retry => redrive_one(app, task, by).await.map(|stored| Deed::of(&stored)),
        }
    }

    /// The tasks that can be dealt with so. Each kind is in the order of an index; of both together every row would be sorted.
    fn kinds(self) -> [&'static str; 2] {
        match self {
            Self::Cancel => ["status = 'pending'", "status = 'processing'"],
            Self::Retry => {
                ["status = 'failed' AND redriven_as IS NULL", "status = 'cancelled' AND redriven_as IS NULL"]
            }
        }
    }

    /// Those behind the cursor, newest first: of those that are looked at all that fit, and the last.
    fn question(self, query: &Query, cursor: Option<Mark>, most: u32, now: DateTime<Utc>) -> QueryBuilder<MySql> {
        // One row more than are dealt with tells whether there are more.
        let looked_at = if query.has_text() { LOOKED_INTO } else { most + 1 };
        let mut ask = QueryBuilder::new("SELECT id, created_at, task_id, place = ");
        ask.push_bind(looked_at).push(" is_last, (TRUE");
        sql::push_texts(&mut ask, query);
        ask.push(") fits FROM (SELECT near_id, ROW_NUMBER() OVER (ORDER BY near_at DESC, near_id DESC) place FROM (");
        for (at, kind) in self.kinds().into_iter().enumerate() {
            ask.push(if at == 0 { "(" } else { " UNION ALL (" });
            ask.push("SELECT id near_id, created_at near_at FROM analysis_tasks WHERE ").push(kind);
            sql::push(&mut ask, query, now);
            if let Some(cursor) = cursor {
                cursor.push(&mut ask);
            }
            ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(looked_at).push(")");
        }
        ask.push(") kinds ORDER BY place LIMIT ").push_bind(looked_at);
        ask.push(") near STRAIGHT_JOIN analysis_tasks ON id = near_id HAVING fits OR is_last");
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(most + 1);
        ask
    }
}

#[derive(FromRow)]
struct Row {
    id: u64,
    created_at: NaiveDateTime,
    task_id: String,
    /// No more are looked at.
    is_last: bool,
    fits: bool,
}

/// Tasks of one request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    tasks: Vec<(Mark, TaskId)>,
    next: Option<Mark>,
}

impl Page {
    fn of(rows: Vec<Row>, most: usize) -> Self {
        let (mut page, mut behind) = (Self::default(), None);
        for (at, row) in rows.into_iter().enumerate() {
            let mark = Mark::of(row.created_at, row.id);
            if at == most {
                page.next = behind;
                break;
            }
            behind = Some(mark);
            page.next = row.is_last.then_some(mark);
            if row.fits
                && let Ok(task) = row.task_id.parse()
            {
                page.tasks.push((mark, task));
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::plan;

    #[tokio::test]
    async fn of_each_kind_as_many_are_read_as_are_asked_for_and_none_are_sorted() {
        let cursor = Mark::decode(&Mark::of(Utc::now().naive_utc(), 1 << 40).encode()).unwrap();
        let question = |act: Act| act.question(&Query::default(), Some(cursor), 100, Utc::now());
        let plans = plan::of(|| [Act::Cancel, Act::Retry].map(question).into()).await;
        for plan in plans.into_iter().flatten() {
            // Once more by its key, for what the index does not have.
            let kinds: Vec<&(String, String)> = plan.0.iter().filter(|(key, _)| key != "PRIMARY").collect();
            assert_eq!(kinds.len(), 2, "{:?}", plan.0);
            for (key, extra) in kinds {
                let in_order = ["analysis_tasks_status", "analysis_tasks_created"].contains(&key.as_str());
                assert!(in_order && !extra.contains("filesort"), "{key}: {extra}");
            }
        }
    }

    #[test]
    fn a_page_ends_behind_its_last_task_or_where_no_more_were_looked_at() {
        let row = |id: u64, is_last: bool, fits: bool| Row {
            id,
            created_at: NaiveDateTime::default(),
            task_id: TaskId::new().to_string(),
            is_last,
            fits,
        };
        let mark = |id| Some(Mark::of(NaiveDateTime::default(), id));
        for (rows, tasks, next) in [
            (vec![], 0, None),
            (vec![row(9, false, true), row(8, false, true)], 2, None),
            (vec![row(9, false, true), row(8, false, true), row(7, false, true)], 2, mark(8)),
            (vec![row(9, false, true), row(8, false, true), row(7, true, false)], 2, mark(8)),
            (vec![row(9, false, true), row(8, true, true)], 2, mark(8)),
            (vec![row(9, false, true), row(8, true, false)], 1, mark(8)),
            (vec![row(9, true, false)], 0, mark(9)),
        ] {
            let ids: Vec<u64> = rows.iter().map(|row| row.id).collect();
            let page = Page::of(rows, 2);
            assert_eq!((page.tasks.len(), page.next), (tasks, next), "{ids:?}");
        }
    }
}
