//! The next segment of a partition: read, written, proven, marked.

use insightforge_archive::Journal;
use insightforge_schema::fail::{self, Step as FailStep};
use insightforge_schema::id::Partition;
use insightforge_schema::journal::{self, Entry};
use insightforge_schema::trim;

use super::{ArchivingError, Archivist, Step};

/// Entries asked for at once.
const PAGE: usize = 1_000;

impl Archivist {
    /// The last event that is archived. Where nothing says so, or the archive is not what the mark says of it, what is there
    /// is found out, and the mark set by it.
    pub(super) async fn mark(&mut self, partition: Partition) -> Result<u64, ArchivingError> {
        let (link, keys) = (&self.journal.link, &self.journal.keys);
        let mark = trim::mark(link, keys, partition).await?;
        let proven_here = &mut self.proven[usize::from(partition.0)];
        if let Some(mark) = mark
            && *proven_here == Some(mark)
        {
            return Ok(mark);
        }
        // What the stream has is archived from the stream, whatever lies in the archive: those may be other events.
        let begins = journal::first_number(link, keys, partition).await?.unwrap_or(1);
        let reaches_back = self.archive.reaches_back(partition, begins - 1).await?;
        if reaches_back > 1 {
            let place = self.archive.name().to_owned();
            return Err(ArchivingError::Lost { partition, from: 1, to: reaches_back - 1, place });
        }
        let segments = self.archive.segments(partition).await?;
        let proven = mark.unwrap_or(0);
        // The mark is believed as far as the archive still has everything below it.
        let believed = if self.archive.reaches_back(partition, proven).await? <= 1 {
            proven
        } else {
            segments.iter().map(|segment| segment.last).filter(|last| *last < begins).max().unwrap_or(0)
        };
        if mark != Some(believed) {
            if mark.is_none() && believed == 0 {
                tracing::info!(%partition, "the journal's archive begins");
            } else {
                tracing::warn!(%partition, ?mark, believed, "the archive's mark is set by what the archive holds");
            }
            trim::move_mark(link, keys, partition, mark, believed).await?;
        }
        *proven_here = Some(believed);
        // Read again: another projector may have been faster.
        Ok(trim::mark(link, keys, partition).await?.unwrap_or(0).min(believed))
    }

    /// Archives the next segment, once there are events enough.
    pub(super) async fn archive_next(
        &mut self,
        partition: Partition,
        mark: u64,
        folded: u64,
    ) -> Result<Option<Step>, ArchivingError> {
        if folded < mark.saturating_add(self.retention.segment_events) {
            return Ok(None);
        }
        let entries = self.next_segment(partition, mark + 1).await?;
        let (Some(first), Some(last)) = (entries.first().and_then(Entry::n), entries.last().and_then(Entry::n)) else {
            return Ok(None);
        };
        self.archive.put(partition, &entries).await?;
        fail::reached(FailStep::ArchiveWritten);
        let (link, keys) = (&self.journal.link, &self.journal.keys);
        let moved = trim::move_mark(link, keys, partition, Some(mark), last).await?;
        fail::reached(FailStep::ArchiveMarked);
        if moved {
            self.proven[usize::from(partition.0)] = Some(last);
            Ok(Some(Step::Archived { partition, first, last }))
        } else {
            Ok(Some(Step::Overtaken { partition }))
        }
    }

    /// The entries of a segment that begins at `first`. Where it ends depends on nothing but the events, so that whoever
    /// begins there makes the same segment.
    async fn next_segment(&self, partition: Partition, first: u64) -> Result<Vec<Entry>, ArchivingError> {
        let most = usize::try_from(self.retention.segment_events).unwrap_or(usize::MAX);
        let journal: &Journal = &self.journal;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < most && bytes < self.retention.segment_bytes {
            let room = PAGE.min(most - entries.len());
            let left = self.retention.segment_bytes - bytes;
            let (page, _) = journal.entries(partition, first + entries.len() as u64, room, left).await?;
            if page.is_empty() {
                break;
            }
            for entry in page {
                if bytes >= self.retention.segment_bytes {
                    break;
                }
                bytes += entry.size();
                entries.push(entry);
            }
        }
        Ok(entries)
    }
}
