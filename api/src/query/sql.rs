//! A query as conditions on `analysis_tasks`. Texts are not among them: no index helps to find them, so that who looks for
//! them looks through a bounded number of tasks that fit the rest (see [`crate::list`]).

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{MySql, QueryBuilder};

use super::{IdPrefix, Query, Standing, Term, Word};

/// Adds the query's words, texts apart, behind a `WHERE` that has something already.
pub(crate) fn push(ask: &mut QueryBuilder<MySql>, query: &Query, now: DateTime<Utc>) {
    for word in query.words.iter().filter(|word| !matches!(word.term, Term::Text(_))) {
        ask.push(if word.negated { " AND NOT (" } else { " AND (" });
        push_term(ask, word, now);
        ask.push(")");
    }
}

/// Adds the query's texts. The row must have `data_payload` and `error_message`.
pub(crate) fn push_texts(ask: &mut QueryBuilder<MySql>, query: &Query) {
    for (text, negated) in query.texts() {
        ask.push(if negated { " AND NOT (" } else { " AND (" });
        ask.push("LOCATE(LOWER(").push_bind(text.to_owned());
        ask.push("), LOWER(CONVERT(data_payload USING utf8mb4))) > 0 OR LOCATE(LOWER(").push_bind(text.to_owned());
        // Of a message that is not there, nothing is known; and `NOT` of that is not true.
        ask.push("), LOWER(COALESCE(error_message, ''))) > 0)");
    }
}

fn push_term(ask: &mut QueryBuilder<MySql>, word: &Word, now: DateTime<Utc>) {
    match &word.term {
        Term::Status(standings) => push_each(ask, standings, |ask, standing| match standing {
            Standing::Is(status) => {
                ask.push("status = ").push_bind(status.as_str());
            }
            Standing::Open => {
                ask.push("status IN ('pending', 'processing')");
            }
            // Only failed tasks are on the list, and they have an index.
            Standing::Dead => {
                ask.push("status = 'failed' AND dead_lettered");
            }
        }),
        Term::Type(types) => push_in(ask, "task_type", types.iter().cloned()),
        Term::Model(versions) => push_in(ask, "model_version", versions.iter().cloned()),
        Term::Error(codes) if word.negated => push_in(ask, "COALESCE(error_code, '')", codes.iter().cloned()),
        Term::Error(codes) => push_in(ask, "error_code", codes.iter().cloned()),
        Term::Batch(ids) if word.negated => push_in(ask, "COALESCE(batch_id, '')", ids.iter().map(ToString::to_string)),
        Term::Batch(ids) => push_in(ask, "batch_id", ids.iter().map(ToString::to_string)),
        Term::Id(prefixes) => push_each(ask, prefixes, push_id),
        Term::Older(span) => {
            ask.push("created_at < ").push_bind(before(now, *span).naive_utc());
        }
        Term::Younger(span) => {
            ask.push("created_at > ").push_bind(before(now, *span).naive_utc());
        }
        Term::From(at) => {
            ask.push("created_at >= ").push_bind(at.naive_utc());
        }
        Term::To(at) => {
            ask.push("created_at < ").push_bind(at.naive_utc());
        }
        Term::Text(_) => {}
    }
}

/// As a range of the unique key: `LIKE` with a parameter is no range on every server.
fn push_id(ask: &mut QueryBuilder<MySql>, prefix: &IdPrefix) {
    if prefix.is_whole() {
        ask.push("task_id = ").push_bind(prefix.0.clone());
    } else {
        // `g` comes after every digit.
        ask.push("task_id >= ").push_bind(prefix.0.clone()).push(" AND task_id < ").push_bind(format!("{}g", prefix.0));
    }
}

fn push_each<T>(ask: &mut QueryBuilder<MySql>, values: &[T], push: impl Fn(&mut QueryBuilder<MySql>, &T)) {
    for (index, value) in values.iter().enumerate() {
        ask.push(if index == 0 { "(" } else { " OR (" });
        push(ask, value);
        ask.push(")");
    }
}

fn push_in(ask: &mut QueryBuilder<MySql>, column: &str, values: impl Iterator<Item = String>) {
    ask.push(column).push(" IN (");
    let mut list = ask.separated(", ");
    for value in values {
        list.push_bind(value);
    }
    ask.push(")");
}

fn before(now: DateTime<Utc>, span: std::time::Duration) -> DateTime<Utc> {
    TimeDelta::from_std(span).ok().and_then(|span| now.checked_sub_signed(span)).unwrap_or(DateTime::UNIX_EPOCH)
}
