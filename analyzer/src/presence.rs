//! Tells others that this analyzer is alive and what it serves; takes long-gone consumers off the groups.

use std::time::Duration;

use insightforge_schema::catalogue::{self, Limits, Worker as Card};
use insightforge_schema::event::now_us;
use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::script;

use crate::packages::announce;
use crate::wait::pause;
use crate::worker::Worker;

const INTERVAL: Duration = Duration::from_secs(5);
/// Rounds between two looks for consumers to prune: ten minutes.
const PRUNE_EVERY: u32 = 120;
/// Each hung call costs a thread, of which the runtime has 512 at most.
const STUCK_MAX: usize = 32;
/// Rounds for which a version may be asked nothing because its calls hang: a minute. Only a fresh process has it back then.
const HANGING_MAX: u32 = 12;
/// A consumer that holds nothing and has not called for this long belongs to a process that is gone.
const CONSUMER_GONE_MS: u64 = 3_600_000;

/// Announces the models and reports this process.
///
/// # Errors
/// See [`LinkError`].
pub async fn report(worker: &Worker) -> Result<(), LinkError> {
    announce(worker).await?;
    let card = Card {
        name: worker.name().to_owned(),
        lanes: worker.view().lanes().filter(|lane| **lane != Lane::unroutable()).map(Lane::to_string).collect(),
        in_flight: u32::try_from(worker.in_flight()).unwrap_or(u32::MAX),
        started_ms: worker.started_ms,
        last_read_ms: worker.last_read_ms(),
        seen_ms: now_us() / 1_000,
        infer_addr: worker.config.infer_addr.clone(),
        limits: Some(Limits {
            lease_ms: worker.config.lease_ms,
            max_attempts: worker.config.max_attempts,
            task_timeout_ms: worker.config.task_timeout_ms,
        }),
    };
    catalogue::report(&worker.link, &worker.keys, &card).await
}

/// Takes dead processes' consumers off the groups of a partition; says how many.
///
/// # Errors
/// See [`LinkError`].
pub async fn prune(worker: &Worker, partition: Partition) -> Result<u64, LinkError> {
    let names: Vec<String> = worker.link.query(redis::cmd("SMEMBERS").arg(worker.keys.lanes(partition))).await?;
    let mut pruned = 0;
    for lane in names.iter().filter_map(|name| Lane::parse(name)) {
        match script::prune(&worker.link, &worker.keys, partition, &lane, CONSUMER_GONE_MS).await {
            Ok(count) => pruned += count,
            // A lane or group that is not there has no consumers.
            Err(LinkError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pruned)
}

/// Reports every few seconds. Ends, with the reason, when so many calls of models hang that a fresh process is better.
pub(crate) async fn run(worker: std::sync::Arc<Worker>) -> String {
    let (mut rounds, mut hanging) = (0_u32, 0);
    while pause(INTERVAL, &worker.stop.taking).await {
        let stuck: usize = worker.store.served().iter().map(|served| served.stuck()).sum();
        if stuck >= STUCK_MAX {
            return format!("{stuck} calls of models hang and cannot be ended");
        }
        hanging = if worker.store.served().iter().any(|served| served.hangs()) { hanging + 1 } else { 0 };
        if hanging == HANGING_MAX {
            return "a model has hung for a minute and cannot be ended".to_owned();
        }
        if let Err(error) = round(&worker, rounds.is_multiple_of(PRUNE_EVERY)).await {
            tracing::warn!(%error, "the list of analyzers could not be refreshed; trying again");
        }
        rounds = rounds.wrapping_add(1);
    }
    "told to stop".to_owned()
}

async fn round(worker: &Worker, with_pruning: bool) -> Result<(), LinkError> {
    report(worker).await?;
    if with_pruning {
        for partition in worker.config.partitions.iter() {
            prune(worker, partition).await?;
        }
    }
    Ok(())
}
