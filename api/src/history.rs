//! What happened to one task, event by event: also what is not folded into the tables yet, and what has left Redis.
//!
//! The tables know which events a task has, up to the checkpoint; behind it the journal is searched. What an event says is
//! taken from the journal or its archive, and where those do not have it, from its log row, which has no documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::NaiveDateTime;
use futures_util::future::join_all;
use insightforge_archive::ReadError;
use insightforge_schema::id::{Partition, Position, TaskId, position_of_row, row_id};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json as JsonColumn;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::event_view::EventView;
use crate::find::{live, row};
use crate::folded;
use crate::params::{self, Params, task_id};
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::utc;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 500;
/// How far behind the checkpoint one request searches, in events of the partition.
const SEARCH_MOST: u64 = 10_000;
const SEARCH_STEP: usize = 1_000;
/// Events read at once, each by its number.
const READS: usize = 32;
/// One read of the search takes no more events beyond so many bytes.
const SEARCH_BYTES: usize = 1 << 20;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Which part of the history.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Part {
    /// Number of the last event that is known already.
    #[param(default = 0)]
    pub(crate) after: u64,
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub(crate) limit: u32,
}

/// Events of one task, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct History {
    pub(crate) events: Vec<EventView>,
    /// `after` of the next page; `null` when this was the last.
    pub(crate) next: Option<u64>,
    /// `false` when the tables are so far behind the journal that not all of it was searched: what is missing appears when
    /// they have caught up.
    pub(crate) complete: bool,
}

/// The history of a task
///
/// Every event from its submission on, oldest first, including those that are not in the tables yet.
#[utoipa::path(
    get, path = "/api/tasks/{task_id}/events", operation_id = "getTaskHistory", tag = "tasks",
    params(("task_id" = uuid::Uuid, Path, description = "The task"), Part),
    responses((status = 200, description = "A page of the history", body = History), Absent, Invalid, Unavailable)
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<History>, Problem> {
    let task = task_id(&text)?;
    let part = Part::parse(query.as_deref())?;
    let begin = locate(&app, task).await?.ok_or_else(|| Problem::not_found(format!("there is no task {task}")))?;
    Ok(Json(part.read(&app, &begin).await?))
}

/// Where a task's events are to be found.
pub(crate) struct Begin {
    pub(crate) task: TaskId,
    pub(crate) first: Position,
    /// The terminal event, when the record names one.
    terminal: Option<u64>,
}

pub(crate) async fn locate(app: &App, task: TaskId) -> Result<Option<Begin>, Problem> {
    let from_redis = live(app, task).await;
    if let Ok(Some(live)) = from_redis {
        return Ok(Some(Begin { task, first: live.found.first, terminal: live.terminal }));
    }
    match row(app, task).await? {
        Some(row) => Ok(Some(Begin { task, first: row.first, terminal: None })),
        // Not there as far as the tables know; without Redis nobody can say.
        None => from_redis.map(|_| None),
    }
}

impl Part {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let part = Self {
            after: params.take("after", params::whole).unwrap_or(0),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST),
        };
        params.finish()?;
        Ok(part)
    }

    pub(crate) async fn read(&self, app: &App, begin: &Begin) -> Result<History, Problem> {
        let partition = begin.first.partition;
        let folded = match Folded::read(app, begin.first, self.after, self.limit + 1).await {
            Ok(folded) => folded,
            // Without the tables the journal is searched from the task's beginning.
            Err(_) => Folded { logs: Vec::new(), checkpoint: begin.first.n - 1, all: true },
        };
        let mut found: BTreeMap<u64, Option<EventView>> = BTreeMap::new();
        let mut complete = true;
        for log in folded.logs {
            let n = position_of_row(log.id).n;
            found.insert(n, Some(log.view(begin.task, partition)));
        }
        if folded.all {
            let from = folded.checkpoint.max(self.after).max(begin.first.n - 1) + 1;
            // The first and the last event are known by number, however far behind the tables are.
            let known = [Some(begin.first.n), begin.terminal].into_iter().flatten();
            found.extend(known.filter(|n| *n > self.after).map(|n| (n, None)).filter(|(n, _)| *n >= from));
            complete = search(app, begin.task, partition, from, &mut found).await.unwrap_or(false);
        }
        let numbers: Vec<u64> = found.keys().copied().take(self.limit as usize + 1).collect();
        let more = numbers.len() > self.limit as usize;
        let page = &numbers[..numbers.len().min(self.limit as usize)];
        let from_tables = page.iter().filter(|n| found[*n].as_ref().is_none_or(|view| view.description.is_some()));
        let from_tables: Vec<u64> = from_tables.copied().collect();
        for numbers in from_tables.chunks(READS) {
            let reads = numbers.iter().map(|&n| app.journal.range(partition, n, Some(n), 1));
            // What cannot be read now is told by its log row.
            for event in join_all(reads).await.into_iter().flatten().flatten().filter(|it| it.task == begin.task) {
                found.insert(event.position.n, Some((&event).into()));
            }
        }
        let events: Vec<EventView> = page.iter().filter_map(|n| found.remove(n).flatten()).collect();
        Ok(History { events, next: page.last().copied().filter(|_| more), complete })
    }
}

/// Searches the journal from number `from` on for events of `task`; `false` when its end was not reached.
async fn search(
    app: &App,
    task: TaskId,
    partition: Partition,
    from: u64,
    found: &mut BTreeMap<u64, Option<EventView>>,
) -> Result<bool, ReadError> {
    let mut next = from;
    while next < from + SEARCH_MOST {
        let run = app.journal.run(partition, next, SEARCH_STEP, SEARCH_BYTES).await?;
        for event in run.events.iter().filter(|event| event.task == task) {
            found.insert(event.position.n, Some(event.into()));
        }
        match run.events.last() {
            Some(last) if !run.end => next = last.position.n + 1,
            _ => return Ok(true),
        }
    }
    Ok(false)
}

/// What the tables have.
struct Folded {
    logs: Vec<Log>,
    /// Up to here the journal is in the tables.
    checkpoint: u64,
    /// Whether `logs` holds all up to there, rather than a page of it.
    all: bool,
}

impl Folded {
    async fn read(app: &App, first: Position, after: u64, limit: u32) -> Result<Self, Problem> {
        let partition = first.partition;
        // The checkpoint first: what is folded between the two questions is then found twice, not lost.
        let checkpoint = ask(folded::of(app, partition)).await?;
        let logs: Vec<Log> = ask(sqlx::query_as(
            "SELECT id, event_type, description, details, created_at FROM task_logs \
             WHERE analysis_task_id = ? AND id > ? ORDER BY id LIMIT ?",
        )
        .bind(first.row_id())
        .bind(row_id(Position { partition, n: after }))
        .bind(limit)
        .fetch_all(&app.pool))
        .await?;
        let all = logs.len() < limit as usize;
        Ok(Self { logs, checkpoint, all })
    }
}

#[derive(FromRow)]
struct Log {
    id: u64,
    event_type: String,
    description: String,
    details: JsonColumn<Box<RawValue>>,
    created_at: NaiveDateTime,
}

impl Log {
    fn view(self, task: TaskId, partition: Partition) -> EventView {
        let mut data: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(self.details.0.get()).unwrap_or_default();
        let actor = data.remove("actor").and_then(|actor| actor.as_str().map(str::to_owned));
        let trace = data.remove("trace").and_then(|trace| trace.as_str().map(str::to_owned));
        let attempt = data.remove("attempt").and_then(|attempt| attempt.as_u64());
        EventView {
            position: Position { partition, n: position_of_row(self.id).n }.to_string(),
            event_type: self.event_type,
            task_id: task.to_string(),
            at: Some(utc(self.created_at)),
            actor: actor.unwrap_or_default(),
            attempt: attempt.and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(0),
            tenant: None,
            trace,
            description: Some(self.description),
            data: data.into(),
        }
    }
}
