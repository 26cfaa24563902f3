//! What this process runs on: the checks of `insightforge doctor`, its settings without secrets, its build. What can be checked
//! is the binary's to know, which brings it along.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::Unavailable;
use crate::problem::Problem;

/// How old an answer may be.
const KEEP: Duration = Duration::from_secs(5);
/// For all checks together.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(system))
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    pub level: Level,
    pub what: String,
    /// What to do about it; empty when it is well.
    pub remedy: String,
}

/// How it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Good,
    /// It works, and promises less.
    Weak,
    /// It does not work.
    Broken,
}

/// One setting of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Setting {
    /// Its environment variable.
    #[schema(example = "INSIGHTFORGE_HTTP_ADDR")]
    pub name: String,
    /// `null` when it has none.
    pub value: Option<String>,
    /// `false`: the value is the default.
    pub given: bool,
    /// It has a value that is not shown.
    pub hidden: bool,
}

/// What was built.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Build {
    pub version: &'static str,
    /// Such as `x86_64-linux`.
    pub target: String,
    /// `release` or `debug`.
    pub profile: &'static str,
}

/// Looks at everything anew.
pub type Look = Arc<dyn Fn() -> BoxFuture<'static, Vec<Finding>> + Send + Sync>;

/// What the binary knows.
#[derive(Clone)]
pub struct Inspection {
    pub build: Build,
    pub settings: Vec<Setting>,
    pub look: Look,
}

impl Default for Inspection {
    /// Knows nothing and looks at nothing.
    fn default() -> Self {
        Self { build: Build::default(), settings: Vec::new(), look: Arc::new(|| Box::pin(async { Vec::new() })) }
    }
}

/// What was found out lately.
pub(crate) type Kept = Mutex<Option<(Instant, Arc<System>)>>;

/// What this process runs on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct System {
    at: DateTime<Utc>,
    build: Build,
    /// As `insightforge doctor` says them.
    checks: Vec<Finding>,
    /// Of this process; others may have others.
    settings: Vec<Setting>,
}

/// What this process runs on
///
/// The checks of `insightforge doctor`, the settings without secrets, the build. Five seconds old at most.
#[utoipa::path(
    get, path = "/api/system", operation_id = "getSystem", tag = "health",
    responses((status = 200, description = "What was found", body = System), Unavailable)
)]
pub(crate) async fn system(State(app): State<Arc<App>>) -> Result<Json<Arc<System>>, Problem> {
    // Who comes while another asks waits for that answer.
    let mut kept = app.system.lock().await;
    if let Some((at, system)) = &*kept
        && at.elapsed() < KEEP
    {
        return Ok(Json(system.clone()));
    }
    let Inspection { build, settings, look } = app.inspection.clone();
    let checks = timeout(PATIENCE, look()).await.map_err(|_| Problem::unavailable("a server behind this one"))?;
    let system = Arc::new(System { at: Utc::now(), build, checks, settings });
    *kept = Some((Instant::now(), system.clone()));
    Ok(Json(system))
}
