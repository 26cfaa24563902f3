//! `GET /api/tasks/{id}/why`: why a task is not done, or how it ended. `insightforge why` answers with the same function,
//! [`explain`].
//!
//! 1. [`explain`] – what Redis knows of the task, what the tables know, and the answer put together from both.
//! 2. `line` – its place among the waiting, how fast they are worked off, and when its turn comes.
//! 3. `serve` – which analyzers can take it and, when none can, what would help.
//! 4. `rows` – how far the tables are, and what became of its announcements.
//! 5. `say` – the same in sentences (pure).
//!
//! Nothing here waits long, writes, or reads more than a bounded part of anything.

mod line;
mod rows;
mod say;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use insightforge_schema::catalogue::{self, Worker};
use insightforge_schema::event::{Change, Failed, decode};
use insightforge_schema::id::{PartitionCount, Position, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::registry::Routes;
use insightforge_schema::script::{self, LiveView};
use insightforge_schema::standing::{Standing, standing};
use serde::Serialize;
use sqlx::MySqlPool;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::params::task_id;
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::{TaskStatus, time_of};

pub use line::Queue;
pub use rows::{Announcement, Rows};
pub use serve::Server;

/// For each question to Redis.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(why))
}

/// What the answer is found with.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub link: &'a Link,
    pub keys: &'a Keys,
    pub partitions: PartitionCount,
    /// Asked as far as it answers.
    pub pool: &'a MySqlPool,
    /// Which model version answers what.
    pub routes: &'a Routes,
}

/// Where a task stands, more finely than its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stand {
    /// It waits on its lane.
    Queued,
    /// An analyzer has it and has not begun it.
    Taken,
    /// An analyzer works on it.
    Running,
    /// It waits for its next attempt.
    Delayed,
    /// It is over.
    Ended,
    /// Only the tables could be asked, and they may be behind.
    Unknown,
}

/// Why a task is not done, or how it ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Why {
    #[schema(value_type = uuid::Uuid)]
    pub task_id: TaskId,
    pub(crate) status: TaskStatus,
    pub stand: Stand,
    /// The same as all the rest, for people.
    pub sentences: Vec<String>,
    pub task_type: String,
    /// What was asked for: a version or an alias; once completed, the version that answered.
    pub model_version: String,
    /// Where its `submitted` event stands in the journal: `<partition>:<number>`.
    pub position: String,
    pub submitted_at: Option<DateTime<Utc>>,
    /// No attempt begins after it: a task that still waits then fails with the code `expired`.
    pub expires_at: Option<DateTime<Utc>>,
    /// The attempt running or last run; 0 before the first.
    pub attempt: u32,
    /// Attempts before it is failed for good, as the analyzers say.
    pub attempts_limit: Option<u32>,
    /// What went wrong last: with the task, or with the attempt before.
    pub last_error: Option<LastError>,
    /// While it waits.
    pub queue: Option<Queue>,
    /// While an analyzer has it.
    pub holder: Option<Holder>,
    /// While it waits for its next attempt.
    pub next_attempt: Option<NextAttempt>,
    /// Once it is over.
    pub end: Option<End>,
    /// Analyzers alive that can take it; of no interest once it is over.
    pub analyzers: Vec<Server>,
    /// What would help when no analyzer can take it.
    pub remedy: Option<String>,
    pub rows: Rows,
    /// One an endpoint that is to be told; `null` while the tables do not answer.
    pub webhooks: Option<Vec<Announcement>>,
}

/// An error in an attempt's or a task's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastError {
    #[schema(example = "timeout")]
    pub code: String,
    pub message: String,
}

/// The analyzer that has a task.
#[derive(Debug, Serialize, ToSchema)]
pub struct Holder {
    pub worker: String,
    /// Seen lately; one that is not is taken from when its lease ends.
    pub alive: bool,
    /// When this attempt began.
    pub since: Option<DateTime<Utc>>,
    /// For how long it has said nothing about this task; `null` while its lane's group is being made anew.
    pub idle_ms: Option<u64>,
    /// The silence after which it loses the task, as the analyzers say.
    pub lease_ms: Option<u64>,
    /// When it loses the task unless it says something before: by Redis' clock.
    pub lease_ends_at: Option<DateTime<Utc>>,
}

/// A retry to come.
#[derive(Debug, Serialize, ToSchema)]
pub struct NextAttempt {
    pub attempt: u32,
    pub due_at: Option<DateTime<Utc>>,
    /// It should have been back on its lane by now.
    pub overdue: bool,
}

/// How a task ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct End {
    pub at: Option<DateTime<Utc>>,
    /// On the dead-letter list now.
    pub dead_letter: bool,
    /// The task that repeats it, as far as the tables know.
    pub redriven_as: Option<String>,
}

/// Why is a task not done?
///
/// Its place in line and when its turn comes, who holds it and for how long, its next attempt and the last error, how it
/// ended, how far the tables are behind, and what became of its webhooks. Also while the database is away.
#[utoipa::path(
    get, path = "/api/tasks/{task_id}/why", operation_id = "whyTask", tag = "tasks",
    params(("task_id" = uuid::Uuid, Path, description = "The task")),
    responses((status = 200, description = "The reasons", body = Why), Absent, Invalid, Unavailable)
)]
pub(crate) async fn why(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<Why>, Problem> {
    let seen = app.models.seen();
    let sources = Sources {
        link: &app.link,
        keys: &app.keys,
        partitions: app.config.partitions,
        pool: &app.pool,
        routes: &seen.routes,
    };
    let task = task_id(&text)?;
    let why = Box::pin(explain(sources, task)).await?;
    let why = why.ok_or_else(|| Problem::not_found(format!("there is no task {task}")))?;
    Ok(Json(why))
}

/// Why a task is not done, or how it ended; `None` when nobody knows the task.
///
/// # Errors
/// 503 when what was asked could not be found out.
pub async fn explain(sources: Sources<'_>, task: TaskId) -> Result<Option<Why>, Problem> {
    let (live, row) = tokio::join!(patiently(from_redis(sources, task)), rows::read(sources, task));
    let mut why = match (live, &row) {
        (Ok(Some(live)), _) => of_live(sources, task, live, row.as_ref().ok().and_then(Option::as_ref)).await?,
        (Ok(None), Ok(Some(row))) => rows::of_row(task, row),
        (Ok(None), Ok(None)) => return Ok(None),
        (Ok(None), Err(_)) => return Err(Problem::unavailable("the database")),
        (Err(error), Ok(Some(row))) => {
            tracing::warn!(%error, "a task is explained from the tables alone");
            rows::of_row(task, row)
        }
        (Err(error), _) => return Err(error.into()),
    };
    rows::add(sources, task, row, &mut why).await;
    why.sentences = say::sentences(&why, Utc::now());
    Ok(Some(why))
}

/// What Redis knows of a task and of those who could take it.
struct Live {
    view: LiveView,
    standing: Standing,
    workers: Vec<Worker>,
}

async fn from_redis(sources: Sources<'_>, task: TaskId) -> Result<Option<Live>, LinkError> {
    let Sources { link, keys, partitions, .. } = sources;
    let partition = partitions.of_task(task);
    let (view, standing, workers) = tokio::try_join!(
        script::view(link, keys, partition, task),
        standing(link, keys, partition, task),
        catalogue::workers(link, keys),
    )?;
    // A record that expires between the two reads is gone.
    Ok(view.zip(standing).map(|(view, standing)| Live { view, standing, workers }))
}

async fn patiently<T>(question: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    let answer = tokio::time::timeout(PATIENCE, question).await;
    answer.unwrap_or_else(|_| Err(LinkError::Unavailable("no answer in time".to_owned())))
}

async fn of_live(sources: Sources<'_>, task: TaskId, live: Live, row: Option<&rows::Row>) -> Result<Why, Problem> {
    let Live { view, standing, workers } = live;
    let partition = sources.partitions.of_task(task);
    let lane = &standing.lane;
    let (meta, submitted) = decode("submitted", &view.submitted);
    let (task_type, model_version, expires_us) = match submitted {
        Change::Submitted(submitted) => (submitted.task_type, submitted.model_version, submitted.expires_us),
        _ => (lane.task_type.clone(), lane.model_version.clone(), None),
    };
    let (analyzers, remedy) = serve::servers(&workers, sources.routes, lane, &task_type, &model_version);
    let queue = match standing.state.as_str() {
        "Q" => patiently(line::queue(sources, partition, &standing, &analyzers)).await?,
        _ => None,
    };
    let limits = serve::limits(&workers, lane);
    let stand = match standing.state.as_str() {
        "Q" if queue.is_some() => Stand::Queued,
        "Q" => Stand::Taken,
        "P" => Stand::Running,
        "D" => Stand::Delayed,
        _ => Stand::Ended,
    };
    let waits = stand != Stand::Ended;
    let mut why = Why {
        task_id: task,
        status: status(&standing),
        stand,
        sentences: Vec::new(),
        task_type,
        model_version,
        position: Position { partition, n: standing.first }.to_string(),
        submitted_at: time_of(meta.at_us),
        expires_at: expires_us.and_then(time_of),
        // While it waits, the record counts the attempt that comes next.
        attempt: if stand == Stand::Running { standing.attempt } else { standing.attempt.saturating_sub(1) },
        attempts_limit: limits.map(|limits| limits.max_attempts),
        last_error: None,
        queue,
        holder: matches!(stand, Stand::Taken | Stand::Running).then(|| holder(&standing, &workers, limits)).flatten(),
        next_attempt: (stand == Stand::Delayed).then(|| NextAttempt {
            attempt: standing.attempt,
            due_at: standing.due_ms.and_then(DateTime::from_timestamp_millis),
            overdue: standing.due_ms.is_some_and(|due| standing.now_ms - due > OVERDUE_MS),
        }),
        end: (stand == Stand::Ended).then(|| End {
            at: standing.latest.as_ref().and_then(|(_, meta, _)| time_of(meta.at_us)),
            dead_letter: standing.dead_since_ms.is_some(),
            redriven_as: None,
        }),
        analyzers: if waits { analyzers } else { Vec::new() },
        remedy: remedy.filter(|_| waits),
        rows: Rows::default(),
        webhooks: None,
    };
    take_in(&mut why, &standing, row);
    Ok(why)
}

/// A task that was due this long ago should be back on its lane.
const OVERDUE_MS: i64 = 5_000;

fn status(standing: &Standing) -> TaskStatus {
    match (standing.state.as_str(), standing.outcome.as_deref()) {
        ("P", _) => TaskStatus::Processing,
        ("Z", Some(outcome)) => TaskStatus::parse(outcome).unwrap_or(TaskStatus::Failed),
        ("Z", None) => TaskStatus::Failed,
        _ => TaskStatus::Pending,
    }
}

/// Takes in what the latest event says; once the next attempt has begun, only the row remembers why there was one.
fn take_in(why: &mut Why, standing: &Standing, row: Option<&rows::Row>) {
    let error = |code: &str, message: &str| Some(LastError { code: code.to_owned(), message: message.to_owned() });
    match &standing.latest {
        Some((_, meta, Change::Completed(completed))) => {
            why.attempt = meta.attempt;
            why.model_version.clone_from(&completed.model_version);
        }
        Some((_, meta, Change::Failed(Failed { code, message, .. }))) => {
            why.attempt = meta.attempt;
            why.last_error = error(code, message);
        }
        Some((_, meta, Change::Cancelled(cancelled))) => {
            why.attempt = meta.attempt;
            why.last_error = error("cancelled", &cancelled.reason);
        }
        Some((_, meta, Change::RetryScheduled(retry))) => {
            why.attempt = meta.attempt;
            why.last_error = error(&retry.code, &retry.message);
        }
        _ => why.last_error = row.filter(|_| why.status != TaskStatus::Completed).and_then(rows::Row::error),
    }
}

fn holder(standing: &Standing, workers: &[Worker], limits: Option<catalogue::Limits>) -> Option<Holder> {
    let (worker, idle_ms) = match (&standing.holder, &standing.worker) {
        (Some((worker, idle_ms)), _) => (worker.clone(), Some(*idle_ms)),
        (None, Some(worker)) => (worker.clone(), None),
        (None, None) => return None,
    };
    let since = match &standing.latest {
        Some((_, meta, Change::Processing(_))) if standing.state == "P" => time_of(meta.at_us),
        _ => None,
    };
    let here = workers.iter().find(|known| known.name == worker);
    let lease_ms = here.and_then(|here| here.limits).or(limits).map(|limits| limits.lease_ms);
    let ends_ms = lease_ms.zip(idle_ms).map(|(lease, idle)| standing.now_ms - idle as i64 + lease as i64);
    Some(Holder {
        alive: here.is_some(),
        worker,
        since,
        idle_ms,
        lease_ms,
        lease_ends_at: ends_ms.and_then(DateTime::from_timestamp_millis),
    })
}
