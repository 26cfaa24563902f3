//! How calls that must not be given up are made: again and again while Redis is away, until the process ends.

use std::time::Duration;

use insightforge_schema::link::LinkError;
use tokio_util::sync::CancellationToken;

/// Between two tries, each of which repeats until the link's own deadline.
const PAUSE: Duration = Duration::from_millis(500);

/// After a call that failed with `error`: waits and returns when it is to be made again. All calls made so are
/// idempotent.
///
/// # Errors
/// The same error when repeating does not mend it, or when `stop` is cancelled.
pub(crate) async fn wait_out(error: LinkError, stop: &CancellationToken) -> Result<(), LinkError> {
    if matches!(error, LinkError::Refused(_)) || stop.is_cancelled() {
        return Err(error);
    }
    tracing::warn!(%error, "a step waits for Redis");
    tokio::select! {
        () = tokio::time::sleep(PAUSE) => Ok(()),
        () = stop.cancelled() => Err(error),
    }
}
