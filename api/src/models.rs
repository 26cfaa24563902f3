//! What can be asked for, which version answers, and who is there to answer.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use chrono::{DateTime, Utc};
use insightforge_schema::catalogue::{self, ModelCard, Worker};
use insightforge_schema::registry::{CANDIDATE, Note, Routes, TaskRoutes, WHOLE};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Absent, Unavailable};
use crate::known::{KnownModel, Seen};
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::time_of;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(models))
        .routes(routes!(card))
        .routes(routes!(analyzers))
        // Where it is set, it can be read: the path is a version's and a command's.
        .route("/api/models/{task_type}/candidate", get(candidate_card))
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
    state: ModelState,
    /// Words that stand for it now: `stable`, `canary`, `candidate`, `latest`, `shadow`.
    roles: Vec<&'static str>,
    /// SHA-256 of its package's manifest; it names the whole package.
    digest: String,
    /// What runs it.
    engine: String,
    /// `cpu`, `cuda:0`, `remote`.
    device: String,
    license: String,
    /// Analyzers alive that serve it; `null` while that cannot be found out. With none, its tasks wait.
    analyzers: Option<u32>,
    /// The whole card, with the schemas of input and result.
    card: String,
}

/// How a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModelState {
    /// Part of the program or announced once; no analyzer has registered it.
    Announced,
    /// An analyzer has registered it.
    Registered,
    /// Its package is gone.
    Gone,
    /// It answers nobody any more.
    Retired,
}

/// Which versions of a task type answer whom.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskTypeView {
    task_type: String,
    /// Answers who asks for none.
    stable: Option<String>,
    candidate: Option<String>,
    /// The version registered last.
    latest: Option<String>,
    canary: Option<CanaryView>,
    /// Asked as well, beside the answer.
    shadows: Vec<String>,
    /// The stable versions before this one, the latest last: where a rollback goes.
    earlier: Vec<String>,
    retired: Vec<String>,
    versions: Vec<String>,
}

/// A share of the stable version's callers that another version answers.
#[derive(Debug, Serialize, ToSchema)]
struct CanaryView {
    version: String,
    /// Above 0, to 1.
    share: f64,
}

/// A package that was found and cannot be served.
#[derive(Debug, Serialize, ToSchema)]
struct RefusedPackage {
    folder: String,
    task_type: Option<String>,
    version: Option<String>,
    reason: String,
    /// The analyzer that says so.
    worker: String,
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Models {
    models: Vec<ListedModel>,
    task_types: Vec<TaskTypeView>,
    /// What runs goes on beside these.
    refused: Vec<RefusedPackage>,
    /// Number of the registry's last event in this list.
    position: u64,
}

/// The models that can be asked for
#[utoipa::path(
    get, path = "/api/models", operation_id = "listModels", tag = "models",
    responses((status = 200, description = "By task type and version", body = Models))
)]
pub(crate) async fn models(State(app): State<Arc<App>>) -> Json<Models> {
    let alive = alive_by_lane(&app).await;
    let seen = app.models.look_again().await;
    let alive_of = |card: &ModelCard| Some(alive.as_ref()?.get(&card.lane().to_string()).copied().unwrap_or(0));
    let models = seen.models.iter().map(|known| ListedModel::of(known, &seen.routes, alive_of(&known.card)));
    Json(Models {
        models: models.collect(),
        task_types: seen.task_types().into_iter().map(|it| TaskTypeView::of(it, &seen.routes, &seen)).collect(),
        refused: seen.routes.refused.iter().map(|(folder, note)| RefusedPackage::of(folder, note)).collect(),
        position: seen.routes.position,
    })
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

impl ListedModel {
    fn of(known: &KnownModel, routes: &Routes, analyzers: Option<u32>) -> Self {
        let card = &known.card;
        let task = routes.task(&card.task_type);
        Self {
            task_type: card.task_type.clone(),
            version: card.version.clone(),
            name: card.name.clone(),
            description: card.description.clone(),
            languages: card.languages.clone(),
            state: ModelState::of(&card.version, task),
            roles: roles(&card.version, task),
            digest: card.digest.clone(),
            engine: card.engine.clone(),
            device: card.device.clone(),
            license: card.license.clone(),
            analyzers,
            card: format!("/api/models/{}/{}", card.task_type, card.version),
        }
    }
}

impl ModelState {
    fn of(version: &str, task: Option<&TaskRoutes>) -> Self {
        let Some(task) = task else { return Self::Announced };
        match task.version(version) {
            _ if task.retired.contains(version) => Self::Retired,
            None => Self::Announced,
            Some(known) if known.loaded => Self::Registered,
            Some(_) => Self::Gone,
        }
    }
}

fn roles(version: &str, task: Option<&TaskRoutes>) -> Vec<&'static str> {
    let Some(task) = task else { return Vec::new() };
    let is = |name: Option<&str>| name == Some(version);
    let roles = [
        ("stable", is(task.stable.as_deref())),
        ("canary", is(task.canary.as_ref().map(|canary| &*canary.version))),
        ("candidate", is(task.candidate.as_deref())),
        ("latest", is(task.latest())),
        ("shadow", task.shadows.iter().any(|shadow| shadow == version)),
    ];
    roles.into_iter().filter(|(_, holds)| *holds).map(|(role, _)| role).collect()
}

impl TaskTypeView {
    pub(crate) fn of(task_type: &str, routes: &Routes, seen: &Seen) -> Self {
        let nothing = TaskRoutes::default();
        let task = routes.task(task_type).unwrap_or(&nothing);
        Self {
            task_type: task_type.to_owned(),
            stable: task.stable.clone(),
            candidate: task.candidate.clone(),
            latest: task.latest().map(str::to_owned),
            canary: task.canary.as_ref().map(|canary| CanaryView {
                version: canary.version.clone(),
                share: f64::from(canary.share) / f64::from(WHOLE),
            }),
            shadows: task.shadows.clone(),
            earlier: task.earlier.clone(),
            retired: task.retired.iter().cloned().collect(),
            versions: seen.versions(task_type).into_iter().map(str::to_owned).collect(),
        }
    }
}

impl RefusedPackage {
    fn of(folder: &str, note: &Note) -> Self {
        Self {
            folder: folder.to_owned(),
            task_type: note.task_type.clone(),
            version: note.version.clone(),
            reason: note.reason.clone(),
            worker: note.worker.clone(),
            at: time_of(note.at_us),
        }
    }
}

/// Everything callers may know of a model: what it is, what it was made of, how good it is, what goes wrong with it, and
/// the JSON Schemas of its input and result.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Card {
    state: ModelState,
    /// Words that stand for it now.
    roles: Vec<&'static str>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    card: ModelCard,
}

/// The card of a model
#[utoipa::path(
    get, path = "/api/models/{task_type}/{version}", operation_id = "getModel", tag = "models",
    params(
        ("task_type" = String, Path, example = "sentiment_analysis"),
        ("version" = String, Path, description = "A version or an alias", example = "v1.0")
    ),
    responses((status = 200, description = "The card", body = Card), Absent)
)]
pub(crate) async fn card(
    State(app): State<Arc<App>>,
    Path((task_type, version)): Path<(String, String)>,
) -> Result<Json<Card>, Problem> {
    let mut seen = app.models.seen();
    if !matches!(seen.find(&task_type, &version), Ok(Some(_))) {
        seen = app.models.look_again().await;
    }
    let known = seen.card(&task_type, &version).or_else(|| seen.find(&task_type, &version).ok().flatten());
    let Some(known) = known else {
        return Err(Problem::not_found("there is no such model; /api/models lists those there are"));
    };
    let task = seen.routes.task(&task_type);
    let version = &known.card.version;
    Ok(Json(Card { state: ModelState::of(version, task), roles: roles(version, task), card: known.card.clone() }))
}

async fn candidate_card(state: State<Arc<App>>, Path(task_type): Path<String>) -> Result<Json<Card>, Problem> {
    card(state, Path((task_type, CANDIDATE.to_owned()))).await
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
