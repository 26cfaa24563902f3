//! How many tasks wait in the whole installation, and whether one more may.
//!
//! Redis is asked every second; between two counts this process adds what it has let in itself, so that its own bound is
//! exact. Several processes together may let in one second's worth more; a lane's own bound is kept by the script.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::{Link, LinkError};
use metrics::gauge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Between two counts.
const EVERY: Duration = Duration::from_secs(1);
/// Between two counts while uploads are refused: workers may have made room.
const AT_LEAST: Duration = Duration::from_millis(100);
/// When a caller who was refused should come back, in seconds.
pub(crate) const RETRY_AFTER_S: u32 = 2;

/// The count. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backlog(Arc<Shared>);

struct Shared {
    max: u64,
    /// Waiting tasks when they were last counted.
    counted: AtomicU64,
    /// Stored by this process since.
    added: AtomicU64,
    /// Let in by this process and on their way.
    on_the_way: AtomicU64,
    /// Somebody was refused.
    refused: Notify,
}

/// Room for one task. Given back when dropped, unless the task was stored.
pub(crate) struct Place(Arc<Shared>);

impl Backlog {
    /// Counts until `shutdown`. Until the first count nothing is known to wait.
    pub(crate) fn start(
        link: &Link,
        keys: &Keys,
        partitions: PartitionCount,
        max: u64,
        shutdown: &CancellationToken,
    ) -> Self {
        let backlog = Self::new(max);
        let (link, keys, shared) = (link.clone(), keys.clone(), backlog.0.clone());
        let counting = async move {
            loop {
                shared.count(&link, &keys, partitions).await;
                tokio::time::sleep(AT_LEAST).await;
                let _ = tokio::time::timeout(EVERY - AT_LEAST, shared.refused.notified()).await;
            }
        };
        let shutdown = shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(counting).await });
        backlog
    }

    fn new(max: u64) -> Self {
        let zero = || AtomicU64::new(0);
        let shared = Shared { max, counted: zero(), added: zero(), on_the_way: zero(), refused: Notify::new() };
        Self(Arc::new(shared))
    }

    /// The most that may wait.
    pub(crate) fn max(&self) -> u64 {
        self.0.max
    }

    /// Room for one more; `None` when there is none.
    pub(crate) fn place(&self) -> Option<Place> {
        let before = self.0.on_the_way.fetch_add(1, Ordering::SeqCst);
        let place = Place(self.0.clone());
        if before + self.0.added.load(Ordering::SeqCst) + self.0.counted.load(Ordering::SeqCst) < self.0.max {
            return Some(place);
        }
        self.0.refused.notify_one();
        None
    }
}

impl Place {
    /// The task is stored: it counts until it is counted.
    pub(crate) fn keep(self) {
        self.0.added.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.on_the_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Shared {
    async fn count(&self, link: &Link, keys: &Keys, partitions: PartitionCount) {
        let added = self.added.load(Ordering::SeqCst);
        let counts = join_all(partitions.iter().map(|partition| waiting(link, keys, partition))).await;
        match counts.into_iter().sum::<Result<u64, LinkError>>() {
            Ok(counted) => {
                self.counted.store(counted, Ordering::SeqCst);
                // What was stored before the count is in it.
                self.added.fetch_sub(added, Ordering::SeqCst);
                gauge!("if_backlog_tasks").set(counted as f64);
            }
            Err(error) => tracing::debug!(%error, "waiting tasks could not be counted"),
        }
    }
}

/// Waiting and running tasks of a partition: entries of its lanes, and what waits for its next attempt.
async fn waiting(link: &Link, keys: &Keys, partition: Partition) -> Result<u64, LinkError> {
    let lanes: Vec<String> = link.query(redis::cmd("SMEMBERS").arg(keys.lanes(partition))).await?;
    let lengths = lanes.iter().filter_map(|name| Lane::parse(name)).map(|lane| {
        let mut command = redis::cmd("XLEN");
        command.arg(keys.lane(partition, &lane));
        async move { link.query::<u64>(&command).await }
    });
    let in_lanes: u64 = try_join_all(lengths).await?.into_iter().sum();
    let delayed: u64 = link.query(redis::cmd("ZCARD").arg(keys.delayed(partition))).await?;
    Ok(in_lanes + delayed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_exactly_as_many_as_may_wait() {
        let backlog = Backlog::new(2);
        let one = backlog.place().unwrap();
        let two = backlog.place().unwrap();
        assert!(backlog.place().is_none());
        drop(one);
        two.keep();
        let three = backlog.place().unwrap();
        assert!(backlog.place().is_none());
        // A count finds one of the two, because the other has been worked off.
        backlog.0.counted.store(1, Ordering::SeqCst);
        backlog.0.added.fetch_sub(1, Ordering::SeqCst);
        assert!(backlog.place().is_none());
        drop(three);
        assert!(backlog.place().is_some());
    }
}
