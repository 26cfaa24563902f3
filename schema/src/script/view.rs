//! A task as Redis holds it now.

use redis::Value;

use super::{VIEW, parsed, take_bytes, text};
use crate::RESULT_TTL_S;
use crate::id::{Partition, TaskId};
use crate::keys::Keys;
use crate::link::{Link, LinkError};

/// A task as Redis holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveView {
    /// `Q` queued, `P` processing, `D` waiting for its next attempt, `Z` ended.
    pub state: String,
    /// The attempt running, or the next one.
    pub attempt: u32,
    pub worker: Option<String>,
    pub first: u64,
    pub lane: String,
    /// Type of the terminal event, once ended.
    pub outcome: Option<String>,
    /// The encoded `submitted` event; empty when the journal no longer holds it.
    pub submitted: Vec<u8>,
    /// Number and encoding of the terminal event, once ended.
    pub terminal: Option<(u64, Vec<u8>)>,
    /// For how many seconds it has been ended, once ended.
    pub ended_for_s: Option<u64>,
}

/// Reads one task with its first and its last event; `None` when Redis holds no record of it.
///
/// # Errors
/// See [`LinkError`].
pub async fn view(link: &Link, keys: &Keys, partition: Partition, task: TaskId) -> Result<Option<LiveView>, LinkError> {
    let names = [keys.journal(partition), keys.record(partition, task)];
    let Some(mut reply) = link.eval::<Option<Vec<Value>>>(&VIEW, &names, &[]).await? else {
        return Ok(None);
    };
    let optional = |index| text(&reply, index).map(|text| (!text.is_empty()).then(|| text.to_owned()));
    let kept_s = optional(10)?.and_then(|kept| kept.parse::<u64>().ok()).unwrap_or(RESULT_TTL_S);
    let left_s = match reply.get(9) {
        Some(Value::Int(left)) => u64::try_from(*left).ok(),
        _ => None,
    };
    let (state, worker, outcome) = (text(&reply, 0)?.to_owned(), optional(2)?, optional(5)?);
    let (attempt, first, lane) = (parsed(&reply, 1)?, parsed(&reply, 3)?, text(&reply, 4)?.to_owned());
    let terminal_n = optional(7)?.and_then(|n| n.parse().ok());
    Ok(Some(LiveView {
        state,
        attempt,
        worker,
        first,
        lane,
        outcome,
        submitted: take_bytes(&mut reply, 6),
        terminal: terminal_n.map(|n| (n, take_bytes(&mut reply, 8))),
        ended_for_s: left_s.map(|left| kept_s.saturating_sub(left)),
    }))
}
