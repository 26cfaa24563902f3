//! What janitors do: they take over from silent holders, bring back what is due, and tidy lanes.

use super::{DUTY, GROUP, MOVE, PRUNE, REAP, SILENT, bytes, number, unexpected, word};
use crate::RESULT_TTL_S;
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};

/// Takes a janitor's duty for `term_ms`, or keeps it; says whether it is this process's.
///
/// # Errors
/// See [`LinkError`].
pub async fn duty(link: &Link, key: &str, process: &str, term_ms: u64) -> Result<bool, LinkError> {
    let ours: i64 = link.eval(&DUTY, &[key.to_owned()], &[bytes(process.as_bytes()), number(term_ms)]).await?;
    Ok(ours == 1)
}

/// Creates a lane's group where it does not exist; it begins at the lane's first entry.
///
/// # Errors
/// See [`LinkError`].
pub async fn create_group(link: &Link, keys: &Keys, partition: Partition, lane: &Lane) -> Result<(), LinkError> {
    let names = [keys.lane(partition, lane)];
    link.eval::<i64>(&GROUP, &names, &[bytes(lane.group().as_bytes())]).await.map(|_| ())
}

/// A page of a lane's entries that are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Tokens whose holders have been silent for long enough.
    pub tokens: Vec<String>,
    /// Where the next page begins (after this one); `None` behind the last.
    pub next: Option<String>,
}

/// Looks at `count` entries of a lane that are held, from the id `from` on (`-` the first, `(id` behind one), for those whose
/// holders have been silent for `min_idle_ms`.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Refused`] with `NOGROUP` when the lane or its group does not exist.
pub async fn silent(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    min_idle_ms: u64,
    from: &str,
    count: usize,
) -> Result<Silent, LinkError> {
    let names = [keys.lane(partition, lane)];
    let args = [bytes(lane.group().as_bytes()), number(min_idle_ms), bytes(from.as_bytes()), number(count)];
    let (last, tokens): (String, Vec<String>) = link.eval(&SILENT, &names, &args).await?;
    Ok(Silent { tokens, next: (!last.is_empty()).then(|| format!("({last}")) })
}

/// What to do with a silent holder's entry.
#[derive(Debug, Clone)]
pub enum Takeover {
    /// The entry is nobody's token: take it off the lane.
    Drop,
    /// Its holder died before it began: a new entry, the same attempt.
    Requeue,
    /// Its holder died at work: the encoded `retry_scheduled` event and when the next attempt is due.
    Retry { event: Vec<u8>, next_attempt: u32, due_ms: i64 },
    /// The attempts are used up: the encoded `failed` and `dead_lettered` events.
    Fail { event: Vec<u8>, dead_letter: Vec<u8> },
}

/// What became of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    Done,
    /// The holder showed itself again.
    Alive,
    /// The record changed since it was read: read it and decide again.
    Changed,
}

/// One silent entry: its token, its task, and the record's state (`Q`, `P`; empty for a token that is not live) the
/// decision was made on.
#[derive(Debug, Clone)]
pub struct Reap {
    pub token: String,
    pub task: TaskId,
    pub expected_state: &'static str,
    pub min_idle_ms: u64,
    pub takeover: Takeover,
}

/// Takes over one entry of a holder that has been silent for longer than the lease.
///
/// # Errors
/// See [`LinkError`].
pub async fn reap(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    now_ms: i64,
    reap: &Reap,
) -> Result<Reaped, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lane(partition, lane),
        keys.delayed(partition),
        keys.dead(partition),
        keys.record(partition, reap.task),
        keys.expiring(partition),
    ];
    let mut args = vec![
        bytes(lane.group().as_bytes()),
        bytes(reap.token.as_bytes()),
        number(reap.min_idle_ms),
        bytes(reap.expected_state.as_bytes()),
        number(RESULT_TTL_S),
        number(now_ms),
    ];
    match &reap.takeover {
        Takeover::Drop => args.push(bytes(b"drop")),
        Takeover::Requeue => args.push(bytes(b"requeue")),
        Takeover::Retry { event, next_attempt, due_ms } => {
            args.extend([bytes(b"retry"), bytes(event), number(next_attempt), number(due_ms)]);
        }
        Takeover::Fail { event, dead_letter } => args.extend([bytes(b"fail"), bytes(event), bytes(dead_letter)]),
    }
    let reply: String = link.eval(&REAP, &names, &args).await?;
    match reply.as_str() {
        "OK" => Ok(Reaped::Done),
        "ALIVE" => Ok(Reaped::Alive),
        "CHANGED" => Ok(Reaped::Changed),
        _ => Err(unexpected("an outcome of reap")),
    }
}

/// Puts delayed tasks that are due back on their lanes; says how many.
///
/// # Errors
/// See [`LinkError`].
pub async fn move_due(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    now_ms: i64,
    due: &[(TaskId, Lane)],
) -> Result<u64, LinkError> {
    let mut names = vec![keys.delayed(partition), keys.lanes(partition)];
    let mut args = vec![number(now_ms)];
    for (task, lane) in due {
        names.push(keys.lane(partition, lane));
        names.push(keys.record(partition, *task));
        args.push(word(task.to_string()));
        args.push(word(lane.to_string()));
    }
    link.eval(&MOVE, &names, &args).await
}

/// Takes consumers off a lane's group that hold nothing and have been silent for `min_idle_ms`; says how many.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Refused`] when the lane or its group does not exist.
pub async fn prune(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    min_idle_ms: u64,
) -> Result<u64, LinkError> {
    let names = [keys.lane(partition, lane)];
    link.eval(&PRUNE, &names, &[bytes(lane.group().as_bytes()), number(min_idle_ms)]).await
}
