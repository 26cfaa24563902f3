//! `POST /api/tasks/{id}/cancel`: withdraws a task, waiting or running.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{Cancelled, Change, Meta, encode, now_us};
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Cancellation};
use metrics::counter;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::dead_letters::act::{By, Deed};
use crate::describe::{Absent, Conflict, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::find;
use crate::params::task_id;
use crate::path::Path;
use crate::problem::{Fields, Problem};
use crate::sent::{Media, Sent, SentFields};
use crate::shape::TaskStatus;
use crate::{body, trace};

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;
/// Who is written down as having done what callers ask for.
const ACTOR: &str = "api";
/// What is noted when no reason is given.
const NO_REASON: &str = "cancelled by the caller";

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(cancel))
}

/// May be left out.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct CancelBody {
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// The task is withdrawn.
#[derive(Serialize, ToSchema)]
pub(crate) struct CancelledTask {
    #[schema(value_type = uuid::Uuid)]
    task_id: TaskId,
    #[schema(example = "cancelled")]
    status: &'static str,
}

/// Cancel a task
///
/// A running attempt loses its task: whatever it still delivers is not taken. Cancelling twice is cancelling once.
#[utoipa::path(
    post,
    path = "/api/tasks/{task_id}/cancel",
    tag = "tasks",
    params(("task_id" = uuid::Uuid, Path, description = "The task")),
    request_body(content((CancelBody = "application/json"), (CancelBody = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The task is cancelled", body = CancelledTask),
        Malformed, Absent, Conflict, TooLarge, Unsupported, Invalid, Unavailable,
    ),
)]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<CancelledTask>, Problem> {
    let (parts, body) = request.into_parts();
    let task = task_id(&id)?;
    let reason = reason(&app, &parts.headers, body).await?;
    cancel_one(&app, task, &By { actor: ACTOR.to_owned(), reason, trace: trace::read(&parts.headers) }).await?;
    Ok(Json(CancelledTask { task_id: task, status: "cancelled" }))
}

/// Withdraws a task that has not ended, or was withdrawn before.
///
/// # Errors
/// 404 and 409 when there is no such task or it has ended, 503 when a server that is needed does not answer.
pub(crate) async fn cancel_one(app: &App, task: TaskId, by: &By) -> Result<Deed, Problem> {
    let partition = app.config.partitions.of_task(task);
    let Some(view) = script::view(&app.link, &app.keys, partition, task).await? else {
        return Err(over(app, task).await?);
    };
    let lane = Lane::parse(&view.lane).ok_or_else(|| Problem::unavailable("the task's record"))?;
    let meta = Meta {
        at_us: now_us(),
        tenant: DEFAULT_TENANT.to_owned(),
        actor: by.actor.clone(),
        // While it waits, the record counts the attempt that comes next.
        attempt: if view.state == "P" { view.attempt } else { view.attempt.saturating_sub(1) },
        trace: by.trace.clone(),
    };
    let reason = by.reason.clone().unwrap_or_else(|| NO_REASON.to_owned());
    let event = encode(&meta, &Change::Cancelled(Cancelled { reason }));
    match script::cancel(&app.link, &app.keys, partition, &lane, task, &event).await? {
        Cancellation::Done => {
            counter!("if_events_appended_total", "type" => "cancelled").increment(1);
            Ok(Deed::Now)
        }
        Cancellation::Ended(outcome) if outcome == "cancelled" => Ok(Deed::Before),
        Cancellation::Ended(outcome) => Err(ended(&outcome)),
        Cancellation::Unknown => Err(over(app, task).await?),
    }
}

/// The body's one field, for people; `None` when it is not given.
pub(crate) async fn reason(app: &App, headers: &HeaderMap, body: axum::body::Body) -> Result<Option<String>, Problem> {
    let held = body::read(&app.budget, headers, body, app.config.max_body_bytes).await?;
    if held.bytes.is_empty() {
        return Ok(None);
    }
    let media = if headers.contains_key(header::CONTENT_TYPE) { Media::of(headers) } else { Media::Json };
    let mut sent = SentFields::read(&media, held.bytes).await?;
    let mut faults = Fields::default();
    let reason = match sent.take("reason") {
        None | Some(Sent::Null) => None,
        Some(Sent::Text(reason)) if reason.chars().count() <= MAX_REASON_CHARS && !reason.contains('\0') => {
            Some(reason)
        }
        Some(_) => {
            faults.add("reason", format!("must be a string of {MAX_REASON_CHARS} characters at most, without NUL"));
            None
        }
    };
    sent.leftovers("reason", &mut faults);
    if faults.is_empty() { Ok(reason) } else { Err(Problem::invalid(faults)) }
}

/// Redis has no record of it: it ended longer ago than records are kept, or never was, or Redis lost it.
async fn over(app: &App, task: TaskId) -> Result<Problem, Problem> {
    Ok(match find::row(app, task).await? {
        Some(row) if matches!(row.status, TaskStatus::Pending | TaskStatus::Processing) => {
            let reason = "Redis has lost the task's record, or the tables are late: ask again in half a minute";
            Problem::unavailable("the task's record").with("reason", reason.into()).retry_after(30)
        }
        Some(row) => ended(row.status.as_str()),
        None => Problem::not_found("there is no such task"),
    })
}

/// 409: the task is over.
fn ended(status: &str) -> Problem {
    let detail = format!("the task cannot be cancelled: it is {status}");
    Problem::new(StatusCode::CONFLICT, "task-ended", "The task has ended", detail)
}
