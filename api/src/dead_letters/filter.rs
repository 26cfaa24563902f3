//! Which dead letters are meant.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::search::Story;
use crate::members::Members;
use crate::params::{self, Params};

/// The longest part of a message that is looked for, in characters.
const MAX_TEXT_CHARS: usize = 200;

/// Every part that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub task_type: Option<String>,
    pub error_code: Option<String>,
    /// Given up at or after this time.
    pub from: Option<DateTime<Utc>>,
    /// Given up before this time.
    pub to: Option<DateTime<Utc>>,
    /// Part of the error message, in upper or lower case.
    pub text: Option<String>,
}

impl Filter {
    pub(crate) fn take(params: &mut Params) -> Self {
        let filter = Self {
            task_type: params.take("task_type", params::name),
            error_code: params.take("error_code", params::name),
            from: params.take("from", params::time),
            to: params.take("to", params::time),
            text: params.take("text", text),
        };
        if filter.is_empty_span() {
            params.wrong("to", "must be later than `from`");
        }
        filter
    }

    pub(crate) fn of(members: &mut Members) -> Self {
        let filter = Self {
            task_type: member(members, "task_type", params::name),
            error_code: member(members, "error_code", params::name),
            from: member(members, "from", params::time),
            to: member(members, "to", params::time),
            text: member(members, "text", text),
        };
        if filter.is_empty_span() {
            members.faults.add("to", "must be later than `from`");
        }
        filter
    }

    fn is_empty_span(&self) -> bool {
        self.from.zip(self.to).is_some_and(|(from, to)| from >= to)
    }

    /// Whether more than the time of death must be known of a letter.
    pub(super) fn needs_story(&self) -> bool {
        self.task_type.is_some() || self.error_code.is_some() || self.text.is_some()
    }

    /// Whether a letter fits, its time apart.
    pub(super) fn fits(&self, story: &Story) -> bool {
        let is =
            |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|wanted| found == Some(wanted));
        let says = self.text.as_deref().is_none_or(|text| {
            let message = story.error_message.as_deref().unwrap_or_default();
            message.to_lowercase().contains(&text.to_lowercase())
        });
        is(&self.task_type, Some(&story.task_type)) && is(&self.error_code, story.error_code.as_deref()) && says
    }
}

fn member<T>(members: &mut Members, name: &str, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
    let read = match members.take(name)? {
        Value::String(given) => parse(&given),
        _ => Err("must be a string"),
    };
    read.map_err(|what| members.faults.add(name, what)).ok()
}

fn text(given: &str) -> Result<String, &'static str> {
    let fine = given.chars().count() <= MAX_TEXT_CHARS;
    if fine { Ok(given.to_owned()) } else { Err("must have 200 characters at most") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_that_is_given_must_fit() {
        let story = Story {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            attempts: 3,
            error_code: Some("timeout".to_owned()),
            error_message: Some("No Answer in 120000 ms".to_owned()),
        };
        let filter = |task_type: &str, code: &str, text: &str| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            Filter { task_type: some(task_type), error_code: some(code), text: some(text), ..Filter::default() }
        };
        for (filter, fits) in [
            (filter("", "", ""), true),
            (filter("acting", "timeout", "no answer"), true),
            (filter("acting", "", "ANSWER IN"), true),
            (filter("act", "", ""), false),
            (filter("", "panic", ""), false),
            (filter("", "timeout", "120001"), false),
        ] {
            assert_eq!(filter.fits(&story), fits, "{filter:?}");
        }
        assert!(!filter("", "", "").needs_story() && filter("", "", "x").needs_story());
    }
}
