//! What there is to be asked, and whether it is ready.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use insightforge_inference::store::State;
use insightforge_schema::registry::ALIASES;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::infer::door::{Door, json as answer_json};
use crate::infer::resolve::resolve;
use crate::problem::Problem;

/// The server and what it can do beyond the protocol's core.
pub(super) fn server(door: &Door) -> Response {
    let extensions = ["binary_tensor_data", "model_repository"];
    ok(&json!({ "name": "insightforge", "version": door.version, "extensions": extensions }))
}

pub(super) fn live() -> Response {
    ok(&json!({ "live": true }))
}

/// Ready once there is a model to ask.
pub(super) fn ready(door: &Door) -> Response {
    let ready = door.routes().tasks.keys().any(|task_type| resolve(door, task_type, "", || None).is_ok());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready }))).into_response()
}

/// Every task type that can be asked.
pub(super) fn models(door: &Door) -> Response {
    let routes = door.routes();
    let served = |task_type: &&String| resolve(door, task_type, "", || None).is_ok();
    ok(&json!({ "models": routes.tasks.keys().filter(served).collect::<Vec<_>>() }))
}

/// A model's tensors, and the versions it can be asked in.
pub(super) fn model(door: &Door, task_type: &str, version: &str) -> Result<Response, Problem> {
    let resolved =
        resolve(door, task_type, version, || Some(String::new())).map_err(|nobody| nobody.not_found(&door.routes()))?;
    let routes = door.routes();
    let mut versions: Vec<&str> = Vec::new();
    if let Some(task) = routes.task(task_type) {
        let known = task.versions.iter().map(|known| &*known.version);
        versions.extend(known.filter(|it| !task.retired.contains(*it) && door.store.get(task_type, it).is_some()));
        versions.extend(ALIASES.into_iter().filter(|alias| !routes.targets(task_type, alias).is_empty()));
    }
    let manifest = resolved.served.manifest();
    Ok(ok(&json!({
        "name": task_type,
        "versions": versions,
        "platform": resolved.served.runs_on().engine,
        "inputs": resolved.shown.shape.describe_inputs(),
        "outputs": resolved.shown.shape.describe_outputs(),
        "parameters": { "model_version": manifest.version, "model_digest": resolved.served.digest() },
    })))
}

pub(super) fn model_ready(door: &Door, task_type: &str, version: &str) -> Result<Response, Problem> {
    resolve(door, task_type, version, || Some(String::new())).map_err(|nobody| nobody.not_found(&door.routes()))?;
    Ok(ok(&json!({ "name": task_type, "ready": true })))
}

/// Which part of the index is asked for.
#[derive(Deserialize, Default)]
struct Filter {
    #[serde(default)]
    ready: bool,
}

/// Every version of every model, with its state (Triton's model repository extension).
pub(super) fn index(door: &Door, body: &[u8]) -> Result<Response, Problem> {
    let filter: Filter = match body.trim_ascii() {
        [] => Filter::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            let detail = format!("the body must be a JSON object, such as {{\"ready\": true}}: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "malformed", "The body cannot be read", detail)
        })?,
    };
    let routes = door.routes();
    let mut list: Vec<Value> = Vec::new();
    for (task_type, task) in &routes.tasks {
        for known in &task.versions {
            let (state, reason) = match door.store.get(task_type, &known.version) {
                _ if task.retired.contains(&known.version) => ("UNAVAILABLE", "retired"),
                None => ("UNAVAILABLE", "not served here"),
                Some(served) if served.state() == State::Unloaded => ("READY", "unloaded until it is asked"),
                Some(_) => ("READY", ""),
            };
            if state == "READY" || !filter.ready {
                list.push(json!({ "name": task_type, "version": known.version, "state": state, "reason": reason }));
            }
        }
    }
    Ok(ok(&Value::Array(list)))
}

fn ok(body: &Value) -> Response {
    answer_json(body.to_string())
}
