//! The journal's beginning leaves Redis: first into the archive, proven by reading it back, then out of the stream.
//!
//! 1. [`segment`] – what is folded and not archived yet becomes an object, and then the mark moves.
//! 2. [`trim`] – what is archived, folded, and more than is kept goes from the stream.
//!
//! Between any two steps the process may die, and two projectors may do this at once: an object is written once and holds
//! the same events whoever writes it, the mark moves by compare-and-set and only behind a proven object, and the script
//! that trims looks at the mark itself.

mod segment;
mod trim;

use std::time::Duration;

use insightforge_archive::{Archive, ArchiveError, Journal, ReadError};
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::link::LinkError;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

use crate::checkpoint;
use crate::measure;
use crate::project::has_moved_back;

/// Between two looks when nothing was to be done, and after a failure.
const IDLE: Duration = Duration::from_secs(2);
const AFTER_FAILURE: Duration = Duration::from_secs(15);

/// How much of the journal stays in Redis, and how it is cut. Plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events of a partition that stay in Redis at least.
    pub keep: u64,
    /// Events of a segment at most.
    pub segment_events: u64,
    /// Bytes of its events after which a segment takes no more.
    pub segment_bytes: usize,
}

impl Retention {
    /// Keeps so many events of a partition; segments are a small part of that.
    #[must_use]
    pub fn keeping(keep: u64) -> Self {
        Self { keep, segment_events: (keep / 4).clamp(1, 10_000), segment_bytes: 8 << 20 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::keeping(50_000)
    }
}

/// Archives and trims, step by step.
pub struct Archivist {
    journal: Journal,
    archive: Archive,
    pool: MySqlPool,
    partitions: PartitionCount,
    retention: Retention,
    /// The mark of each partition up to which this archive is known to hold everything. Another one was set by another
    /// projector, perhaps with another archive.
    proven: Vec<Option<u64>>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// These events are in the archive, and the mark says so.
    Archived {
        partition: Partition,
        first: u64,
        last: u64,
    },
    /// The mark was moved by another projector meanwhile.
    Overtaken {
        partition: Partition,
    },
    /// So many events went from the stream, up to that number.
    Trimmed {
        partition: Partition,
        upto: u64,
        events: u64,
    },
    Idle,
}

/// Why a step came to nothing; nothing was trimmed that is not archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchivingError {
    #[error("the journal: {0}")]
    Journal(#[from] ReadError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("Redis: {0}")]
    Link(#[from] LinkError),
    #[error("the tables: {0}")]
    Tables(#[from] sqlx::Error),
    #[error(
        "events {from} to {to} of partition {partition} are neither in the stream nor in the archive at {place}: nothing is \
         archived or trimmed until it holds them (is it another place than before?)"
    )]
    Lost { partition: Partition, from: u64, to: u64, place: String },
    #[error(
        "partition {partition} ends at event {ends} and the tables contain event {folded}, or the event under that number is \
         another: Redis lost its end, and two histories must not meet in one archive"
    )]
    MovedBack { partition: Partition, folded: u64, ends: u64 },
}

impl Archivist {
    /// `None` without an archive: then nothing is ever trimmed.
    #[must_use]
    pub fn new(config: &crate::Config, deps: &crate::Deps) -> Option<Self> {
        let archive = deps.archive.clone()?;
        Some(Self {
            journal: deps.journal(),
            archive,
            pool: deps.pool.clone(),
            partitions: config.partitions,
            retention: config.upkeep.journal,
            proven: vec![None; usize::from(config.partitions.get())],
        })
    }

    /// Archives one segment or trims one stretch, of the first partition that has any. What is wrong with one partition
    /// does not keep the others.
    ///
    /// # Errors
    /// [`ArchivingError`]; everything is as it was, or the next step finds what this one did.
    pub async fn step(&mut self) -> Result<Step, ArchivingError> {
        let folded = checkpoint::lowest(&self.pool, self.partitions).await?;
        let moments = checkpoint::moments(&self.pool).await?;
        let mut outcome = Ok(Step::Idle);
        for (partition, folded) in self.partitions.iter().zip(folded) {
            let Some(folded) = folded else { continue };
            let moment = moments.iter().find(|(of, ..)| *of == partition).map(|(_, n, at_us)| (*n, *at_us));
            match self.step_in(partition, folded, moment).await {
                Ok(Step::Idle) => {}
                Ok(step) => return Ok(step),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    async fn step_in(
        &mut self,
        partition: Partition,
        folded: u64,
        moment: Option<(u64, i64)>,
    ) -> Result<Step, ArchivingError> {
        if let Some((last, at_us)) = moment {
            let Journal { link, keys, .. } = &self.journal;
            let (ends, moved_back) = has_moved_back(link, keys, partition, last, at_us).await?;
            if moved_back {
                return Err(ArchivingError::MovedBack { partition, folded: last, ends });
            }
        }
        let mark = self.mark(partition).await?;
        measure::archive(partition, mark, folded);
        if let Some(step) = self.archive_next(partition, mark, folded).await? {
            return Ok(step);
        }
        Ok(self.trim_next(partition, mark, folded).await?.unwrap_or(Step::Idle))
    }

    /// Steps until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tracing::info!(archive = self.archive.name(), keep = self.retention.keep, "the journal is archived");
        loop {
            // A step that is cut off leaves what a crash would leave.
            let Some(outcome) = shutdown.run_until_cancelled(self.step()).await else { return };
            let pause = match outcome {
                Ok(Step::Idle) => IDLE,
                Ok(step) => {
                    tracing::debug!(?step, "archiving");
                    measure::archived(step);
                    continue;
                }
                Err(error) => {
                    measure::archiving_failed();
                    tracing::error!(%error, "the journal cannot be archived; trying again, nothing is trimmed meanwhile");
                    AFTER_FAILURE
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}
