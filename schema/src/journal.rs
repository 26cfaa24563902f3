//! Reading the stream back as events.

use std::borrow::Cow;

use redis::{FromRedisValue, RedisError, Value};

use crate::event::{self, Change, Event, Meta, Unknown};
use crate::id::{Partition, Position, TaskId, number_of, stream_id};
use crate::keys::Keys;
use crate::link::{Link, LinkError};
use crate::script;

/// Events of a partition with `from <= n <= to` that its stream still holds, in order, `limit` at most. Readers of the
/// whole history also look into the archive: `insightforge_archive::Journal`.
///
/// # Errors
/// See [`LinkError`].
pub async fn range(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    from: u64,
    to: Option<u64>,
    limit: usize,
) -> Result<Vec<Event>, LinkError> {
    let entries = entries(link, keys, partition, from, to, limit).await?;
    Ok(entries.iter().map(|entry| read_entry(partition, entry)).collect())
}

/// The same, as they stand in the stream.
///
/// # Errors
/// See [`LinkError`].
pub async fn entries(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    from: u64,
    to: Option<u64>,
    limit: usize,
) -> Result<Vec<Entry>, LinkError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(keys.journal(partition)).arg(stream_id(from));
    match to {
        Some(to) => command.arg(stream_id(to)),
        None => command.arg("+"),
    };
    let reply: Entries = link.query(command.arg("COUNT").arg(limit)).await?;
    Ok(reply.0)
}

/// Entries of a partition from number `from` on, in order: `limit` at most, and no more once they have `bytes` bytes
/// together; and whether there was nothing behind them. For readers that hold what they read: a single event can carry a
/// large document.
///
/// # Errors
/// See [`LinkError`].
pub async fn run(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    from: u64,
    limit: usize,
    bytes: usize,
) -> Result<(Vec<Entry>, bool), LinkError> {
    let args = [stream_id(from), limit.to_string(), bytes.to_string()].map(|arg| Cow::Owned(arg.into_bytes()));
    let (end, entries): (bool, Entries) = link.eval(&script::RANGE, &[keys.journal(partition)], &args).await?;
    Ok((entries.0, end))
}

/// The number of the first event that a partition's stream still holds; `None` when it holds none.
///
/// # Errors
/// See [`LinkError`].
pub async fn first_number(link: &Link, keys: &Keys, partition: Partition) -> Result<Option<u64>, LinkError> {
    Ok(entries(link, keys, partition, 0, None, 1).await?.first().and_then(Entry::n))
}

/// The number of the last event of a partition; 0 when there is none.
///
/// # Errors
/// See [`LinkError`].
pub async fn last_number(link: &Link, keys: &Keys, partition: Partition) -> Result<u64, LinkError> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(keys.journal(partition)).arg("+").arg("-").arg("COUNT").arg(1);
    let reply: Entries = link.query(&command).await?;
    Ok(reply.0.first().and_then(|entry| number_of(&entry.id)).unwrap_or(0))
}

/// One raw stream entry: its id and its four fields (see [`crate::event`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    pub event_type: String,
    pub task: String,
    pub first: String,
    pub bytes: Vec<u8>,
}

impl Entry {
    /// Its number; `None` for an id that is not one of ours.
    #[must_use]
    pub fn n(&self) -> Option<u64> {
        number_of(&self.id)
    }

    /// About how many bytes it has.
    #[must_use]
    pub fn size(&self) -> usize {
        self.event_type.len() + self.task.len() + self.first.len() + self.bytes.len()
    }
}

/// The entries of one stream, as `XRANGE` and `XREAD` give them.
#[derive(Debug, Clone, Default)]
pub struct Entries(pub Vec<Entry>);

/// Decodes an entry. Total: whatever is wrong with it becomes [`Change::Unknown`].
#[must_use]
pub fn read_entry(partition: Partition, entry: &Entry) -> Event {
    let position = Position { partition, n: number_of(&entry.id).unwrap_or(0) };
    let (Ok(task), Ok(first)) = (entry.task.parse::<TaskId>(), entry.first.parse::<u64>()) else {
        return unreadable(position, entry);
    };
    let (meta, change) = event::decode(&entry.event_type, &entry.bytes);
    let first = if first == 0 { position } else { Position { partition, n: first } };
    Event { position, task, first, meta, change }
}

fn unreadable(position: Position, entry: &Entry) -> Event {
    let reason = format!("field `task` or `first` is not what it should be: {:?}, {:?}", entry.task, entry.first);
    Event {
        position,
        task: TaskId(uuid::Uuid::nil()),
        first: position,
        meta: Meta { at_us: 0, tenant: String::new(), actor: String::new(), attempt: 0, trace: None },
        change: Change::Unknown(Unknown { event_type: entry.event_type.clone(), reason }),
    }
}

impl FromRedisValue for Entries {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        match value {
            Value::Nil => Ok(Self::default()),
            Value::Array(entries) => entries
                .into_iter()
                .map(entry)
                .collect::<Option<_>>()
                .map(Self)
                .ok_or("an entry of a stream is not an id with fields".into()),
            _ => Err("the reply is no list of stream entries".into()),
        }
    }
}

/// `[id, [name, value, …]]`, taken apart without copying the event's bytes. `None` when it has another shape; an entry
/// deleted under a reader (`[id, nil]`) comes back empty and reads as unreadable.
fn entry(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else {
        return None;
    };
    let mut parts = parts.into_iter();
    let mut entry = Entry { id: text(parts.next()?)?, ..Entry::default() };
    let fields = match parts.next()? {
        Value::Array(fields) => fields,
        Value::Nil => Vec::new(),
        _ => return None,
    };
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match text(name)?.as_str() {
            "type" => entry.event_type = text(value)?,
            "task" => entry.task = text(value)?,
            "first" => entry.first = text(value)?,
            "e" => {
                let Value::BulkString(bytes) = value else {
                    return None;
                };
                entry.bytes = bytes;
            }
            _ => {}
        }
    }
    Some(entry)
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The streams of one `XREAD`: key and entries.
///
/// # Errors
/// When the reply has not the shape of `XREAD`.
pub fn read_streams(value: Value) -> Result<Vec<(String, Entries)>, RedisError> {
    match value {
        Value::Nil => Ok(Vec::new()),
        value => Ok(redis::from_redis_value::<Vec<(String, Entries)>>(value)?),
    }
}
