//! Where one task and its lane stand now: what Redis knows beyond the record, read with bounded commands. Nothing is
//! written here.

use redis::Value;

use crate::event::{Change, Meta, decode};
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::script::{AHEAD, RECENT, STANDING, bytes, number, parsed, take_bytes, text, unexpected, word};

/// Entries of a lane counted by one call.
const COUNT_STEP: u64 = 1_000;
/// Entries of a lane counted at all: beyond it the place in line is "at least".
pub const COUNT_MOST: u64 = 10_000;
/// Events looked at for the pace of a partition, and their bytes.
const RECENT_EVENTS: u64 = 1_024;
const RECENT_BYTES: u64 = 4 << 20;

/// A task as Redis has it, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// `Q` queued, `P` processing, `D` waiting for its next attempt, `Z` ended.
    pub state: String,
    /// Its lane entry; empty unless `Q` or `P`.
    pub token: String,
    /// The attempt running, or the next one.
    pub attempt: u32,
    /// Who runs it.
    pub worker: Option<String>,
    pub first: u64,
    pub lane: Lane,
    /// Type of the terminal event, once ended.
    pub outcome: Option<String>,
    /// How often analyzers fell silent before they began it.
    pub requeues: u32,
    /// Number and content of its latest event after `submitted`, when the record names one and the journal holds it.
    pub latest: Option<(u64, Meta, Change)>,
    /// Whom its lane entry was delivered to, and for how many milliseconds that analyzer has been silent about it.
    pub holder: Option<(String, u64)>,
    /// When its next attempt is due, in milliseconds by Redis' clock.
    pub due_ms: Option<i64>,
    /// Since when it is on the dead-letter list, in milliseconds.
    pub dead_since_ms: Option<i64>,
    pub line: Line,
    /// Redis' clock.
    pub now_ms: i64,
}

/// A lane of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Entries on it: waiting, or delivered and not yet ended.
    pub length: u64,
    /// The last entry that was delivered to an analyzer; `None` when nobody has ever read the lane.
    pub delivered: Option<String>,
    /// Entries delivered and not yet ended.
    pub pending: u64,
}

/// How many tasks are before another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    pub tasks: u64,
    /// `false` when counting stopped at [`COUNT_MOST`].
    pub exact: bool,
}

/// Reads where a task stands; `None` when Redis holds no record of it.
///
/// # Errors
/// See [`LinkError`].
pub async fn standing(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    task: TaskId,
) -> Result<Option<Standing>, LinkError> {
    let record = keys.record(partition, task);
    // A task keeps its lane, so that reading it apart takes nothing from the snapshot.
    let Some(lane): Option<String> = link.query(redis::cmd("HGET").arg(&record).arg("l")).await? else {
        return Ok(None);
    };
    let lane = Lane::parse(&lane).ok_or_else(|| unexpected("a lane"))?;
    let names =
        [keys.journal(partition), record, keys.lane(partition, &lane), keys.delayed(partition), keys.dead(partition)];
    let args = [bytes(lane.group().as_bytes()), word(task.to_string())];
    let Some(reply) = link.eval::<Option<Vec<Value>>>(&STANDING, &names, &args).await? else { return Ok(None) };
    read(reply, lane).map(Some)
}

fn read(mut reply: Vec<Value>, lane: Lane) -> Result<Standing, LinkError> {
    let event = take_bytes(&mut reply, 9);
    let optional = |index| text(&reply, index).map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()));
    let milliseconds = |index| {
        let read = |text: String| text.parse::<f64>().map(|ms| ms as i64).map_err(|_| unexpected("a time"));
        optional(index)?.map(read).transpose()
    };
    let latest = match (optional(7)?, optional(8)?) {
        (Some(n), Some(event_type)) => {
            let (meta, change) = decode(&event_type, &event);
            Some((n.parse().map_err(|_| unexpected("a number"))?, meta, change))
        }
        _ => None,
    };
    let holder = match optional(10)? {
        Some(name) => Some((name, parsed(&reply, 11)?)),
        None => None,
    };
    Ok(Standing {
        state: text(&reply, 0)?.to_owned(),
        token: text(&reply, 1)?.to_owned(),
        attempt: parsed(&reply, 2)?,
        worker: optional(3)?,
        first: parsed(&reply, 4)?,
        lane,
        outcome: optional(5)?,
        requeues: parsed(&reply, 6)?,
        latest,
        holder,
        due_ms: milliseconds(12)?,
        dead_since_ms: milliseconds(13)?,
        line: Line { length: parsed(&reply, 14)?, delivered: optional(15)?, pending: parsed(&reply, 16)? },
        now_ms: parsed(&reply, 17)?,
    })
}

/// Counts the waiting tasks before the lane entry `token`; `None` when it was delivered already.
///
/// # Errors
/// See [`LinkError`].
pub async fn ahead(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    line: &Line,
    token: &str,
) -> Result<Option<Ahead>, LinkError> {
    let mut from = line.delivered.clone().unwrap_or_else(|| "0-0".to_owned());
    if entry_id(&from) >= entry_id(token) {
        return Ok(None);
    }
    let mut tasks = 0;
    while tasks < COUNT_MOST {
        let args = [word(from), word(token.to_owned()), number(COUNT_STEP)];
        let (some, last): (u64, String) = link.eval(&AHEAD, &[keys.lane(partition, lane)], &args).await?;
        tasks += some;
        if some < COUNT_STEP {
            return Ok(Some(Ahead { tasks, exact: true }));
        }
        from = last;
    }
    Ok(Some(Ahead { tasks, exact: false }))
}

/// A stream entry's id as numbers: as text, `9-0` would come behind `10-0`.
fn entry_id(id: &str) -> Option<(u64, u64)> {
    let (ms, sequence) = id.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}

/// The latest endings in a partition's journal, newest first: how fast work is being done there.
///
/// # Errors
/// See [`LinkError`].
pub async fn recent_endings(link: &Link, keys: &Keys, partition: Partition) -> Result<Vec<(Meta, Change)>, LinkError> {
    let args = [number(RECENT_EVENTS), number(RECENT_BYTES)];
    let mut reply: Vec<Value> = link.eval(&RECENT, &[keys.journal(partition)], &args).await?;
    let mut endings = Vec::with_capacity(reply.len() / 2);
    for place in (0..reply.len()).step_by(2) {
        let event = take_bytes(&mut reply, place + 1);
        endings.push(decode(text(&reply, place)?, &event));
    }
    Ok(endings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_entries_compare_as_numbers() {
        assert!(entry_id("9-0") < entry_id("10-0"));
        assert!(entry_id("10-2") < entry_id("10-11"));
        assert_eq!(entry_id("x"), None);
    }
}
