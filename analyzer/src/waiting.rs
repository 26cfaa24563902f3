//! Tells how much lies on each lane and since when, also on lanes that no running analyzer serves: what alerts and
//! automatic scaling go by. One process a partition tells it.

use std::collections::HashSet;
use std::time::Duration;

use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use redis::Value;

use crate::duty::Duty;
use crate::measure;
use crate::wait::pause;
use crate::worker::Worker;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long nobody looks when the process that does dies.
const TERM: Duration = Duration::from_secs(6);

/// What lies on a lane: tasks that wait for an attempt or are in one. Delayed retries are not among them.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    pub lane: Lane,
    pub tasks: u64,
    /// Since when the oldest of them lies there, in seconds; 0 when nothing does.
    pub oldest_s: f64,
}

/// Looks at every lane of a partition.
///
/// # Errors
/// See [`LinkError`].
pub async fn look(worker: &Worker, partition: Partition) -> Result<Vec<Waiting>, LinkError> {
    let names: Vec<String> = worker.link.query(redis::cmd("SMEMBERS").arg(worker.keys.lanes(partition))).await?;
    let mut found = Vec::with_capacity(names.len());
    for lane in names.iter().filter_map(|name| Lane::parse(name)) {
        let key = worker.keys.lane(partition, &lane);
        let tasks: u64 = worker.link.query(redis::cmd("XLEN").arg(&key)).await?;
        let mut first = redis::cmd("XRANGE");
        first.arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
        let first: Vec<(String, Vec<Value>)> = worker.link.query(&first).await?;
        let oldest_s = match first.first() {
            Some((token, _)) => age_s(token, now_ms(worker).await?),
            None => 0.0,
        };
        found.push(Waiting { lane, tasks, oldest_s });
    }
    Ok(found)
}

/// Redis' clock: it made the entry's id too. Only people and scalers go by the difference, so a jump of that clock does
/// no harm.
async fn now_ms(worker: &Worker) -> Result<u64, LinkError> {
    let (seconds, micros): (u64, u64) = worker.link.query(&redis::cmd("TIME")).await?;
    Ok(seconds * 1_000 + micros / 1_000)
}

fn age_s(token: &str, now_ms: u64) -> f64 {
    let at_ms = token.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(now_ms);
    now_ms.saturating_sub(at_ms) as f64 / 1e3
}

/// Looks every few seconds while this process has the duty.
pub(crate) async fn run(worker: std::sync::Arc<Worker>, partition: Partition) {
    let mut duty = Duty::new(&worker, partition, "waiting", TERM);
    let mut told = HashSet::new();
    while pause(INTERVAL, &worker.stop.taking).await {
        let found = match duty.is_ours(&worker).await {
            Ok(true) => look(&worker, partition).await,
            // Another process tells it now; what this one told last must not stand beside it.
            Ok(false) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => tell(partition, &found, &mut told),
            Err(error) => tracing::warn!(%partition, %error, "the lanes could not be looked at; trying again"),
        }
    }
    duty.leave(&worker).await;
}

fn tell(partition: Partition, found: &[Waiting], told: &mut HashSet<Lane>) {
    for lane in told.iter() {
        if !found.iter().any(|waiting| waiting.lane == *lane) {
            measure::waiting(partition, lane, 0, 0.0);
        }
    }
    for waiting in found {
        measure::waiting(partition, &waiting.lane, waiting.tasks, waiting.oldest_s);
    }
    told.extend(found.iter().map(|waiting| waiting.lane.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_s_age_is_read_from_its_id_and_is_never_negative() {
        for (token, now_ms, age) in
            [("1000-0", 3_500, 2.5), ("1000-7", 1_000, 0.0), ("2000-0", 1_000, 0.0), ("x", 1_000, 0.0)]
        {
            assert!((age_s(token, now_ms) - age).abs() < 1e-9, "{token} at {now_ms}");
        }
    }
}
