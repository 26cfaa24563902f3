//! A stretch of one partition's journal as an object. The same events always make the same bytes.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `IFJRNL01` |
//! | 4 | length of the head, little-endian |
//! | 32 | SHA-256 of the head |
//! | … | the head: MessagePack with named fields, see [`Head`]; it holds the index and each block's SHA-256 |
//! | … | the blocks, one behind another |
//!
//! A block is zstd over frames; a frame is the MessagePack array `[n, type, task, first, e]` with the fields of a stream's
//! entry as they stood there (see [`insightforge_schema::event`]): nothing is decoded and encoded again on the way. The
//! head comes first, so that one event is had with two short reads.

use insightforge_schema::event;
use insightforge_schema::id::{Partition, stream_id};
use insightforge_schema::journal::Entry;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The encoding's version. A reader of version N reads every version up to N.
pub const FORMAT: u8 = 1;
/// Bytes before the head.
pub const PROLOGUE: usize = MAGIC.len() + 4 + 32;
/// A block is closed once its frames have so many bytes.
pub const BLOCK_BYTES: usize = 256 << 10;

const MAGIC: &[u8; 8] = b"IFJRNL01";
/// The longest head that is believed; a segment's events are far fewer than would fill it.
const HEAD_MOST: usize = 16 << 20;
/// The longest block that is believed: one event can be large.
const BLOCK_MOST: u32 = 64 << 20;
/// zstd's own default.
const LEVEL: i32 = 3;

/// What stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: u8,
    /// The installation's key prefix.
    pub prefix: String,
    pub partition: u16,
    /// Numbers of the first and the last event; none between them is missing.
    pub first: u64,
    pub last: u64,
    pub count: u64,
    /// When the first and the last event happened, in microseconds since 1970-01-01 UTC.
    pub first_us: i64,
    pub last_us: i64,
    pub blocks: Vec<Block>,
}

/// Where a block lies, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Number of its first event, and how many it has.
    pub first: u64,
    pub count: u64,
    /// Bytes before it, counted from the head's end.
    pub offset: u64,
    /// Its bytes, as they lie there and unpacked.
    pub length: u32,
    pub raw: u32,
    /// SHA-256 of the bytes as they lie there.
    pub sha256: [u8; 32],
}

/// Bytes that are no segment, or not the one they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Corrupt(pub String);

/// Makes a segment of entries that follow each other without a gap.
///
/// # Errors
/// [`Corrupt`] when they do not.
pub fn encode(prefix: &str, partition: Partition, entries: &[Entry]) -> Result<Vec<u8>, Corrupt> {
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Err(Corrupt("there are no events".to_owned()));
    };
    let number = |entry: &Entry| entry.n().ok_or_else(|| Corrupt(format!("{:?} is no event's id", entry.id)));
    let mut head = Head {
        format: FORMAT,
        prefix: prefix.to_owned(),
        partition: partition.0,
        first: number(first)?,
        last: number(last)?,
        count: entries.len() as u64,
        first_us: happened(first),
        last_us: happened(last),
        blocks: Vec::new(),
    };
    let mut blocks = Vec::new();
    let (mut frames, mut from) = (Vec::new(), head.first);
    for (expected, entry) in (head.first..).zip(entries) {
        if number(entry)? != expected {
            return Err(Corrupt(format!("event {expected} is missing")));
        }
        let frame = (expected, &*entry.event_type, &*entry.task, &*entry.first, Bytes(&entry.bytes));
        rmp_serde::encode::write(&mut frames, &frame).map_err(|error| Corrupt(error.to_string()))?;
        if frames.len() >= BLOCK_BYTES || expected == head.last {
            head.blocks.push(pack(from, expected, &frames, &mut blocks)?);
            from = expected + 1;
            frames.clear();
        }
    }
    let head = rmp_serde::to_vec_named(&head).map_err(|error| Corrupt(error.to_string()))?;
    let length = u32::try_from(head.len()).map_err(|_| Corrupt("the index is too long".to_owned()))?;
    let mut segment = Vec::with_capacity(PROLOGUE + head.len() + blocks.len());
    segment.extend_from_slice(MAGIC);
    segment.extend_from_slice(&length.to_le_bytes());
    segment.extend_from_slice(&Sha256::digest(&head));
    segment.extend_from_slice(&head);
    segment.extend_from_slice(&blocks);
    Ok(segment)
}

fn pack(first: u64, last: u64, frames: &[u8], blocks: &mut Vec<u8>) -> Result<Block, Corrupt> {
    let packed = zstd::bulk::compress(frames, LEVEL).map_err(|error| Corrupt(error.to_string()))?;
    let size = |bytes: usize| u32::try_from(bytes).ok().filter(|bytes| *bytes <= BLOCK_MOST);
    let (Some(length), Some(raw)) = (size(packed.len()), size(frames.len())) else {
        return Err(Corrupt(format!("event {last} is larger than {BLOCK_MOST} bytes")));
    };
    let sha256 = Sha256::digest(&packed).into();
    let block = Block { first, count: last + 1 - first, offset: blocks.len() as u64, length, raw, sha256 };
    blocks.extend_from_slice(&packed);
    Ok(block)
}

/// When an entry's event happened.
fn happened(entry: &Entry) -> i64 {
    event::decode(&entry.event_type, &entry.bytes).0.at_us
}

/// How long the head is, by the first [`PROLOGUE`] bytes.
///
/// # Errors
/// [`Corrupt`].
pub fn head_length(bytes: &[u8]) -> Result<usize, Corrupt> {
    let length = bytes.get(..PROLOGUE).and_then(|bytes| bytes.strip_prefix(MAGIC)?.first_chunk::<4>());
    let length = length.ok_or_else(|| Corrupt("it does not begin as a segment does".to_owned()))?;
    match usize::try_from(u32::from_le_bytes(*length)) {
        Ok(length) if length <= HEAD_MOST => Ok(length),
        _ => Err(Corrupt("its index would be longer than any is".to_owned())),
    }
}

/// Reads the head from a segment's beginning; `bytes` reach at least to its end.
///
/// # Errors
/// [`Corrupt`].
pub fn read_head(bytes: &[u8]) -> Result<Head, Corrupt> {
    let end = PROLOGUE + head_length(bytes)?;
    let head = bytes.get(PROLOGUE..end).ok_or_else(|| Corrupt("it ends within its index".to_owned()))?;
    if Sha256::digest(head)[..] != bytes[MAGIC.len() + 4..PROLOGUE] {
        return Err(Corrupt("its index is not what it was written as".to_owned()));
    }
    let head: Head = rmp_serde::from_slice(head).map_err(|error| Corrupt(format!("its index: {error}")))?;
    if head.format > FORMAT {
        return Err(Corrupt(format!("a later release wrote it (format {}, this one reads {FORMAT})", head.format)));
    }
    check(&head)?;
    Ok(head)
}

/// Whether the index describes all events from the first to the last, in blocks that follow each other.
fn check(head: &Head) -> Result<(), Corrupt> {
    let (mut next, mut offset) = (head.first, 0);
    for block in &head.blocks {
        let fine = block.first == next && block.count > 0 && block.offset == offset && block.raw <= BLOCK_MOST;
        if !fine {
            return Err(Corrupt("its index contradicts itself".to_owned()));
        }
        next = next.saturating_add(block.count);
        offset += u64::from(block.length);
    }
    if head.first == 0 || Some(next) != head.last.checked_add(1) || Some(head.count) != next.checked_sub(head.first) {
        return Err(Corrupt("its index contradicts itself".to_owned()));
    }
    Ok(())
}

/// Unpacks a block from its bytes.
///
/// # Errors
/// [`Corrupt`].
pub fn read_block(block: &Block, bytes: &[u8]) -> Result<Vec<Entry>, Corrupt> {
    if bytes.len() as u64 != u64::from(block.length) || Sha256::digest(bytes)[..] != block.sha256 {
        return Err(Corrupt(format!("the block of event {} is not what it was written as", block.first)));
    }
    let broken = |why: String| Corrupt(format!("the block of event {}: {why}", block.first));
    let frames = zstd::bulk::decompress(bytes, block.raw as usize).map_err(|error| broken(error.to_string()))?;
    let mut frames = rmp_serde::Deserializer::from_read_ref(&frames[..]);
    let mut entries = Vec::new();
    for expected in (block.first..).take(usize::try_from(block.count).unwrap_or(usize::MAX)) {
        let (n, event_type, task, first, bytes): (u64, String, String, String, &[u8]) =
            Deserialize::deserialize(&mut frames)
                .map_err(|error: rmp_serde::decode::Error| broken(error.to_string()))?;
        if n != expected {
            return Err(broken(format!("it has event {n} in the place of event {expected}")));
        }
        entries.push(Entry { id: stream_id(n), event_type, task, first, bytes: bytes.to_vec() });
    }
    Ok(entries)
}

/// Reads a whole segment.
///
/// # Errors
/// [`Corrupt`].
pub fn decode(bytes: &[u8]) -> Result<(Head, Vec<Entry>), Corrupt> {
    let head = read_head(bytes)?;
    let blocks = &bytes[PROLOGUE + head_length(bytes)?..];
    let mut entries = Vec::new();
    for block in &head.blocks {
        let range = usize::try_from(block.offset)
            .ok()
            .and_then(|from| from.checked_add(block.length as usize).map(|to| from..to));
        let bytes =
            range.and_then(|range| blocks.get(range)).ok_or_else(|| Corrupt("it ends within a block".to_owned()))?;
        entries.extend(read_block(block, bytes)?);
    }
    Ok((head, entries))
}

impl Head {
    /// The block in which an event stands.
    #[must_use]
    pub fn block_of(&self, n: u64) -> Option<usize> {
        let behind = self.blocks.partition_point(|block| block.first <= n);
        let index = behind.checked_sub(1)?;
        (n <= self.last).then_some(index)
    }
}

/// Bytes, written as such.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Change, Meta, Processing, encode as encode_event};
    use proptest::prelude::*;

    use super::*;

    fn entry(n: u64, event_type: &str, bytes: Vec<u8>) -> Entry {
        let task = "0190a6f0-0000-7000-8000-000000000001".to_owned();
        Entry { id: stream_id(n), event_type: event_type.to_owned(), task, first: "0".to_owned(), bytes }
    }

    fn processing(n: u64, at_us: i64) -> Entry {
        let meta = Meta { at_us, tenant: String::new(), actor: "a".to_owned(), attempt: 1, trace: None };
        entry(n, "processing", encode_event(&meta, &Change::Processing(Processing { worker: "w".to_owned() })))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_goes_in_comes_out_byte_for_byte_and_every_event_is_found_by_its_number(
            first in 1_u64..1 << 50,
            all in prop::collection::vec(("[a-z_]{1,20}", any::<u8>(), 0_usize..90_000), 1..20),
        ) {
            let made = (first..).zip(all).map(|(n, (kind, byte, length))| entry(n, &kind, vec![byte; length]));
            let entries: Vec<Entry> = made.collect();
            let segment = encode("if", Partition(3), &entries).unwrap();
            prop_assert_eq!(&segment, &encode("if", Partition(3), &entries).unwrap(), "the same events, the same bytes");
            let (head, decoded) = decode(&segment).unwrap();
            prop_assert_eq!(&decoded, &entries);
            for entry in &entries {
                let block = &head.blocks[head.block_of(entry.n().unwrap()).unwrap()];
                prop_assert!((block.first..block.first + block.count).contains(&entry.n().unwrap()));
            }
            prop_assert_eq!((head.block_of(first - 1), head.block_of(first + entries.len() as u64)), (None, None));
        }

        #[test]
        fn a_changed_byte_is_noticed_wherever_it_is(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let entries: Vec<Entry> = (1..200).map(|n| processing(n, 5)).collect();
            let mut segment = encode("if", Partition(0), &entries).unwrap();
            let at = at.index(segment.len());
            segment[at] ^= flip;
            prop_assert!(decode(&segment).is_err());
        }

        #[test]
        fn whatever_bytes_come_reading_ends_with_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&[MAGIC, &bytes[..]].concat()).is_err());
        }
    }

    #[test]
    fn a_segment_says_what_is_in_it_and_when_it_happened() {
        let segment = encode("if", Partition(3), &[processing(7, 100), processing(8, 90), processing(9, 110)]).unwrap();
        let (head, _) = decode(&segment).unwrap();
        assert_eq!((head.format, &*head.prefix, head.partition), (1, "if", 3));
        assert_eq!((head.first, head.last, head.count, head.first_us, head.last_us), (7, 9, 3, 100, 110));
    }

    #[test]
    fn events_with_a_gap_or_cut_off_bytes_are_refused_in_words() {
        let gap = encode("if", Partition(0), &[processing(1, 0), processing(3, 0)]).unwrap_err();
        assert_eq!(gap.to_string(), "event 2 is missing");
        assert!(encode("if", Partition(0), &[]).is_err());
        let segment = encode("if", Partition(0), &[processing(1, 0)]).unwrap();
        for length in [0, 7, PROLOGUE - 1, PROLOGUE + 3, segment.len() - 1] {
            assert!(decode(&segment[..length]).is_err(), "{length}");
        }
    }

    /// A segment of the first release must be read for ever.
    #[test]
    fn a_segment_of_the_first_format_is_read() {
        let golden = hex::decode(include_str!("../golden/segment.1.hex").trim()).unwrap();
        let (head, entries) = decode(&golden).unwrap();
        assert_eq!(
            (head.first, head.last, head.first_us, head.last_us),
            (41, 43, 1_700_000_000_000_000, 1_700_000_000_000_002)
        );
        let events: Vec<Entry> = (41..44).map(|n| processing(n, 1_700_000_000_000_000 + n as i64 - 41)).collect();
        assert_eq!(entries, events);
    }
}
