//! The API description (OpenAPI 3.1), put together from the handlers, and the page that shows it, which loads nothing from
//! elsewhere.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::{Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use insightforge_schema::catalogue::ModelCard;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Description;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::App;
use crate::known::KnownModel;

/// Where the description is.
pub(crate) const DESCRIPTION: &str = "/api/openapi.json";

/// What the page may load: itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What holds for the whole API; the paths are added by their handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "InsightForge",
        description = "Event-sourced analysis: durable intake, exactly one outcome a task, signed webhooks, replay.\n\n\
            Upload a document (`POST /api/data/upload`), then read its result (`GET /api/result/{task_id}`), be told by a \
            webhook, or follow the journal (`GET /api/events`).\n\n\
            Whatever goes wrong is answered as `application/problem+json` (RFC 9457) that names every wrong field in \
            `errors`; `type` is stable.",
        license(name = "MIT", identifier = "MIT")
    ),
    components(schemas(crate::problem::Problem)),
    tags(
        (name = "upload", description = "Work comes in"),
        (name = "results", description = "What became of it"),
        (name = "tasks", description = "Look at tasks, and act on them"),
        (name = "dead letters", description = "Tasks that failed for good, and how they get another try"),
        (name = "batches", description = "Many tasks in one upload"),
        (name = "journal", description = "Everything that happened, in order"),
        (name = "models", description = "What can be asked for, and who answers"),
        (name = "inference", description = "Answers at once, without a task"),
        (name = "webhooks", description = "Outcomes that are announced"),
        (name = "health", description = "Is it well?"),
        (name = "model server", description = "The former model server's door")
    )
)]
pub(crate) struct Api;

/// The description's beginning, with this release's number.
pub(crate) fn beginning(version: &str) -> Description {
    let mut description = Api::openapi();
    version.clone_into(&mut description.info.version);
    description
}

/// Serves the description and the page.
pub(crate) fn routes(description: Description) -> Router<Arc<App>> {
    let description = serde_json::to_value(description).expect("a description is plain data");
    let page = SwaggerUi::new("/docs").config(Config::from(DESCRIPTION).use_base_layout().try_it_out_enabled(true));
    let page = Router::<Arc<App>>::from(page).layer(map_response(restrict));
    let to_page = || get(async || Redirect::permanent("/docs/"));
    Router::new()
        .route(DESCRIPTION, get(async move |State(app): State<Arc<App>>| Json(with_models(description.clone(), &app))))
        // The former model server's addresses behind the proxy.
        .route("/fastapi/docs", to_page())
        .route("/fastapi/redoc", to_page())
        .route("/fastapi/openapi.json", get(async || Redirect::permanent(DESCRIPTION)))
        .merge(page)
}

/// Adds what the models that can be asked for take and answer: two schemas a version, and a list of them.
fn with_models(mut description: Value, app: &App) -> Value {
    let mut listed = Vec::new();
    for known in &app.models.seen().models {
        let KnownModel { card, .. } = &**known;
        let name = |what: &str| format!("{what}.{}.{}", card.task_type, card.version);
        let reference = |what: &str| json!({ "$ref": format!("#/components/schemas/{}", name(what)) });
        listed.push(json!({
            "task_type": card.task_type,
            "version": card.version,
            "input": reference("input"),
            "result": reference("result"),
        }));
        for (what, schema) in [("input", &card.input_schema), ("result", &card.output_schema)] {
            description["components"]["schemas"][name(what)] = at_home(schema, card, what);
        }
    }
    description["x-models"] = listed.into();
    description
}

/// A schema that is a resource of its own (JSON Schema 2020-12 §8.2.1), so that what it refers to within itself is found.
fn at_home(schema: &Value, card: &ModelCard, what: &str) -> Value {
    let mut schema = schema.clone();
    if let Some(members) = schema.as_object_mut() {
        let id = format!("urn:insightforge:{what}:{}:{}", card.task_type, card.version);
        members.entry("$id").or_insert_with(|| id.into());
        members.entry("title").or_insert_with(|| format!("{} {}: {what}", card.task_type, card.version).into());
    }
    schema
}

async fn restrict(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}
