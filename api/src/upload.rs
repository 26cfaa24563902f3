//! `POST /api/data/upload`: one task comes in. The whole way is [`upload`]; each step is a function below or a file of its
//! own.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{BatchLine, Change, Meta, encode, now_us};
use insightforge_schema::id::TaskId;
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{Context, Submission, Submit};
use metrics::counter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::asked::{Asked, Defaults, Door, Rules};
use crate::backlog::RETRY_AFTER_S;
use crate::body::{self, Share};
use crate::describe::{Backlogged, Conflict, Invalid, Malformed, TooLarge, TooSlow, Unavailable, Unsupported};
use crate::idempotency::{self, Key};
use crate::problem::{Fields, Problem};
use crate::result::TaskResult;
use crate::sent::{Media, SentFields};
use crate::submit::Refused;
use crate::trace::{self, Arrival};
use crate::{prefer, wait};

/// What an accepted task is answered with, in the words the former system used.
pub(crate) const ACCEPTED: &str = "任務已接收";

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(upload)).route("/api/upload", post(upload))
}

/// The fields of an upload.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "it describes the body; the body is read field by field, to name all that is wrong")]
pub(crate) struct UploadBody {
    /// The input: a JSON document as a string, such as `{"text":"好消息!"}`. 30 levels deep at most.
    #[schema(example = "{\"text\":\"好消息!\"}")]
    data: String,
    /// One of `GET /api/models`.
    #[schema(example = "sentiment_analysis")]
    task_type: String,
    /// One of the task type's versions, or `stable`, `candidate`, `latest`: resolved when the task's turn comes. A canary
    /// takes its share of `stable` by `user_id`, where there is one, else by the task's id.
    #[schema(example = "v1.0", default = "stable")]
    model_version: Option<String>,
    /// The task's id, when the caller brings one; for a new task a new one. Until a day after the task's end the same id
    /// with the same fields is the same task, and with others it is answered 409.
    task_id: Option<uuid::Uuid>,
    user_id: Option<u64>,
    /// Where the outcome is announced.
    webhook_url: Option<String>,
    /// Signs the announcement.
    #[schema(format = Password)]
    webhook_secret: Option<String>,
    /// No attempt begins after this time: a task that still waits then ends as `failed` with the code `expired`. A running
    /// one goes on. A time that is past already is accepted, and the task expires at once.
    #[schema(example = "2026-11-25T12:00:00Z")]
    expires_at: Option<chrono::DateTime<chrono::Utc>>,
    /// The same, in seconds from the upload's arrival: 1 to 31536000. Not beside `expires_at`.
    #[schema(minimum = 1, maximum = 31_536_000)]
    expires_in_s: Option<u32>,
}

/// A task was accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    #[schema(example = "任務已接收")]
    message: &'static str,
    task_id: TaskIdText,
}

/// A task id as it is written everywhere.
#[derive(Serialize, ToSchema)]
#[schema(value_type = uuid::Uuid)]
pub(crate) struct TaskIdText(TaskId);

/// Accept one task
///
/// Answered once the task is safely in the journal. Takes JSON or a form. Also at `/api/upload`.
#[utoipa::path(
    post,
    path = "/api/data/upload",
    tag = "upload",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 printable characters. The same key with \
            the same body within 24 hours is the same task, and gets the same answer."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait N seconds for the result."),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context; every event of the task carries it."),
    ),
    request_body(content(
        (UploadBody = "application/json"),
        (UploadBody = "application/x-www-form-urlencoded"),
        (UploadBody = "multipart/form-data"),
    )),
    responses(
        (status = 202, description = "The task is stored", body = Accepted, headers(
            ("Location" = String, description = "Where its result can be read"),
            ("Idempotency-Replayed" = bool, description = "`true` when this request was accepted before"),
        )),
        (status = 200, description = "The task ended within the time given by `Prefer: wait`: the result, as \
            `GET /api/result/{task_id}` shows it", body = TaskResult),
        Malformed, TooSlow, Conflict, TooLarge, Unsupported, Invalid, Backlogged, Unavailable,
    ),
)]
pub(crate) async fn upload(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let media = Media::of(headers);
    let held = body::read(&app.budget, headers, body, app.config.max_body_bytes).await?;
    let (asked, key) = check(&app, headers, &media, held.bytes).await?;
    let outcome = accept(&app, asked, key.as_ref(), trace::read(headers), held.share).await?;
    if let Some(wait) = prefer::wait(headers, app.config.wait_limit_s)
        && let Some(ended) = wait::for_end(&app, outcome.task, wait).await
    {
        return Ok(outcome.mark(ended));
    }
    Ok(outcome.into_response())
}

/// A task that is in the journal.
pub(crate) struct Stored {
    pub(crate) task: TaskId,
    /// It was there before.
    pub(crate) replayed: bool,
}

/// Reads and judges fields and key; everything wrong is named at once.
async fn check(app: &App, headers: &HeaderMap, media: &Media, bytes: Bytes) -> Result<(Asked, Option<Key>), Problem> {
    let mut faults = Fields::default();
    let key = Key::read(headers, "upload", &mut faults);
    let sent = SentFields::read(media, bytes).await?;
    let defaults = Defaults::default();
    let models = app.models.seen_for(&sent, &defaults).await;
    let rules = Rules { door: Door::Upload, models: &models, addresses: &app.config.addresses, defaults: &defaults };
    match Asked::check(sent, &rules) {
        Ok(asked) if faults.is_empty() => Ok((asked, key)),
        Ok(_) => Err(Problem::invalid(faults)),
        Err(more) => Err(Problem::invalid(faults.and(more))),
    }
}

/// Stores one task.
pub(crate) async fn accept(
    app: &App,
    asked: Asked,
    key: Option<&Key>,
    trace: Option<String>,
    share: Share,
) -> Result<Stored, Problem> {
    if let Some(task) = asked.task_id
        && app.used.among(app, &[task]).await.contains(&task)
    {
        return Err(exists(USED));
    }
    let (submit, arrival) = prepare(app, asked, key, trace, None);
    let task = submit.task;
    if let Some(key) = key
        && submit.idempotency_key.is_none()
    {
        reserve(app, key, &submit).await?;
    }
    match app.submitter.submit(submit, share).await {
        Ok(Submission::Accepted { task, .. }) => {
            arrival.end(task);
            Ok(Stored { task, replayed: false })
        }
        Ok(Submission::Known { task }) => Ok(Stored { task, replayed: true }),
        Ok(Submission::Conflict { .. } | Submission::Full) => Err(conflict(key)),
        Err(refused) => Err(refuse(refused, task)),
    }
}

/// Names the task and writes its event; what is said once it is stored goes beside it.
pub(crate) fn prepare(
    app: &App,
    asked: Asked,
    key: Option<&Key>,
    trace: Option<String>,
    batch: Option<BatchLine>,
) -> (Submit, Arrival) {
    let partitions = app.config.partitions;
    // A key and its task share a partition, unless the caller chose the id (see `reserve`).
    let place = key.map(|key| (key, key.partition(partitions)));
    let task = asked.task_id.unwrap_or_else(|| match (place, batch) {
        (None, _) => TaskId::new(),
        (Some((_, partition)), None) => TaskId::new_in(partition, partitions),
        // Each line of a keyed batch is the same task whenever it is sent.
        (Some(_), Some(batch)) => task_of_line(batch),
    });
    let (own_id, in_batch) = (asked.task_id.is_some(), batch.is_some());
    let fingerprint = (own_id || key.is_some()).then(|| asked.fingerprint(&app.sealer));
    let idempotency_key = match place {
        Some((key, partition)) if !own_id && !in_batch => Some(key.name(&app.keys, partition)),
        _ => None,
    };
    let (arrival, trace) = Arrival::begin(task, trace, &asked.lane);
    let meta = Meta { at_us: now_us(), tenant: DEFAULT_TENANT.to_owned(), actor: "api".to_owned(), attempt: 0, trace };
    let context = Context { tenant: meta.tenant.clone(), trace: meta.trace.clone() };
    let lane = asked.lane.clone();
    let expires_us = asked.expiry.map(|expiry| expiry.deadline_us(meta.at_us));
    let event = encode(&meta, &Change::Submitted(asked.submitted(task, &app.sealer, batch, expires_us)));
    let expires_ms = expires_us.map(|us| us.div_euclid(1_000));
    (Submit { task, lane, event, fingerprint, idempotency_key, context, expires_ms }, arrival)
}

/// UUID version 8 (RFC 9562 §5.8) over the batch's id and the line's number.
fn task_of_line(batch: BatchLine) -> TaskId {
    let digest = Sha256::new().chain_update(batch.id).chain_update(batch.line.to_be_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    TaskId(Uuid::new_v8(bytes))
}

/// A key beside an id of the caller's own: the two may live in different partitions, so the key is taken first. If the
/// task is not stored after that, the same request may come again, and only the same.
async fn reserve(app: &App, key: &Key, submit: &Submit) -> Result<(), Problem> {
    let fingerprint = String::from_utf8_lossy(submit.fingerprint.as_deref().unwrap_or_default());
    let value = format!("{fingerprint}|{}", submit.task);
    match key.reserve(&app.link, &app.keys, app.config.partitions, &value).await? {
        Some(taken) if taken != value => Err(conflict(Some(key))),
        _ => Ok(()),
    }
}

/// The id or key belongs to another request.
pub(crate) fn conflict(key: Option<&Key>) -> Problem {
    if key.is_none() {
        return exists("belongs to a task with other fields");
    }
    let what = "came with another body before; use a new key for a new request";
    let (word, title) = ("key-reused", "The key was used before");
    of_field(StatusCode::UNPROCESSABLE_ENTITY, word, title, idempotency::HEADER, what)
}

/// What is wrong with an id that names a task which Redis does not remember.
pub(crate) const USED: &str = "belongs to a task that was accepted before; use a new id for a new task";

fn exists(what: &str) -> Problem {
    of_field(StatusCode::CONFLICT, "task-exists", "The task exists", "task_id", what)
}

fn of_field(status: StatusCode, word: &str, title: &'static str, field: &str, what: &str) -> Problem {
    let mut problem = Problem::new(status, word, title, format!("{field}: {what}"));
    problem.errors.insert(field.to_owned(), vec![what.to_owned()]);
    problem
}

/// Why `task` was not taken.
pub(crate) fn refuse(refused: Refused, task: TaskId) -> Problem {
    counter!("if_uploads_refused_total", "reason" => refused.reason()).increment(1);
    match refused {
        Refused::Backlog => {
            let detail = "as many tasks wait as this installation takes; nothing of this request was stored";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "backlog", "Too many tasks wait", detail)
                .retry_after(RETRY_AFTER_S)
        }
        Refused::Queue => {
            let detail = "more arrives than can be stored; nothing of this request was stored";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too busy", detail).retry_after(1)
        }
        Refused::Link(LinkError::Unavailable(_)) => {
            let detail = format!(
                "the journal does not answer; whether this request was stored as task {task} is not known. Sent again with \
                 the same Idempotency-Key or task_id, it is stored once"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail).retry_after(2)
        }
        Refused::Link(error) => error.into(),
    }
}

impl Stored {
    /// Says on any answer whether the request was accepted before.
    pub(crate) fn mark(&self, mut response: Response) -> Response {
        let location = HeaderValue::try_from(format!("/api/result/{}", self.task)).expect("an id is ASCII");
        response.headers_mut().insert(header::LOCATION, location);
        if self.replayed {
            response.headers_mut().insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// The same with another status; the former model server's door says 200.
    pub(crate) fn answer(&self, status: StatusCode) -> Response {
        let body = Accepted { message: ACCEPTED, task_id: TaskIdText(self.task) };
        self.mark((status, axum::Json(body)).into_response())
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        self.answer(StatusCode::ACCEPTED)
    }
}

/// RFC 7240's answer to a preference that was followed.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
