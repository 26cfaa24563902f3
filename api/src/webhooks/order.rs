//! What people order of the sender: deliveries again, one or all that fit (counted first), and test messages. An order is an
//! event with who gave it and why; a projector does it within a second or so.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::event::now_us;
use insightforge_schema::id::{Cursor, Position};
use insightforge_schema::orders::{self, MAX_RESENT, Meta, Order, Ping, Resend};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, QueryBuilder};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::DeliveryState;
use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Conflict, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::members::Members;
use crate::params;
use crate::path::Path;
use crate::problem::{Fields, Problem};
use crate::shape::utc;

/// Who is written down as having ordered what callers ask for.
const ACTOR: &str = "api";
const LIMIT_DEFAULT: u32 = 1_000;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(order))
}

/// What makes others receive something is served only where nobody from outside comes.
pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(resend)).routes(routes!(resend_many)).routes(routes!(ping))
}

/// The order is stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ordered {
    /// `GET /api/webhooks/orders/{order}` says what becomes of it.
    order: u64,
}

/// May be left out.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct ResendBody {
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// Send a delivery again
///
/// One that was made or given up; under the same `webhook-id`, so that a receiver that has it can tell.
#[utoipa::path(
    post, path = "/api/webhooks/deliveries/{id}/resend", operation_id = "resendDelivery", tag = "webhooks",
    params(("id" = String, Path, description = "The delivery's `id`", example = "3:1284~default")),
    request_body = ResendBody,
    responses(
        (status = 202, description = "It is ordered", body = Ordered),
        Malformed, Absent, Conflict, TooLarge, Unsupported, Invalid, Unavailable,
    )
)]
pub(crate) async fn resend(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut members = Members::of(&app, &parts.headers, body).await?;
    let reason = members.reason();
    let (position, endpoint) = members.finish(delivery_id(&id))??;
    let state: Option<(u8,)> = ask(sqlx::query_as("SELECT state FROM webhook_outbox WHERE id = ? AND endpoint = ?")
        .bind(position.row_id())
        .bind(&endpoint)
        .fetch_optional(&app.pool))
    .await?;
    match state {
        None => return Err(Problem::not_found(format!("there is no delivery {id}"))),
        Some((orders::DELIVERED | orders::GIVEN_UP,)) => {}
        Some(_) => {
            let detail = format!("delivery {id} is still to be made");
            return Err(Problem::new(StatusCode::CONFLICT, "still-due", "It is not over", detail));
        }
    }
    let resend = Resend { id: Some(position.row_id()), endpoint: Some(endpoint), limit: 1, ..Resend::default() };
    Ok((StatusCode::ACCEPTED, Json(give(&app, Order::Resend(resend), reason, now_us()).await?)).into_response())
}

/// Which deliveries, how many, and whether it is to be done. Everything may be left out.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct ManyBody {
    /// `delivered` or `given_up`; both unless given.
    #[schema(example = "given_up")]
    state: Option<String>,
    endpoint: Option<String>,
    /// Announced at or after this time (RFC 3339, or a day).
    from: Option<String>,
    /// Announced before this time.
    to: Option<String>,
    /// Of events behind this cursor, as `/api/events` gives them: what a receiver has lost since.
    #[schema(example = "1284.1300.1275.1290")]
    since: Option<String>,
    /// The most of one order: 1 to 10000, 1000 unless given; the oldest first.
    #[schema(minimum = 1, maximum = 10_000, default = 1000)]
    limit: Option<u32>,
    /// `true`, which it is unless given, only counts.
    #[schema(default = true)]
    dry_run: Option<bool>,
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// What was counted, or ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Many {
    dry_run: bool,
    /// Deliveries that fit, counted up to 10,000.
    matched: u64,
    matched_is_exact: bool,
    /// The order, unless it was only counted or nothing fits.
    order: Option<u64>,
}

/// Send many deliveries again
///
/// Those that fit and are over, the oldest first; until `dry_run` is `false` they are only counted.
#[utoipa::path(
    post, path = "/api/webhooks/resend", operation_id = "resendMany", tag = "webhooks", request_body = ManyBody,
    responses(
        (status = 200, description = "What was counted", body = Many),
        (status = 202, description = "It is ordered", body = Many),
        Malformed, TooLarge, Unsupported, Invalid, Unavailable,
    )
)]
pub(crate) async fn resend_many(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut members = Members::of(&app, &parts.headers, body).await?;
    let resend = wanted(&app, &mut members);
    let dry_run = members.dry_run();
    let reason = members.reason();
    let (resend, reason) = members.finish((resend, reason))?;
    let at_us = now_us();
    let matched = count(&app, &resend, at_us).await?;
    let mut many = Many { dry_run, matched, matched_is_exact: matched < u64::from(MAX_RESENT), order: None };
    if dry_run || matched == 0 {
        return Ok(Json(many).into_response());
    }
    many.order = Some(give(&app, Order::Resend(resend), reason, at_us).await?.order);
    Ok((StatusCode::ACCEPTED, Json(many)).into_response())
}

/// Where a test message goes.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct PingBody {
    /// A configured endpoint.
    #[schema(example = "default")]
    endpoint: String,
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// Send a test message
///
/// Signed as every webhook to a configured endpoint, with `{"type": "ping"}` as its body; tried once.
#[utoipa::path(
    post, path = "/api/webhooks/ping", operation_id = "pingEndpoint", tag = "webhooks", request_body = PingBody,
    responses(
        (status = 202, description = "It is ordered", body = Ordered),
        Malformed, Absent, TooLarge, Unsupported, Invalid, Unavailable,
    )
)]
pub(crate) async fn ping(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let mut members = Members::of(&app, &parts.headers, body).await?;
    let endpoint = members.text("endpoint", params::name).unwrap_or_default();
    if endpoint.is_empty() && !members.faults.names("endpoint") {
        members.faults.add("endpoint", "is missing");
    }
    let reason = members.reason();
    let (endpoint, reason) = members.finish((endpoint, reason))?;
    let known: Option<(String,)> = ask(sqlx::query_as("SELECT name FROM webhook_endpoints WHERE name = ?")
        .bind(&endpoint)
        .fetch_optional(&app.pool))
    .await?;
    if known.is_none() {
        return Err(Problem::not_found(format!("no projector has an endpoint named {endpoint}")));
    }
    let ordered = give(&app, Order::Ping(Ping { endpoint }), reason, now_us()).await?;
    Ok((StatusCode::ACCEPTED, Json(ordered)).into_response())
}

/// What became of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderView {
    order: u64,
    /// `resend` or `ping`; `null` while no projector has taken it up.
    kind: Option<String>,
    /// `waiting` or `done`.
    state: &'static str,
    actor: Option<String>,
    reason: Option<String>,
    ordered_at: Option<DateTime<Utc>>,
    done_at: Option<DateTime<Utc>>,
    /// Deliveries that are made again.
    resent: Option<u64>,
    /// What a ping was answered with, or why it was not.
    status_code: Option<u16>,
    error: Option<String>,
    duration_us: Option<u64>,
}

/// What became of an order
///
/// It waits until a projector takes it up, usually for a second.
#[utoipa::path(
    get, path = "/api/webhooks/orders/{order}", operation_id = "getWebhookOrder", tag = "webhooks",
    params(("order" = u64, Path, description = "Its number")),
    responses((status = 200, description = "How it stands", body = OrderView), Absent, Invalid, Unavailable)
)]
pub(crate) async fn order(State(app): State<Arc<App>>, Path(number): Path<String>) -> Result<Json<OrderView>, Problem> {
    let n: u64 = params::whole(&number).map_err(|what| Problem::invalid(Fields::one("order", what)))?;
    let row: Option<Row> = ask(sqlx::query_as(
        "SELECT n, kind, actor, reason, ordered_at, done_at, resent, status_code, error, duration_us FROM webhook_orders WHERE n = ?",
    )
    .bind(n)
    .fetch_optional(&app.pool))
    .await?;
    if let Some(row) = row {
        return Ok(Json(row.into()));
    }
    if n == 0 || n > orders::last_number(&app.link, &app.keys).await? {
        return Err(Problem::not_found(format!("there is no order {n}")));
    }
    Ok(Json(OrderView {
        order: n,
        kind: None,
        state: "waiting",
        actor: None,
        reason: None,
        ordered_at: None,
        done_at: None,
        resent: None,
        status_code: None,
        error: None,
        duration_us: None,
    }))
}

async fn give(app: &App, order: Order, reason: Option<String>, at_us: i64) -> Result<Ordered, Problem> {
    let meta = Meta { at_us, actor: ACTOR.to_owned(), reason };
    Ok(Ordered { order: orders::give(&app.link, &app.keys, &meta, &order).await? })
}

async fn count(app: &App, resend: &Resend, at_us: i64) -> Result<u64, Problem> {
    let mut question = QueryBuilder::new("SELECT COUNT(*) FROM (SELECT 1 FROM webhook_outbox WHERE TRUE");
    resend.push_conditions(&mut question, at_us);
    question.push(" LIMIT ").push_bind(MAX_RESENT).push(") near");
    let (count,): (i64,) = ask(question.build_query_as().fetch_one(&app.pool)).await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

fn wanted(app: &App, members: &mut Members) -> Resend {
    let over = |given: &str| match DeliveryState::parse(given) {
        Ok(state @ (DeliveryState::Delivered | DeliveryState::GivenUp)) => Ok(state.number()),
        _ => Err("must be delivered or given_up: others are still to be made"),
    };
    let since = |given: &str| {
        let cursor = Cursor::parse(given, app.config.partitions).map_err(|_| "must be a cursor of `/api/events`")?;
        Ok(cursor.0)
    };
    let time = |given: &str| params::time(given).map(|time| time.timestamp_micros());
    let resend = Resend {
        id: None,
        endpoint: members.text("endpoint", params::name),
        state: members.text("state", over),
        from_us: members.text("from", time),
        to_us: members.text("to", time),
        since: members.text("since", since),
        limit: members.limit(LIMIT_DEFAULT, MAX_RESENT),
    };
    if resend.from_us.zip(resend.to_us).is_some_and(|(from, to)| from >= to) {
        members.faults.add("to", "must be later than `from`");
    }
    resend
}

/// `<partition>:<number>~<endpoint>`.
pub(super) fn delivery_id(id: &str) -> Result<(Position, String), Problem> {
    let read = || {
        let (position, endpoint) = id.split_once('~')?;
        Some((position.parse().ok()?, params::name(endpoint).ok().filter(|endpoint| !endpoint.is_empty())?))
    };
    read().ok_or_else(|| Problem::invalid(Fields::one("id", "must be the `id` of a delivery, such as 3:1284~default")))
}

#[derive(FromRow)]
struct Row {
    n: u64,
    kind: String,
    actor: String,
    reason: Option<String>,
    ordered_at: NaiveDateTime,
    done_at: Option<NaiveDateTime>,
    resent: Option<u64>,
    status_code: Option<u16>,
    error: Option<String>,
    duration_us: Option<u64>,
}

impl From<Row> for OrderView {
    fn from(row: Row) -> Self {
        Self {
            order: row.n,
            kind: Some(row.kind),
            state: if row.done_at.is_some() { "done" } else { "waiting" },
            actor: Some(row.actor),
            reason: row.reason,
            ordered_at: Some(utc(row.ordered_at)),
            done_at: row.done_at.map(utc),
            resent: row.resent,
            status_code: row.status_code,
            error: row.error,
            duration_us: row.duration_us,
        }
    }
}
