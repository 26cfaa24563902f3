//! Tasks are accepted, each as one event, one record and one lane entry; and a batch of them is closed.

use std::borrow::Cow;

use redis::Value;

use super::{BATCH, SUBMIT, bytes, number, parsed, text, unexpected, word};
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::{DEDUPE_TTL_S, DEFAULT_TENANT};

/// A task to accept.
#[derive(Debug, Clone)]
pub struct Submit {
    pub task: TaskId,
    pub lane: Lane,
    /// The encoded `submitted` event.
    pub event: Vec<u8>,
    /// Set when the caller brought the id or an idempotency key: the same id or key with another fingerprint is another
    /// request. Any bytes; a truncated SHA-256 of the request is usual.
    pub fingerprint: Option<Vec<u8>>,
    /// Key of [`Keys::idempotency`], in the task's partition.
    pub idempotency_key: Option<String>,
    /// What the worker's events repeat.
    pub context: Context,
    /// No attempt begins after this, in milliseconds since 1970-01-01 UTC by Redis' clock.
    pub expires_ms: Option<i64>,
}

/// What every event of a task repeats and a worker must know before it has read the task: it travels with the lane
/// entry (field `m`). The default writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub tenant: String,
    pub trace: Option<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self { tenant: DEFAULT_TENANT.to_owned(), trace: None }
    }
}

impl Context {
    /// The lane entry's field `m`: `<tenant> <traceparent>`, empty for the default.
    #[must_use]
    pub fn encode(&self) -> String {
        match &self.trace {
            None if self.tenant == DEFAULT_TENANT => String::new(),
            trace => format!("{} {}", self.tenant, trace.as_deref().unwrap_or("")),
        }
    }

    /// Reads [`Self::encode`] back; anything else reads as the default.
    #[must_use]
    pub fn decode(text: &str) -> Self {
        match text.split_once(' ') {
            Some((tenant, trace)) => {
                Self { tenant: tenant.to_owned(), trace: (!trace.is_empty()).then(|| trace.to_owned()) }
            }
            None => Self::default(),
        }
    }
}

/// What became of a [`Submit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// Stored now, as event `n`.
    Accepted { task: TaskId, n: u64 },
    /// This request was accepted before, as this task.
    Known { task: TaskId },
    /// The id or key belongs to another request.
    Conflict { task: TaskId },
    /// The lane is at its capacity.
    Full,
}

/// Accepts tasks of one partition. A lane longer than `lane_capacity` (0 = no bound) takes no more.
///
/// # Errors
/// [`LinkError::OutOfMemory`] when Redis is full; else see [`LinkError`]. Calling again is safe.
pub async fn submit(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    tasks: &[Submit],
    lane_capacity: u64,
) -> Result<Vec<Submission>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lanes(partition), keys.expiring(partition)];
    let mut args = vec![number(lane_capacity), number(DEDUPE_TTL_S)];
    for task in tasks {
        let record = keys.record(partition, task.task);
        names.push(keys.lane(partition, &task.lane));
        names.push(record.clone());
        names.push(task.idempotency_key.clone().unwrap_or(record));
        args.push(word(task.task.to_string()));
        args.push(bytes(&task.event));
        args.push(word(task.lane.to_string()));
        args.push(task.fingerprint.as_deref().map_or(Cow::Borrowed(&[][..]), bytes));
        args.push(if task.fingerprint.is_some() { number(DEDUPE_TTL_S) } else { Cow::Borrowed(&[]) });
        args.push(word(task.context.encode()));
        args.push(task.expires_ms.map_or(Cow::Borrowed(&[]), number));
    }
    let replies: Vec<Vec<Value>> = link.eval(&SUBMIT, &names, &args).await?;
    replies.iter().map(|reply| read_submission(reply)).collect()
}

pub(super) fn read_submission(reply: &[Value]) -> Result<Submission, LinkError> {
    let task = || text(reply, 1)?.parse().map_err(|_| unexpected("a task id"));
    Ok(match text(reply, 0)? {
        "OK" => Submission::Accepted { task: task()?, n: parsed(reply, 2)? },
        "DUP" => Submission::Known { task: task()? },
        "CONFLICT" => Submission::Conflict { task: task()? },
        "FULL" => Submission::Full,
        _ => return Err(unexpected("an outcome of submit")),
    })
}

/// Closes a batch upload: one `batch_received` event. `event` is its encoding.
///
/// # Errors
/// See [`LinkError`].
pub async fn close_batch(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    batch: uuid::Uuid,
    event: &[u8],
    accepted: u32,
    rejected: u32,
) -> Result<(), LinkError> {
    let names = [keys.journal(partition), keys.batch(partition, batch)];
    let args = [word(batch.to_string()), bytes(event), number(accepted), number(rejected), number(DEDUPE_TTL_S)];
    link.eval::<String>(&BATCH, &names, &args).await.map(|_| ())
}
