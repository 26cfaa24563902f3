//! All tasks that a query means are cancelled or repeated: counted first, then so many a request, each with an event that says
//! who did it and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use chrono::Utc;
use futures_util::StreamExt;
use insightforge_schema::id::TaskId;
use serde::Deserialize;
use sqlx::{MySql, QueryBuilder};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::cancel::cancel_one;
use crate::dead_letters::act::{Acted, By};
use crate::describe::{Backlogged, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::list::LOOKED_INTO;
use crate::members::Members;
use crate::problem::Problem;
use crate::query::{Query, sql};
use crate::redrive::redrive_one;
use crate::trace;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 1_000;
/// Tasks that are counted.
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
/// Those that the query means and that wait or run; until `dry_run` is `false` they are only counted, up to 50,000.
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
/// Those that the query means, that failed or were cancelled and have not been repeated; until `dry_run` is `false` they are only
/// counted, up to 50,000.
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
    let limit = members.limit(LIMIT_DEFAULT, LIMIT_MOST);
    let dry_run = members.dry_run();
    let by = By { actor: ACTOR.to_owned(), reason: members.reason(), trace: trace::read(&parts.headers) };
    let query = members.finish(query)?;
    let most = if dry_run { if query.has_text() { LOOKED_INTO } else { COUNTED } } else { limit };
    let meant: Vec<(String,)> = ask(act.question(&query, most + 1).build_query_as().fetch_all(&app.pool)).await?;
    let more = meant.len() > most as usize;
    let meant: Vec<TaskId> = meant.iter().take(most as usize).filter_map(|(id,)| id.parse().ok()).collect();
    let mut acted = Acted { dry_run, matched: meant.len() as u64, more, done: 0, refused: Vec::new() };
    if dry_run {
        return Ok(Json(acted));
    }
    let mut outcomes = futures_util::stream::iter(meant)
        .map(|task| {
            let by = &by;
            async move { (task, act.on(app, task, by).await) }
        })
        .buffer_unordered(AT_ONCE);
    while let Some((task, outcome)) = outcomes.next().await {
        acted.count(task, outcome)?;
    }
    Ok(Json(acted))
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
    async fn on(self, app: &App, task: TaskId, by: &By) -> Result<(), Problem> {
        match self {
            Self::Cancel => cancel_one(app, task, by).await,
            Self::Retry => redrive_one(app, task, by).await.map(|_| ()),
        }
    }

    /// Which tasks can be dealt with so. In no order: any would have to be sorted.
    fn condition(self) -> &'static str {
        match self {
            Self::Cancel => " WHERE status IN ('pending', 'processing')",
            Self::Retry => " WHERE status IN ('failed', 'cancelled') AND redriven_as IS NULL",
        }
    }

    fn question(self, query: &Query, most: u32) -> QueryBuilder<MySql> {
        let now = Utc::now();
        let mut ask = QueryBuilder::new("SELECT task_id FROM ");
        if query.has_text() {
            ask.push("(SELECT id near_id FROM analysis_tasks").push(self.condition());
            sql::push(&mut ask, query, now);
            ask.push(" LIMIT ").push_bind(LOOKED_INTO);
            ask.push(") near STRAIGHT_JOIN analysis_tasks ON id = near_id WHERE TRUE");
            sql::push_texts(&mut ask, query);
        } else {
            ask.push("analysis_tasks").push(self.condition());
            sql::push(&mut ask, query, now);
        }
        ask.push(" LIMIT ").push_bind(most);
        ask
    }
}
