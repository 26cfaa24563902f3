//! `POST /api/infer`: one document or a list of them, answered now.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::http::HeaderMap;
use axum::response::Response;
use hyper::body::Incoming;
use insightforge_inference::InferError;
use insightforge_schema::registry::user_key;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use super::door::{Door, json as answer_json};
use super::outcome;
use super::resolve::{Resolved, resolve};
use crate::body::Held;
use crate::document::{self, explain};
use crate::problem::{Fields, Problem};
use crate::sent::{Media, malformed, short, text};

/// Most documents of one request.
const MAX_INPUTS: usize = 1_024;
const KNOWN: &str = "task_type, model_version, data, inputs, key";
/// The longest key, in characters.
const MAX_KEY_CHARS: usize = 255;
/// From here on, the values of a document count beside its bytes: each takes so many in memory, and two in the body.
const COUNTED_BYTES: usize = 16 << 10;
const VALUE_BYTES: usize = 32;

/// Answers a request.
pub(super) async fn infer(door: &Arc<Door>, headers: &HeaderMap, body: Incoming) -> Result<Response, Problem> {
    let media = Media::of(headers);
    if media != Media::Json {
        return Err(media.refuse("application/json"));
    }
    let held = door.read(headers, body).await?;
    door.answer_held(held, answer).await
}

async fn answer(door: Arc<Door>, mut held: Held) -> Result<Response, Problem> {
    if held.bytes.len() > COUNTED_BYTES {
        let values = held.bytes.iter().filter(|byte| **byte == b',').count();
        door.charge(&mut held, values * VALUE_BYTES)?;
    }
    let asked = Asked::read(&held.bytes)?;
    let resolved = resolve(&door, &asked.task_type, &asked.model_version, || asked.sticky_key())
        .map_err(|nobody| nobody.problem(&door.routes()))?;
    match asked.inputs {
        Inputs::One(document) => one(&resolved, document).await,
        Inputs::Many(documents) => many(&resolved, documents).await,
    }
}

async fn one(resolved: &Resolved, document: Result<Cow<'_, str>, String>) -> Result<Response, Problem> {
    let (served, figures) = (&resolved.served, &resolved.shown.figures);
    let document = look_through(document, resolved).map_err(|faults| {
        figures.failed("bad_input");
        let mut fields = Fields::default();
        faults.into_iter().for_each(|fault| fields.add("data", fault));
        Problem::invalid(fields).with("code", json!("bad_input"))
    })?;
    let begun = Instant::now();
    match served.infer_one(&document, Door::deadline()).await {
        Ok(result) => {
            let took = begun.elapsed();
            figures.answered(1, took.as_secs_f64());
            let mut body = String::with_capacity(result.len() + resolved.shown.members.len() + 80);
            body.push_str("{\"result\":");
            body.push_str(&result);
            end(body, resolved, took.as_micros())
        }
        Err(error) => {
            figures.failed(&error.code);
            Err(outcome::problem(&error, "data"))
        }
    }
}

/// Each document has a result or an error of its own.
async fn many(resolved: &Resolved, documents: Vec<Result<Cow<'_, str>, String>>) -> Result<Response, Problem> {
    let (served, figures) = (&resolved.served, &resolved.shown.figures);
    let mut good = Vec::with_capacity(documents.len());
    let refused: Vec<Option<Vec<String>>> = documents
        .into_iter()
        .map(|document| look_through(document, resolved).map(|document| good.push(document.into_owned())).err())
        .collect();
    let begun = Instant::now();
    let mut answers = served.infer(good, Door::deadline()).await.into_iter();
    let took = begun.elapsed();
    let mut body = String::from("{\"results\":[");
    let mut answered = 0;
    for (at, refused) in refused.into_iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        let answer = match refused {
            Some(faults) => Err(InferError::bad_input(faults.join(", "))),
            None => answers.next().unwrap_or_else(|| Err(InferError::unavailable("panic", "there is no answer"))),
        };
        match answer {
            Ok(result) => {
                answered += 1;
                body.push_str("{\"result\":");
                body.push_str(&result);
                body.push('}');
            }
            Err(error) => {
                figures.failed(&error.code);
                body.push_str(&json!({ "error": { "code": error.code, "message": error.message } }).to_string());
            }
        }
    }
    figures.answered(answered, took.as_secs_f64());
    body.push(']');
    end(body, resolved, took.as_micros())
}

fn end(mut body: String, resolved: &Resolved, inference_us: u128) -> Result<Response, Problem> {
    body.push(',');
    body.push_str(&resolved.shown.members);
    body.push_str(",\"reason\":\"");
    body.push_str(resolved.reason.as_str());
    body.push_str("\",\"inference_us\":");
    body.push_str(&inference_us.to_string());
    body.push('}');
    Ok(answer_json(body))
}

/// What is refused in an upload is refused here.
fn look_through<'a>(document: Result<Cow<'a, str>, String>, resolved: &Resolved) -> Result<Cow<'a, str>, Vec<String>> {
    let document = document.map_err(|fault| vec![fault])?;
    let faults = document::faults(&document, Some(&resolved.shown.input));
    if faults.is_empty() { Ok(document) } else { Err(faults) }
}

/// A request, its fields checked.
struct Asked<'a> {
    task_type: Cow<'a, str>,
    /// Empty for the stable one.
    model_version: Cow<'a, str>,
    key: Option<Cow<'a, str>>,
    inputs: Inputs<'a>,
}

/// Documents as JSON text, or why one is none.
enum Inputs<'a> {
    One(Result<Cow<'a, str>, String>),
    Many(Vec<Result<Cow<'a, str>, String>>),
}

impl<'a> Asked<'a> {
    /// Who is answered by one version: the caller's key, else the user that the document names. Many documents of one
    /// request are answered by the version of the first.
    fn sticky_key(&self) -> Option<String> {
        let first = match &self.inputs {
            Inputs::One(document) => Some(document),
            Inputs::Many(documents) => documents.first(),
        };
        let document = first.and_then(|document| document.as_deref().ok());
        user_key(self.key.as_deref(), document.unwrap_or_default())
    }

    fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let text = text(body)?;
        let sent: Sent<'a> =
            serde_json::from_str(text).map_err(|error| malformed(&format!("the body is no JSON object: {error}")))?;
        let mut faults = sent.faults;
        let task_type = string(sent.task_type, "task_type", &mut faults);
        if task_type.is_none() && !faults.names("task_type") {
            faults.add("task_type", "is missing");
        }
        let model_version = string(sent.model_version, "model_version", &mut faults).unwrap_or_default();
        let key = string(sent.key, "key", &mut faults);
        if key.as_ref().is_some_and(|key| key.chars().count() > MAX_KEY_CHARS) {
            faults.add("key", format!("must have {MAX_KEY_CHARS} characters at most"));
        }
        let inputs = match (sent.data, sent.inputs) {
            (Some(data), None) => Some(Inputs::One(document(data))),
            (None, Some(list)) => many_of(list, &mut faults),
            (Some(_), Some(_)) => {
                faults.add("inputs", "stands beside data; one of them is enough");
                None
            }
            (None, None) => {
                faults.add("data", "is missing");
                None
            }
        };
        match (task_type, inputs) {
            (Some(task_type), Some(inputs)) if faults.is_empty() => Ok(Self { task_type, model_version, key, inputs }),
            _ => Err(Problem::invalid(faults)),
        }
    }
}

/// A document: itself, or a text that holds it.
fn document(value: &RawValue) -> Result<Cow<'_, str>, String> {
    let json = value.get();
    if json.starts_with('"') {
        serde_json::from_str::<Text<'_>>(json)
            .map(|text| text.0)
            .map_err(|error| format!("is no text: {}", explain(&error)))
    } else {
        Ok(Cow::Borrowed(json))
    }
}

fn many_of<'a>(list: &'a RawValue, faults: &mut Fields) -> Option<Inputs<'a>> {
    let Ok(list) = serde_json::from_str::<Vec<&'a RawValue>>(list.get()) else {
        faults.add("inputs", "must be a list of documents");
        return None;
    };
    if list.is_empty() || list.len() > MAX_INPUTS {
        faults.add("inputs", format!("must have 1 to {MAX_INPUTS} documents, it has {}", list.len()));
        return None;
    }
    Some(Inputs::Many(list.into_iter().map(document).collect()))
}

/// A member that must be a text.
fn string<'a>(value: Option<&'a RawValue>, name: &str, faults: &mut Fields) -> Option<Cow<'a, str>> {
    let json = value?.get();
    if !json.starts_with('"') {
        faults.add(name, "must be a string");
        return None;
    }
    match serde_json::from_str::<Text<'a>>(json) {
        Ok(text) => Some(text.0),
        Err(error) => {
            faults.add(name, format!("is no text: {}", explain(&error)));
            None
        }
    }
}

/// Borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The members as they stand in the body.
#[derive(Default)]
struct Sent<'a> {
    task_type: Option<&'a RawValue>,
    model_version: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    inputs: Option<&'a RawValue>,
    key: Option<&'a RawValue>,
    faults: Fields,
}

impl<'de> Deserialize<'de> for Sent<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Sent<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sent<'de>, A::Error> {
                let mut sent = Sent::default();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    let place = match &*name {
                        "task_type" => &mut sent.task_type,
                        "model_version" => &mut sent.model_version,
                        "data" => &mut sent.data,
                        "inputs" => &mut sent.inputs,
                        "key" => &mut sent.key,
                        other => {
                            let what = format!("is not a field of this request; known are {KNOWN}");
                            sent.faults.add(short(other), what);
                            continue;
                        }
                    };
                    if place.replace(value).is_some() {
                        sent.faults.add(short(&name), "is there twice");
                    }
                }
                for place in
                    [&mut sent.task_type, &mut sent.model_version, &mut sent.data, &mut sent.inputs, &mut sent.key]
                {
                    // As everywhere, `null` counts as absent.
                    *place = place.filter(|value| value.get() != "null");
                }
                Ok(sent)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
