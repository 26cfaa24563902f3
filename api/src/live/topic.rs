//! Which events somebody follows.

use std::fmt;

use insightforge_schema::id::TaskId;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::told::Told;
use crate::app::App;
use crate::params;
use crate::query::{Query, live};

/// Events that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Topic {
    All,
    /// One task's (or batch's).
    Task(TaskId),
    /// Those of one type of event.
    EventType(String),
    /// Those of tasks of one type.
    TaskType(String),
    /// Those of tasks that a query means.
    Query(Query, String),
    /// Those that two topics have in common.
    Both(Box<Topic>, Box<Topic>),
}

/// What is wrong with a topic, and in which field.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicError {
    /// A JSON pointer.
    pub(crate) field: String,
    pub(crate) detail: String,
}

impl Topic {
    /// Reads what a client sent as `/subscribe` or `/unsubscribe`, which `field` names.
    pub(crate) fn read(value: &Value, field: &str) -> Result<Self, TopicError> {
        let wrong = |field: String, detail: &dyn fmt::Display| TopicError { field, detail: detail.to_string() };
        let known = "must be \"all\" or an object with one of task, type, query";
        let members = match value {
            Value::String(word) if word == "all" => return Ok(Self::All),
            Value::Object(members) if members.len() == 1 => members,
            _ => return Err(wrong(field.to_owned(), &known)),
        };
        let Some((name, value)) = members.iter().next() else { return Err(wrong(field.to_owned(), &known)) };
        let within = format!("{field}/{}", name.chars().take(64).collect::<String>());
        if !["task", "type", "query"].contains(&name.as_str()) {
            return Err(wrong(within, &"is not known; known: task, type, query"));
        }
        let Some(text) = value.as_str() else { return Err(wrong(within, &"must be a string")) };
        match name.as_str() {
            "task" => text.parse().map(Self::Task).map_err(|_| wrong(within, &"must be a UUID")),
            "type" if text.is_empty() => Err(wrong(within, &"must not be empty")),
            "type" => params::name(text).map(Self::TaskType).map_err(|what| wrong(within, &what)),
            _ => match text.parse::<Query>().and_then(|query| live::check(&query).map(|()| query)) {
                Ok(query) => Ok(Self::Query(query, text.to_owned())),
                Err(error) => Err(wrong(within, &error)),
            },
        }
    }

    /// As the client sent it.
    pub(crate) fn shown(&self) -> Value {
        match self {
            Self::All | Self::EventType(_) | Self::Both(..) => "all".into(),
            Self::Task(task) => json!({ "task": task }),
            Self::TaskType(task_type) => json!({ "type": task_type }),
            Self::Query(_, text) => json!({ "query": text }),
        }
    }

    /// The one task it is about.
    pub(crate) fn task(&self) -> Option<TaskId> {
        match self {
            Self::Task(task) => Some(*task),
            Self::Both(one, other) => one.task().or_else(|| other.task()),
            _ => None,
        }
    }

    /// Whether the event is one of these.
    pub(crate) async fn has(&self, app: &App, told: &Told) -> bool {
        let kind = if self.needs_kind() { app.live.kinds.of(app, told).await } else { None };
        self.fits(told, kind.as_deref())
    }

    fn needs_kind(&self) -> bool {
        match self {
            Self::All | Self::Task(_) | Self::EventType(_) => false,
            Self::TaskType(_) => true,
            Self::Query(query, _) => live::needs_kind(query),
            Self::Both(one, other) => one.needs_kind() || other.needs_kind(),
        }
    }

    fn fits(&self, told: &Told, kind: Option<&Kind>) -> bool {
        match self {
            Self::All => true,
            Self::Task(task) => told.task == *task,
            Self::EventType(event_type) => told.change.event_type() == event_type,
            Self::TaskType(task_type) => kind.is_some_and(|kind| kind.task_type == *task_type),
            Self::Query(query, _) => live::fits(query, told, kind),
            Self::Both(one, other) => one.fits(told, kind) && other.fits(told, kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_follows_is_read_or_what_is_wrong_is_named() {
        let task = "0190a6f0-0000-7000-8000-000000000001";
        for value in
            [json!("all"), json!({ "task": task }), json!({ "type": "a" }), json!({ "query": "status:failed" })]
        {
            assert_eq!(Topic::read(&value, "/subscribe").unwrap().shown(), value);
        }
        for (value, field, part) in [
            (json!("everything"), "/subscribe", "must be \"all\""),
            (json!(7), "/subscribe", "must be \"all\""),
            (json!({}), "/subscribe", "must be \"all\""),
            (json!({ "task": task, "type": "a" }), "/subscribe", "one of"),
            (json!({ "tsak": task }), "/subscribe/tsak", "is not known"),
            (json!({ "task": 7 }), "/subscribe/task", "must be a string"),
            (json!({ "task": "7" }), "/subscribe/task", "UUID"),
            (json!({ "type": "" }), "/subscribe/type", "empty"),
            (json!({ "query": "age:>5m" }), "/subscribe/query", "at character 1"),
            (json!({ "query": "status:" }), "/subscribe/query", "at character 1"),
        ] {
            let error = Topic::read(&value, "/subscribe").unwrap_err();
            assert!(error.field == field && error.detail.contains(part), "{value}: {error:?}");
        }
    }
}
