//! What is answered when something is wrong: RFC 9457 problem details that also carry the shape Laravel's callers read
//! (`message`, `errors: {field: [..]}`), every wrong field at once. Nothing of the inside of this process is shown.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use insightforge_archive::ReadError;
use insightforge_schema::link::LinkError;
use serde::Serialize;
use utoipa::ToSchema;

/// `application/problem+json` (RFC 9457) with Laravel's `message` and `errors`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:insightforge:problem:` and a stable word.
    #[serde(rename = "type")]
    pub kind: Box<str>,
    pub title: &'static str,
    pub status: u16,
    /// For people: what is wrong with this request.
    pub detail: String,
    /// The same text again, where Laravel's callers look for it.
    pub message: Box<str>,
    /// Every wrong field with what is wrong with it. Names are those of the request: `data`, `line`, a header's name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub errors: BTreeMap<String, Vec<String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    pub more: Option<Box<BTreeMap<&'static str, serde_json::Value>>>,
    #[serde(skip)]
    #[schema(ignore)]
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem of the given kind: `word` goes into `type`.
    #[must_use]
    pub fn new(status: StatusCode, word: &str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self {
            kind: format!("urn:insightforge:problem:{word}").into(),
            title,
            status: status.as_u16(),
            message: detail.as_str().into(),
            detail,
            errors: BTreeMap::new(),
            more: None,
            retry_after_s: None,
        }
    }

    /// 422 with every wrong field; `fields` must not be empty.
    #[must_use]
    pub fn invalid(fields: Fields) -> Self {
        let detail = fields.summary();
        Self {
            errors: fields.0,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request is not valid", detail)
        }
    }

    /// Adds a member that only this kind of problem has (RFC 9457 §3.2).
    #[must_use]
    pub fn with(mut self, name: &'static str, value: serde_json::Value) -> Self {
        self.more.get_or_insert_default().insert(name, value);
        self
    }

    /// 404.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 429 or 503 with `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// 503: a server behind this one does not answer.
    #[must_use]
    pub fn unavailable(what: &str) -> Self {
        let detail = format!("{what} does not answer at the moment; nothing was lost, try again");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail).retry_after(2)
    }
}

/// Wrong fields of one request, collected so that all are named at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// Notes that `field` is wrong.
    pub fn add(&mut self, field: impl Into<String>, what: impl Into<String>) {
        self.0.entry(field.into()).or_default().push(what.into());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `field` is among them.
    #[must_use]
    pub fn names(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// Both lists as one.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        for (field, whats) in more.0 {
            self.0.entry(field).or_default().extend(whats);
        }
        self
    }

    /// One wrong field.
    #[must_use]
    pub fn one(field: impl Into<String>, what: impl Into<String>) -> Self {
        let mut fields = Self::default();
        fields.add(field, what);
        fields
    }

    /// All of it in one line: `data: must be …; task_type: is missing`.
    #[must_use]
    pub fn summary(&self) -> String {
        let fields = self.0.iter().map(|(field, whats)| format!("{field}: {}", whats.join(", ")));
        fields.collect::<Vec<_>>().join("; ")
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::OutOfMemory => {
                let detail = "the journal is full; nothing of this request was stored, try again later";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "journal-full", "The journal is full", detail)
                    .retry_after(10)
            }
            LinkError::Unavailable(why) => {
                tracing::warn!(%why, "Redis is not available");
                Self::unavailable("the journal")
            }
            LinkError::Refused(why) => {
                tracing::error!(%why, "Redis refused");
                Self::unavailable("the journal")
            }
        }
    }
}

/// Numbers have no gaps: what cannot be read is said, never skipped.
impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Link(error) => error.into(),
            ReadError::Missing { partition, from, to, .. } => {
                let partition = partition.0;
                let detail = format!(
                    "events {from} to {to} of partition {partition} have left the journal; start again at after=0"
                );
                Self::new(StatusCode::GONE, "trimmed", "No longer in the journal", detail)
            }
            ReadError::Archive(error) => {
                tracing::warn!(%error, "the journal's past cannot be read");
                Self::unavailable("the journal's archive")
            }
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(%error, "the tables cannot be read");
        Self::unavailable("the database")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("texts and numbers are JSON");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_every_wrong_field_in_both_shapes() {
        let mut fields = Fields::default();
        fields.add("task_type", "is missing");
        fields.add("data", "is missing");
        let problem = serde_json::to_value(Problem::invalid(fields)).unwrap();
        assert_eq!(problem["status"], 422);
        assert_eq!(problem["errors"]["data"][0], "is missing");
        assert_eq!(problem["errors"]["task_type"][0], "is missing");
        assert_eq!(problem["message"], "data: is missing; task_type: is missing");
        assert_eq!(problem["detail"], problem["message"]);
    }

    #[test]
    fn an_inner_error_shows_nothing_of_its_text() {
        let problem = Problem::from(LinkError::Refused("WRONGPASS secret".to_owned()));
        assert!(!serde_json::to_string(&problem).unwrap().contains("secret"));
        assert_eq!(problem.retry_after_s, Some(2));
    }
}
