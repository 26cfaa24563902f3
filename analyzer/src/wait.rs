//! How this crate waits: for Redis to come back, and for the next round.

use std::time::Duration;

use insightforge_schema::link::LinkError;
use tokio_util::sync::CancellationToken;

/// Between two tries, each of which repeats until the link's own deadline.
const PAUSE: Duration = Duration::from_millis(500);

/// After a call that failed with `error` and must not be given up: returns when it is to be made again. All calls made
/// so are idempotent.
///
/// # Errors
/// The same error when repeating does not mend it, or when `stop` is cancelled.
pub(crate) async fn wait_out(error: LinkError, stop: &CancellationToken) -> Result<(), LinkError> {
    if matches!(error, LinkError::Refused(_)) {
        return Err(error);
    }
    tracing::warn!(%error, "a step waits for Redis");
    if pause(PAUSE, stop).await { Ok(()) } else { Err(error) }
}

/// Waits for `time`; `false` when `stop` was cancelled instead.
pub(crate) async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}
