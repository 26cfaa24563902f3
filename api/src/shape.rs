//! Pieces that several answers share, as callers see them.

use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::task::Status;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Where a task stands. `completed`, `failed` and `cancelled` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskStatus {
    Pending,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl TaskStatus {
    /// The word for it, in requests, answers and tables.
    pub(crate) fn as_str(self) -> &'static str {
        Status::from(self).as_str()
    }

    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let known = Status::parse(text).map(Self::from);
        known.ok_or("must be pending, processing, completed, failed or cancelled")
    }

    pub(crate) fn is_final(self) -> bool {
        Status::from(self).is_terminal()
    }
}

impl From<Status> for TaskStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Processing => Self::Processing,
            Status::Completed => Self::Completed,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
        }
    }
}

impl From<TaskStatus> for Status {
    fn from(status: TaskStatus) -> Self {
        match status {
            TaskStatus::Pending => Self::Pending,
            TaskStatus::Processing => Self::Processing,
            TaskStatus::Completed => Self::Completed,
            TaskStatus::Failed => Self::Failed,
            TaskStatus::Cancelled => Self::Cancelled,
        }
    }
}

/// A JSON document, passed on as it was written: numbers keep their digits, members their order.
#[derive(Debug, Clone)]
pub(crate) struct Document(Box<RawValue>);

impl Document {
    /// `text` as a document; what is no JSON (or is nested beyond reason) becomes a JSON string.
    pub(crate) fn from_text(text: &str) -> Self {
        let raw = RawValue::from_string(text.to_owned())
            .unwrap_or_else(|_| serde_json::value::to_raw_value(text).expect("text can always be a JSON string"));
        Self(raw)
    }
}

impl From<Box<RawValue>> for Document {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw)
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Microseconds since 1970-01-01 UTC as a time; `None` for 0, which unreadable events have.
pub(crate) fn time_of(at_us: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(at_us).filter(|_| at_us != 0)
}

/// A column's time.
pub(crate) fn utc(time: NaiveDateTime) -> DateTime<Utc> {
    time.and_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_passed_on_as_it_was_written() {
        for text in [r#"{"z":1.10,"a":1e2}"#, "[1, 2]", "null", "\"text\""] {
            assert_eq!(serde_json::to_string(&Document::from_text(text)).unwrap(), text);
        }
        for text in ["", "{", "no json", &"[".repeat(100_000), "{\"a\":1} trailing"] {
            let written = serde_json::to_string(&Document::from_text(text)).unwrap();
            assert_eq!(serde_json::from_str::<String>(&written).unwrap(), text);
        }
    }
}
