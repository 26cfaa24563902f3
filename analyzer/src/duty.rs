//! Which process does a janitor's round in a partition. Saves work and promises nothing: every step of a round is safe
//! to make twice.

use std::time::{Duration, Instant};

use insightforge_schema::id::Partition;
use insightforge_schema::link::LinkError;
use insightforge_schema::script;

use crate::worker::Worker;

/// A janitor's duty in one partition.
pub(crate) struct Duty {
    key: String,
    /// Beyond it without a renewal, another process takes over.
    term: Duration,
    renew_at: Option<Instant>,
}

impl Duty {
    pub(crate) fn new(worker: &Worker, partition: Partition, name: &str, term: Duration) -> Self {
        Self { key: worker.keys.lease(partition, name), term, renew_at: None }
    }

    /// Whether the round is this process's.
    pub(crate) async fn is_ours(&mut self, worker: &Worker) -> Result<bool, LinkError> {
        if self.renew_at.is_some_and(|at| Instant::now() < at) {
            return Ok(true);
        }
        let term_ms = self.term.as_millis() as u64;
        let ours = script::duty(&worker.link, &self.key, worker.name(), term_ms).await?;
        self.renew_at = ours.then(|| Instant::now() + self.term / 2);
        Ok(ours)
    }

    /// Leaves the duty to the next who asks; without success it ends by itself.
    pub(crate) async fn leave(self, worker: &Worker) {
        let holder = worker.link.query::<Option<String>>(redis::cmd("GET").arg(&self.key)).await;
        if holder.is_ok_and(|holder| holder.as_deref() == Some(worker.name())) {
            let left = worker.link.query::<i64>(redis::cmd("DEL").arg(&self.key)).await;
            tracing::debug!(key = self.key, ?left, "left a duty");
        }
    }
}
