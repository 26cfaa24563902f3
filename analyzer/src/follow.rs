//! Follows the registry, so that routes an operator changes hold here within a second.

use std::time::Duration;

use insightforge_schema::link::LinkError;

use crate::presence;
use crate::serve::refit;
use crate::wait::pause;
use crate::worker::Worker;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Reads what is new; says whether it changed anything here. A model that went while others are still being opened changes
/// what is taken, too: its tasks are left to whoever has it.
///
/// # Errors
/// See [`LinkError`]; the routes stay as they were.
pub async fn follow(worker: &Worker) -> Result<bool, LinkError> {
    let read = worker.registry.lock().await.refresh().await?;
    let missed = worker.has_missed();
    if (read == 0 && !missed) || !refit(worker).await? {
        return Ok(false);
    }
    presence::report(worker).await?;
    Ok(true)
}

/// Follows until the process stops taking.
pub(crate) async fn run(worker: std::sync::Arc<Worker>) {
    let mut away = false;
    while pause(INTERVAL, &worker.stop.taking).await {
        match follow(&worker).await {
            Ok(_) => away = false,
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "the model routes could not be read; those read before hold");
                }
            }
        }
    }
}
