//! One task with everything that is known of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use insightforge_schema::address::shown_url;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::find::{Found, find_all};
use crate::params::task_id;
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::{Document, TaskStatus};

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(task))
}

/// A task with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskDetail {
    task_id: String,
    status: TaskStatus,
    task_type: String,
    /// As asked for; once completed, the version that answered.
    model_version: String,
    /// The caller's document.
    #[schema(value_type = Object)]
    data_payload: Option<Document>,
    #[schema(value_type = Option<Object>)]
    result: Option<Document>,
    error_code: Option<String>,
    error_message: Option<String>,
    /// The attempt running or last run; 0 before the first.
    attempt: u32,
    /// The analyzer that holds or held the attempt.
    worker: Option<String>,
    /// Time in the model, shared by its micro-batch, in microseconds.
    inference_us: Option<u64>,
    /// SHA-256 of the manifest of the package that answered; `null` before.
    model_digest: Option<String>,
    /// What ran it.
    backend: Option<String>,
    /// Why that version: `exact`, `stable`, `canary`, `candidate` or `latest`.
    route_reason: Option<String>,
    tenant: Option<String>,
    user_id: Option<u64>,
    batch_id: Option<String>,
    batch_line: Option<u32>,
    /// The ended task that this one repeats.
    retry_of: Option<String>,
    /// The task that repeats this one.
    redriven_as: Option<String>,
    /// Whether it is on the dead-letter list now.
    dead_lettered: bool,
    /// The task's own webhook, without credentials and query.
    webhook_url: Option<String>,
    /// No attempt begins after it.
    expires_at: Option<DateTime<Utc>>,
    /// Where its `submitted` event stands in the journal: `<partition>:<number>`.
    position: String,
    created_at: Option<DateTime<Utc>>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
    links: Links,
}

/// Where to go on from a task.
#[derive(Debug, Serialize, ToSchema)]
struct Links {
    result: String,
    events: String,
    why: String,
    deliveries: String,
    /// Absent for a task that came alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<String>,
    /// Present while it can be cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancel: Option<String>,
    /// Present once it can be repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<String>,
}

impl From<Found> for TaskDetail {
    fn from(found: Found) -> Self {
        let links = Links::of(&found);
        let (batch_id, batch_line) = found.batch.unzip();
        Self {
            task_id: found.task.to_string(),
            status: found.status,
            task_type: found.task_type,
            model_version: found.model_version,
            data_payload: found.data,
            result: found.result,
            error_code: found.error_code,
            error_message: found.error_message,
            attempt: found.attempt,
            worker: found.worker,
            inference_us: found.inference_us,
            model_digest: found.model_digest,
            backend: found.backend,
            route_reason: found.route_reason,
            tenant: found.tenant,
            user_id: found.user_id,
            batch_id,
            batch_line,
            retry_of: found.retry_of,
            redriven_as: found.redriven_as,
            dead_lettered: found.dead_lettered,
            webhook_url: found.webhook_url.as_deref().map(shown_url),
            expires_at: found.expires_at,
            position: found.first.to_string(),
            created_at: found.created_at,
            started_at: found.started_at,
            completed_at: found.completed_at,
            updated_at: found.updated_at,
            links,
        }
    }
}

impl Links {
    fn of(found: &Found) -> Self {
        let task = found.task;
        let can_repeat = matches!(found.status, TaskStatus::Failed | TaskStatus::Cancelled);
        Self {
            result: format!("/api/result/{task}"),
            events: format!("/api/tasks/{task}/events"),
            why: format!("/api/tasks/{task}/why"),
            deliveries: format!("/api/webhooks/deliveries?task_id={task}"),
            batch: found.batch.as_ref().map(|(batch, _)| format!("/api/batches/{batch}")),
            cancel: (!found.status.is_final()).then(|| format!("/api/tasks/{task}/cancel")),
            retry: can_repeat.then(|| format!("/api/tasks/{task}/retry")),
        }
    }
}

/// A task with everything that is known of it
///
/// Put together from the live record and the tables: the record says where the task stands, the tables remember what the
/// record does not keep.
#[utoipa::path(
    get, path = "/api/tasks/{task_id}", operation_id = "getTask", tag = "tasks",
    params(("task_id" = uuid::Uuid, Path, description = "The task")),
    responses((status = 200, description = "The task", body = TaskDetail), Absent, Invalid, Unavailable)
)]
pub(crate) async fn task(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<TaskDetail>, Problem> {
    let task = task_id(&text)?;
    let found = find_all(&app, task).await?.ok_or_else(|| Problem::not_found(format!("there is no task {task}")))?;
    Ok(Json(found.into()))
}
