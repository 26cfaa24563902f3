//! Puts delayed tasks back on their lanes when they are due.

use std::time::Duration;

use insightforge_schema::event::now_us;
use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::script;

use crate::duty::Duty;
use crate::wait::pause;
use crate::worker::Worker;

/// How late a retry can be; no first attempt ever waits for it.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long retries wait when the process that moves them dies.
const TERM: Duration = Duration::from_secs(2);
/// Tasks moved by one call.
const CHUNK: usize = 100;

/// Moves what is due now in a partition; says how many tasks.
///
/// # Errors
/// See [`LinkError`].
pub async fn move_due(worker: &Worker, partition: Partition) -> Result<u64, LinkError> {
    let mut moved = 0;
    loop {
        let now_ms = now_us() / 1_000;
        let mut due = redis::cmd("ZRANGEBYSCORE");
        due.arg(worker.keys.delayed(partition)).arg("-inf").arg(now_ms).arg("LIMIT").arg(0).arg(CHUNK);
        let due: Vec<String> = worker.link.query(&due).await?;
        let listed = due.len();
        let mut tasks = Vec::with_capacity(listed);
        for member in due {
            match lane_of(worker, partition, &member).await? {
                Some(task) => tasks.push(task),
                None => discard(worker, partition, &member).await?,
            }
        }
        if !tasks.is_empty() {
            fail::reached(Step::MoveUnsent);
            moved += script::move_due(&worker.link, &worker.keys, partition, now_ms, &tasks).await?;
            fail::reached(Step::MoveWritten);
        }
        if listed < CHUNK {
            return Ok(moved);
        }
    }
}

/// The lane a delayed task goes back to; `None` when it has no record.
async fn lane_of(worker: &Worker, partition: Partition, member: &str) -> Result<Option<(TaskId, Lane)>, LinkError> {
    let Ok(task) = member.parse::<TaskId>() else {
        return Ok(None);
    };
    let record = worker.keys.record(partition, task);
    let lane: Option<String> = worker.link.query(redis::cmd("HGET").arg(record).arg("l")).await?;
    Ok(lane.and_then(|name| Lane::parse(&name)).map(|lane| (task, lane)))
}

/// A member that is no live task would be listed first for ever and hold up the others.
async fn discard(worker: &Worker, partition: Partition, member: &str) -> Result<(), LinkError> {
    tracing::warn!(%partition, member, "a delayed entry without a task was removed");
    worker.link.query::<i64>(redis::cmd("ZREM").arg(worker.keys.delayed(partition)).arg(member)).await.map(|_| ())
}

/// Moves while this process has the duty.
pub(crate) async fn run(worker: std::sync::Arc<Worker>, partition: Partition) {
    let mut duty = Duty::new(&worker, partition, "move", TERM);
    while pause(INTERVAL, &worker.stop.taking).await {
        let result = match duty.is_ours(&worker).await {
            Ok(true) => move_due(&worker, partition).await.map(|_| ()),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%partition, %error, "delayed tasks could not be moved; trying again");
        }
    }
    duty.leave(&worker).await;
}
