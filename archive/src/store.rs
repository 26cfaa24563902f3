//! Where segments lie: `<place>/<key prefix>/<partition>/<first number>-<last number>.seg`, numbers with twenty digits, so
//! that a listing is in the journal's order.
//!
//! A segment is written once. Who finds one under the name of its own compares events, not bytes: two writers, or a writer
//! that died and came back, make the same segment; one with other events under these numbers is refused.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use insightforge_schema::id::Partition;
use insightforge_schema::journal::Entry;
use lru::LruCache;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::sync::Mutex;

use crate::segment::{self, Corrupt, Head, PROLOGUE};

/// One request to the object store; its client repeats within that.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is read first of a segment: its head, unless the segment has very many blocks.
const FIRST_READ: u64 = 16 << 10;
/// Heads and unpacked blocks that are remembered. Neighbours are asked for one after another, and so are a task's events.
const HEADS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
const BLOCKS: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// A larger block is not remembered.
const BLOCK_MOST: u32 = 1 << 20;
const SUFFIX: &str = ".seg";

/// The archive of one installation. Cheap to clone.
#[derive(Clone)]
pub struct Archive(Arc<Shared>);

struct Shared {
    objects: Box<dyn ObjectStore>,
    /// Place and key prefix.
    root: Path,
    prefix: String,
    /// For people; without what may be secret.
    name: String,
    seen: Mutex<Seen>,
}

/// What is known of the objects; they never change.
struct Seen {
    /// Last number by first number, a partition.
    listed: HashMap<Partition, BTreeMap<u64, u64>>,
    heads: LruCache<Name, Arc<Indexed>>,
    blocks: LruCache<(Name, usize), Arc<Vec<Entry>>>,
}

struct Indexed {
    head: Head,
    /// Where the blocks begin.
    blocks_at: u64,
}

/// A segment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    pub partition: Partition,
    pub first: u64,
    pub last: u64,
}

/// What came of writing a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    Written,
    /// It was there, with the same events.
    WasThere,
}

/// Why the archive did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive at {place}: {error}")]
    Objects { place: String, error: object_store::Error },
    #[error("the archive at {place} does not answer")]
    Silent { place: String },
    #[error("{object} in the archive at {place} cannot be used: {what}")]
    Corrupt { place: String, object: String, what: String },
    #[error(
        "{object} in the archive at {place} holds other events than the journal under the same numbers: \
         it belongs to another installation, or the journal lost its end and went on"
    )]
    Other { place: String, object: String },
}

impl Archive {
    /// The archive of the installation with this key prefix, in `objects` below `root`; `name` is for people.
    #[must_use]
    pub fn new(objects: Box<dyn ObjectStore>, root: &Path, prefix: &str, name: String) -> Self {
        let seen = Seen { listed: HashMap::new(), heads: LruCache::new(HEADS), blocks: LruCache::new(BLOCKS) };
        let root = root.clone().join(prefix);
        Self(Arc::new(Shared { objects, root, prefix: prefix.to_owned(), name, seen: Mutex::new(seen) }))
    }

    /// Where it is, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The entries from number `from` on, up to `to`: those of the block in which `from` stands, so at least that one.
    /// Empty when no segment has it.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn read(&self, partition: Partition, from: u64, to: u64) -> Result<Vec<Entry>, ArchiveError> {
        // A segment can go between a listing and a read, when two writers wrote overlapping ones: looked for once more.
        for look_again in [true, false] {
            let Some(name) = self.find(partition, from).await? else { return Ok(Vec::new()) };
            match self.read_from(name, from).await {
                Err(ArchiveError::Objects { error: object_store::Error::NotFound { .. }, .. }) if look_again => {
                    self.0.seen.lock().await.listed.remove(&partition);
                }
                Err(error) => return Err(error),
                Ok(block) => {
                    let wanted = |entry: &&Entry| entry.n().is_some_and(|n| n >= from && n <= to);
                    return Ok(block.iter().filter(wanted).cloned().collect());
                }
            }
        }
        Ok(Vec::new())
    }

    async fn read_from(&self, name: Name, n: u64) -> Result<Arc<Vec<Entry>>, ArchiveError> {
        let indexed = self.head(name).await?;
        let index = indexed.head.block_of(n).ok_or_else(|| self.corrupt(name, "an event is not in its index"))?;
        if let Some(block) = self.0.seen.lock().await.blocks.get(&(name, index)) {
            return Ok(block.clone());
        }
        let block = &indexed.head.blocks[index];
        let from = indexed.blocks_at + block.offset;
        let bytes = self.get_range(name, from..from + u64::from(block.length)).await?;
        let entries = segment::read_block(block, &bytes).map_err(|Corrupt(what)| self.corrupt(name, &what))?;
        let entries = Arc::new(entries);
        if block.raw <= BLOCK_MOST {
            self.0.seen.lock().await.blocks.put((name, index), entries.clone());
        }
        Ok(entries)
    }

    async fn head(&self, name: Name) -> Result<Arc<Indexed>, ArchiveError> {
        if let Some(head) = self.0.seen.lock().await.heads.get(&name) {
            return Ok(head.clone());
        }
        let corrupt = |Corrupt(what)| self.corrupt(name, &what);
        let mut bytes = self.get_range(name, 0..FIRST_READ).await?;
        let end = PROLOGUE + segment::head_length(&bytes).map_err(corrupt)?;
        if bytes.len() < end {
            bytes = self.get_range(name, 0..end as u64).await?;
        }
        let head = segment::read_head(&bytes).map_err(corrupt)?;
        self.check(name, &head)?;
        let indexed = Arc::new(Indexed { head, blocks_at: end as u64 });
        self.0.seen.lock().await.heads.put(name, indexed.clone());
        Ok(indexed)
    }

    /// Whether a head is what the name says.
    fn check(&self, name: Name, head: &Head) -> Result<(), ArchiveError> {
        let named = (self.0.prefix.as_str(), name.partition.0, name.first, name.last);
        if (head.prefix.as_str(), head.partition, head.first, head.last) != named {
            return Err(self.corrupt(name, "its content is of another place in the journal than its name"));
        }
        Ok(())
    }

    /// The segment in which an event stands.
    async fn find(&self, partition: Partition, n: u64) -> Result<Option<Name>, ArchiveError> {
        let known = {
            let mut seen = self.0.seen.lock().await;
            let listed = seen.listed.entry(partition).or_default();
            if let Some(name) = covering(partition, listed, n) {
                return Ok(Some(name));
            }
            listed.last_key_value().map(|(first, last)| Name { partition, first: *first, last: *last })
        };
        // What was written since stands behind what is known. Others go on reading meanwhile.
        let found = self.list(partition, known).await?;
        let mut seen = self.0.seen.lock().await;
        let listed = seen.listed.entry(partition).or_default();
        add(listed, &found);
        Ok(covering(partition, listed, n))
    }

    /// First and last numbers of the segments, or of those behind one that is known.
    async fn list(&self, partition: Partition, known: Option<Name>) -> Result<Vec<(u64, u64)>, ArchiveError> {
        let folder = self.folder(partition);
        let objects = async {
            let objects = match known {
                Some(known) => self.0.objects.list_with_offset(Some(&folder), &self.location(known)),
                None => self.0.objects.list(Some(&folder)),
            };
            objects.try_collect::<Vec<_>>().await
        };
        let objects = self.patiently(objects).await?;
        Ok(objects.iter().filter_map(|object| object.location.filename().and_then(numbers)).collect())
    }

    /// All segments of a partition by their names, as they are there now.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn segments(&self, partition: Partition) -> Result<Vec<Name>, ArchiveError> {
        let mut listed = BTreeMap::new();
        add(&mut listed, &self.list(partition, None).await?);
        let names = listed.iter().map(|(first, last)| Name { partition, first: *first, last: *last }).collect();
        self.0.seen.lock().await.listed.insert(partition, listed);
        Ok(names)
    }

    /// The smallest number from which on the archive has every event up to `upto`; `upto + 1` when it lacks that one.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn reaches_back(&self, partition: Partition, upto: u64) -> Result<u64, ArchiveError> {
        let segments = self.segments(partition).await?;
        Ok(reach(&segments, upto))
    }

    /// Writes a segment, and proves by reading it that it is there.
    ///
    /// # Errors
    /// [`ArchiveError`]; the segment may be there or not.
    pub async fn put(&self, partition: Partition, entries: &[Entry]) -> Result<Put, ArchiveError> {
        let numbers = entries.first().and_then(Entry::n).zip(entries.last().and_then(Entry::n));
        let (first, last) = numbers.unwrap_or_default();
        let name = Name { partition, first, last };
        let bytes = segment::encode(&self.0.prefix, partition, entries);
        let bytes = Bytes::from(bytes.map_err(|Corrupt(what)| self.corrupt(name, &what))?);
        if let Some(found) = self.get(name).await? {
            return self.compare(name, entries, &found);
        }
        let location = self.location(name);
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.patiently(self.0.objects.put_opts(&location, bytes.clone().into(), create)).await {
            Ok(_) => {}
            Err(ArchiveError::Objects { error: object_store::Error::AlreadyExists { .. }, .. }) => {}
            // A store without conditions: whoever writes under this name writes the same events.
            Err(ArchiveError::Objects {
                error: object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                ..
            }) => {
                self.patiently(self.0.objects.put(&location, bytes.clone().into())).await?;
            }
            Err(error) => return Err(error),
        }
        match self.get(name).await? {
            Some(found) if found == bytes => Ok(Put::Written),
            Some(found) => self.compare(name, entries, &found),
            None => Err(self.corrupt(name, "it is not there after it was written")),
        }
    }

    fn compare(&self, name: Name, entries: &[Entry], found: &[u8]) -> Result<Put, ArchiveError> {
        let (head, found) = segment::decode(found).map_err(|Corrupt(what)| self.corrupt(name, &what))?;
        self.check(name, &head)?;
        if found != entries {
            return Err(ArchiveError::Other { place: self.0.name.clone(), object: self.location(name).to_string() });
        }
        Ok(Put::WasThere)
    }

    async fn get(&self, name: Name) -> Result<Option<Bytes>, ArchiveError> {
        let location = self.location(name);
        let content = async { self.0.objects.get(&location).await?.bytes().await };
        match self.patiently(content).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ArchiveError::Objects { error: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_range(&self, name: Name, range: Range<u64>) -> Result<Bytes, ArchiveError> {
        let location = self.location(name);
        self.patiently(self.0.objects.get_range(&location, range)).await
    }

    async fn patiently<T>(&self, asked: impl Future<Output = object_store::Result<T>>) -> Result<T, ArchiveError> {
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error| ArchiveError::Objects { place: self.0.name.clone(), error }),
            Err(_) => Err(ArchiveError::Silent { place: self.0.name.clone() }),
        }
    }

    fn corrupt(&self, name: Name, what: &str) -> ArchiveError {
        let (place, object) = (self.0.name.clone(), self.location(name).to_string());
        ArchiveError::Corrupt { place, object, what: what.to_owned() }
    }

    fn folder(&self, partition: Partition) -> Path {
        self.0.root.clone().join(partition.to_string())
    }

    fn location(&self, name: Name) -> Path {
        self.folder(name.partition).join(format!("{:020}-{:020}{SUFFIX}", name.first, name.last))
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({})", self.0.name)
    }
}

/// First and last number in an object's name; `None` for what is no segment.
fn numbers(file: &str) -> Option<(u64, u64)> {
    let (first, last) = file.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |text: &str| (text.len() == 20).then(|| text.parse().ok()).flatten();
    let (first, last) = (number(first)?, number(last)?);
    (first > 0 && first <= last).then_some((first, last))
}

/// Of two that begin alike, the longer one counts.
fn add(listed: &mut BTreeMap<u64, u64>, found: &[(u64, u64)]) {
    for (first, last) in found {
        let longest = listed.entry(*first).or_insert(*last);
        *longest = (*last).max(*longest);
    }
}

fn covering(partition: Partition, listed: &BTreeMap<u64, u64>, n: u64) -> Option<Name> {
    // Segments overlap at most where two writers met; the one that begins last is nearly always it.
    let mut before = listed.range(..=n).rev();
    before.find(|(_, last)| **last >= n).map(|(first, last)| Name { partition, first: *first, last: *last })
}

fn reach(segments: &[Name], upto: u64) -> u64 {
    let mut from = upto + 1;
    // In the order of their beginnings, the last first: one that ends before `from` leaves a gap that none before it fills
    // unless it is longer.
    for segment in segments.iter().rev() {
        if segment.first < from && segment.last + 1 >= from {
            from = segment.first;
        }
    }
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_read_as_such() {
        let name = |first: u64, last: u64| format!("{first:020}-{last:020}.seg");
        assert_eq!(numbers(&name(1, 20)), Some((1, 20)));
        let bad = ["", ".seg", "1-2.seg", "x", "00000000000000000001-0000000000000000002x.seg"];
        for bad in bad.into_iter().map(str::to_owned).chain([name(0, 3), name(5, 4), name(1, 2) + "#1"]) {
            assert_eq!(numbers(&bad), None, "{bad}");
        }
    }

    #[test]
    fn how_far_back_segments_reach_ends_at_the_first_gap() {
        let segments = |all: &[(u64, u64)]| -> Vec<Name> {
            all.iter().map(|(first, last)| Name { partition: Partition(0), first: *first, last: *last }).collect()
        };
        for (all, upto, from) in [
            (&[(1, 10), (11, 20), (21, 30)][..], 30, 1),
            (&[(1, 10), (11, 20), (21, 30)], 25, 1),
            (&[(1, 10), (21, 30)], 30, 21),
            (&[(1, 10), (11, 20)], 30, 31),
            (&[(1, 10), (11, 15), (11, 25), (26, 30)], 30, 1),
            (&[(1, 40), (11, 15)], 30, 1),
            (&[], 7, 8),
        ] {
            assert_eq!(reach(&segments(all), upto), from, "{all:?} {upto}");
        }
    }
}
