//! `POST /analyze`: the former model server's door. What it was sent, it accepted; whatever is wrong with the input
//! becomes the failure of the task, and the webhook says so.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::asked::{Asked, Defaults, Door, Rules};
use crate::describe::{Backlogged, Conflict, Invalid, Malformed, TooLarge, TooSlow, Unavailable, Unsupported};
use crate::problem::Problem;
use crate::sent::{Media, SentFields};
use crate::upload::{Accepted, accept};
use crate::{body, trace};

/// What the former model server took when none was named.
const DEFAULT_VERSION: &str = "v1.0";

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(analyze))
}

/// The fields of an analysis.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct AnalyzeBody {
    /// The same id twice is one task, until a day after its end; a new task needs a new one.
    task_id: uuid::Uuid,
    /// The input: a JSON document as a string.
    #[schema(example = "{\"text\":\"好消息!\"}")]
    data: String,
    #[schema(example = "sentiment_analysis")]
    task_type: String,
    #[schema(example = "v1.0", default = "v1.0")]
    model_version: Option<String>,
    /// Where the outcome is announced.
    webhook_url: String,
    /// Signs the announcement.
    #[schema(format = Password)]
    webhook_secret: Option<String>,
}

/// Accept one task from the back end
///
/// Bad `data`, an unknown type or version are accepted and end as a failed task. Fields that are not known are ignored.
#[utoipa::path(
    post,
    path = "/analyze",
    tag = "model server",
    request_body = AnalyzeBody,
    responses(
        (status = 200, description = "The task is stored", body = Accepted),
        Malformed, TooSlow, Conflict, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn analyze(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let media = Media::of(&parts.headers);
    if media != Media::Json {
        return Err(media.refuse("application/json"));
    }
    let held = body::read(&app.budget, &parts.headers, body, app.config.max_body_bytes).await?;
    let sent = SentFields::from_json(&held.bytes)?;
    let defaults = Defaults { model_version: Some(DEFAULT_VERSION.to_owned()), ..Defaults::default() };
    let models = app.models.seen_for(&sent, &defaults).await;
    let rules = Rules { door: Door::Analyze, models: &models, addresses: &app.config.addresses, defaults: &defaults };
    let asked = Asked::check(sent, &rules).map_err(Problem::invalid)?;
    let stored = accept(&app, asked, None, trace::read(&parts.headers), held.share).await?;
    Ok(stored.answer(StatusCode::OK))
}
