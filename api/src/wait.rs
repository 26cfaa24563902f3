//! Waiting for a task's end on behalf of a caller who preferred to (`Prefer: wait=N`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::{IntoResponse, Response};
use insightforge_schema::id::TaskId;
use tokio::time::Instant;

use crate::app::App;
use crate::path::Path;
use crate::result;
use crate::tail::Waited;
use crate::upload::PREFERENCE_APPLIED;

/// The result of `task`, if it ends within `wait`. The task is stored whatever becomes of the wait: an error here must
/// not look as if it were not.
pub(crate) async fn for_end(app: &Arc<App>, task: TaskId, wait: Duration) -> Option<Response> {
    let Ok(Waited::Ended(_)) = app.tail.wait_for_end(task, Instant::now() + wait).await else {
        return None;
    };
    let result = result::result(State(app.clone()), Path(task.to_string())).await.ok()?;
    let mut response = result.into_response();
    let applied = HeaderValue::try_from(format!("wait={}", wait.as_secs())).expect("digits are ASCII");
    response.headers_mut().insert(PREFERENCE_APPLIED, applied);
    Some(response)
}
