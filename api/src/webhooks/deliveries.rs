//! What became of announcements: each webhook that is owed, and every attempt to send it. Of one task all of them, else a
//! filter's page by page, newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::address::shown_url;
use insightforge_schema::id::position_of_row;
use serde::Serialize;
use sqlx::{FromRow, MySql, QueryBuilder};
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

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MOST: u32 = 200;
/// Attempts that one page shows, of all its deliveries together.
const ATTEMPTS_MOST: u32 = 2_000;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(deliveries))
}

/// Whose announcements. With `task_id` nothing else is taken.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// All of this task.
    task_id: Option<Uuid>,
    /// Only those that stand there now.
    state: Option<DeliveryState>,
    /// Only to this endpoint; `task` means the tasks' own.
    #[param(max_length = 64)]
    endpoint: Option<String>,
    /// Announced at this time or later: RFC 3339, or a day (its beginning in UTC).
    from: Option<DateTime<Utc>>,
    /// Announced before this time.
    to: Option<DateTime<Utc>>,
    /// How many at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: u32,
    /// `next` of the page before. Keep the filters as they were.
    #[param(value_type = Option<String>)]
    cursor: Option<Mark>,
}

/// Where a page ended. Opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    created_us: i64,
    id: u64,
    endpoint: String,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
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
    /// What it is called when it is to be sent again: position and endpoint.
    #[schema(example = "3:1284~default")]
    id: String,
    /// `null` when the task's row is gone.
    task_id: Option<String>,
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
    /// Attempts since it was announced or sent again; `attempts` has all of them, up to a bound.
    attempt_count: u16,
    attempts: Vec<AttemptView>,
}

/// One attempt to send.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptView {
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
    /// `cursor` of the next page; `null` at the end.
    next: Option<String>,
}

/// Webhook deliveries
///
/// Of one task (none while it runs, or when nobody wants to be told about it), or all that fit, newest first.
#[utoipa::path(
    get, path = "/api/webhooks/deliveries", operation_id = "listDeliveries", tag = "webhooks", params(Wanted),
    responses((status = 200, description = "One an endpoint", body = Deliveries), Invalid, Unavailable)
)]
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Deliveries>, Problem> {
    let wanted = Wanted::parse(query.as_deref())?;
    let mut owed: Vec<Owed> = ask(wanted.question().build_query_as().fetch_all(&app.pool)).await?;
    let more = wanted.task_id.is_none() && owed.len() > wanted.limit as usize;
    if more {
        owed.truncate(wanted.limit as usize);
    }
    let next = owed.last().filter(|_| more).map(|last| Mark::of(last).encode());
    let mut attempts = tried(&app, &owed).await?;
    let deliveries = owed.into_iter().map(|row| {
        let attempts = attempts.remove(&(row.id, row.endpoint.clone())).unwrap_or_default();
        row.view(attempts)
    });
    Ok(Json(Deliveries { deliveries: deliveries.collect(), next }))
}

/// The attempts of each.
async fn tried(app: &App, owed: &[Owed]) -> Result<BTreeMap<(u64, String), Vec<AttemptView>>, Problem> {
    let mut attempts: BTreeMap<(u64, String), Vec<AttemptView>> = BTreeMap::new();
    if owed.is_empty() {
        return Ok(attempts);
    }
    let mut question = QueryBuilder::new(
        "SELECT outbox_id, endpoint, attempt, outcome, status_code, error, duration_us, created_at FROM webhook_attempts \
         WHERE outbox_id IN (",
    );
    let mut list = question.separated(", ");
    for row in owed {
        list.push_bind(row.id);
    }
    question.push(") ORDER BY id LIMIT ").push_bind(ATTEMPTS_MOST);
    let tried: Vec<Tried> = ask(question.build_query_as().fetch_all(&app.pool)).await?;
    for row in tried {
        attempts.entry((row.outbox_id, row.endpoint.clone())).or_default().push(row.into());
    }
    Ok(attempts)
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let task_id = params.take("task_id", params::uuid);
        if task_id.is_some() {
            params.finish()?;
            return Ok(Self { task_id, state: None, endpoint: None, from: None, to: None, limit: 0, cursor: None });
        }
        let wanted = Self {
            task_id,
            state: params.take("state", DeliveryState::parse),
            endpoint: params.take("endpoint", params::name),
            from: params.take("from", params::time),
            to: params.take("to", params::time),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST),
            cursor: params.take("cursor", Mark::decode),
        };
        if wanted.from.zip(wanted.to).is_some_and(|(from, to)| from >= to) {
            params.wrong("to", "must be later than `from`");
        }
        params.finish()?;
        Ok(wanted)
    }

    fn question(&self) -> QueryBuilder<MySql> {
        let mut ask = QueryBuilder::new(
            "SELECT o.id, o.endpoint, t.task_id, o.url, o.state, o.due_at, o.attempts, o.created_at, o.finished_at FROM ",
        );
        if let Some(task) = self.task_id {
            // The outbox is keyed by the terminal event's position, which the task's log knows.
            ask.push(
                "analysis_tasks t JOIN task_logs l ON l.analysis_task_id = t.id \
                 AND l.event_type IN ('completed', 'failed', 'cancelled') \
                 JOIN webhook_outbox o ON o.id = l.id WHERE t.task_id = ",
            );
            ask.push_bind(task.to_string()).push(" ORDER BY o.id, o.endpoint");
            return ask;
        }
        ask.push("webhook_outbox o LEFT JOIN analysis_tasks t ON t.id = o.analysis_task_id WHERE TRUE");
        if let Some(state) = self.state {
            ask.push(" AND o.state = ").push_bind(state.number());
        }
        if let Some(endpoint) = &self.endpoint {
            ask.push(" AND o.endpoint = ").push_bind(endpoint.clone());
        }
        if let Some(from) = self.from {
            ask.push(" AND o.created_at >= ").push_bind(from.naive_utc());
        }
        if let Some(to) = self.to {
            ask.push(" AND o.created_at < ").push_bind(to.naive_utc());
        }
        if let Some(Mark { created_us, id, endpoint }) = &self.cursor {
            let at = insightforge_schema::tables::datetime(*created_us);
            ask.push(" AND o.created_at <= ").push_bind(at);
            ask.push(" AND (o.created_at < ").push_bind(at).push(" OR o.id < ").push_bind(*id);
            ask.push(" OR (o.id = ").push_bind(*id).push(" AND o.endpoint < ").push_bind(endpoint.clone()).push("))");
        }
        ask.push(" ORDER BY o.created_at DESC, o.id DESC, o.endpoint DESC LIMIT ").push_bind(self.limit + 1);
        ask
    }
}

impl Mark {
    fn of(row: &Owed) -> Self {
        Self { created_us: utc(row.created_at).timestamp_micros(), id: row.id, endpoint: row.endpoint.clone() }
    }

    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}.{}", self.created_us, self.id, self.endpoint))
    }

    fn decode(text: &str) -> Result<Self, &'static str> {
        let read = || {
            let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let mut parts = text.splitn(3, '.');
            let (created_us, id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(Self { created_us, id, endpoint: parts.next()?.to_owned() })
        };
        read().ok_or("must be `next` of an earlier page")
    }
}

impl DeliveryState {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "due" => Ok(Self::Due),
            "sending" => Ok(Self::Sending),
            "delivered" => Ok(Self::Delivered),
            "given_up" => Ok(Self::GivenUp),
            _ => Err("must be due, sending, delivered or given_up"),
        }
    }

    /// What the column has for it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Due => 0,
            Self::Sending => 1,
            Self::Delivered => 2,
            Self::GivenUp => 3,
        }
    }
}

#[derive(FromRow)]
pub(super) struct Owed {
    id: u64,
    endpoint: String,
    pub(super) task_id: Option<String>,
    url: Option<String>,
    state: u8,
    due_at: NaiveDateTime,
    attempts: u16,
    created_at: NaiveDateTime,
    finished_at: Option<NaiveDateTime>,
}

impl Owed {
    pub(super) fn view(self, attempts: Vec<AttemptView>) -> DeliveryView {
        let state = match self.state {
            0 => DeliveryState::Due,
            1 => DeliveryState::Sending,
            2 => DeliveryState::Delivered,
            _ => DeliveryState::GivenUp,
        };
        DeliveryView {
            id: format!("{}~{}", position_of_row(self.id), self.endpoint),
            task_id: self.task_id,
            position: position_of_row(self.id).to_string(),
            endpoint: self.endpoint,
            url: self.url.as_deref().map(shown_url),
            state,
            due_at: (state == DeliveryState::Due).then(|| utc(self.due_at)),
            created_at: utc(self.created_at),
            finished_at: self.finished_at.map(utc),
            attempt_count: self.attempts,
            attempts,
        }
    }
}

#[derive(FromRow)]
pub(super) struct Tried {
    pub(super) outbox_id: u64,
    pub(super) endpoint: String,
    pub(super) attempt: u16,
    pub(super) outcome: String,
    pub(super) status_code: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) duration_us: u64,
    pub(super) created_at: NaiveDateTime,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_the_way_to_the_caller_and_back() {
        let mark = Mark { created_us: 1_764_072_000_000_000, id: 13_104, endpoint: "a.b".to_owned() };
        assert_eq!(Mark::decode(&mark.encode()), Ok(mark));
        for bad in ["", "%%%", "MTIz", "YS5i"] {
            assert!(Mark::decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_task_s_deliveries_are_not_filtered() {
        let task = "0190a6f0-0000-7000-8000-000000000001";
        assert!(Wanted::parse(Some(&format!("task_id={task}"))).is_ok());
        let errors = Wanted::parse(Some(&format!("task_id={task}&state=due"))).unwrap_err().errors;
        assert!(errors.contains_key("state"));
        assert!(Wanted::parse(Some("state=sent")).unwrap_err().errors.contains_key("state"));
    }
}
