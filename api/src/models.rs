//! What can be asked for, and who is there to answer.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use insightforge_schema::catalogue::{self, ModelCard, Worker};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Absent, Unavailable};
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::time_of;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(models)).routes(routes!(card)).routes(routes!(analyzers))
}

/// A model that can be asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListedModel {
    task_type: String,
    version: String,
    /// The name that results carry as `model_info`.
    name: String,
    description: String,
    /// BCP 47 language tags.
    languages: Vec<String>,
    /// Analyzers alive that serve it; `null` while that cannot be found out. With none, its tasks wait.
    analyzers: Option<u32>,
    /// The whole card, with the schemas of input and result.
    card: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    models: Vec<ListedModel>,
}

/// The models that can be asked for
#[utoipa::path(
    get, path = "/api/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "By task type and version", body = Models))
)]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Models> {
    let alive = alive_by_lane(&app).await;
    let cards = app.models.cards();
    let models = cards.iter().map(|card| ListedModel {
        task_type: card.task_type.clone(),
        version: card.version.clone(),
        name: card.name.clone(),
        description: card.description.clone(),
        languages: card.languages.clone(),
        analyzers: alive.as_ref().map(|alive| alive.get(&card.lane().to_string()).copied().unwrap_or(0)),
        card: format!("/api/models/{}/{}", card.task_type, card.version),
    });
    Json(Models { models: models.collect() })
}

/// How many analyzers serve each lane; `None` while Redis does not answer: the cards are known all the same.
async fn alive_by_lane(app: &App) -> Option<HashMap<String, u32>> {
    let workers = catalogue::workers(&app.link, &app.keys).await.ok()?;
    let mut alive = HashMap::new();
    for lane in workers.into_iter().flat_map(|worker| worker.lanes) {
        *alive.entry(lane).or_insert(0) += 1;
    }
    Some(alive)
}

/// Everything callers may know of a model: what it is, what goes wrong with it, and the JSON Schemas of its input and result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Card {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    card: ModelCard,
}

/// The card of a model
#[utoipa::path(
    get, path = "/api/models/{task_type}/{version}", operation_id = "getModel", tag = "models",
    params(
        ("task_type" = String, Path, example = "sentiment_analysis"),
        ("version" = String, Path, example = "v1.0")
    ),
    responses((status = 200, description = "The card", body = Card), Absent)
)]
pub(crate) async fn card(
    State(app): State<Arc<App>>,
    Path((task_type, version)): Path<(String, String)>,
) -> Result<Json<Card>, Problem> {
    let cards = app.models.cards();
    let card = cards.iter().find(|card| card.task_type == task_type && card.version == version);
    match card {
        Some(card) => Ok(Json(Card { card: card.clone() })),
        None => Err(Problem::not_found("there is no such model; /api/models lists those there are")),
    }
}

/// An analyzer that has shown itself lately.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Analyzer {
    name: String,
    /// What it serves, as `<task type>:<version>`.
    lanes: Vec<String>,
    /// Tasks it works on now.
    in_flight: u32,
    started_at: Option<DateTime<Utc>>,
    /// When it last took a task.
    last_read_at: Option<DateTime<Utc>>,
    seen_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Analyzers {
    analyzers: Vec<Analyzer>,
}

/// The analyzers that are alive
#[utoipa::path(
    get, path = "/api/analyzers", operation_id = "listAnalyzers", tag = "models",
    responses((status = 200, description = "By name", body = Analyzers), Unavailable)
)]
pub(crate) async fn analyzers(State(app): State<Arc<App>>) -> Result<Json<Analyzers>, Problem> {
    let mut workers = catalogue::workers(&app.link, &app.keys).await?;
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(Analyzers { analyzers: workers.into_iter().map(Analyzer::from).collect() }))
}

impl From<Worker> for Analyzer {
    fn from(worker: Worker) -> Self {
        let time = |ms: i64| time_of(ms.saturating_mul(1_000));
        Self {
            name: worker.name,
            lanes: worker.lanes,
            in_flight: worker.in_flight,
            started_at: time(worker.started_ms),
            last_read_at: time(worker.last_read_ms),
            seen_at: time(worker.seen_ms),
        }
    }
}
