//! The next stretch of a partition's stream that may go.

use insightforge_schema::fail::{self, Step as FailStep};
use insightforge_schema::id::{MAX_PARTITIONS, Partition, TaskId, position_of_row};
use insightforge_schema::journal;
use insightforge_schema::trim::{self, Trim, Trimmed};

use super::{ArchivingError, Archivist, Step};

/// Events of one call: Redis serves nobody else meanwhile.
const STRETCH: u64 = 5_000;
/// Tasks of one call whose `submitted` events are carried over into their records.
const OPEN: usize = 500;
/// Fewer events are left for later, unless little is kept at all.
const WORTH: u64 = 1_000;

impl Archivist {
    pub(super) async fn trim_next(
        &self,
        partition: Partition,
        mark: u64,
        folded: u64,
    ) -> Result<Option<Step>, ArchivingError> {
        let (link, keys) = (&self.journal.link, &self.journal.keys);
        let Some(begins) = journal::first_number(link, keys, partition).await? else { return Ok(None) };
        let ends = journal::last_number(link, keys, partition).await?;
        let keep = self.retention.keep.max(1);
        // The last event in the tables stays: by it a projector sees that the journal is still the one it has folded.
        let bound = mark.min(folded.saturating_sub(1)).min(ends.saturating_sub(keep));
        if bound < begins || bound + 1 - begins < WORTH.min(keep / 10).max(1) {
            return Ok(None);
        }
        let mut upto = bound.min(begins + STRETCH - 1);
        let mut open = self.open_tasks(partition, begins, upto).await?;
        if open.len() > OPEN {
            open.truncate(OPEN);
            upto = open.last().map_or(upto, |(_, first)| *first);
        }
        let wanted = Trim { upto, folded, keep, open: &open };
        let trimmed = trim::trim(link, keys, partition, &wanted).await?;
        fail::reached(FailStep::ArchiveTrimmed);
        match trimmed {
            Trimmed::Done(events) => Ok(Some(Step::Trimmed { partition, upto, events })),
            // Somebody moved the mark back or took it away since it was read.
            Trimmed::Unmarked | Trimmed::Beyond(_) => Ok(None),
        }
    }

    /// Tasks submitted in a stretch that the tables do not know to be over; in order, at most one more than [`OPEN`]. The
    /// stretch is folded, so every task has a row, or its `submitted` event is a fault: its id has another row.
    async fn open_tasks(
        &self,
        partition: Partition,
        first: u64,
        last: u64,
    ) -> Result<Vec<(TaskId, u64)>, ArchivingError> {
        let key = |n: u64| n * u64::from(MAX_PARTITIONS);
        let rows: Vec<(u64, String)> = sqlx::query_as(
            "SELECT id, task_id FROM analysis_tasks FORCE INDEX (PRIMARY)
            WHERE id >= ? AND id < ? AND id % 1024 = ? AND status IN ('pending', 'processing')
            UNION ALL
            SELECT id, task_id FROM projection_faults
            WHERE id >= ? AND id < ? AND id % 1024 = ? AND event_type = 'submitted'
            ORDER BY id LIMIT ?",
        )
        .bind(key(first))
        .bind(key(last + 1))
        .bind(partition.0)
        .bind(key(first))
        .bind(key(last + 1))
        .bind(partition.0)
        .bind(OPEN as u64 + 1)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().filter_map(|(id, task)| Some((task.parse().ok()?, position_of_row(id).n))).collect())
    }
}
