//! An attempt's steps, which only its holder may take: it begins, is kept alive, and ends for good or to be repeated.

use std::borrow::Cow;

use redis::Value;

use super::{BEAT, FINISH, RETRY, SHADOW, START, bytes, number, parsed, take_bytes, text, unexpected};
use crate::RESULT_TTL_S;
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};

/// One lane entry to begin: its id (the attempt's token), its task, and the encoded `processing` event.
#[derive(Debug, Clone)]
pub struct Start {
    pub token: String,
    pub task: TaskId,
    pub event: Vec<u8>,
}

/// What became of a [`Start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The attempt is ours. `submitted` is the encoded `submitted` event, empty when the journal no longer holds it.
    Ours { first: u64, submitted: Vec<u8> },
    /// Another live worker holds this very entry.
    Busy,
    /// The entry is no task's token any more; it has been taken off the lane.
    Lost,
    /// Its deadline has passed: it is not begun, and [`crate::deadline::end`] ends it.
    Expired,
}

/// Begins attempts read from one lane.
///
/// # Errors
/// See [`LinkError`].
pub async fn start(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    worker: &str,
    starts: &[Start],
) -> Result<Vec<Started>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lane(partition, lane), keys.expiring(partition)];
    let mut args = vec![bytes(lane.group().as_bytes()), bytes(worker.as_bytes())];
    for start in starts {
        names.push(keys.record(partition, start.task));
        args.push(bytes(start.token.as_bytes()));
        args.push(bytes(&start.event));
    }
    let replies: Vec<Vec<Value>> = link.eval(&START, &names, &args).await?;
    replies
        .into_iter()
        .map(|mut reply| {
            Ok(match text(&reply, 0)? {
                "OK" => Started::Ours { first: parsed(&reply, 1)?, submitted: take_bytes(&mut reply, 2) },
                "BUSY" => Started::Busy,
                "LOST" => Started::Lost,
                "EXPIRED" => Started::Expired,
                _ => return Err(unexpected("an outcome of start")),
            })
        })
        .collect()
}

/// Renews the leases of a worker's running attempts in one lane; says for each whether it is still held.
///
/// # Errors
/// See [`LinkError`].
pub async fn beat(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    worker: &str,
    held: &[(TaskId, String)],
) -> Result<Vec<bool>, LinkError> {
    let mut names = vec![keys.lane(partition, lane)];
    let mut args = vec![bytes(lane.group().as_bytes()), bytes(worker.as_bytes())];
    for (task, token) in held {
        names.push(keys.record(partition, *task));
        args.push(bytes(token.as_bytes()));
    }
    let replies: Vec<i64> = link.eval(&BEAT, &names, &args).await?;
    Ok(replies.into_iter().map(|held| held == 1).collect())
}

/// An attempt that ended its task.
#[derive(Debug, Clone)]
pub struct Finish {
    pub token: String,
    pub task: TaskId,
    /// `completed` or `failed`.
    pub event_type: &'static str,
    /// The encoded terminal event.
    pub event: Vec<u8>,
    /// The encoded `dead_lettered` event of a failed task.
    pub dead_letter: Option<Vec<u8>>,
}

/// What became of a step that only the attempt's holder may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Done, now or by an earlier call of the same attempt.
    Done,
    /// The attempt was taken over, cancelled, or ended otherwise: nothing was changed.
    Lost,
}

/// Ends attempts for good.
///
/// # Errors
/// See [`LinkError`].
pub async fn finish(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    now_ms: i64,
    ends: &[Finish],
) -> Result<Vec<Held>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lane(partition, lane), keys.dead(partition)];
    let mut args = vec![bytes(lane.group().as_bytes()), number(now_ms), number(RESULT_TTL_S)];
    for end in ends {
        names.push(keys.record(partition, end.task));
        args.push(bytes(end.token.as_bytes()));
        args.push(bytes(end.event_type.as_bytes()));
        args.push(bytes(&end.event));
        args.push(end.dead_letter.as_deref().map_or(Cow::Borrowed(&[][..]), bytes));
    }
    let replies: Vec<Vec<Value>> = link.eval(&FINISH, &names, &args).await?;
    replies.iter().map(|reply| read_held(reply)).collect()
}

fn read_held(reply: &[Value]) -> Result<Held, LinkError> {
    match text(reply, 0)? {
        "OK" | "DONE" => Ok(Held::Done),
        "LOST" => Ok(Held::Lost),
        _ => Err(unexpected("an outcome of an attempt's step")),
    }
}

/// An attempt that will be repeated.
#[derive(Debug, Clone)]
pub struct Retry {
    pub token: String,
    pub task: TaskId,
    /// The encoded `retry_scheduled` event.
    pub event: Vec<u8>,
    pub next_attempt: u32,
    pub due_ms: i64,
}

/// Ends attempts that will be repeated later.
///
/// # Errors
/// See [`LinkError`].
pub async fn retry(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    retries: &[Retry],
) -> Result<Vec<Held>, LinkError> {
    let mut names =
        vec![keys.journal(partition), keys.lane(partition, lane), keys.delayed(partition), keys.expiring(partition)];
    let mut args = vec![bytes(lane.group().as_bytes())];
    for retry in retries {
        names.push(keys.record(partition, retry.task));
        args.push(bytes(retry.token.as_bytes()));
        args.push(bytes(&retry.event));
        args.push(number(retry.next_attempt));
        args.push(number(retry.due_ms));
    }
    let replies: Vec<Vec<Value>> = link.eval(&RETRY, &names, &args).await?;
    replies.iter().map(|reply| read_held(reply)).collect()
}

/// What a shadow version made of a completed task.
#[derive(Debug, Clone)]
pub struct Shadow {
    pub task: TaskId,
    /// At most one event a task and version is stored.
    pub version: String,
    /// The encoded `shadowed` event.
    pub event: Vec<u8>,
}

/// What became of a [`Shadow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Stored, now or by an earlier call.
    Done,
    /// The task is not completed, or it ended longer ago than records are kept.
    Gone,
}

/// Notes what shadow versions made of completed tasks of one partition.
///
/// # Errors
/// See [`LinkError`].
pub async fn shadow(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    shadows: &[Shadow],
) -> Result<Vec<Noted>, LinkError> {
    let mut names = vec![keys.journal(partition)];
    let mut args = Vec::with_capacity(2 * shadows.len());
    for shadow in shadows {
        names.push(keys.record(partition, shadow.task));
        args.extend([bytes(shadow.version.as_bytes()), bytes(&shadow.event)]);
    }
    let replies: Vec<i64> = link.eval(&SHADOW, &names, &args).await?;
    Ok(replies.into_iter().map(|reply| if reply == 1 { Noted::Done } else { Noted::Gone }).collect())
}
