//! What Redis has lost of a task that is not over, and how it comes back. Records, lane entries and places in sorted sets
//! are derived from the journal; a hand that deletes keys, or a server that evicts them, takes nothing from a task that the
//! journal does not give back.

use std::borrow::Cow;

use redis::Value;

use crate::DEDUPE_TTL_S;
use crate::event::{Change, Event, encode};
use crate::id::{Partition, Position, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::script::{Arg, Context, REPLACE, RESTORE, number, unexpected, word};

/// What Redis has of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All it needs to go on; or it has ended, or the record is that of another task which was given the same id.
    Fine {
        /// Where it waits or runs, when it does.
        lane: Option<Lane>,
    },
    /// A record that points to where the task is not.
    Misplaced(Misplaced),
    /// No record: lost, or the task ended longer ago than records are kept.
    Gone,
}

/// A task that is not where its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    pub lane: Lane,
    /// Who runs the attempt, if one runs. As long as that analyzer lives it may end it well: it needs the record alone.
    pub worker: Option<String>,
    /// The attempt's token; empty for a task that waits for its next attempt.
    pub token: String,
    /// For people.
    pub what: &'static str,
    state: String,
}

/// Looks what Redis has of the task that was submitted at `first`. The looks are not one: a task that takes a step meanwhile
/// may seem misplaced, and [`replace`] looks again.
///
/// # Errors
/// See [`LinkError`].
pub async fn look(link: &Link, keys: &Keys, first: Position, task: TaskId) -> Result<Found, LinkError> {
    let partition = first.partition;
    let mut fields = redis::cmd("HMGET");
    fields.arg(keys.record(partition, task)).arg(&["s", "q", "l", "d", "w", "f"]);
    let fields: [Option<String>; 6] =
        link.query::<Vec<Option<String>>>(&fields).await?.try_into().map_err(|_| unexpected("six fields"))?;
    let [Some(state), token, lane, deadline, worker, of] = fields else { return Ok(Found::Gone) };
    if of.as_deref() != Some(first.n.to_string().as_str()) || state == "Z" {
        return Ok(Found::Fine { lane: None });
    }
    let lane = lane.as_deref().and_then(Lane::parse).ok_or_else(|| unexpected("a lane"))?;
    let token = token.unwrap_or_default();
    let what = match state.as_str() {
        "Q" | "P" if !is_on(link, keys, partition, &lane, &token).await? => "its lane entry",
        "D" if !is_in(link, keys.delayed(partition), task).await? => "its next attempt",
        "Q" | "D" if deadline.is_some() && !is_in(link, keys.expiring(partition), task).await? => "its deadline",
        _ => return Ok(Found::Fine { lane: Some(lane) }),
    };
    let worker = worker.filter(|_| state == "P");
    Ok(Found::Misplaced(Misplaced { lane, worker, token, what, state }))
}

async fn is_on(link: &Link, keys: &Keys, partition: Partition, lane: &Lane, token: &str) -> Result<bool, LinkError> {
    if token.is_empty() {
        return Ok(false);
    }
    let range = redis::cmd("XRANGE").arg(keys.lane(partition, lane)).arg(token).arg(token).to_owned();
    Ok(!link.query::<Vec<Value>>(&range).await?.is_empty())
}

async fn is_in(link: &Link, set: String, task: TaskId) -> Result<bool, LinkError> {
    let score = redis::cmd("ZSCORE").arg(set).arg(task.to_string()).to_owned();
    Ok(link.query::<Option<String>>(&score).await?.is_some())
}

/// Puts the lanes that tasks wait on into the set in which janitors find them; says how many were missing there.
///
/// # Errors
/// See [`LinkError`].
pub async fn announce(link: &Link, keys: &Keys, partition: Partition, lanes: &[&Lane]) -> Result<u64, LinkError> {
    if lanes.is_empty() {
        return Ok(0);
    }
    let names: Vec<String> = lanes.iter().map(ToString::to_string).collect();
    let is_in = redis::cmd("SMISMEMBER").arg(keys.lanes(partition)).arg(&names).to_owned();
    if link.query::<Vec<bool>>(&is_in).await?.iter().all(|is_in| *is_in) {
        return Ok(0);
    }
    link.query(redis::cmd("SADD").arg(keys.lanes(partition)).arg(&names)).await
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restored {
    Done,
    /// Nothing was missing.
    Fine,
    /// It is not as it was seen: look again.
    Changed,
    /// The events are not those of a task that is not over.
    NotOpen,
}

/// Puts a task back where its record says it is. A delayed one is due at `due_ms`. A running attempt ends like that of a
/// silent analyzer, and is repeated.
///
/// # Errors
/// See [`LinkError`]. Calling again is safe.
pub async fn replace(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    task: TaskId,
    misplaced: &Misplaced,
    due_ms: i64,
) -> Result<Restored, LinkError> {
    let names = [
        keys.lanes(partition),
        keys.lane(partition, &misplaced.lane),
        keys.delayed(partition),
        keys.expiring(partition),
        keys.record(partition, task),
    ];
    let args = [
        word(task.to_string()),
        word(misplaced.lane.to_string()),
        word(misplaced.state.clone()),
        word(misplaced.token.clone()),
        number(due_ms),
    ];
    read_restored(&link.eval::<String>(&REPLACE, &names, &args).await?)
}

/// Makes the record of a task anew. `submitted` is its first event, `latest` the last that changed its state (the first again,
/// when nothing came after it). It waits on `lane`. An attempt that ran ends like that of a silent analyzer, and
/// is repeated. What does not come back is the fingerprint of a request that brought its own id: sent again, it conflicts.
///
/// The caller makes sure that the journal holds nothing of the task after `latest`: a record that is gone because the task
/// ended long ago would else begin a second life.
///
/// # Errors
/// See [`LinkError`]. Calling again is safe.
pub async fn restore(
    link: &Link,
    keys: &Keys,
    lane: &Lane,
    submitted: &Event,
    latest: &Event,
) -> Result<Restored, LinkError> {
    let (task, partition) = (submitted.task, submitted.position.partition);
    let Some(record) = record(submitted, latest) else { return Ok(Restored::NotOpen) };
    let names = [
        keys.lanes(partition),
        keys.lane(partition, lane),
        keys.delayed(partition),
        keys.expiring(partition),
        keys.record(partition, task),
        keys.journal(partition),
    ];
    let latest_n = (latest.position != submitted.position).then_some(latest.position.n);
    let event: Arg<'_> = Cow::Owned(encode(&submitted.meta, &submitted.change));
    let args = [
        word(task.to_string()),
        word(lane.to_string()),
        word(record.state.to_owned()),
        number(record.attempt),
        number(submitted.position.n),
        word(record.worker),
        word(latest_n.map(|n| n.to_string()).unwrap_or_default()),
        number(record.due_ms),
        word(record.deadline_ms.map(|ms| ms.to_string()).unwrap_or_default()),
        word(record.context.encode()),
        // Perhaps its caller brought the id: for so long it must not name another task.
        number(DEDUPE_TTL_S),
        event,
    ];
    read_restored(&link.eval::<String>(&RESTORE, &names, &args).await?)
}

fn read_restored(reply: &str) -> Result<Restored, LinkError> {
    match reply {
        "OK" => Ok(Restored::Done),
        "FINE" => Ok(Restored::Fine),
        "CHANGED" => Ok(Restored::Changed),
        _ => Err(unexpected("an outcome of putting back")),
    }
}

/// A record as the journal has it.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    state: &'static str,
    attempt: u32,
    worker: String,
    due_ms: i64,
    deadline_ms: Option<i64>,
    context: Context,
}

/// The record of a task after these events; `None` when they are not those of a task that is not over.
fn record(submitted: &Event, latest: &Event) -> Option<Record> {
    let Change::Submitted(first) = &submitted.change else { return None };
    if latest.task != submitted.task {
        return None;
    }
    let (state, attempt, worker, due_ms) = match &latest.change {
        Change::Submitted(_) if latest.position == submitted.position => ("Q", 1, String::new(), 0),
        Change::Processing(processing) => ("P", latest.meta.attempt, processing.worker.clone(), 0),
        Change::RetryScheduled(retry) => ("D", retry.next_attempt, String::new(), retry.due_us.div_euclid(1_000)),
        _ => return None,
    };
    Some(Record {
        state,
        attempt,
        worker,
        due_ms,
        deadline_ms: first.expires_us.map(|us| us.div_euclid(1_000)),
        context: Context { tenant: submitted.meta.tenant.clone(), trace: submitted.meta.trace.clone() },
    })
}
