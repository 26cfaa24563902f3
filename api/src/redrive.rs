//! `POST /api/tasks/{id}/retry`: repeats a failed or cancelled task as a new one, which is the same one however often
//! it is asked for. A dead letter is taken off its list by it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{Change, Meta, Redriven, Submitted, decode, encode, now_us};
use insightforge_schema::id::{Position, TaskId};
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Context, LiveView, Redrive, Submission};
use metrics::counter;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::dead_letters::act::By;
use crate::describe::{Absent, Backlogged, Conflict, Invalid, Unavailable};
use crate::find;
use crate::params::task_id;
use crate::past;
use crate::path::Path;
use crate::problem::Problem;
use crate::submit::Refused;
use crate::trace;
use crate::upload::{ACCEPTED, Stored, refuse};

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(retry))
}

/// The task will be repeated.
#[derive(Serialize, ToSchema)]
pub(crate) struct Repeated {
    #[schema(example = "任務已接收")]
    message: &'static str,
    /// The new task.
    #[schema(value_type = uuid::Uuid)]
    task_id: TaskId,
    /// The task it repeats.
    #[schema(value_type = uuid::Uuid)]
    retry_of: TaskId,
}

/// Repeat a failed or cancelled task
///
/// The input, type, version and webhook are those of the old task. Asked for twice, it is one new task.
#[utoipa::path(
    post,
    path = "/api/tasks/{task_id}/retry",
    tag = "tasks",
    params(("task_id" = uuid::Uuid, Path, description = "The failed or cancelled task")),
    responses(
        (status = 202, description = "The new task is stored", body = Repeated),
        Absent, Conflict, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let old = task_id(&id)?;
    let by = By { actor: "api".to_owned(), reason: None, trace: trace::read(request.headers()) };
    let repeated = redrive_one(&app, old, &by).await?;
    Ok(repeated.mark((StatusCode::ACCEPTED, Json(Repeated::new(repeated.task, old))).into_response()))
}

impl Repeated {
    pub(crate) fn new(task_id: TaskId, retry_of: TaskId) -> Self {
        Self { message: ACCEPTED, task_id, retry_of }
    }
}

/// Repeats an ended task, which is one new task however often it is asked for.
///
/// # Errors
/// 404 and 409 when there is no such task or it cannot be repeated, 429 and 503 when it cannot now.
pub(crate) async fn redrive_one(app: &App, old: TaskId, by: &By) -> Result<Stored, Problem> {
    match end_of(app, old).await? {
        End::Repeated(task) => Ok(Stored { task, replayed: true }),
        End::Open(first, submitted) => repeat(app, old, first, submitted, by).await,
    }
}

/// A task that may be repeated.
enum End {
    /// It was, as this task.
    Repeated(TaskId),
    /// It was not: where it began and what it asked for.
    Open(Position, Submitted),
}

/// Finds an ended task, in Redis or, once its record is gone, in the tables. A record says nothing of a repetition:
/// the new task's own record outlives it, or the new task has a row.
async fn end_of(app: &App, old: TaskId) -> Result<End, Problem> {
    let partition = app.config.partitions.of_task(old);
    if let Some(view) = script::view(&app.link, &app.keys, partition, old).await? {
        check(outcome(&view))?;
        let first = Position { partition, n: view.first };
        return Ok(End::Open(first, asked(app, first, &view.submitted).await?));
    }
    let Some(row) = find::row(app, old).await? else {
        return Err(Problem::not_found("there is no such task"));
    };
    check(row.status.as_str())?;
    match row.redriven_as.and_then(|task| task.parse().ok()) {
        Some(task) => Ok(End::Repeated(task)),
        None => Ok(End::Open(row.first, past::submitted(app, row.first).await?)),
    }
}

fn outcome(view: &LiveView) -> &str {
    match view.state.as_str() {
        "Z" => view.outcome.as_deref().unwrap_or("completed"),
        "P" => "processing",
        _ => "pending",
    }
}

fn check(status: &str) -> Result<(), Problem> {
    if matches!(status, "failed" | "cancelled") {
        return Ok(());
    }
    let detail = format!("only a failed or cancelled task can be repeated; this one is {status}");
    Err(Problem::new(StatusCode::CONFLICT, "not-repeatable", "The task cannot be repeated", detail))
}

async fn asked(app: &App, first: Position, submitted: &[u8]) -> Result<Submitted, Problem> {
    match decode("submitted", submitted) {
        (_, Change::Submitted(submitted)) => Ok(submitted),
        // The journal does not hold it any more.
        _ => past::submitted(app, first).await,
    }
}

/// Stores the new task and the old one's `redriven` event in one step.
async fn repeat(app: &App, old: TaskId, first: Position, mut submitted: Submitted, by: &By) -> Result<Stored, Problem> {
    let new = TaskId::derived(format!("redrive/{old}").as_bytes(), first.partition, app.config.partitions);
    // Redis may have lost the new task's record, and its row still stands.
    if app.used.among(app, &[new]).await.contains(&new) {
        return Ok(Stored { task: new, replayed: true });
    }
    if let Some(sealed) = submitted.webhook.as_mut().and_then(|webhook| webhook.sealed_secret.as_mut()) {
        *sealed = resealed(app, sealed, old, new)?;
    }
    submitted.retry_of = Some(old);
    submitted.batch = None;
    // The deadline was the old one's: who repeats a task wants it done.
    submitted.expires_us = None;
    let lane = lane_of(app, &submitted);
    let meta = |attempt, trace| Meta {
        at_us: now_us(),
        tenant: DEFAULT_TENANT.to_owned(),
        actor: by.actor.clone(),
        attempt,
        trace,
    };
    let trace = by.trace.clone();
    let redriven = Redriven { as_task: new, reason: by.reason.clone() };
    let redrive = Redrive {
        old,
        old_first: first.n,
        redriven: encode(&meta(0, trace.clone()), &Change::Redriven(redriven)),
        new,
        submitted: encode(&meta(0, trace.clone()), &Change::Submitted(submitted)),
        lane,
        context: Context { tenant: DEFAULT_TENANT.to_owned(), trace },
    };
    let Some(place) = app.submitter.place() else { return Err(refuse(Refused::Backlog, new)) };
    match script::redrive(&app.link, &app.keys, first.partition, &redrive).await {
        Ok(Submission::Accepted { task, .. }) => {
            place.keep();
            for event_type in ["redriven", "submitted"] {
                counter!("if_events_appended_total", "type" => event_type).increment(1);
            }
            Ok(Stored { task, replayed: false })
        }
        Ok(_) => Ok(Stored { task: new, replayed: true }),
        Err(error) => Err(refuse(Refused::Link(error), new)),
    }
}

/// A secret opens for its own task only.
fn resealed(app: &App, sealed: &[u8], old: TaskId, new: TaskId) -> Result<Vec<u8>, Problem> {
    let secret = app.sealer.open(sealed, old.0.as_bytes()).map_err(|_| {
        let detail = "the task's webhook secret was sealed with another key of this installation";
        Problem::new(StatusCode::CONFLICT, "secret-lost", "The task cannot be repeated", detail)
    })?;
    Ok(app.sealer.seal(&secret, new.0.as_bytes()))
}

/// Where the new task waits. Its version may be unknown by now; then it fails and says so.
fn lane_of(app: &App, submitted: &Submitted) -> Lane {
    let asked = Lane::new(&submitted.task_type, &submitted.model_version);
    let known = app.models.seen().find(&submitted.task_type, &submitted.model_version).is_ok();
    if known { asked } else { Lane::unroutable() }
}
