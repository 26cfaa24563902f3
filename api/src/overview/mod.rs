//! The whole system at a glance: one sentence, and the figures behind it. Found out once a second at most, whoever asks.
//!
//! 1. [`lanes`] – what waits, what is being worked on, and who works (Redis).
//! 2. [`minutes`] – what came in and ended, by the minute (the tables).
//! 3. [`recent`] – how long it took, what failed, how deliveries went (the tables).
//! 4. [`say`] – the sentence.

mod lanes;
mod minutes;
mod recent;
mod say;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::health::{self, Projector};
use lanes::{Crew, LaneLoad, Load};
use minutes::{Minute, Minutes};
use recent::{Failure, Latency, Webhooks};
use say::Saying;

pub(crate) use recent::{Spread, spread};

/// How old an answer may be.
const KEEP: Duration = Duration::from_secs(1);
/// For each part of it: what takes longer is left out.
const PART: Duration = Duration::from_secs(4);

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(overview))
}

/// What was found out lately.
#[derive(Default)]
pub(crate) struct Kept {
    overview: Mutex<Option<(Instant, Arc<Overview>)>>,
    minutes: Minutes,
}

/// The system at a glance.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Overview {
    at: DateTime<Utc>,
    /// The worst of `problems`, or that all is well.
    state: Saying,
    /// What needs a look, the worst first.
    problems: Vec<Saying>,
    /// The last hour, oldest first; the last minute is still going on. Empty while the tables cannot be read.
    per_minute: Vec<Minute>,
    /// `false` when more happened in the last hour than was counted.
    per_minute_complete: bool,
    /// What waits and runs; `null` while Redis cannot be read.
    now: Option<Now>,
    lanes: Vec<LaneLoad>,
    analyzers: Option<Crew>,
    latency: Option<Latency>,
    /// Why tasks failed that were submitted in the last hour, most first: of the newest 2,000 of them.
    failures: Vec<Failure>,
    webhooks: Option<Webhooks>,
    projector: Option<Projector>,
}

/// Tasks that are not done.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Now {
    /// Nobody has taken them yet.
    waiting: u64,
    in_flight: u64,
    /// Their next attempt is not due yet.
    delayed: u64,
    dead_letters: u64,
    /// Beyond so many waiting and running tasks, uploads are answered 429.
    limit: u64,
}

/// The system at a glance
///
/// A sentence on how it is, with a stable `code` and its parameters for those who say it in another language, and the figures
/// behind it. One second old at most. What cannot be found out now is `null` or empty, and `problems` says why.
#[utoipa::path(
    get, path = "/api/overview", operation_id = "getOverview", tag = "health",
    responses((status = 200, description = "How it is", body = Overview))
)]
pub(crate) async fn overview(State(app): State<Arc<App>>) -> Json<Arc<Overview>> {
    // Who comes while another asks waits for that answer.
    let mut kept = app.overview.overview.lock().await;
    if let Some((at, overview)) = &*kept
        && at.elapsed() < KEEP
    {
        return Json(overview.clone());
    }
    let overview = Arc::new(Overview::find_out(&app).await);
    *kept = Some((Instant::now(), overview.clone()));
    Json(overview)
}

impl Overview {
    async fn find_out(app: &App) -> Self {
        let servers = health::servers(app).await;
        let from_redis = async {
            if !servers.redis.up {
                return (None, None);
            }
            let (load, behind) =
                tokio::join!(timeout(PART, lanes::load(app)), timeout(PART, health::behind(app, servers.mysql)));
            (load.ok().and_then(Result::ok), behind.ok().flatten())
        };
        let from_tables = async {
            if !servers.mysql.up {
                return (None, None, None, None);
            }
            let (minutes, latency, failures, webhooks) = tokio::join!(
                timeout(PART, app.overview.minutes.refreshed(app)),
                timeout(PART, recent::latency(app)),
                timeout(PART, recent::failures(app)),
                timeout(PART, recent::webhooks(app)),
            );
            (
                minutes.ok().and_then(Result::ok),
                latency.ok().and_then(Result::ok),
                failures.ok().and_then(Result::ok),
                webhooks.ok().and_then(Result::ok),
            )
        };
        let ((load, projector), (minutes, latency, failures, webhooks)) = tokio::join!(from_redis, from_tables);
        let (per_minute, per_minute_complete) = minutes.unwrap_or_default();
        let seen = say::Seen {
            redis: servers.redis.up,
            mysql: servers.mysql.up,
            load: load.as_ref(),
            limit: app.config.max_backlog,
            projector,
            minutes: &per_minute,
            webhooks: webhooks.as_ref(),
        };
        let problems = say::problems(&seen);
        let state = say::state(&problems);
        let now = load.as_ref().map(|load| load.now(app.config.max_backlog));
        let (lanes, analyzers) = match load {
            Some(Load { lanes, crew, .. }) => (lanes, Some(crew)),
            None => (Vec::new(), None),
        };
        Self {
            at: Utc::now(),
            state,
            problems,
            per_minute,
            per_minute_complete,
            now,
            lanes,
            analyzers,
            latency,
            failures: failures.unwrap_or_default(),
            webhooks,
            projector,
        }
    }
}
