//! One grammar to say which tasks are meant, in lists, exports, counts, insights and live subscriptions.
//!
//! ```text
//! status:failed type:sentiment_analysis model:v1.0 error:timeout age:>5m batch:<id> id:<beginning> text:"no answer"
//! ```
//!
//! 1. [`parse`] – the text, word by word; what is wrong is said with its place.
//! 2. [`sql`] – the same as conditions on the tables.
//! 3. [`live`] – the same asked about one event.
//!
//! All words must fit; `-` before a word turns it round; several values (`type:a,b`) mean one of them.

pub(crate) mod live;
pub(crate) mod parse;
#[cfg(test)]
pub(crate) mod plan;
pub(crate) mod sql;

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::shape::TaskStatus;

/// The longest query, in bytes.
pub(crate) const MAX_BYTES: usize = 2_000;
/// The most words of one query, and values of one word.
pub(crate) const MAX_WORDS: usize = 32;

/// Which tasks are meant. Without words all of them are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) words: Vec<Word>,
}

/// One word of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// The tasks that do not fit are meant.
    pub(crate) negated: bool,
    /// Where it begins, in characters from 1.
    pub(crate) at: usize,
    pub(crate) term: Term,
}

/// What a word says. Of several values one must fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Term {
    Status(Vec<Standing>),
    Type(Vec<String>),
    Model(Vec<String>),
    Error(Vec<String>),
    Batch(Vec<Uuid>),
    Id(Vec<IdPrefix>),
    /// Submitted longer ago than this.
    Older(Duration),
    /// Submitted less long ago than this.
    Younger(Duration),
    From(DateTime<Utc>),
    To(DateTime<Utc>),
    /// Part of the document or the error message, in upper or lower case.
    Text(String),
}

/// Where a task stands, as people ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Is(TaskStatus),
    /// Pending or processing.
    Open,
    /// On the dead-letter list.
    Dead,
}

/// A task's id or its beginning, written as the tables have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdPrefix(pub(crate) String);

impl IdPrefix {
    /// The characters of a whole id.
    pub(crate) const WHOLE: usize = 36;

    pub(crate) fn is_whole(&self) -> bool {
        self.0.len() == Self::WHOLE
    }
}

impl Query {
    /// The texts that must be found, or must not.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, bool)> {
        self.words.iter().filter_map(|word| match &word.term {
            Term::Text(text) => Some((text.as_str(), word.negated)),
            _ => None,
        })
    }

    /// Whether it asks for a stretch of time.
    pub(crate) fn has_time(&self) -> bool {
        self.words
            .iter()
            .any(|word| matches!(word.term, Term::Older(_) | Term::Younger(_) | Term::From(_) | Term::To(_)))
    }

    /// Whether documents have to be looked into.
    pub(crate) fn has_text(&self) -> bool {
        self.texts().next().is_some()
    }
}
