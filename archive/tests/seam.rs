//! Events by number, across a real Redis and a real folder.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_archive::store::Put;
use insightforge_archive::{Archive, ArchiveError, Journal, ReadError};
use insightforge_schema::event::{Change, Event, Meta, Processing, encode};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal::{self, Entry};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use tempfile::TempDir;

const PART: Partition = Partition(2);
/// Between two events, in microseconds.
const APART: i64 = 1_000;

struct Stage {
    folder: TempDir,
    journal: Journal,
}

impl Stage {
    /// A journal of so many events; event `n` happened at `n * APART`.
    async fn new(events: i64) -> Self {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
        let link = Link::new(&url, Duration::from_secs(10)).unwrap();
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        let folder = TempDir::new().unwrap();
        let archive = Archive::open(folder.path().to_str().unwrap(), [], keys.prefix()).unwrap();
        let stage = Self { folder, journal: Journal { link, keys, archive: Some(archive) } };
        for n in 1..=events {
            stage.append(n * APART, &"w".repeat(2_000)).await;
        }
        stage
    }

    async fn append(&self, at_us: i64, worker: &str) {
        let meta = Meta { at_us, tenant: String::new(), actor: String::new(), attempt: 1, trace: None };
        let event = encode(&meta, &Change::Processing(Processing { worker: worker.to_owned() }));
        let mut add = redis::cmd("XADD");
        add.arg(self.journal.keys.journal(PART)).arg("0-*").arg("type").arg("processing");
        add.arg("task").arg(TaskId::new().to_string()).arg("first").arg(1).arg("e").arg(event);
        self.journal.link.query::<String>(&add).await.unwrap();
    }

    fn archive(&self) -> &Archive {
        self.journal.archive.as_ref().unwrap()
    }

    async fn entries(&self, from: u64, to: u64) -> Vec<Entry> {
        journal::entries(&self.journal.link, &self.journal.keys, PART, from, Some(to), 10_000).await.unwrap()
    }

    async fn store(&self, from: u64, to: u64) -> Put {
        self.archive().put(PART, &self.entries(from, to).await).await.unwrap()
    }

    /// Takes events from the stream whatever the archive has.
    async fn cut(&self, before: u64) {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(self.journal.keys.journal(PART)).arg("MINID").arg(format!("0-{before}"));
        self.journal.link.query::<i64>(&trim).await.unwrap();
    }

    async fn range(&self, from: u64, to: Option<u64>, limit: usize) -> Result<Vec<Event>, ReadError> {
        self.journal.range(PART, from, to, limit).await
    }

    /// As another process would read it: nothing is remembered.
    fn reopened(&self) -> Journal {
        let place = self.folder.path().to_str().unwrap();
        let archive = Archive::open(place, [], self.journal.keys.prefix()).unwrap();
        Journal { archive: Some(archive), ..self.journal.clone() }
    }
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.position.n).collect()
}

#[tokio::test]
async fn events_are_the_same_before_and_after_they_left_redis_whatever_is_asked_for() {
    let stage = Stage::new(500).await;
    let all = stage.range(1, None, 10_000).await.unwrap();
    assert_eq!(numbers(&all), (1..=500).collect::<Vec<_>>());
    for first in [1, 101, 201, 301] {
        assert_eq!(stage.store(first, first + 99).await, Put::Written);
    }
    stage.cut(351).await;
    for journal in [stage.journal.clone(), stage.reopened()] {
        for (from, to, limit) in [
            (0, None, 10_000),
            (1, Some(1), 1),
            (77, Some(77), 5),
            (99, Some(103), 100),
            (200, Some(460), 1_000),
            (340, None, 7),
            (340, None, 30),
            (351, None, 10),
            (500, None, 9),
            (501, None, 9),
        ] {
            let read = journal.range(PART, from, to, limit).await.unwrap();
            let wanted: Vec<&Event> = all
                .iter()
                .filter(|event| event.position.n >= from && to.is_none_or(|to| event.position.n <= to))
                .take(limit)
                .collect();
            assert_eq!(read.iter().collect::<Vec<_>>(), wanted, "{from} {to:?} {limit}");
        }
        // Page by page, bounded by bytes.
        let (mut next, mut read) = (1, Vec::new());
        loop {
            let run = journal.run(PART, next, 50, 20_000).await.unwrap();
            assert!(run.events.len() <= 11, "{} events of 2 kB each in a run of 20 kB", run.events.len());
            next += run.events.len() as u64;
            read.extend(run.events);
            if run.end {
                break;
            }
        }
        assert_eq!(read, all);
        for at in [0, 1, 77, 100, 101, 350, 351, 499, 500] {
            assert_eq!(journal.number_at(PART, at * APART).await.unwrap(), u64::try_from(at).unwrap().max(1), "{at}");
        }
        assert_eq!(journal.number_at(PART, 501 * APART).await.unwrap(), 501);
        assert_eq!(journal.begins(PART).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_is_neither_in_redis_nor_in_the_archive_is_named_and_never_skipped() {
    let stage = Stage::new(300).await;
    stage.store(101, 200).await;
    stage.cut(231).await;
    for (from, missing) in [(1, (1, 230)), (50, (50, 230)), (201, (201, 230)), (230, (230, 230))] {
        match stage.range(from, None, 10).await {
            Err(ReadError::Missing { from, to, .. }) => assert_eq!((from, to), missing),
            other => panic!("{from}: {other:?}"),
        }
    }
    // Up to the gap it reads, and then it says so.
    assert_eq!(numbers(&stage.range(190, Some(200), 50).await.unwrap()), (190..=200).collect::<Vec<_>>());
    let error = stage.range(190, None, 50).await.unwrap_err().to_string();
    assert!(error.contains("events 201 to 230 of partition 02") && error.contains("archive"), "{error}");
    assert_eq!(stage.journal.begins(PART).await.unwrap(), 231);
    let without = Journal { archive: None, ..stage.journal.clone() };
    let error = without.range(PART, 1, None, 1).await.unwrap_err().to_string();
    assert!(error.contains("INSIGHTFORGE_ARCHIVE"), "{error}");
    assert_eq!(without.begins(PART).await.unwrap(), 231);
}

#[tokio::test]
async fn readers_find_every_event_while_the_journal_is_trimmed_under_them() {
    let stage = Stage::new(600).await;
    for first in (1..=600).step_by(100) {
        stage.store(first, first + 99).await;
    }
    let trims = async {
        for before in (1..=590).step_by(7) {
            stage.cut(before).await;
        }
    };
    let read = async |limit: usize| {
        let mut next = 1;
        while next <= 600 {
            let events = stage.range(next, Some(600), limit).await.unwrap();
            assert_eq!(events.first().unwrap().position.n, next);
            next += events.len() as u64;
        }
    };
    tokio::join!(trims, read(3), read(50), read(1));
}

#[tokio::test]
async fn a_segment_is_written_once_and_other_events_under_its_name_are_refused() {
    let stage = Stage::new(20).await;
    assert_eq!(stage.store(1, 20).await, Put::Written);
    assert_eq!(stage.store(1, 20).await, Put::WasThere, "a writer that died behind the write does it again");
    let mut others = stage.entries(1, 20).await;
    others[7].task = TaskId::new().to_string();
    let error = stage.archive().put(PART, &others).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Other { .. }), "{error}");
    let path = stage.folder.path().join(stage.journal.keys.prefix()).join("02");
    let files: Vec<String> =
        std::fs::read_dir(path).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(files, ["00000000000000000001-00000000000000000020.seg"]);
}

#[tokio::test]
async fn a_damaged_segment_is_an_error_that_names_it_and_no_event() {
    let stage = Stage::new(200).await;
    stage.store(1, 200).await;
    stage.cut(200).await;
    let path =
        stage.folder.path().join(stage.journal.keys.prefix()).join("02/00000000000000000001-00000000000000000200.seg");
    let sound = std::fs::read(&path).unwrap();
    for at in [0, 9, 20, 60, sound.len() - 5] {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x20;
        std::fs::write(&path, damaged).unwrap();
        let error = stage.reopened().range(PART, 150, None, 1).await.unwrap_err();
        assert!(matches!(&error, ReadError::Archive(ArchiveError::Corrupt { .. })), "{at}: {error}");
        assert!(error.to_string().contains("00000000000000000001-00000000000000000200.seg"), "{error}");
    }
    std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(stage.reopened().range(PART, 199, None, 1).await.is_err());
    // A segment under another's name.
    std::fs::write(path.with_file_name("00000000000000000001-00000000000000000150.seg"), &sound).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = stage.reopened().range(PART, 10, None, 1).await.unwrap_err().to_string();
    assert!(error.contains("another place in the journal than its name"), "{error}");
}

#[tokio::test]
async fn segments_that_overlap_are_read_as_one_journal() {
    let stage = Stage::new(300).await;
    for (first, last) in [(1, 100), (1, 120), (101, 200), (121, 240)] {
        stage.store(first, last).await;
    }
    stage.cut(241).await;
    assert_eq!(numbers(&stage.reopened().range(PART, 1, None, 1_000).await.unwrap()), (1..=300).collect::<Vec<_>>());
    assert_eq!(stage.journal.begins(PART).await.unwrap(), 1);
}
