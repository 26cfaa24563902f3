//! The journal from its beginning, in windows: from every partition the same stretch of numbers, so that rows come out in the order of their
//! keys and indexes grow at their end.

use std::ops::RangeInclusive;

use futures_util::future::try_join_all;
use insightforge_archive::{Journal, ReadError};
use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::{Partition, PartitionCount};

/// Events of a window, over all partitions.
const WINDOW: u64 = 8_000;
/// Text of a window, in bytes; a window ends early when its documents are large.
const WINDOW_BYTES: usize = 8 << 20;
/// Entries asked for at once: few enough that Redis serves others in between.
const PAGE: usize = 256;
/// Partitions read at once.
const READS: usize = 8;

/// Reads the journal of all partitions.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) journal: Journal,
    pub(crate) partitions: PartitionCount,
}

/// Why the journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    #[error("the journal could not be read: {0}")]
    Journal(#[from] ReadError),
    #[error("event {missing} of partition {partition} is not in the journal any more: it was trimmed or lost")]
    Gap { partition: Partition, missing: u64 },
}

/// A stretch of the journal.
#[derive(Debug)]
pub(crate) struct Window {
    /// In the order of their row ids: in each partition without a gap.
    pub(crate) events: Vec<Event>,
    /// Last number of every partition after the window.
    pub(crate) upto: Vec<u64>,
}

impl Reader {
    /// The window that follows `after`, never beyond `target`; `None` when `target` is reached.
    ///
    /// # Errors
    /// [`WindowError::Journal`], [`WindowError::Gap`].
    pub(crate) async fn window(&self, after: &[u64], target: &[u64]) -> Result<Option<Window>, WindowError> {
        let behind = |(after, target): (&u64, &u64)| (after < target).then_some(*after);
        let Some(low) = after.iter().zip(target).filter_map(behind).min() else { return Ok(None) };
        let high = low + (WINDOW / u64::from(self.partitions.get())).max(1);
        let share = WINDOW_BYTES / usize::from(self.partitions.get());
        let mut parts: Vec<Vec<Event>> = Vec::with_capacity(after.len());
        let wanted: Vec<_> = self.partitions.iter().zip(after.iter().zip(target)).collect();
        for some in wanted.chunks(READS) {
            let reads = some
                .iter()
                .map(|&(partition, (&after, &target))| self.stretch(partition, after + 1..=target.min(high), share));
            parts.extend(try_join_all(reads).await?);
        }
        let mut upto = after.to_vec();
        for (upto, part) in upto.iter_mut().zip(&parts) {
            *upto = part.last().map_or(*upto, |event| event.position.n);
        }
        let mut events: Vec<Event> = parts.into_iter().flatten().collect();
        events.sort_by_key(|event| event.position.row_id());
        Ok(Some(Window { events, upto }))
    }

    /// The events of one partition, fewer when they are large, at least one.
    async fn stretch(
        &self,
        partition: Partition,
        range: RangeInclusive<u64>,
        most_bytes: usize,
    ) -> Result<Vec<Event>, WindowError> {
        let (mut next, end) = range.into_inner();
        let (mut events, mut bytes) = (Vec::new(), 0);
        while next <= end && bytes < most_bytes {
            let page = self.journal.range(partition, next, Some(end), PAGE).await?;
            if page.is_empty() {
                return Err(WindowError::Gap { partition, missing: next });
            }
            for event in page {
                if event.position.n != next {
                    return Err(WindowError::Gap { partition, missing: next });
                }
                bytes += weight(&event);
                next += 1;
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// About how much memory an event takes.
fn weight(event: &Event) -> usize {
    let documents = match &event.change {
        Change::Submitted(submitted) => submitted.data.len(),
        Change::Completed(completed) => completed.result.len(),
        Change::Shadowed(shadowed) => shadowed.result.as_ref().map_or(0, String::len),
        _ => 0,
    };
    256 + documents
}
