//! Renews the leases of attempts that run for long, so that a slow model is not taken for a dead worker.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use insightforge_schema::id::TaskId;
use insightforge_schema::link::LinkError;
use insightforge_schema::script;
use insightforge_schema::trace::trace_id;

use crate::take::create_group;
use crate::wait::pause;
use crate::worker::{ServedLane, Worker};

/// Attempts renewed by one call.
const CHUNK: usize = 256;

/// Time between two beats. An attempt is first renewed when it is as old as this, so it never ages beyond two of them.
pub(crate) fn interval(worker: &Worker) -> Duration {
    Duration::from_millis(worker.config.lease_ms / 3)
}

/// What a beat found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beat {
    pub renewed: usize,
    /// Taken over, cancelled or ended by others: their answers are dropped.
    pub lost: usize,
}

/// Renews the lease of every attempt that has run for at least `older_than`.
///
/// # Errors
/// See [`LinkError`].
pub async fn beat(worker: &Worker, older_than: Duration) -> Result<Beat, LinkError> {
    let mut sum = Beat::default();
    for lane in worker.lanes() {
        let running = running(&lane, older_than);
        for attempts in running.chunks(CHUNK) {
            let held = match renew(worker, &lane, attempts).await {
                // A group that was destroyed is created anew; its entries come back, and those in flight are known.
                Err(LinkError::Refused(text)) if text.contains("NOGROUP") => {
                    create_group(worker, lane.partition, &lane.lane).await?;
                    renew(worker, &lane, attempts).await?
                }
                held => held?,
            };
            let mut by_token = lane.held();
            for ((task, token), held) in attempts.iter().zip(held) {
                if held {
                    sum.renewed += 1;
                } else if let Some(taken) = by_token.remove(token) {
                    let trace_id = trace_id(*task, taken.trace.as_deref());
                    sum.lost += 1;
                    tracing::info!(task.id = %task, trace_id, lane = %lane.lane, "an attempt was taken away; its answer will be dropped");
                }
            }
        }
    }
    Ok(sum)
}

fn running(lane: &ServedLane, older_than: Duration) -> Vec<(TaskId, String)> {
    let now = Instant::now();
    let held: &HashMap<_, _> = &lane.held();
    held.iter()
        .filter(|(_, held)| held.begun && now.duration_since(held.since) >= older_than)
        .map(|(token, held)| (held.task, token.clone()))
        .collect()
}

async fn renew(worker: &Worker, lane: &ServedLane, attempts: &[(TaskId, String)]) -> Result<Vec<bool>, LinkError> {
    script::beat(&worker.link, &worker.keys, lane.partition, &lane.lane, worker.name(), attempts).await
}

/// Beats until the process repeats no call any more.
pub(crate) async fn run(worker: std::sync::Arc<Worker>) {
    let interval = interval(&worker);
    while pause(interval, &worker.stop.repeating).await {
        if let Err(error) = beat(&worker, interval).await {
            tracing::warn!(%error, "leases could not be renewed; trying again");
        }
    }
}
