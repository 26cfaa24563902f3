//! The members of a request's JSON object, taken out one by one; what is wrong or left over is named at the end, all at
//! once.

use axum::body::Body;
use axum::http::HeaderMap;
use serde_json::{Map, Value};

use crate::app::App;
use crate::body;
use crate::problem::{Fields, Problem};
use crate::sent::{Media, malformed, short, text};

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 500;

/// A body's members that were not taken yet.
pub(crate) struct Members {
    members: Map<String, Value>,
    pub(crate) faults: Fields,
}

impl Members {
    /// Reads the body of a request, which may be left out, and says no kind then.
    pub(crate) async fn of(app: &App, headers: &HeaderMap, body: Body) -> Result<Self, Problem> {
        let held = body::read(&app.budget, headers, body, app.config.max_body_bytes).await?;
        let media = Media::of(headers);
        if media != Media::Json && !(held.bytes.is_empty() && media == Media::Missing) {
            return Err(media.refuse("application/json"));
        }
        Self::read(&held.bytes)
    }

    /// Reads a body; an empty one has no members.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let text = text(bytes)?;
        let members = if text.trim().is_empty() {
            Map::new()
        } else {
            serde_json::from_str(text).map_err(|error| malformed(&format!("the body is no JSON object: {error}")))?
        };
        Ok(Self { members, faults: Fields::default() })
    }

    /// `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// A member that is a string, as `parse` reads it.
    pub(crate) fn text<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        let read = match self.take(name)? {
            Value::String(given) => parse(&given),
            _ => Err("must be a string"),
        };
        read.map_err(|what| self.faults.add(name, what)).ok()
    }

    /// `limit`: how many at most; `default` unless it is given.
    pub(crate) fn limit(&mut self, default: u32, most: u32) -> u32 {
        let Some(value) = self.take("limit") else { return default };
        match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) if (1..=most).contains(&count) => count,
            _ => {
                self.faults.add("limit", format!("must be a whole number from 1 to {most}"));
                default
            }
        }
    }

    /// `dry_run`: whether it is only counted, which it is unless something else is said.
    pub(crate) fn dry_run(&mut self) -> bool {
        self.take("dry_run").is_none_or(|value| {
            value.as_bool().unwrap_or_else(|| {
                self.faults.add("dry_run", "must be true or false");
                true
            })
        })
    }

    /// Why something is done, for those who read the history.
    pub(crate) fn reason(&mut self) -> Option<String> {
        match self.take("reason")? {
            Value::String(reason) if reason.chars().count() <= MAX_REASON_CHARS && !reason.contains('\0') => {
                Some(reason)
            }
            _ => {
                let what = format!("must be a string of {MAX_REASON_CHARS} characters at most, without NUL");
                self.faults.add("reason", what);
                None
            }
        }
    }

    /// # Errors
    /// 422 that names everything that was wrong or is not known here.
    pub(crate) fn finish<T>(mut self, read: T) -> Result<T, Problem> {
        for name in self.members.keys() {
            self.faults.add(short(name), "is not a field of this request");
        }
        if self.faults.is_empty() { Ok(read) } else { Err(Problem::invalid(self.faults)) }
    }
}
