//! Who is who: tasks, partitions and positions in the journal.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most partitions an installation can have; [`row_id`] keeps ten bits for the partition.
pub const MAX_PARTITIONS: u16 = 1024;

/// A task's identity: any UUID. Ours are version 7, so that rows arrive in key order; a caller may bring its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub Uuid);

impl TaskId {
    /// A new time-ordered id.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// A new time-ordered id that lives in `partition`, for steps that must touch two keys of one hash slot (an
    /// idempotency key and its task, a failed task and the one that repeats it). Takes `count` draws on average.
    #[must_use]
    pub fn new_in(partition: Partition, count: PartitionCount) -> Self {
        loop {
            let id = Self::new();
            if count.of(&id.0.into_bytes()) == partition {
                return id;
            }
        }
    }

    /// The id that `seed` always yields in `partition`: a retry of a request then names the same task. UUID version 8
    /// (RFC 9562 §5.8) over SHA-256 of the seed and a counter.
    #[must_use]
    pub fn derived(seed: &[u8], partition: Partition, count: PartitionCount) -> Self {
        use sha2::{Digest, Sha256};
        let mut counter = 0_u32;
        loop {
            let digest = Sha256::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
            let mut bytes = [0_u8; 16];
            bytes.copy_from_slice(&digest[..16]);
            let id = Self(Uuid::new_v8(bytes));
            if count.of(id.0.as_bytes()) == partition {
                return id;
            }
            counter += 1;
        }
    }
}

impl Default for TaskId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TaskId {
    type Err = NotATaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|_| NotATaskId)
    }
}

/// Text that is no task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID, such as 0190a4c2-0000-7000-8000-000000000001")]
pub struct NotATaskId;

/// One of the journal's streams, counted from 0. All keys of a partition share one Redis hash slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// How many partitions the installation has; fixed at its first start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionCount(u16);

impl PartitionCount {
    /// `None` outside `1..=MAX_PARTITIONS`.
    #[must_use]
    pub fn new(count: u16) -> Option<Self> {
        (1..=MAX_PARTITIONS).contains(&count).then_some(Self(count))
    }

    #[must_use]
    pub fn get(self) -> u16 {
        self.0
    }

    /// The partition a task lives in: a hash of its id, so that any process finds it without a look-up.
    #[must_use]
    pub fn of_task(self, id: TaskId) -> Partition {
        self.of(id.0.as_bytes())
    }

    /// The partition of any key: FNV-1a (64 bit, offset basis and prime from draft-eastlake-fnv) modulo the count.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> Partition {
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        // The low bits of FNV-1a are its weakest; fold the high half in before the modulo.
        let folded = hash ^ (hash >> 32);
        Partition((folded % u64::from(self.0)) as u16)
    }

    /// All partitions in order.
    pub fn iter(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }
}

/// Where an event stands: its partition and its number there. Numbers start at 1 and have no gaps, so the difference
/// of two positions is a count of events.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Position {
    pub partition: Partition,
    pub n: u64,
}

impl Position {
    /// The id of the entry in the partition's stream. The part before the dash is constant; Redis itself counts the
    /// part behind it (`XADD … 0-*`), so ids neither follow a clock nor skip a number.
    #[must_use]
    pub fn stream_id(self) -> String {
        stream_id(self.n)
    }

    /// The key of every row this event is the origin of; see [`row_id`].
    #[must_use]
    pub fn row_id(self) -> u64 {
        row_id(self)
    }
}

/// Written `3:1284` for people and in APIs: event 1284 of partition 3.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition.0, self.n)
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (partition, n) = text.split_once(':').ok_or(BadPosition)?;
        Ok(Self {
            partition: Partition(partition.parse().map_err(|_| BadPosition)?),
            n: n.parse().map_err(|_| BadPosition)?,
        })
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a position is written <partition>:<number>, a cursor as one number a partition joined by dots")]
pub struct BadPosition;

/// The stream id of event `n`.
#[must_use]
pub fn stream_id(n: u64) -> String {
    format!("0-{n}")
}

/// The number behind a stream id, `None` for an id that is not one of ours.
#[must_use]
pub fn number_of(stream_id: &str) -> Option<u64> {
    stream_id.strip_prefix("0-")?.parse().ok()
}

/// The primary key that an event gives to the rows it creates: `n * 1024 + partition`. It needs no look-up, grows with
/// the journal (inserts append to the index), and a rebuild of the tables gives every row the same key again.
#[must_use]
pub fn row_id(position: Position) -> u64 {
    position.n * u64::from(MAX_PARTITIONS) + u64::from(position.partition.0)
}

/// What receivers of a webhook recognise a repetition by: the same at every attempt, different for every task and endpoint.
#[must_use]
pub fn webhook_id(task: TaskId, endpoint: &str) -> String {
    format!("msg_{}_{endpoint}", task.0.as_simple())
}

/// The position behind a row's key: the inverse of [`row_id`].
#[must_use]
pub fn position_of_row(id: u64) -> Position {
    Position { partition: Partition((id % u64::from(MAX_PARTITIONS)) as u16), n: id / u64::from(MAX_PARTITIONS) }
}

/// How far a reader of the whole journal has come: the last number seen in each partition. Written as the numbers
/// joined by dots (`1284.1300.1275.1290`), which is what `/api/events` takes and gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(pub Vec<u64>);

impl Cursor {
    /// Before the first event.
    #[must_use]
    pub fn start(count: PartitionCount) -> Self {
        Self(vec![0; usize::from(count.get())])
    }

    /// Reads a cursor for `count` partitions; `0` alone means the start.
    pub fn parse(text: &str, count: PartitionCount) -> Result<Self, BadPosition> {
        if text == "0" {
            return Ok(Self::start(count));
        }
        let numbers: Vec<u64> = text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| BadPosition)?;
        if numbers.len() == usize::from(count.get()) { Ok(Self(numbers)) } else { Err(BadPosition) }
    }

    /// Moves past `position`; never back.
    pub fn advance(&mut self, position: Position) {
        if let Some(last) = self.0.get_mut(usize::from(position.partition.0)) {
            *last = (*last).max(position.n);
        }
    }

    /// The last number seen in `partition`.
    #[must_use]
    pub fn at(&self, partition: Partition) -> u64 {
        self.0.get(usize::from(partition.0)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, n) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{n}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(n: u16) -> PartitionCount {
        PartitionCount::new(n).unwrap()
    }

    #[test]
    fn a_partition_count_outside_the_bounds_is_refused() {
        assert!(PartitionCount::new(0).is_none());
        assert!(PartitionCount::new(MAX_PARTITIONS + 1).is_none());
    }

    #[test]
    fn new_ids_spread_evenly_over_the_partitions() {
        let mut hits = [0_u32; 8];
        for _ in 0..8_000 {
            hits[usize::from(count(8).of_task(TaskId::new()).0)] += 1;
        }
        assert!(hits.iter().all(|hit| (800..1_200).contains(hit)), "{hits:?}");
    }

    #[test]
    fn a_derived_id_is_the_same_for_the_same_seed_and_lands_where_it_was_asked_to() {
        let partition = Partition(5);
        let id = TaskId::derived(b"tenant/key", partition, count(8));
        assert_eq!(id, TaskId::derived(b"tenant/key", partition, count(8)));
        assert_ne!(id, TaskId::derived(b"tenant/other", partition, count(8)));
        assert_eq!(count(8).of_task(id), partition);
        assert_eq!(count(8).of_task(TaskId::new_in(partition, count(8))), partition);
    }

    #[test]
    fn the_partition_of_an_id_never_changes_between_releases() {
        let id: TaskId = "0190a6f0-0000-7000-8000-000000000001".parse().unwrap();
        assert_eq!(count(4).of_task(id), Partition(3));
        assert_eq!(count(1024).of_task(id), Partition(687));
    }

    #[test]
    fn rows_and_positions_map_both_ways_and_keep_the_journals_order() {
        let position = Position { partition: Partition(3), n: 1_284 };
        assert_eq!(position_of_row(position.row_id()), position);
        assert!(Position { partition: Partition(0), n: 1_285 }.row_id() > position.row_id());
    }

    #[test]
    fn positions_and_cursors_survive_being_written_and_read() {
        let position = Position { partition: Partition(3), n: 1_284 };
        assert_eq!("3:1284".parse::<Position>(), Ok(position));
        assert_eq!(position.to_string(), "3:1284");
        let mut cursor = Cursor::parse("1.2.3.4", count(4)).unwrap();
        cursor.advance(position);
        cursor.advance(Position { partition: Partition(3), n: 7 });
        assert_eq!(cursor.to_string(), "1.2.3.1284");
        assert_eq!(Cursor::parse("0", count(4)).unwrap(), Cursor::start(count(4)));
        for bad in ["", "1.2.3", "1.2.3.x", "-1.0.0.0"] {
            assert_eq!(Cursor::parse(bad, count(4)), Err(BadPosition), "{bad}");
        }
        assert_eq!(number_of("0-12"), Some(12));
        assert_eq!(number_of("1690000000000-0"), None);
    }
}
