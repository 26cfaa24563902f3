//! What the journal may lose: the archive's mark, and the trim that never passes it.

use std::borrow::Cow;

use redis::Value;

use crate::id::{Partition, TaskId};
use crate::keys::Keys;
use crate::link::{Link, LinkError};
use crate::script::{Arg, MARK, TRIM};

/// A trim of one partition.
#[derive(Debug, Clone)]
pub struct Trim<'a> {
    /// The last event to go.
    pub upto: u64,
    /// The last event that every projection has folded.
    pub folded: u64,
    /// Events that stay whatever else holds; at least one does.
    pub keep: u64,
    /// Tasks that may not be over, with the numbers of their `submitted` events at or below `upto`: who takes up such a
    /// task later finds that event in the task's record.
    pub open: &'a [(TaskId, u64)],
}

/// What came of a trim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trimmed {
    /// So many events are gone from the stream.
    Done(u64),
    /// Nothing says what is archived, so nothing may go.
    Unmarked,
    /// Only events up to this one may go; none went.
    Beyond(u64),
}

/// The last event of a partition that is proven to be in the archive; `None` when nothing is known.
///
/// # Errors
/// See [`LinkError`].
pub async fn mark(link: &Link, keys: &Keys, partition: Partition) -> Result<Option<u64>, LinkError> {
    link.query(redis::cmd("GET").arg(keys.archived(partition))).await
}

/// Moves the mark; `false` when it was moved by somebody else meanwhile.
///
/// # Errors
/// See [`LinkError`].
pub async fn move_mark(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    from: Option<u64>,
    to: u64,
) -> Result<bool, LinkError> {
    let args = [from.map_or_else(String::new, |from| from.to_string()), to.to_string()];
    let args = args.map(|arg| Cow::Owned(arg.into_bytes()));
    link.eval(&MARK, &[keys.archived(partition)], &args).await
}

/// Trims a partition's stream. A repeated call trims nothing more.
///
/// # Errors
/// See [`LinkError`].
pub async fn trim(link: &Link, keys: &Keys, partition: Partition, trim: &Trim<'_>) -> Result<Trimmed, LinkError> {
    let mut names = vec![keys.journal(partition), keys.archived(partition)];
    names.extend(trim.open.iter().map(|(task, _)| keys.record(partition, *task)));
    let numbers = [trim.upto, trim.folded, trim.keep].into_iter().chain(trim.open.iter().map(|(_, first)| *first));
    let args: Vec<Arg<'_>> = numbers.map(|number| Cow::Owned(number.to_string().into_bytes())).collect();
    let reply: Vec<Value> = link.eval(&TRIM, &names, &args).await?;
    let word = match reply.first() {
        Some(Value::BulkString(word)) => &word[..],
        _ => b"",
    };
    match (word, reply.get(1)) {
        (b"OK", Some(Value::Int(trimmed))) => Ok(Trimmed::Done(trimmed.unsigned_abs())),
        (b"UNMARKED", None) => Ok(Trimmed::Unmarked),
        (b"BEYOND", Some(Value::BulkString(bound))) => {
            let bound = std::str::from_utf8(bound).ok().and_then(|bound| bound.parse().ok());
            bound.map(Trimmed::Beyond).ok_or_else(|| LinkError::Refused("a script's reply was no number".to_owned()))
        }
        _ => Err(LinkError::Refused("a script's reply was not what a trim answers".to_owned())),
    }
}
