//! The journals of all partitions as they grow: from one server by one blocking read of all of them, which was measured to
//! be fast; from a cluster by one of each partition, since no command may touch two slots.
//!
//! In a cluster a partition whose server is away is late alone: the others are read on meanwhile, and it is tried again.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::id::{Partition, PartitionCount, stream_id};
use crate::journal::{Entries, Entry, read_streams};
use crate::keys::Keys;
use crate::link::{BlockingReader, Link, LinkError};
use crate::script::RANGE;

/// Beyond the time that a read may wait the server is gone without a word.
const SILENCE: Duration = Duration::from_secs(5);
/// What a blocking read asks of each partition. Nothing bounds the bytes of such a read, and an event can carry a large
/// document; what is behind is read by a script that ends with the entry that fills its share of [`BYTES`].
const FIRST: usize = 8;
const BYTES: usize = 16 << 20;
/// After a read of one partition that failed: doubling from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What comes after the numbers that one has.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// New entries, at most once a partition; all of them empty when there was nothing new in time.
    pub entries: Vec<(Partition, Entries)>,
    /// Partitions that end before what one has, or hold something else there, with the number they end at: a server was lost
    /// that had not given everything to the one that took its place. Whoever reads on misses events.
    pub moved_back: Vec<(Partition, u64)>,
    /// Whether some partition may have more, to be had at once.
    pub more: bool,
}

/// One reader of all partitions.
pub struct Follower {
    link: Link,
    keys: Keys,
    only_confirmed: bool,
    parts: Vec<Part>,
    reads: JoinSet<Read>,
}

/// What is read by one command: the partitions of a server, or one of a cluster.
struct Part {
    partitions: Vec<Partition>,
    /// `None` while a read is under way.
    reader: Option<BlockingReader>,
    /// Number and digest of the last entry seen of each partition.
    last: Vec<Option<(u64, u64)>>,
    pause: Duration,
    failed: bool,
}

/// A read that has ended.
struct Read {
    part: usize,
    reader: BlockingReader,
    outcome: Result<Followed, RedisError>,
}

impl Follower {
    #[must_use]
    pub fn new(link: &Link, keys: &Keys, partitions: PartitionCount) -> Self {
        let all: Vec<Partition> = partitions.iter().collect();
        let share = if link.is_cluster() { 1 } else { all.len() };
        let part = |partitions: &[Partition]| Part {
            partitions: partitions.to_vec(),
            reader: Some(BlockingReader::new(link, &keys.journal(partitions[0]))),
            last: vec![None; partitions.len()],
            pause: FIRST_PAUSE,
            failed: false,
        };
        let parts = all.chunks(share).map(part).collect();
        Self { link: link.clone(), keys: keys.clone(), only_confirmed: false, parts, reads: JoinSet::new() }
    }

    /// Gives only what as many replicas have as the link asks for: what the loss of a server cannot take back.
    #[must_use]
    pub fn only_confirmed(self) -> Self {
        Self { only_confirmed: true, ..self }
    }

    /// What follows the numbers of `after`, one a partition, `count` entries of each at most, and fewer when they are
    /// large. Waits for the first new one, for `block` at most. Who has to go back to smaller numbers does so with a new follower.
    ///
    /// # Errors
    /// [`LinkError`] when no partition could be read; it may be asked again.
    pub async fn read(&mut self, after: &[u64], count: usize, block: Duration) -> Result<Followed, LinkError> {
        let until = Instant::now() + block;
        let (mut found, mut failed) = (Followed::default(), None);
        while found.entries.is_empty() && found.moved_back.is_empty() && failed.is_none() {
            self.begin(after, count, block);
            // The read of one server ends by itself, and its answer is this one's.
            let done = if self.parts.len() == 1 {
                self.reads.join_next().await
            } else {
                let Ok(done) = tokio::time::timeout_at(until, self.reads.join_next()).await else { break };
                done
            };
            failed = self.note(done, after, &mut found);
            while let Some(done) = self.reads.try_join_next() {
                failed = self.note(Some(done), after, &mut found).or(failed);
            }
            if self.parts.len() == 1 {
                break;
            }
        }
        match failed {
            Some(error) if found.entries.is_empty() && found.moved_back.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    /// Begins a read of every part that has none under way.
    fn begin(&mut self, after: &[u64], count: usize, block: Duration) {
        let of_cluster = self.link.is_cluster();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let Some(mut reader) = part.reader.take() else { continue };
            let wants: Vec<Want> = part
                .partitions
                .iter()
                .zip(&part.last)
                .map(|(partition, last)| Want {
                    partition: *partition,
                    key: self.keys.journal(*partition),
                    after: after[usize::from(partition.0)],
                    last: *last,
                })
                .collect();
            let pause = (of_cluster && part.failed).then_some(part.pause);
            let only_confirmed = self.only_confirmed;
            self.reads.spawn(async move {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
                let outcome = read(&mut reader, &wants, count, block, only_confirmed).await;
                Read { part: index, reader, outcome }
            });
        }
    }

    /// Takes in what a read came to; its error when no part can be read.
    fn note(
        &mut self,
        done: Option<Result<Read, tokio::task::JoinError>>,
        after: &[u64],
        found: &mut Followed,
    ) -> Option<LinkError> {
        let Read { part, reader, outcome } = match done? {
            Ok(read) => read,
            // Nobody cuts a read off: it met a defect, and its partition must not stay unread.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let of_cluster = self.link.is_cluster();
        let part = &mut self.parts[part];
        part.reader = Some(reader);
        match outcome {
            Ok(followed) => {
                if std::mem::take(&mut part.failed) && of_cluster {
                    tracing::info!(partition = %part.partitions[0], "the journal can be read again");
                }
                part.pause = FIRST_PAUSE;
                part.take(followed, after, found);
                None
            }
            Err(error) => {
                let error = LinkError::Unavailable(error.to_string());
                part.pause = (part.pause * 2).min(LONGEST_PAUSE);
                if !std::mem::replace(&mut part.failed, true) && of_cluster {
                    tracing::warn!(partition = %part.partitions[0], %error, "the journal cannot be read; trying again");
                }
                self.parts.iter().all(|part| part.failed).then_some(error)
            }
        }
    }
}

impl Part {
    fn take(&mut self, followed: Followed, after: &[u64], found: &mut Followed) {
        for (partition, mut entries) in followed.entries {
            let at = self.partitions.iter().position(|it| *it == partition).expect("it was asked for");
            self.last[at] = entries.0.last().and_then(|entry| Some((entry.n()?, digest(entry))));
            // A read that was under way when its caller went on elsewhere began further back.
            let known = after[usize::from(partition.0)];
            entries.0.retain(|entry| entry.n().is_none_or(|n| n > known));
            if !entries.0.is_empty() {
                found.entries.push((partition, entries));
            }
        }
        found.moved_back.extend(followed.moved_back);
        found.more |= followed.more;
    }
}

/// What a read is to find of one partition.
struct Want {
    partition: Partition,
    key: String,
    after: u64,
    last: Option<(u64, u64)>,
}

async fn read(
    reader: &mut BlockingReader,
    wants: &[Want],
    count: usize,
    block: Duration,
    only_confirmed: bool,
) -> Result<Followed, RedisError> {
    let mut followed = Followed::default();
    if reader.is_fresh() {
        for want in wants {
            followed.moved_back.extend(moved_back(reader, want).await?.map(|end| (want.partition, end)));
        }
        if !followed.moved_back.is_empty() {
            return Ok(followed);
        }
    }
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(count.min(FIRST)).arg("BLOCK").arg(block.as_millis() as u64).arg("STREAMS");
    for want in wants {
        command.arg(&want.key);
    }
    for want in wants {
        command.arg(stream_id(want.after));
    }
    for (key, mut entries) in read_streams(reader.read(&command, block + SILENCE).await?)? {
        let want = wants.iter().find(|want| want.key == key);
        let want =
            want.ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "a stream that was not asked for")))?;
        if entries.0.len() == FIRST && count > FIRST {
            let (at_end, mut more) = behind(reader, &entries, want, count - FIRST, BYTES / wants.len()).await?;
            entries.0.append(&mut more);
            followed.more |= !at_end;
        } else {
            followed.more |= entries.0.len() == count;
        }
        if !entries.0.is_empty() {
            followed.entries.push((want.partition, entries));
        }
    }
    if only_confirmed && !followed.entries.is_empty() {
        reader.confirm(&wants[0].key).await?;
    }
    Ok(followed)
}

/// What is behind entries that were read: `most` at most, and no more once they have so many bytes; and whether that is
/// all.
async fn behind(
    reader: &mut BlockingReader,
    read: &Entries,
    want: &Want,
    most: usize,
    bytes: usize,
) -> Result<(bool, Vec<Entry>), RedisError> {
    let last = read.0.last().and_then(Entry::n).unwrap_or(want.after);
    let args = [stream_id(last + 1), most.to_string(), bytes.to_string()].map(|arg| Cow::Owned(arg.into_bytes()));
    let run = RANGE.by_body(std::slice::from_ref(&want.key), &args);
    let (at_end, more): (bool, Entries) = redis::from_redis_value(reader.read(&run, SILENCE).await?)?;
    Ok((at_end, more.0))
}

/// The number that the partition ends at, when that is before what one has, or when something else is there.
async fn moved_back(reader: &mut BlockingReader, want: &Want) -> Result<Option<u64>, RedisError> {
    let mut end = redis::cmd("XREVRANGE");
    end.arg(&want.key).arg("+").arg("-").arg("COUNT").arg(1);
    let end = first(reader, &end).await?.and_then(|entry| entry.n()).unwrap_or(0);
    if end < want.after {
        return Ok(Some(end));
    }
    let Some((n, seen)) = want.last.filter(|(n, _)| *n == want.after) else { return Ok(None) };
    let mut there = redis::cmd("XRANGE");
    there.arg(&want.key).arg(stream_id(n)).arg(stream_id(n));
    // What was trimmed is not there, and was the same.
    Ok(first(reader, &there).await?.filter(|there| digest(there) != seen).map(|_| end))
}

async fn first(reader: &mut BlockingReader, command: &Cmd) -> Result<Option<Entry>, RedisError> {
    let entries: Entries = redis::from_redis_value(reader.read(command, SILENCE).await?)?;
    Ok(entries.0.into_iter().next())
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&entry.event_type, &entry.task, &entry.first, &entry.bytes).hash(&mut hasher);
    hasher.finish()
}
