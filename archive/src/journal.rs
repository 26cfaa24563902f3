//! Events by number, wherever they are. What a partition's stream has lost at its beginning is taken from the archive;
//! what neither has is an error that names the missing numbers, never a silent gap.
//!
//! The stream is always asked first: an event is trimmed only after it is proven to be in the archive, so what a trim takes
//! between the two questions is found by the second.

use insightforge_schema::event::Event;
use insightforge_schema::id::Partition;
use insightforge_schema::journal::{self, Entry, read_entry};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};

use crate::store::{Archive, ArchiveError};

/// The journal with all of its past. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    pub link: Link,
    pub keys: Keys,
    /// `None`: there is no archive, and nothing is ever trimmed.
    pub archive: Option<Archive>,
}

/// Events that follow each other without a gap.
#[derive(Debug)]
pub struct Run {
    pub events: Vec<Event>,
    /// There was nothing behind them.
    pub end: bool,
}

/// Why events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("events {from} to {to} of partition {partition} are neither in the journal's stream nor in {archive}")]
    Missing {
        partition: Partition,
        from: u64,
        to: u64,
        /// Where they were looked for.
        archive: String,
    },
}

impl Journal {
    /// Events with `from <= n <= to`, in order, `limit` at most. Fewer only when the journal ends.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn range(
        &self,
        partition: Partition,
        from: u64,
        to: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Event>, ReadError> {
        let mut events: Vec<Event> = Vec::new();
        let mut next = from.max(1);
        while events.len() < limit && to.is_none_or(|to| next <= to) {
            let room = limit - events.len();
            let mut entries = journal::entries(&self.link, &self.keys, partition, next, to, room).await?;
            let mut end = entries.len() < room;
            if entries.first().and_then(Entry::n) != Some(next) {
                (entries, end) =
                    (self.before(partition, next, to, room, entries.first().and_then(Entry::n)).await?, false);
                if entries.is_empty() {
                    break;
                }
            }
            next = self.take_in(partition, next, &entries, &mut events)?;
            if end {
                break;
            }
        }
        Ok(events)
    }

    /// Events from `from` on, in order: `limit` at most, and no more once they have `bytes` bytes together. For readers
    /// that hold what they read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn run(&self, partition: Partition, from: u64, limit: usize, bytes: usize) -> Result<Run, ReadError> {
        let mut events = Vec::new();
        let end = self.entries(partition, from, limit, bytes).await?;
        let (entries, end) = end;
        self.take_in(partition, from.max(1), &entries, &mut events)?;
        Ok(Run { events, end })
    }

    /// The same as they stand in the stream, and whether there was nothing behind them.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn entries(
        &self,
        partition: Partition,
        from: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<(Vec<Entry>, bool), ReadError> {
        let from = from.max(1);
        let (entries, end) = journal::run(&self.link, &self.keys, partition, from, limit, bytes).await?;
        let begins = entries.first().and_then(Entry::n);
        if begins == Some(from) {
            return Ok((entries, end));
        }
        let mut earlier = self.before(partition, from, None, limit, begins).await?;
        let end = earlier.is_empty();
        let mut sum = 0;
        let fitting = earlier.iter().take_while(|entry| {
            let fits = sum < bytes;
            sum += entry.size();
            fits
        });
        let fitting = fitting.count();
        earlier.truncate(fitting);
        Ok((earlier, end))
    }

    /// The number of the last event of a partition; 0 when there is none.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn last_number(&self, partition: Partition) -> Result<u64, LinkError> {
        journal::last_number(&self.link, &self.keys, partition).await
    }

    /// The number of the first event from which on everything can be read: 1 unless events are missing.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn begins(&self, partition: Partition) -> Result<u64, ReadError> {
        let begins = journal::first_number(&self.link, &self.keys, partition).await?.unwrap_or(1);
        match &self.archive {
            Some(archive) if begins > 1 => Ok(archive.reaches_back(partition, begins - 1).await?),
            _ => Ok(begins),
        }
    }

    /// The number of the first event of a partition that happened at or after `at_us`: a binary search by position, since
    /// stream ids carry no time. Event times are nearly in order; a reader filters the rest. Past the end when none is.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn number_at(&self, partition: Partition, at_us: i64) -> Result<u64, ReadError> {
        let mut high = self.last_number(partition).await? + 1;
        let mut low = journal::first_number(&self.link, &self.keys, partition).await?.unwrap_or(1);
        // Older events are asked for only when the stream begins too late.
        if low > 1 && self.range(partition, low, None, 1).await?.first().is_some_and(|event| event.meta.at_us >= at_us)
        {
            (low, high) = (self.begins(partition).await?, low);
        }
        while low < high {
            let middle = u64::midpoint(low, high);
            match self.range(partition, middle, None, 1).await?.first() {
                Some(event) if event.meta.at_us < at_us => low = event.position.n + 1,
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// Entries from `next` on that the stream does not have any more; empty when the journal ends before `next`. `begins` is
    /// the first number that the stream gave in their place.
    async fn before(
        &self,
        partition: Partition,
        next: u64,
        to: Option<u64>,
        room: usize,
        begins: Option<u64>,
    ) -> Result<Vec<Entry>, ReadError> {
        let begins = match begins {
            Some(begins) => Some(begins),
            None => journal::first_number(&self.link, &self.keys, partition).await?,
        };
        // An empty stream says nothing of how far the journal went.
        let upto = begins.map_or(u64::MAX, |begins| begins - 1);
        if next > upto {
            return Ok(Vec::new());
        }
        let upto = to.map_or(upto, |to| to.min(upto));
        let mut entries = match &self.archive {
            Some(archive) => archive.read(partition, next, upto).await?,
            None => Vec::new(),
        };
        if entries.is_empty() && begins.is_some() {
            let archive = match &self.archive {
                Some(archive) => format!("the archive at {}", archive.name()),
                None => "an archive: INSIGHTFORGE_ARCHIVE names none".to_owned(),
            };
            return Err(ReadError::Missing { partition, from: next, to: upto, archive });
        }
        entries.truncate(room);
        Ok(entries)
    }

    /// Decodes entries that should begin at `next`; the number that follows them.
    fn take_in(
        &self,
        partition: Partition,
        mut next: u64,
        entries: &[Entry],
        events: &mut Vec<Event>,
    ) -> Result<u64, ReadError> {
        events.reserve(entries.len());
        for entry in entries {
            let n = entry.n().unwrap_or(0);
            if n != next {
                let archive = "the archive, although what lies around them is".to_owned();
                return Err(ReadError::Missing { partition, from: next, to: n.saturating_sub(1).max(next), archive });
            }
            events.push(read_entry(partition, entry));
            next += 1;
        }
        Ok(next)
    }
}
