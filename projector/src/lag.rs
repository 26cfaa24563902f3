//! How far the tables are behind the journal, in events and in seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use insightforge_schema::event::now_us;
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use tokio_util::sync::CancellationToken;

use crate::measure;

/// How often the journals' ends are asked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// What the projector has folded, shared with whoever measures it.
#[derive(Clone)]
pub struct Lag(Arc<Vec<Folded>>);

#[derive(Default)]
struct Folded {
    n: AtomicU64,
    at_us: AtomicI64,
}

impl Lag {
    #[must_use]
    pub fn new(partitions: PartitionCount) -> Self {
        Self(Arc::new(partitions.iter().map(|_| Folded::default()).collect()))
    }

    /// Event `n`, which happened at `at_us`, is the last one in the tables.
    pub(crate) fn folded(&self, partition: Partition, n: u64, at_us: i64) {
        let folded = &self.0[usize::from(partition.0)];
        folded.n.store(n, Ordering::Relaxed);
        folded.at_us.store(at_us, Ordering::Relaxed);
    }

    /// Events and seconds behind. The seconds are the age of the oldest event that is not folded yet.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn behind(&self, link: &Link, keys: &Keys, partition: Partition) -> Result<(u64, f64), LinkError> {
        let last = journal::last_number(link, keys, partition).await?;
        let folded = self.0[usize::from(partition.0)].n.load(Ordering::Relaxed);
        if last <= folded {
            return Ok((0, 0.0));
        }
        let oldest = journal::range(link, keys, partition, folded + 1, None, 1).await?;
        let age_us = oldest.first().map_or(0, |event| (now_us() - event.meta.at_us).max(0));
        Ok((last - folded, age_us as f64 / 1e6))
    }

    /// Publishes the lag until `shutdown`; without an archive also that all that is folded is in Redis only.
    pub(crate) async fn watch(self, link: Link, keys: Keys, has_archive: bool, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            for index in 0..self.0.len() {
                let partition = Partition(u16::try_from(index).expect("partitions are counted in 16 bits"));
                if !has_archive {
                    measure::archive(partition, 0, self.0[index].n.load(Ordering::Relaxed));
                }
                // During an outage the gauges keep their last value; the age of the last read tells.
                if let Ok((events, seconds)) = self.behind(&link, &keys, partition).await {
                    let label = partition.to_string();
                    metrics::gauge!("if_projector_lag_events", "partition" => label.clone()).set(events as f64);
                    metrics::gauge!("if_projector_lag_seconds", "partition" => label).set(seconds);
                }
            }
        }
    }
}
