//! The journal leaves Redis and stays readable: every test on a real Redis, real databases and a real folder.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::collections::HashMap;
use std::path::PathBuf;

use insightforge_archive::Archive;
use insightforge_projector::archive::{ArchivingError, Archivist, Retention, Step};
use insightforge_projector::project;
use insightforge_projector::rebuild::{self, RebuildError, rebuild};
use insightforge_projector::verify::{self, verify, verify_sample};
use insightforge_projector::{Config, Upkeep};
use insightforge_schema::event::{Change, Processing, encode, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Context, Start, Started, Submit};
use insightforge_schema::trim::{self, Trim, Trimmed};
use sqlx::AssertSqlSafe;
use stage::{Stage, completed, failed, on_each_server, partitions, processing, submitted};
use tempfile::TempDir;

const PART: Partition = Partition(0);
const OTHER: Partition = Partition(1);

/// Keeps 40 events; segments have 10.
const RETENTION: Retention = Retention { keep: 40, segment_events: 10, segment_bytes: 1 << 20 };

impl Stage {
    /// Gives the installation an archive.
    fn archived(&mut self) -> TempDir {
        let folder = TempDir::new().unwrap();
        self.archive_at(&folder);
        folder
    }

    fn archive_at(&mut self, folder: &TempDir) {
        let place = folder.path().to_str().unwrap();
        self.deps.archive = Some(Archive::open(place, [], self.deps.keys.prefix()).unwrap());
    }

    fn archivist(&self) -> Archivist {
        self.archivist_keeping(RETENTION)
    }

    fn archivist_keeping(&self, journal: Retention) -> Archivist {
        let config = Config {
            partitions: partitions(),
            owner: "archivist".to_owned(),
            batch_events: 1,
            webhook: Default::default(),
            upkeep: Upkeep { journal, ..Upkeep::default() },
        };
        Archivist::new(&config, &self.deps).unwrap()
    }

    async fn fold(&self) {
        let (mut projector, _kept) = self.projector("live");
        while projector.step().await.unwrap() != project::Step::Idle {}
    }

    /// Lives of both kinds, folded.
    async fn lives(&self, partition: Partition, tasks: usize) {
        for task in 0..tasks {
            let end = if task % 5 == 0 { failed() } else { completed() };
            self.life(partition, TaskId::new(), &[processing(), end]).await;
        }
        self.fold().await;
    }

    /// First and last number in the stream.
    async fn stream(&self, partition: Partition) -> (u64, u64) {
        let (link, keys) = (&self.deps.link, &self.deps.keys);
        let first = journal::first_number(link, keys, partition).await.unwrap().unwrap();
        (first, journal::last_number(link, keys, partition).await.unwrap())
    }

    async fn mark(&self, partition: Partition) -> Option<u64> {
        trim::mark(&self.deps.link, &self.deps.keys, partition).await.unwrap()
    }

    async fn rebuilt(&self) -> Result<rebuild::Report, RebuildError> {
        let config = rebuild::Config {
            partitions: partitions(),
            owner: "rebuild".to_owned(),
            keep_old: false,
            accept_differences: false,
            to_end: false,
        };
        rebuild(&config, &rebuild::Deps { journal: self.deps.journal(), pool: self.pool(8) }, |_| ()).await
    }

    fn verify_deps(&self) -> verify::Deps {
        verify::Deps { journal: self.deps.journal(), pool: self.deps.pool.clone(), partitions: partitions() }
    }

    async fn events(&self) -> Vec<insightforge_schema::event::Event> {
        let mut events = Vec::new();
        for partition in partitions().iter() {
            events.extend(self.deps.journal().range(partition, 1, None, 100_000).await.unwrap());
        }
        events
    }

    async fn execute(&self, statement: &str) {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.deps.pool).await.unwrap();
    }
}

async fn all(archivist: &mut Archivist) -> Vec<Step> {
    let mut steps = Vec::new();
    loop {
        match archivist.step().await.unwrap() {
            Step::Idle => return steps,
            step => steps.push(step),
        }
        assert!(steps.len() < 1_000, "it never ends: {steps:?}");
    }
}

fn files(folder: &TempDir, stage: &Stage, partition: Partition) -> Vec<PathBuf> {
    let folder = folder.path().join(stage.deps.keys.prefix()).join(partition.to_string());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

async fn what_is_archived_leaves_redis_and_everything_reads_as_before(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 50).await;
    stage.lives(OTHER, 20).await;
    let (events, before) = (stage.events().await, stage.rebuilt().await.unwrap());
    let steps = all(&mut stage.archivist()).await;
    assert!(steps.contains(&Step::Archived { partition: PART, first: 1, last: 10 }), "{steps:?}");
    // 150 and 60 events; 40 stay.
    assert_eq!((stage.stream(PART).await, stage.stream(OTHER).await), ((111, 150), (21, 60)));
    assert_eq!((stage.mark(PART).await, stage.mark(OTHER).await), (Some(150), Some(60)));
    assert_eq!((files(&folder, &stage, PART).len(), files(&folder, &stage, OTHER).len()), (15, 6));

    assert_eq!(stage.events().await, events, "the journal reads as before");
    let after = stage.rebuilt().await.unwrap();
    assert!(after.swapped && after.is_equal(), "{after:?}");
    assert_eq!(after.tables, before.tables, "the same rows, by count and checksum");
    let verified = verify(&stage.verify_deps()).await.unwrap();
    assert_eq!((verified.events, verified.differences), (210, 0), "{verified:?}");
    assert!(verify_sample(&stage.verify_deps(), 50).await.unwrap().is_equal());
    // It goes on from there.
    stage.lives(PART, 10).await;
    all(&mut stage.archivist()).await;
    assert_eq!(stage.stream(PART).await, (141, 180));
    assert!(verify(&stage.verify_deps()).await.unwrap().is_equal());
    stage.end().await;
}

async fn an_archivist_that_dies_between_any_two_steps_loses_and_doubles_nothing(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 50).await;
    let events = stage.events().await;
    // A new one after every single step.
    let mut steps = 0;
    while stage.archivist().step().await.unwrap() != Step::Idle {
        steps += 1;
        // It died behind the write and before the mark moved.
        if steps % 3 == 0 {
            let mark = stage.mark(PART).await.unwrap();
            let (link, keys) = (&stage.deps.link, &stage.deps.keys);
            assert!(trim::move_mark(link, keys, PART, Some(mark), mark.saturating_sub(10)).await.unwrap());
        }
        assert!(steps < 500);
    }
    assert_eq!(stage.stream(PART).await, (111, 150));
    assert_eq!(files(&folder, &stage, PART).len(), 15, "no segment twice");
    assert_eq!(stage.events().await, events);
    stage.end().await;
}

async fn two_archivists_at_once_make_one_archive(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 60).await;
    let events = stage.events().await;
    let (mut one, mut other) = (stage.archivist(), stage.archivist());
    let both = async |archivist: &mut Archivist| all(archivist).await;
    let (one, other) = tokio::join!(both(&mut one), both(&mut other));
    for step in one.iter().chain(&other) {
        if let Step::Archived { first, last, .. } = step {
            assert_eq!((first % 10, last + 1 - first), (1, 10), "the same cuts, whoever makes them: {step:?}");
        }
    }
    assert_eq!((files(&folder, &stage, PART).len(), stage.stream(PART).await), (18, (141, 180)));
    assert_eq!(stage.events().await, events);
    stage.end().await;
}

async fn nothing_is_trimmed_that_is_not_folded_not_archived_or_to_be_kept(mut stage: Stage) {
    let _folder = stage.archived();
    stage.lives(PART, 30).await;
    let (link, keys) = (stage.deps.link.clone(), stage.deps.keys.clone());
    let cut = async |upto: u64, folded: u64, keep: u64| {
        trim::trim(&link, &keys, PART, &Trim { upto, folded, keep, open: &[] }).await.unwrap()
    };
    assert_eq!(cut(1, 90, 1).await, Trimmed::Unmarked, "nothing says what is archived");
    assert!(trim::move_mark(&link, &keys, PART, None, 50).await.unwrap());
    assert!(!trim::move_mark(&link, &keys, PART, Some(49), 60).await.unwrap(), "it is elsewhere");
    assert!(trim::move_mark(&link, &keys, PART, Some(49), 50).await.unwrap(), "a repeated call");
    for (upto, folded, keep, bound) in
        [(51, 90, 1, 50), (41, 40, 1, 39), (31, 90, 60, 30), (1, 90, 90, 0), (1, 90, 500, 0)]
    {
        assert_eq!(cut(upto, folded, keep).await, Trimmed::Beyond(bound), "{upto} {folded} {keep}");
    }
    assert_eq!(stage.stream(PART).await, (1, 90));
    assert_eq!(cut(20, 90, 40).await, Trimmed::Done(20));
    assert_eq!(cut(20, 90, 40).await, Trimmed::Done(0));
    // One event always stays: the next one is numbered by it.
    assert!(trim::move_mark(&link, &keys, PART, Some(50), 90).await.unwrap());
    assert_eq!(cut(90, 90, 0).await, Trimmed::Beyond(89));

    // What is not folded is not archived either.
    for _ in 0..30 {
        stage.life(OTHER, TaskId::new(), &[processing(), completed()]).await;
    }
    let outcome = stage.archivist().step().await;
    assert!(matches!(outcome, Err(ArchivingError::Lost { partition: PART, from: 1, to: 20, .. })), "{outcome:?}");
    assert_eq!((stage.stream(OTHER).await, stage.mark(OTHER).await), ((1, 90), Some(0)));
    stage.end().await;
}

async fn a_task_that_waits_longer_than_its_first_event_is_kept_is_still_answered(mut stage: Stage) {
    let _folder = stage.archived();
    let (link, keys) = (stage.deps.link.clone(), stage.deps.keys.clone());
    let lane = Lane::new("acting", "v1");
    let task = TaskId::new_in(PART, partitions());
    let asked = submitted(r#"{"text":"the one that waits"}"#);
    let meta = |attempt| insightforge_schema::event::Meta {
        at_us: now_us(),
        tenant: "default".to_owned(),
        actor: "test".to_owned(),
        attempt,
        trace: None,
    };
    let submit = Submit {
        task,
        lane: lane.clone(),
        event: encode(&meta(0), &asked),
        context: Context::default(),
        fingerprint: None,
        idempotency_key: None,
        expires_ms: None,
    };
    script::submit(&link, &keys, PART, &[submit], 0).await.unwrap();
    stage.lives(PART, 40).await;
    all(&mut stage.archivist()).await;
    assert_eq!(stage.stream(PART).await, (82, 121), "its first event is gone");
    let view = script::view(&link, &keys, PART, task).await.unwrap().unwrap();
    assert_eq!(view.submitted, encode(&insightforge_schema::event::decode("submitted", &view.submitted).0, &asked));

    let token: String = link.query(redis::cmd("HGET").arg(keys.record(PART, task)).arg("q")).await.unwrap();
    let event = encode(&meta(1), &Change::Processing(Processing { worker: "w".to_owned() }));
    let started = script::start(&link, &keys, PART, &lane, "w", &[Start { token, task, event }]).await.unwrap();
    match &started[..] {
        [Started::Ours { submitted, .. }] => assert_eq!(*submitted, view.submitted),
        other => panic!("{other:?}"),
    }
    stage.fold().await;
    assert!(verify(&stage.verify_deps()).await.unwrap().is_equal());
    stage.end().await;
}

async fn tables_from_a_backup_catch_up_across_the_archive(mut stage: Stage) {
    let _folder = stage.archived();
    stage.lives(PART, 50).await;
    all(&mut stage.archivist()).await;
    let rows = stage.count("task_logs").await;
    // The backup is from before event 31.
    for table in ["task_logs", "analysis_results", "webhook_outbox", "analysis_tasks"] {
        stage.execute(&format!("DELETE FROM {table} WHERE id >= 31 * 1024")).await;
    }
    stage.execute("UPDATE projection_checkpoint SET last_n = 30 WHERE part = 0").await;
    assert_eq!(stage.stream(PART).await.0, 111);
    stage.fold().await;
    assert_eq!(stage.count("task_logs").await, rows);
    assert!(verify(&stage.verify_deps()).await.unwrap().is_equal());
    stage.end().await;
}

async fn another_or_a_lost_archive_stops_archiving_and_says_what_is_missing(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 50).await;
    all(&mut stage.archivist()).await;
    // Nobody knows the mark any more: it is found by what is there.
    let _: i64 = stage.deps.link.query(redis::cmd("DEL").arg(stage.deps.keys.archived(PART))).await.unwrap();
    stage.lives(PART, 10).await;
    all(&mut stage.archivist()).await;
    assert_eq!((stage.mark(PART).await, stage.stream(PART).await), (Some(180), (141, 180)));
    assert_eq!(files(&folder, &stage, PART).len(), 18);

    let elsewhere = TempDir::new().unwrap();
    stage.archive_at(&elsewhere);
    let error = stage.archivist().step().await.unwrap_err();
    assert!(matches!(error, ArchivingError::Lost { partition: PART, from: 1, to: 140, .. }), "{error}");
    assert_eq!(stage.stream(PART).await, (141, 180));
    let refused = stage.rebuilt().await.unwrap_err();
    assert!(matches!(refused, RebuildError::Trimmed { begins: 141, .. }), "{refused}");
    let error = verify(&stage.verify_deps()).await.unwrap_err().to_string();
    assert!(error.contains("events 1 to") && error.contains(elsewhere.path().to_str().unwrap()), "{error}");

    // A segment in the middle is gone.
    stage.archive_at(&folder);
    std::fs::remove_file(&files(&folder, &stage, PART)[3]).unwrap();
    let error = stage.archivist().step().await.unwrap_err();
    assert!(matches!(error, ArchivingError::Lost { from: 1, to: 40, .. }), "{error}");
    stage.end().await;
}

async fn what_comes_after_a_journal_lost_its_end_enters_no_archive_and_stays_in_the_stream(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 50).await;
    all(&mut stage.archivist()).await;
    let mut archivist = stage.archivist();
    let _: i64 = stage.deps.link.query(redis::cmd("DEL").arg(stage.deps.keys.journal(PART))).await.unwrap();
    for tasks in [10, 60] {
        for _ in 0..tasks {
            stage.life(PART, TaskId::new(), &[processing(), completed()]).await;
        }
        // Shorter than before, and longer again.
        for archivist in [&mut archivist, &mut stage.archivist()] {
            let error = archivist.step().await.unwrap_err();
            assert!(matches!(error, ArchivingError::MovedBack { partition: PART, folded: 150, .. }), "{error}");
        }
    }
    assert_eq!((stage.stream(PART).await, files(&folder, &stage, PART).len()), ((1, 210), 15));
    stage.end().await;
}

async fn of_two_archivists_with_different_archives_one_stops_and_the_other_has_everything(mut stage: Stage) {
    let elsewhere = stage.archived();
    let mut other = stage.archivist();
    let folder = stage.archived();
    let mut mine = stage.archivist();
    stage.lives(PART, 50).await;
    assert!(matches!(other.step().await.unwrap(), Step::Archived { first: 1, .. }));
    all(&mut mine).await;
    assert_eq!((stage.mark(PART).await, stage.stream(PART).await), (Some(150), (111, 150)));
    let error = other.step().await.unwrap_err();
    assert!(matches!(error, ArchivingError::Lost { partition: PART, .. }), "{error}");
    assert!(error.to_string().contains(elsewhere.path().to_str().unwrap()), "{error}");
    assert_eq!((stage.mark(PART).await, files(&folder, &stage, PART).len()), (Some(150), 15));
    assert!(verify(&stage.verify_deps()).await.unwrap().is_equal());
    stage.end().await;
}

async fn an_archive_of_another_journal_is_not_taken_for_this_one(mut stage: Stage) {
    let folder = stage.archived();
    stage.lives(PART, 20).await;
    all(&mut stage.archivist_keeping(Retention { keep: 1_000, ..RETENTION })).await;
    assert_eq!(stage.mark(PART).await, Some(60));
    // Redis came back empty, and the installation began anew.
    let mut delete = redis::cmd("DEL");
    delete.arg(stage.deps.keys.journal(PART)).arg(stage.deps.keys.archived(PART));
    stage.deps.link.query::<i64>(&delete).await.unwrap();
    for table in ["task_logs", "analysis_results", "webhook_outbox", "analysis_tasks", "projection_checkpoint"] {
        stage.execute(&format!("DELETE FROM {table}")).await;
    }
    stage.lives(PART, 50).await;
    let error = stage.archivist().step().await.unwrap_err().to_string();
    assert!(error.contains("holds other events than the journal under the same numbers"), "{error}");
    assert_eq!((stage.stream(PART).await, files(&folder, &stage, PART).len()), ((1, 150), 6));
    stage.end().await;
}

/// The memory that the journal itself takes.
async fn redis_holds_as_much_after_many_tasks_as_after_few(mut stage: Stage) {
    let _folder = stage.archived();
    let mut sizes = HashMap::new();
    for tasks in [60, 600] {
        stage.lives(PART, tasks).await;
        all(&mut stage.archivist()).await;
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(stage.deps.keys.journal(PART)).arg("SAMPLES").arg(0);
        sizes.insert(tasks, stage.deps.link.query::<f64>(&usage).await.unwrap());
    }
    // Ten times the events; what remains is that nodes of the stream are not all equally full.
    assert!(sizes[&600] < sizes[&60] * 2.0, "{sizes:?}");
    stage.end().await;
}

on_each_server!(
    what_is_archived_leaves_redis_and_everything_reads_as_before,
    an_archivist_that_dies_between_any_two_steps_loses_and_doubles_nothing,
    two_archivists_at_once_make_one_archive,
    nothing_is_trimmed_that_is_not_folded_not_archived_or_to_be_kept,
    a_task_that_waits_longer_than_its_first_event_is_kept_is_still_answered,
    tables_from_a_backup_catch_up_across_the_archive,
    another_or_a_lost_archive_stops_archiving_and_says_what_is_missing,
    what_comes_after_a_journal_lost_its_end_enters_no_archive_and_stays_in_the_stream,
    of_two_archivists_with_different_archives_one_stops_and_the_other_has_everything,
    an_archive_of_another_journal_is_not_taken_for_this_one,
    redis_holds_as_much_after_many_tasks_as_after_few,
);
