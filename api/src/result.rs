//! "What became of my task?" From Redis while the answer is young, then from the tables.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::find::{Found, find, live};
use crate::params::task_id;
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::{Document, TaskStatus};

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(result))
}

/// The former model server's path.
pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(cached))
}

/// The former model server's words for a task that is not there (any more).
const GONE: &str = "任務不存在或已過期";

/// A task's status and, once it has one, its result or its error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskResult {
    task_id: String,
    status: TaskStatus,
    task_type: String,
    /// As asked for; once completed, the version that answered.
    model_version: String,
    /// `null` unless `completed`. Its members are those of the model's output schema.
    #[schema(value_type = Option<Object>)]
    result: Option<Document>,
    /// SHA-256 of the manifest of the package that answered; `null` before.
    model_digest: Option<String>,
    /// What ran it.
    backend: Option<String>,
    /// Why that version: `exact`, `stable`, `canary`, `candidate` or `latest`.
    route_reason: Option<String>,
    /// A stable word for what went wrong, when something did.
    error_code: Option<String>,
    error_message: Option<String>,
    /// The attempt running or last run; 0 before the first.
    attempt: u32,
    created_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
}

impl From<Found> for TaskResult {
    fn from(found: Found) -> Self {
        Self {
            task_id: found.task.to_string(),
            status: found.status,
            task_type: found.task_type,
            model_version: found.model_version,
            result: found.result,
            model_digest: found.model_digest,
            backend: found.backend,
            route_reason: found.route_reason,
            error_code: found.error_code,
            error_message: found.error_message,
            attempt: found.attempt,
            created_at: found.created_at,
            completed_at: found.completed_at,
        }
    }
}

/// Status and result of a task
///
/// A task is visible from the moment its upload was answered. The answer comes from Redis while the task runs and for 100 s
/// after its end, then from the tables.
#[utoipa::path(
    get, path = "/api/result/{task_id}", operation_id = "getResult", tag = "results",
    params(("task_id" = uuid::Uuid, Path, description = "The id from the upload's answer")),
    responses((status = 200, description = "The task as it stands now", body = TaskResult), Absent, Invalid, Unavailable)
)]
pub(crate) async fn result(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<TaskResult>, Problem> {
    let task = task_id(&text)?;
    let found = find(&app, task).await?.ok_or_else(|| Problem::not_found(format!("there is no task {task}")))?;
    Ok(Json(found.into()))
}

/// A task as the former model server answered it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CachedTask {
    status: TaskStatus,
    task_type: String,
    model_version: String,
    #[schema(value_type = Object)]
    data_payload: Option<Document>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    result: Option<Document>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A task from the cache, as the former model server answered it
///
/// Known while it runs and for 100 s after its end.
#[utoipa::path(
    get, path = "/result/{task_id}", operation_id = "getCachedTask", tag = "model server",
    params(("task_id" = uuid::Uuid, Path, description = "The id that was given to `/analyze`")),
    responses((status = 200, description = "The task as it stands now", body = CachedTask), Absent, Unavailable)
)]
pub(crate) async fn cached(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<CachedTask>, Problem> {
    let gone = || Problem::not_found(GONE);
    let task = task_id(&text).map_err(|_| gone())?;
    let found = match live(&app, task).await? {
        Some(live) if live.is_cached() => live.found,
        _ => return Err(gone()),
    };
    Ok(Json(CachedTask {
        status: found.status,
        task_type: found.task_type,
        model_version: found.model_version,
        data_payload: found.data,
        result: found.result,
        error: found.error_message,
    }))
}
