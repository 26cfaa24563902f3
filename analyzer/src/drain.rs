//! The orderly end: stop taking, finish what is in flight, hand back the rest, sign off. Bounded at every step, whatever
//! a model or Redis does.

use std::time::Duration;

use insightforge_schema::catalogue;
use tokio::task::JoinSet;

use crate::worker::Worker;

/// For handing back what the drain left over.
const HAND_BACK: Duration = Duration::from_secs(1);
/// For a word to the others.
const SIGN_OFF: Duration = Duration::from_millis(200);

/// Brings the worker to its end. `takers` end by themselves once they may take no more: what their last read brought is
/// worked off like everything else, since a read takes two seconds at most and the drain lasts longer.
pub async fn drain(worker: &Worker, mut takers: JoinSet<()>) {
    worker.stop.taking.cancel();
    let finished = tokio::time::timeout(Duration::from_millis(worker.config.drain_ms), async {
        while takers.join_next().await.is_some() {}
        worker.batches.close();
        worker.batches.wait().await;
    })
    .await;
    worker.batches.close();
    if finished.is_err() {
        tracing::warn!(in_flight = worker.in_flight(), "handing back what is not finished");
    }
    worker.stop.waiting.cancel();
    if tokio::time::timeout(HAND_BACK, worker.batches.wait()).await.is_err() {
        tracing::error!(
            in_flight = worker.in_flight(),
            "Redis did not take back what was in flight; leases will run out"
        );
    }
    worker.stop.repeating.cancel();
    let sign_off = catalogue::sign_off(&worker.link, &worker.keys, worker.name());
    if !matches!(tokio::time::timeout(SIGN_OFF, sign_off).await, Ok(Ok(()))) {
        tracing::warn!("could not sign off; the list of analyzers forgets this one by itself");
    }
}
