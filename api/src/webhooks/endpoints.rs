//! The receivers: how deliveries to each went lately, and what is still owed.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::Unavailable;
use crate::overview::{Spread, spread};
use crate::problem::Problem;
use crate::shape::utc;

/// Attempts that are looked at: the newest.
const SAMPLE: u32 = 5_000;
/// Deliveries of each kind that are counted.
const COUNTED: u32 = 10_000;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(endpoints))
}

/// All receivers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Endpoints {
    endpoints: Vec<EndpointView>,
    /// How many attempts were looked at, of all endpoints together: the newest.
    sample: u32,
}

/// One receiver.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct EndpointView {
    /// `task` stands for the tasks' own webhooks together.
    endpoint: String,
    /// Without credentials and query.
    url: Option<String>,
    /// Whether a projector has it in its configuration.
    configured: bool,
    /// Attempts in the sample.
    tried: u64,
    delivered: u64,
    /// The share of attempts that were delivered; `null` without any.
    success: Option<f64>,
    p95_ms: Option<f64>,
    /// Still to be made, and given up: each counted up to 10,000 of all endpoints together.
    outstanding: u64,
    given_up: u64,
    last_attempt_at: Option<DateTime<Utc>>,
    last_delivered_at: Option<DateTime<Utc>>,
    /// Of the newest attempt that was not delivered.
    last_error: Option<String>,
}

/// Webhook endpoints
///
/// How deliveries to each went lately, and what is still owed.
#[utoipa::path(
    get, path = "/api/webhooks", operation_id = "listEndpoints", tag = "webhooks",
    responses((status = 200, description = "By name", body = Endpoints), Unavailable)
)]
pub(crate) async fn endpoints(State(app): State<Arc<App>>) -> Result<Json<Endpoints>, Problem> {
    let configured: Vec<(String, String)> =
        ask(sqlx::query_as("SELECT name, url FROM webhook_endpoints ORDER BY name LIMIT 1000").fetch_all(&app.pool))
            .await?;
    let attempts: Vec<Attempt> = ask(sqlx::query_as(
        "SELECT endpoint, outcome, status_code, error, duration_us, created_at FROM webhook_attempts ORDER BY id DESC LIMIT ?",
    )
    .bind(SAMPLE)
    .fetch_all(&app.pool))
    .await?;
    let owed: Vec<(String, bool, i64)> =
        ask(sqlx::query_as(OWED).bind(COUNTED).bind(COUNTED).fetch_all(&app.pool)).await?;
    let mut endpoints: BTreeMap<String, EndpointView> = BTreeMap::new();
    for (name, url) in configured {
        let view = of(&mut endpoints, &name);
        (view.url, view.configured) = (Some(url), true);
    }
    for (name, given_up, count) in owed {
        let (view, count) = (of(&mut endpoints, &name), u64::try_from(count).unwrap_or(0));
        if given_up {
            view.given_up = count;
        } else {
            view.outstanding = count;
        }
    }
    let mut took: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for attempt in attempts {
        took.entry(attempt.endpoint.clone()).or_default().push(attempt.duration_us as f64 / 1e3);
        of(&mut endpoints, &attempt.endpoint).add(attempt);
    }
    for (name, took) in took {
        let view = of(&mut endpoints, &name);
        view.p95_ms = spread(took).map(Spread::p95);
        view.success = (view.tried > 0).then(|| view.delivered as f64 / view.tried as f64);
    }
    Ok(Json(Endpoints { endpoints: endpoints.into_values().collect(), sample: SAMPLE }))
}

fn of<'a>(endpoints: &'a mut BTreeMap<String, EndpointView>, name: &str) -> &'a mut EndpointView {
    let fresh = || EndpointView { endpoint: name.to_owned(), ..EndpointView::default() };
    endpoints.entry(name.to_owned()).or_insert_with(fresh)
}

impl EndpointView {
    /// Takes one attempt in; they come newest first.
    fn add(&mut self, attempt: Attempt) {
        let at = utc(attempt.created_at);
        self.tried += 1;
        self.last_attempt_at.get_or_insert(at);
        if attempt.outcome == "delivered" {
            self.delivered += 1;
            self.last_delivered_at.get_or_insert(at);
        } else if self.last_error.is_none() {
            let status = attempt.status_code.map(|code| format!("the answer was {code}"));
            self.last_error = attempt.error.or(status);
        }
    }
}

const OWED: &str = "\
SELECT endpoint, FALSE given_up, COUNT(*) FROM
    (SELECT endpoint FROM webhook_outbox WHERE state IN (0, 1) LIMIT ?) open GROUP BY endpoint
UNION ALL SELECT endpoint, TRUE, COUNT(*) FROM
    (SELECT endpoint FROM webhook_outbox WHERE state = 3 LIMIT ?) over_and_out GROUP BY endpoint";

#[derive(FromRow)]
struct Attempt {
    endpoint: String,
    outcome: String,
    status_code: Option<u16>,
    error: Option<String>,
    duration_us: u64,
    created_at: NaiveDateTime,
}
