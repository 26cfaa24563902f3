//! The Open Inference Protocol v2 over HTTP, as Triton's, KServe's and MLServer's clients speak it. A model is a task type;
//! its versions are those of the registry and the aliases.
//!
//! 1. `request` – tensors become input documents.
//! 2. `response` – results become tensors.
//! 3. `shape` – what a model's tensors are.
//! 4. `tensor` – the bytes of it.
//! 5. `metadata` – what there is, and whether it is ready.

mod metadata;
mod request;
mod response;
mod shape;
mod tensor;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use insightforge_schema::registry::user_key;

pub(super) use self::shape::Shape;

use self::request::{JSON_LENGTH, Sent};
use self::response::{Answered, Wanted};
use super::door::{Door, method_not_allowed};
use super::outcome;
use super::resolve::resolve;
use crate::body::Held;
use crate::document;
use crate::problem::{Fields, Problem};

/// What an element takes at most while a request is answered: as a part of the body, of a document, and of its value.
const ELEMENT_BYTES: usize = 64;
/// So few elements are not counted.
const FEW_ELEMENTS: usize = 1_024;

/// A path behind `/v2`.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    Server,
    Live,
    Ready,
    Models,
    Model(Model<'a>),
    ModelReady(Model<'a>),
    Infer(Model<'a>),
    Index,
}

/// As the path names it; the version is empty when it names none.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Model<'a> {
    task_type: &'a str,
    version: &'a str,
}

impl<'a> Place<'a> {
    fn of(rest: &'a str) -> Option<Self> {
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        // A version is written in characters that need no escape.
        Some(match parts.as_slice() {
            [""] => Self::Server,
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            ["models"] | ["models", ""] => Self::Models,
            ["models", task_type] => Self::Model(Model { task_type, version: "" }),
            ["models", task_type, "ready"] => Self::ModelReady(Model { task_type, version: "" }),
            ["models", task_type, "infer"] => Self::Infer(Model { task_type, version: "" }),
            ["models", task_type, "versions", version] => Self::Model(Model { task_type, version }),
            ["models", task_type, "versions", version, "ready"] => Self::ModelReady(Model { task_type, version }),
            ["models", task_type, "versions", version, "infer"] => Self::Infer(Model { task_type, version }),
            ["repository", "index"] => Self::Index,
            _ => return None,
        })
    }

    fn method(&self) -> &'static str {
        if matches!(self, Self::Infer(_) | Self::Index) { "POST" } else { "GET" }
    }
}

/// Answers a request to `/v2` followed by `rest`.
pub(super) async fn answer(
    door: &Arc<Door>,
    method: &Method,
    rest: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Response {
    let Some(place) = Place::of(rest).filter(|_| rest.is_empty() || rest.starts_with('/')) else {
        return refuse(Problem::not_found("the protocol has nothing at this path")).into_response();
    };
    if method.as_str() != place.method() {
        return method_not_allowed(place.method()).into_response();
    }
    let answered = match place {
        Place::Infer(model) => infer(door, model, headers, body).await,
        Place::Index => match door.read(headers, body).await {
            Ok(held) => metadata::index(door, &held.bytes),
            Err(problem) => Err(problem),
        },
        Place::Server => Ok(metadata::server(door)),
        Place::Live => Ok(metadata::live()),
        Place::Ready => Ok(metadata::ready(door)),
        Place::Models => Ok(metadata::models(door)),
        Place::Model(model) => metadata::model(door, model.task_type, model.version),
        Place::ModelReady(model) => metadata::model_ready(door, model.task_type, model.version),
    };
    answered.unwrap_or_else(|problem| refuse(problem).into_response())
}

/// The protocol's clients read `error`.
fn refuse(problem: Problem) -> Problem {
    let detail = problem.detail.clone().into();
    problem.with("error", detail)
}

async fn infer(door: &Arc<Door>, model: Model<'_>, headers: &HeaderMap, body: Incoming) -> Result<Response, Problem> {
    // What makes the request wrong is told only after its body was taken: a client that still sends would not hear it.
    let held = door.read(headers, body).await?;
    let (task_type, version) = (model.task_type.to_owned(), model.version.to_owned());
    let json_length = headers.get(JSON_LENGTH).cloned();
    let answer = move |door: Arc<Door>, held: Held| async move {
        infer_held(&door, Model { task_type: &task_type, version: &version }, json_length.as_ref(), held).await
    };
    door.answer_held(held, answer).await
}

async fn infer_held(
    door: &Door,
    model: Model<'_>,
    json_length: Option<&HeaderValue>,
    mut held: Held,
) -> Result<Response, Problem> {
    let bytes = held.bytes.clone();
    let resolve_by = |key: Option<String>| {
        let resolved = resolve(door, model.task_type, model.version, || key);
        resolved.map_err(|nobody| nobody.not_found(&door.routes()))
    };
    // Who talks of another model is told so first, whatever else is wrong.
    resolve_by(None)?;
    let sent = Sent::read(json_length, &bytes)?;
    if sent.elements() > FEW_ELEMENTS {
        door.charge(&mut held, sent.elements().saturating_mul(ELEMENT_BYTES))?;
    }
    let mut resolved = resolve_by(user_key(sent.key(), ""))?;
    let mut asked = sent.asked(&resolved.shown.shape)?;
    let canary = door.routes().task(model.task_type).is_some_and(|task| task.canary.is_some());
    if canary
        && sent.key().is_none()
        && let Some(key) = asked.documents.first().and_then(|document| user_key(None, document))
    {
        let again = resolve_by(Some(key))?;
        if again.served.digest() != resolved.served.digest() {
            asked = sent.asked(&again.shown.shape)?;
        }
        resolved = again;
    }
    let shown = &resolved.shown;
    let wanted = Wanted::of(&asked, &shown.shape)?;
    let documents = std::mem::take(&mut asked.documents);
    for (at, document) in documents.iter().enumerate() {
        let faults = document::faults(document, Some(&shown.input));
        if !faults.is_empty() {
            shown.figures.failed("bad_input");
            let mut fields = Fields::default();
            faults.into_iter().for_each(|fault| fields.add(format!("item {at}"), fault));
            return Err(Problem::invalid(fields).with("code", "bad_input".into()));
        }
    }
    let inputs = documents.len() as u64;
    let begun = Instant::now();
    let answers = match <[String; 1]>::try_from(documents) {
        Ok([document]) => vec![resolved.served.infer_one(&document, Door::deadline()).await],
        Err(documents) => resolved.served.infer(documents, Door::deadline()).await,
    };
    let took = begun.elapsed();
    let mut results = Vec::with_capacity(answers.len());
    for (at, answer) in answers.into_iter().enumerate() {
        results.push(answer.map_err(|error| {
            shown.figures.failed(&error.code);
            outcome::problem(&error, &format!("item {at}"))
        })?);
    }
    shown.figures.answered(inputs, took.as_secs_f64());
    let parameters = format!(
        "{{{},\"reason\":\"{}\",\"inference_us\":{}}}",
        shown.parameters,
        resolved.reason.as_str(),
        took.as_micros()
    );
    let manifest = resolved.served.manifest();
    let answered = Answered { task_type: &manifest.task_type, version: &manifest.version, parameters: &parameters };
    let body = wanted.write(&asked, &answered, &results).map_err(|name| {
        let detail = format!("a result has no {name} as the model's output schema describes it");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bad-output", "The model failed", detail)
    })?;
    let kind = if body.json_length.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Response::new(Body::from(body.bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = body.json_length {
        response.headers_mut().insert(HeaderName::from_static(JSON_LENGTH), length);
    }
    Ok(response)
}
