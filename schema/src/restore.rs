//! What Redis has lost of a task that is not over, and how it comes back. Records, lane entries and places in sorted sets
//! are derived from the journal; a hand that deletes keys, or a server that evicts them, takes nothing from a task that the
//! journal does not give back.

use std::borrow::Cow;

use crate::DEDUPE_TTL_S;
use crate::event::{Change, Event, encode};
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::script::{Arg, Context, RESTORE, number, unexpected, word};

/// What Redis still has of a task that it has lost a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Of the record; empty when that is gone.
    state: String,
    token: String,
    /// Where it waits, when the record says so.
    pub lane: Option<Lane>,
    /// For people.
    pub what: &'static str,
}

/// Looks whether everything is there that a task which is not over needs to go on; `None`: it is, or the task has ended. A
/// task that takes a step meanwhile may look as if something were lost; [`restore`] looks again.
///
/// # Errors
/// See [`LinkError`].
pub async fn look(link: &Link, keys: &Keys, partition: Partition, task: TaskId) -> Result<Option<Lost>, LinkError> {
    type Fields = (Option<String>, Option<String>, Option<String>, Option<String>);
    let mut fields = redis::cmd("HMGET");
    fields.arg(keys.record(partition, task)).arg(&["s", "q", "l", "d"]);
    let (state, token, lane, deadline): Fields = link.query(&fields).await?;
    let Some(state) = state else {
        return Ok(Some(Lost { state: String::new(), token: String::new(), lane: None, what: "its record" }));
    };
    let lane = lane.as_deref().and_then(Lane::parse).ok_or_else(|| unexpected("a lane"))?;
    let token = token.unwrap_or_default();
    let what = match state.as_str() {
        "Q" | "P" if !is_on(link, keys, partition, &lane, &token).await? => Some("its lane entry"),
        "D" if !is_in(link, keys.delayed(partition), task).await? => Some("its next attempt"),
        "Q" | "D" if deadline.is_some() && !is_in(link, keys.expiring(partition), task).await? => Some("its deadline"),
        _ => None,
    };
    Ok(what.map(|what| Lost { state, token, lane: Some(lane), what }))
}

async fn is_on(link: &Link, keys: &Keys, partition: Partition, lane: &Lane, token: &str) -> Result<bool, LinkError> {
    if token.is_empty() {
        return Ok(false);
    }
    let range = redis::cmd("XRANGE").arg(keys.lane(partition, lane)).arg(token).arg(token).to_owned();
    Ok(!link.query::<Vec<redis::Value>>(&range).await?.is_empty())
}

async fn is_in(link: &Link, set: String, task: TaskId) -> Result<bool, LinkError> {
    let score = redis::cmd("ZSCORE").arg(set).arg(task.to_string()).to_owned();
    Ok(link.query::<Option<String>>(&score).await?.is_some())
}

/// What became of a [`restore`].
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

/// Gives a task back what was lost. `submitted` is its first event, `latest` the last that changed its state (the first again,
/// when nothing came after it). A running attempt whose record or entry was lost ends like that of a silent analyzer, and is
/// repeated. What cannot be given back is the fingerprint of a request that brought its own id: sent again, it conflicts.
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
    lost: &Lost,
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
    let optional = |number: Option<i64>| word(number.map(|n| n.to_string()).unwrap_or_default());
    let event: Arg<'_> = Cow::Owned(encode(&submitted.meta, &submitted.change));
    let args = [
        word(task.to_string()),
        word(lane.to_string()),
        word(lost.state.clone()),
        word(lost.token.clone()),
        word(record.state.to_owned()),
        number(record.attempt),
        number(submitted.position.n),
        word(record.worker),
        optional((latest.position != submitted.position).then_some(latest.position.n as i64)),
        number(record.due_ms),
        optional(record.deadline_ms),
        word(record.context.encode()),
        // Perhaps its caller brought the id: for so long it must not name another task.
        number(DEDUPE_TTL_S),
        event,
    ];
    let reply: String = link.eval(&RESTORE, &names, &args).await?;
    match reply.as_str() {
        "OK" => Ok(Restored::Done),
        "FINE" => Ok(Restored::Fine),
        "CHANGED" => Ok(Restored::Changed),
        _ => Err(unexpected("an outcome of restore")),
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
        Change::RetryScheduled(retry) => ("D", retry.next_attempt, String::new(), retry.due_us / 1_000),
        _ => return None,
    };
    Some(Record {
        state,
        attempt,
        worker,
        due_ms,
        deadline_ms: first.expires_us.map(|us| us / 1_000),
        context: Context { tenant: submitted.meta.tenant.clone(), trace: submitted.meta.trace.clone() },
    })
}
