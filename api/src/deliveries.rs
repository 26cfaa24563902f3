//! What became of a task's announcements: each webhook that is owed, and every attempt to send it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::address::shown_url;
use insightforge_schema::id::position_of_row;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::params::{self, Params};
use crate::problem::Problem;
use crate::shape::utc;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(deliveries))
}

/// Whose announcements.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    task_id: Uuid,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DeliveryState {
    /// To be sent at `due_at`.
    Due,
    /// Being sent now.
    Sending,
    Delivered,
    GivenUp,
}

/// One announcement to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryView {
    /// Where the announced event stands in the journal: `<partition>:<number>`.
    position: String,
    /// `task` for the task's own webhook, else the configured endpoint's name.
    endpoint: String,
    /// The task's own, without credentials and query; configured endpoints keep theirs to themselves.
    url: Option<String>,
    state: DeliveryState,
    due_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    attempts: Vec<AttemptView>,
}

/// One attempt to send.
#[derive(Debug, Serialize, ToSchema)]
struct AttemptView {
    /// From 1.
    attempt: u16,
    /// `delivered`, `retry`, `gave_up` or `blocked`.
    outcome: String,
    status_code: Option<u16>,
    error: Option<String>,
    duration_us: u64,
    at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Deliveries {
    deliveries: Vec<DeliveryView>,
}

/// The webhook deliveries of a task
///
/// Empty while the task runs, and for a task that nobody wants to be told about.
#[utoipa::path(
    get, path = "/api/webhooks/deliveries", operation_id = "listDeliveries", tag = "webhooks", params(Wanted),
    responses((status = 200, description = "One an endpoint", body = Deliveries), Invalid, Unavailable)
)]
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Deliveries>, Problem> {
    let task = Wanted::parse(query.as_deref())?.task_id.to_string();
    let owed: Vec<Owed> = ask(sqlx::query_as(OWED).bind(&task).fetch_all(&app.pool)).await?;
    let mut tried: Vec<Tried> = Vec::new();
    if !owed.is_empty() {
        tried = ask(sqlx::query_as(TRIED).bind(&task).fetch_all(&app.pool)).await?;
    }
    let mut attempts: BTreeMap<(u64, String), Vec<AttemptView>> = BTreeMap::new();
    for row in tried {
        attempts.entry((row.outbox_id, row.endpoint.clone())).or_default().push(row.into());
    }
    let deliveries = owed.into_iter().map(|row| {
        let attempts = attempts.remove(&(row.id, row.endpoint.clone())).unwrap_or_default();
        row.view(attempts)
    });
    Ok(Json(Deliveries { deliveries: deliveries.collect() }))
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let task_id = params.require("task_id", params::uuid);
        params.finish()?;
        // A missing one was a problem above.
        Ok(Self { task_id: task_id.unwrap_or_default() })
    }
}

/// The outbox is keyed by the terminal event's position, which the task's log knows.
const OWED: &str = "\
SELECT o.id, o.endpoint, o.url, o.state, o.due_at, o.created_at, o.finished_at
FROM analysis_tasks t
JOIN task_logs l ON l.analysis_task_id = t.id AND l.event_type IN ('completed', 'failed', 'cancelled')
JOIN webhook_outbox o ON o.id = l.id
WHERE t.task_id = ? ORDER BY o.id, o.endpoint";

const TRIED: &str = "\
SELECT a.outbox_id, a.endpoint, a.attempt, a.outcome, a.status_code, a.error, a.duration_us, a.created_at
FROM analysis_tasks t
JOIN task_logs l ON l.analysis_task_id = t.id AND l.event_type IN ('completed', 'failed', 'cancelled')
JOIN webhook_attempts a ON a.outbox_id = l.id
WHERE t.task_id = ? ORDER BY a.id LIMIT 1000";

#[derive(FromRow)]
struct Owed {
    id: u64,
    endpoint: String,
    url: Option<String>,
    state: u8,
    due_at: NaiveDateTime,
    created_at: NaiveDateTime,
    finished_at: Option<NaiveDateTime>,
}

impl Owed {
    fn view(self, attempts: Vec<AttemptView>) -> DeliveryView {
        let state = match self.state {
            0 => DeliveryState::Due,
            1 => DeliveryState::Sending,
            2 => DeliveryState::Delivered,
            _ => DeliveryState::GivenUp,
        };
        DeliveryView {
            position: position_of_row(self.id).to_string(),
            endpoint: self.endpoint,
            url: self.url.as_deref().map(shown_url),
            state,
            due_at: (state == DeliveryState::Due).then(|| utc(self.due_at)),
            created_at: utc(self.created_at),
            finished_at: self.finished_at.map(utc),
            attempts,
        }
    }
}

#[derive(FromRow)]
struct Tried {
    outbox_id: u64,
    endpoint: String,
    attempt: u16,
    outcome: String,
    status_code: Option<u16>,
    error: Option<String>,
    duration_us: u64,
    created_at: NaiveDateTime,
}

impl From<Tried> for AttemptView {
    fn from(row: Tried) -> Self {
        Self {
            attempt: row.attempt,
            outcome: row.outcome,
            status_code: row.status_code,
            error: row.error,
            duration_us: row.duration_us,
            at: utc(row.created_at),
        }
    }
}
