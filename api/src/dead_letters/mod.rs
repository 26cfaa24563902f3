//! Tasks that failed for good: listed, searched, repeated and purged. `insightforge dead-letters` does the same with the same
//! functions.
//!
//! 1. [`filter`] – which letters are meant.
//! 2. [`search`] – the list, newest first, and what is known of each letter.
//! 3. `act` – one letter, or all that are meant, is repeated or purged: each with an event that says who did it and why.

pub mod act;
pub mod filter;
pub mod search;

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::cancel;
use crate::describe::{Absent, Backlogged, Conflict, Invalid, Malformed, TooLarge, Unavailable, Unsupported};
use crate::members::Members;
use crate::params::{Params, task_id};
use crate::path::Path;
use crate::problem::Problem;
use crate::redrive::{Repeated, redrive_one};
use crate::trace;
use act::{Act, Acted, Bulk, By, purge_one};
use filter::Filter;
use search::{DeadLetter, Letter, search};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;
/// Who is written down as having done what callers ask for.
const ACTOR: &str = "api";
/// What is noted when no reason is given.
const NO_REASON: &str = "purged by the caller";

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(dead_letters)).routes(routes!(redrive))
}

/// What cannot be undone, or concerns many at once, is served only where nobody from outside comes.
pub(crate) fn inside_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(purge)).routes(routes!(redrive_many)).routes(routes!(purge_many))
}

/// One page, latest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
    /// `after` of the next page; absent on the last. A search looks through a bounded part of the list for each page, so
    /// that a page can be short and not the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Letters looked through that are neither in the tables yet nor in Redis any more: a search cannot tell of them.
    unreadable: u64,
}

/// List dead letters
///
/// Tasks that failed for good, latest first. Each can be repeated by `POST /api/tasks/{task_id}/retry`.
#[utoipa::path(
    get,
    path = "/api/dead-letters",
    tag = "dead letters",
    params(
        ("task_type" = Option<String>, Query, description = "Only this one"),
        ("error_code" = Option<String>, Query, description = "Only this one, such as `timeout`"),
        ("from" = Option<String>, Query, description = "Given up at or after this time (RFC 3339, or a day)"),
        ("to" = Option<String>, Query, description = "Given up before this time"),
        ("text" = Option<String>, Query, description = "Part of the error message, in upper or lower case; 200 characters \
            at most"),
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 unless given"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = DeadLetters),
        Invalid, Unavailable,
    ),
)]
pub(crate) async fn dead_letters(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeadLetters>, Problem> {
    let (filter, limit, after) = page(query.as_deref())?;
    let found = search(&app, &filter, limit, after).await?;
    Ok(Json(DeadLetters {
        dead_letters: found.letters,
        next: found.next.map(|next| next.to_string()),
        unreadable: found.unreadable,
    }))
}

fn page(query: Option<&str>) -> Result<(Filter, usize, Option<Letter>), Problem> {
    let mut params = Params::parse(query);
    let filter = Filter::take(&mut params);
    let limit = params.limit("limit", DEFAULT_LIMIT, MAX_LIMIT) as usize;
    let after = params.take("after", |text| text.parse().map_err(|()| "must be the `next` of another page"));
    params.finish()?;
    Ok((filter, limit, after))
}

/// May be left out.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct WhyBody {
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// Repeat a dead letter
///
/// The same as repeating the task, with a reason that stays in its history.
#[utoipa::path(
    post,
    path = "/api/dead-letters/{task_id}/redrive",
    tag = "dead letters",
    params(("task_id" = uuid::Uuid, Path, description = "The failed task")),
    request_body(content((WhyBody = "application/json"), (WhyBody = "application/x-www-form-urlencoded"))),
    responses(
        (status = 202, description = "The new task is stored", body = Repeated),
        Malformed, Absent, Conflict, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn redrive(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let task = task_id(&id)?;
    let reason = cancel::reason(&app, &parts.headers, body).await?;
    let by = By { actor: ACTOR.to_owned(), reason, trace: trace::read(&parts.headers) };
    let repeated = redrive_one(&app, task, &by).await?;
    Ok(repeated.mark((StatusCode::ACCEPTED, Json(Repeated::new(repeated.task, task))).into_response()))
}

/// The letter is off the list.
#[derive(Serialize, ToSchema)]
pub(crate) struct PurgedLetter {
    #[schema(value_type = uuid::Uuid)]
    task_id: insightforge_schema::id::TaskId,
    #[schema(example = true)]
    purged: bool,
}

/// Purge a dead letter
///
/// It leaves the list for good; the task stays failed, with its history.
#[utoipa::path(
    post,
    path = "/api/dead-letters/{task_id}/purge",
    tag = "dead letters",
    params(("task_id" = uuid::Uuid, Path, description = "The failed task")),
    request_body(content((WhyBody = "application/json"), (WhyBody = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "It is off the list", body = PurgedLetter),
        Malformed, Absent, TooLarge, Unsupported, Invalid, Unavailable,
    ),
)]
pub(crate) async fn purge(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<PurgedLetter>, Problem> {
    let (parts, body) = request.into_parts();
    let task = task_id(&id)?;
    let reason = cancel::reason(&app, &parts.headers, body).await?.or_else(|| Some(NO_REASON.to_owned()));
    let by = By { actor: ACTOR.to_owned(), reason, trace: trace::read(&parts.headers) };
    purge_one(&app, task, &by).await?;
    Ok(Json(PurgedLetter { task_id: task, purged: true }))
}

/// Which letters, how many, and whether it is to be done. Everything may be left out.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct ManyBody {
    task_type: Option<String>,
    #[schema(example = "timeout")]
    error_code: Option<String>,
    /// Given up at or after this time (RFC 3339, or a day).
    from: Option<String>,
    /// Given up before this time.
    to: Option<String>,
    /// Part of the error message, in upper or lower case.
    text: Option<String>,
    /// `next` of the request before, to go on behind what it dealt with.
    after: Option<String>,
    /// The most of one request: 1 to 1000, 100 unless given.
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// `true`, which it is unless given, only counts.
    #[schema(default = true)]
    dry_run: Option<bool>,
    /// For people; 500 characters at most.
    reason: Option<String>,
}

/// Repeat many dead letters
///
/// Those that fit the filter, latest first, so many a request; until `dry_run` is `false` they are only counted. `next` as
/// `after` goes on behind them. A 429 or 503 that comes after some were dealt with tells of those as `acted`.
#[utoipa::path(
    post, path = "/api/dead-letters/redrive", operation_id = "redriveMany", tag = "dead letters",
    request_body = ManyBody,
    responses(
        (status = 200, description = "What was counted or done", body = Acted),
        Malformed, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn redrive_many(State(app): State<Arc<App>>, request: Request) -> Result<Json<Acted>, Problem> {
    many(&app, Act::Redrive, request).await
}

/// Purge many dead letters
///
/// Those that fit the filter, latest first, so many a request; until `dry_run` is `false` they are only counted. `next` as
/// `after` goes on behind them. A 429 or 503 that comes after some were dealt with tells of those as `acted`.
#[utoipa::path(
    post, path = "/api/dead-letters/purge", operation_id = "purgeMany", tag = "dead letters",
    request_body = ManyBody,
    responses(
        (status = 200, description = "What was counted or done", body = Acted),
        Malformed, TooLarge, Unsupported, Invalid, Unavailable,
    ),
)]
pub(crate) async fn purge_many(State(app): State<Arc<App>>, request: Request) -> Result<Json<Acted>, Problem> {
    many(&app, Act::Purge, request).await
}

async fn many(app: &App, act: Act, request: Request) -> Result<Json<Acted>, Problem> {
    let (parts, body) = request.into_parts();
    let mut members = Members::of(app, &parts.headers, body).await?;
    let filter = Filter::of(&mut members);
    let after = members.text("after", |text| text.parse().map_err(|()| "must be the `next` of another request"));
    let limit = members.limit(act::DEFAULT_LIMIT as u32, act::MAX_LIMIT as u32) as usize;
    let dry_run = members.dry_run();
    let reason = members.reason().or_else(|| (act == Act::Purge).then(|| NO_REASON.to_owned()));
    let by = By { actor: ACTOR.to_owned(), reason, trace: trace::read(&parts.headers) };
    let bulk = members.finish(Bulk { filter, after, limit, dry_run })?;
    act::on_all(app, act, &bulk, &by).await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_from_its_parameters() {
        let letter = Letter { at_ms: 1_732_540_000_000, task: "018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b".parse().unwrap() };
        assert_eq!(page(None).unwrap(), (Filter::default(), 50, None));
        let read = page(Some(&format!("limit=7&after={letter}&error_code=timeout"))).unwrap();
        let filter = Filter { error_code: Some("timeout".to_owned()), ..Filter::default() };
        assert_eq!(read, (filter, 7, Some(letter)));
        for (query, part) in [
            ("limit=0", "limit: must be"),
            ("limit=201", "limit: must be"),
            ("limit=x&after=5", "after: must be the `next`"),
            ("offset=3", "offset: is not a parameter"),
            ("from=2026-01-02&to=2026-01-01", "to: must be later than `from`"),
        ] {
            let problem = page(Some(query)).unwrap_err();
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
    }
}
