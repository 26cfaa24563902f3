//! What people ask of a task: to withdraw it, to repeat it, to take it off the dead letters.

use redis::Value;

use super::submit::{Context, Submission, read_submission};
use super::{CANCEL, PURGE, REDRIVE, bytes, number, text, unexpected, word};
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::{DEDUPE_TTL_S, RESULT_TTL_S};

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancellation {
    Done,
    /// The task had ended before; its outcome (`completed`, `failed`, `cancelled`).
    Ended(String),
    /// No live record: unknown, or ended longer ago than records are kept.
    Unknown,
}

/// Withdraws a task, waiting or running.
///
/// # Errors
/// See [`LinkError`].
pub async fn cancel(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    task: TaskId,
    event: &[u8],
) -> Result<Cancellation, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lane(partition, lane),
        keys.delayed(partition),
        keys.record(partition, task),
        keys.expiring(partition),
    ];
    let args = [bytes(lane.group().as_bytes()), bytes(event), number(RESULT_TTL_S)];
    let reply: Vec<Value> = link.eval(&CANCEL, &names, &args).await?;
    Ok(match text(&reply, 0)? {
        "OK" => Cancellation::Done,
        "ENDED" => Cancellation::Ended(text(&reply, 1)?.to_owned()),
        "UNKNOWN" => Cancellation::Unknown,
        _ => return Err(unexpected("an outcome of cancel")),
    })
}

/// An ended task and the new one that repeats it, both of one partition (see [`TaskId::derived`]).
#[derive(Debug, Clone)]
pub struct Redrive {
    pub old: TaskId,
    /// Number of the old task's `submitted` event.
    pub old_first: u64,
    /// The encoded `redriven` event of the old task.
    pub redriven: Vec<u8>,
    pub new: TaskId,
    /// The encoded `submitted` event of the new task.
    pub submitted: Vec<u8>,
    pub lane: Lane,
    pub context: Context,
}

/// Repeats an ended task as a new one and takes the old one off the dead-letter list.
///
/// # Errors
/// See [`LinkError`].
pub async fn redrive(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    redrive: &Redrive,
) -> Result<Submission, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lanes(partition),
        keys.lane(partition, &redrive.lane),
        keys.dead(partition),
        keys.record(partition, redrive.new),
    ];
    let args = [
        word(redrive.old.to_string()),
        number(redrive.old_first),
        bytes(&redrive.redriven),
        word(redrive.new.to_string()),
        bytes(&redrive.submitted),
        word(redrive.lane.to_string()),
        number(DEDUPE_TTL_S),
        word(redrive.context.encode()),
    ];
    let reply: Vec<Value> = link.eval(&REDRIVE, &names, &args).await?;
    read_submission(&reply)
}

/// For how many seconds a purge is noted, so that a call whose answer was lost is answered well when it is made again.
const PURGE_NOTED_S: u64 = 120;

/// A dead letter to take off its list.
#[derive(Debug, Clone)]
pub struct Purge {
    pub task: TaskId,
    /// Number of its `submitted` event.
    pub first: u64,
    /// The encoded `purged` event.
    pub event: Vec<u8>,
}

/// Takes dead letters of one partition off their list; says for each whether it was on it, now or when an earlier call with the
/// same event took it off.
///
/// # Errors
/// See [`LinkError`].
pub async fn purge(link: &Link, keys: &Keys, partition: Partition, letters: &[Purge]) -> Result<Vec<bool>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.dead(partition)];
    let mut args = vec![number(PURGE_NOTED_S)];
    for letter in letters {
        names.push(keys.purged(partition, letter.task));
        args.extend([word(letter.task.to_string()), number(letter.first), bytes(&letter.event)]);
    }
    let replies: Vec<i64> = link.eval(&PURGE, &names, &args).await?;
    Ok(replies.into_iter().map(|purged| purged == 1).collect())
}
