//! Redis' answer to `XREADGROUP`, as references to tasks.

use std::collections::HashMap;

use insightforge_schema::script::Context;
use redis::Value;

use super::Reference;

/// Entries of one lane: id and fields.
pub(super) type Entries = Vec<(String, Vec<Value>)>;

/// `[[key, [[id, [name, value, …]], …]], …]`, by the key's index. `None` for another shape.
pub(super) fn read_reply(reply: Value, index: &HashMap<&str, usize>) -> Option<Vec<(usize, Entries)>> {
    let streams = match reply {
        Value::Nil => return Some(Vec::new()),
        Value::Array(streams) => streams,
        _ => return None,
    };
    streams
        .into_iter()
        .map(|stream| {
            let [key, entries] = pair(stream)?;
            let Value::Array(entries) = entries else {
                return None;
            };
            let entries = entries.into_iter().map(read_entry).collect::<Option<_>>()?;
            Some((*index.get(text(key)?.as_str())?, entries))
        })
        .collect()
}

/// An entry deleted while it was pending has no fields.
fn read_entry(entry: Value) -> Option<(String, Vec<Value>)> {
    let [id, fields] = pair(entry)?;
    match fields {
        Value::Array(fields) => Some((text(id)?, fields)),
        Value::Nil => Some((text(id)?, Vec::new())),
        _ => None,
    }
}

/// Fields `i` task id, `a` attempt, `m` context.
pub(crate) fn read_reference(token: &str, fields: Vec<Value>) -> Option<Reference> {
    let (mut task, mut attempt, mut context) = (None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let value = text(value)?;
        match text(name)?.as_str() {
            "i" => task = value.parse().ok(),
            "a" => attempt = value.parse().ok(),
            "m" => context = Some(Context::decode(&value)),
            _ => {}
        }
    }
    let context = context.unwrap_or_default();
    Some(Reference { token: token.to_owned(), task: task?, attempt: attempt?, context })
}

fn pair(value: Value) -> Option<[Value; 2]> {
    match value {
        Value::Array(parts) => parts.try_into().ok(),
        _ => None,
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
