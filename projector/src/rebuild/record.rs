//! Tells in the tables how a rebuild goes and what it found, for those who did not start it. One that cannot tell goes on all
//! the same.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use insightforge_schema::event::now_us;
use insightforge_schema::tables::datetime;
use serde_json::Value;
use sqlx::MySqlPool;

use super::{Config, Deps, Progress, RebuildError, Report};

/// How often it is told of.
const EVERY: Duration = Duration::from_secs(1);
/// How long rebuilds are remembered.
const REMEMBERED: Duration = Duration::from_hours(90 * 24);

/// The row of one rebuild.
pub(super) struct Record<'a> {
    pool: &'a MySqlPool,
    /// `None`: it could not be made.
    n: Option<u64>,
    stands: Mutex<Stands>,
}

/// How far a rebuild is.
#[derive(Clone, Copy)]
struct Stands {
    state: &'static str,
    events: u64,
}

impl<'a> Record<'a> {
    pub(super) async fn begin(config: &Config, deps: &'a Deps) -> Self {
        let stands = Mutex::new(Stands { state: "loading", events: 0 });
        let n = insert(config, deps).await.inspect_err(not_told).ok();
        Self { pool: &deps.pool, n, stands }
    }

    pub(super) fn hear(&self, progress: &Progress) {
        let mut stands = self.stands();
        match progress {
            Progress::Loading { events } => stands.events = *events,
            Progress::Loaded { events, .. } => *stands = Stands { state: "indexing", events: *events },
            Progress::Indexed { .. } => stands.state = "comparing",
            Progress::Compared { .. } | Progress::TablesInUse => stands.state = "swapping",
        }
    }

    /// Writes down what was heard, again and again.
    pub(super) async fn keep(&self) -> Infallible {
        loop {
            tokio::time::sleep(EVERY).await;
            let stands = *self.stands();
            if let Err(error) = self.update(stands).await {
                not_told(&error);
            }
        }
    }

    pub(super) async fn end(self, outcome: &Result<Report, RebuildError>) {
        let (state, events, report, error) = match outcome {
            Ok(report) => {
                let state = if report.swapped { "swapped" } else { "different" };
                (state, report.events, Some(report.to_json()), None)
            }
            Err(error) => ("failed", self.stands().events, None, Some(error.kind().to_owned())),
        };
        if let Err(error) = self.finish(Stands { state, events }, report, error).await {
            not_told(&error);
        }
    }

    async fn update(&self, Stands { state, events }: Stands) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE rebuilds SET state = ?, events = ?, updated_at = UTC_TIMESTAMP(6) WHERE n = ?")
            .bind(state)
            .bind(events)
            .bind(self.n)
            .execute(self.pool)
            .await?;
        Ok(())
    }

    async fn finish(&self, stands: Stands, report: Option<Value>, error: Option<String>) -> Result<(), sqlx::Error> {
        self.update(stands).await?;
        sqlx::query("UPDATE rebuilds SET report = ?, error = ?, ended_at = updated_at WHERE n = ?")
            .bind(report.map(|report| report.to_string()))
            .bind(error)
            .bind(self.n)
            .execute(self.pool)
            .await?;
        Ok(())
    }

    fn stands(&self) -> MutexGuard<'_, Stands> {
        // Nothing panics under the lock.
        self.stands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn insert(config: &Config, deps: &Deps) -> Result<u64, sqlx::Error> {
    // Events are numbered without a gap, so the last numbers are their count.
    let mut whole = Some(0);
    for partition in config.partitions.iter() {
        let last = deps.journal.last_number(partition).await.ok();
        whole = whole.zip(last).map(|(whole, last)| whole + last);
    }
    let now_us = now_us();
    let (n, now) = (now_us.unsigned_abs(), datetime(now_us));
    sqlx::query(
        "INSERT INTO rebuilds (n, owner, state, events, events_whole, started_at, updated_at) \
         VALUES (?, ?, 'loading', 0, ?, ?, ?)",
    )
    .bind(n)
    .bind(&config.owner)
    .bind(whole)
    .bind(now)
    .bind(now)
    .execute(&deps.pool)
    .await?;
    let forgotten = n.saturating_sub(u64::try_from(REMEMBERED.as_micros()).unwrap_or(u64::MAX));
    sqlx::query("DELETE FROM rebuilds WHERE n < ?").bind(forgotten).execute(&deps.pool).await?;
    Ok(n)
}

fn not_told(error: &sqlx::Error) {
    tracing::warn!(%error, "how the rebuild goes cannot be written down");
}
