//! Dead letters that nobody has dealt with for long leave the list for good, if that is asked for; how many there are is always
//! told.
//!
//! The one place where a projector appends to the journal: the tables know the first event of a task whose record has left
//! Redis. It is the script by which people purge, so a letter that one of them deals with at the same moment is left alone.

use std::time::Duration;

use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{Change, Meta, Purged, encode, now_us};
use insightforge_schema::id::{Partition, PartitionCount, TaskId, position_of_row};
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, Purge};
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::{Deps, measure};

/// Between two passes, and after a failure.
const BETWEEN: Duration = Duration::from_secs(60);
/// Between two scripts: others need Redis too.
const BREATH: Duration = Duration::from_millis(20);
/// Letters of one script.
const PAGE: usize = 200;
/// Who is said to have done it.
const ACTOR: &str = "retention";
const DAY_S: u64 = 86_400;

/// Counts dead letters, and purges those that are too old.
pub struct LetterKeeper {
    deps: Deps,
    partitions: PartitionCount,
    /// How long letters stay on the list; `None`: for ever.
    keep: Option<Duration>,
}

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    #[error("dead letters: {0}")]
    Journal(#[from] LinkError),
    #[error("the dead letters' rows: {0}")]
    Tables(#[from] sqlx::Error),
}

impl LetterKeeper {
    #[must_use]
    pub fn new(deps: Deps, partitions: PartitionCount, keep: Option<Duration>) -> Self {
        Self { deps, partitions, keep }
    }

    /// Purges some of what is too old at `now_us`; how many. None is left when it is 0, but for letters that have no row yet.
    ///
    /// # Errors
    /// See [`LettersError`]; the step is simply made again.
    pub async fn step(&self, now_us: i64) -> Result<usize, LettersError> {
        let Some(keep) = self.keep else { return Ok(0) };
        let before_ms = (now_us / 1_000).saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
        for partition in self.partitions.iter() {
            let mut passed = 0;
            loop {
                let old = self.older(partition, before_ms, passed).await?;
                if old.is_empty() {
                    break;
                }
                passed += old.len();
                let firsts = firsts(&self.deps.pool, partition, &old).await?;
                if !firsts.is_empty() {
                    return self.purge(partition, firsts, keep).await;
                }
            }
        }
        Ok(0)
    }

    /// Letters given up before this moment, the oldest first, without so many of them.
    async fn older(&self, partition: Partition, before_ms: i64, passed: usize) -> Result<Vec<String>, LinkError> {
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range.arg(self.deps.keys.dead(partition)).arg("-inf").arg(format!("({before_ms}"));
        self.deps.link.query(range.arg("LIMIT").arg(passed).arg(PAGE)).await
    }

    async fn purge(
        &self,
        partition: Partition,
        firsts: Vec<(TaskId, u64)>,
        keep: Duration,
    ) -> Result<usize, LettersError> {
        let meta = Meta {
            at_us: now_us(),
            tenant: DEFAULT_TENANT.to_owned(),
            actor: ACTOR.to_owned(),
            attempt: 0,
            trace: None,
        };
        let reason = format!("on the list for more than {} days", keep.as_secs() / DAY_S);
        let event = encode(&meta, &Change::Purged(Purged { reason }));
        let letters: Vec<Purge> =
            firsts.into_iter().map(|(task, first)| Purge { task, first, event: event.clone() }).collect();
        let purged = script::purge(&self.deps.link, &self.deps.keys, partition, &letters).await?;
        Ok(purged.into_iter().filter(|purged| *purged).count())
    }

    /// How many letters there are.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn count(&self) -> Result<u64, LinkError> {
        let mut letters = 0;
        for partition in self.partitions.iter() {
            letters += self.deps.link.query::<u64>(redis::cmd("ZCARD").arg(self.deps.keys.dead(partition))).await?;
        }
        Ok(letters)
    }

    /// Steps until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            if let Ok(letters) = self.count().await {
                measure::dead_letters(letters);
            }
            let pause = match self.step(now_us()).await {
                Ok(0) => BETWEEN,
                Ok(purged) => {
                    measure::letters_purged(purged);
                    BREATH
                }
                Err(error) => {
                    tracing::warn!(%error, "old dead letters could not be purged; trying again");
                    BETWEEN
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// The letters' tasks, each with the number of its first event; those without a row are left out.
async fn firsts(pool: &MySqlPool, partition: Partition, letters: &[String]) -> Result<Vec<(TaskId, u64)>, sqlx::Error> {
    let rows: Vec<(u64, String)> = sqlx::query_as(
        "SELECT t.id, t.task_id FROM JSON_TABLE(?, '$[*]' COLUMNS (
            task_id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PATH '$')) wanted
        STRAIGHT_JOIN analysis_tasks t ON t.task_id = wanted.task_id",
    )
    .bind(serde_json::json!(letters).to_string())
    .fetch_all(pool)
    .await?;
    let of_partition = rows.into_iter().filter_map(|(id, task)| {
        let first = position_of_row(id);
        Some((task.parse().ok()?, first.n)).filter(|_| first.partition == partition)
    });
    Ok(of_partition.collect())
}
