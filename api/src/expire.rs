//! Ends waiting tasks whose deadline has passed and whom nobody takes: on a lane that no analyzer serves, or between two
//! attempts. Analyzers end those they meet. Every api does it: a step made twice ends nothing twice.

use std::time::Duration;

use insightforge_schema::deadline;
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use metrics::counter;
use tokio_util::sync::CancellationToken;

/// How late an end can be.
const INTERVAL: Duration = Duration::from_secs(1);
/// Tasks ended by one call.
const CHUNK: usize = 100;

/// Ends what is past in a partition; says how many tasks.
///
/// # Errors
/// See [`LinkError`].
pub(crate) async fn round(link: &Link, keys: &Keys, partition: Partition) -> Result<usize, LinkError> {
    let mut ended = 0;
    loop {
        let past = deadline::past(link, keys, partition, CHUNK).await?;
        let now = deadline::end(link, keys, partition, &past, "api").await?;
        ended += now;
        // None ended: they were others', or Redis' clock went back.
        if past.len() < CHUNK || now == 0 {
            return Ok(ended);
        }
    }
}

/// Looks every second until `shutdown`.
pub(crate) async fn run(link: Link, keys: Keys, partitions: PartitionCount, shutdown: CancellationToken) {
    let mut away = false;
    while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        for partition in partitions.iter() {
            match round(&link, &keys, partition).await {
                Ok(ended) => {
                    away = false;
                    if ended > 0 {
                        tracing::info!(%partition, tasks = ended, "waiting tasks were out of time");
                        counter!("if_events_appended_total", "type" => "failed").increment(ended as u64);
                    }
                }
                Err(error) => {
                    // Said once an outage.
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%partition, %error, "tasks that are out of time could not be looked for");
                    }
                    break;
                }
            }
        }
    }
}
