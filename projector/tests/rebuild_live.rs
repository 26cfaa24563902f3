//! Rebuilds on a real Redis and real databases: every test runs on each of them.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use insightforge_projector::project::Step;
use insightforge_projector::rebuild::{self, Progress, RebuildError, Report, rebuild};
use insightforge_projector::verify::{self, verify};
use insightforge_schema::event::{BatchReceived, Change, DeadLettered};
use insightforge_schema::id::{Partition, TaskId};
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, Executor, Row};
use stage::{Stage, completed, failed, on_each_server, partitions, processing, routed, shadowed};

const TABLES: [&str; 7] = [
    "analysis_batches",
    "analysis_results",
    "analysis_shadow_results",
    "analysis_tasks",
    "projection_checkpoint",
    "projection_faults",
    "task_logs",
];

/// How often it is looked for what happens at the server.
const POLL: Duration = Duration::from_millis(5);

impl Stage {
    fn rebuild_deps(&self) -> rebuild::Deps {
        rebuild::Deps { journal: self.deps.journal(), pool: self.pool(8) }
    }

    async fn rebuild(&self, config: rebuild::Config) -> Result<Report, RebuildError> {
        rebuild(&config, &self.rebuild_deps(), |_| ()).await
    }

    /// Folds all there is.
    async fn fold(&self) {
        let (mut projector, _kept) = self.projector("live");
        while projector.step().await.unwrap() != Step::Idle {}
    }

    /// Lives of every kind in both partitions, folded; also an event that cannot be folded and a repeated task id.
    async fn history(&self) {
        let letter = Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() });
        for partition in [Partition(0), Partition(1)] {
            for _ in 0..5 {
                self.life(partition, TaskId::new(), &[processing(), completed()]).await;
                self.life(partition, TaskId::new(), &[processing(), failed(), letter.clone()]).await;
                let shadows = [shadowed(Some("{}")), shadowed(None)];
                self.life(partition, TaskId::new(), &[&[processing(), routed()], &shadows[..]].concat()).await;
            }
            self.life(partition, TaskId::new(), &[processing()]).await;
            self.life(partition, TaskId::new(), &[completed()]).await;
            let batch = Change::BatchReceived(BatchReceived { accepted: 3, rejected: 1 });
            self.append(partition, TaskId::new(), 0, &batch).await;
        }
        self.fold().await;
        let again = TaskId::new();
        self.life(Partition(0), again, &[processing(), completed()]).await;
        self.fold().await;
        self.life(Partition(0), again, &[processing()]).await;
        self.fold().await;
        assert_eq!(self.count("projection_faults").await, 4, "a fault was expected for each illegal event");
    }

    /// Everything the server says of the shape of the tables.
    async fn shape(&self) -> Vec<String> {
        let mut shape = Vec::new();
        let tables = sqlx::query("SHOW TABLES").fetch_all(&self.deps.pool).await.unwrap();
        for table in tables.iter().map(|row| row.get::<String, _>(0)) {
            let create = sqlx::query(AssertSqlSafe(format!("SHOW CREATE TABLE {table}")));
            shape.push(create.fetch_one(&self.deps.pool).await.unwrap().get(1));
        }
        for (view, schema) in [
            ("columns", "table_schema"),
            ("statistics", "table_schema"),
            ("table_constraints", "constraint_schema"),
            ("key_column_usage", "constraint_schema"),
            ("referential_constraints", "constraint_schema"),
            ("check_constraints", "constraint_schema"),
        ] {
            let columns: Vec<String> = sqlx::query_scalar(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'information_schema'
                AND LOWER(table_name) = ? AND LOWER(column_name) <> 'cardinality' ORDER BY ordinal_position",
            )
            .bind(view)
            .fetch_all(&self.deps.pool)
            .await
            .unwrap();
            assert!(!columns.is_empty(), "{view}");
            let columns: Vec<String> = columns.iter().map(|column| format!("IFNULL({column}, 'NULL')")).collect();
            let statement = format!(
                "SELECT CAST(CONCAT_WS(' | ', {}) AS CHAR) AS line FROM information_schema.{view} WHERE {schema} = '{}' ORDER BY line",
                columns.join(", "),
                self.database
            );
            let lines: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&self.deps.pool).await.unwrap();
            shape.extend(lines.into_iter().map(|line| format!("{view}: {line}")));
        }
        shape
    }

    /// All rows of a table, as text.
    async fn rows(&self, table: &str) -> Vec<String> {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?
            AND column_name NOT IN ('owner') ORDER BY ordinal_position",
        )
        .bind(table)
        .fetch_all(&self.deps.pool)
        .await
        .unwrap();
        let columns: Vec<String> = columns.iter().map(|column| format!("IFNULL(HEX({column}), 'NULL')")).collect();
        let statement = format!("SELECT CONCAT_WS(' | ', {}) AS line FROM {table} ORDER BY line", columns.join(", "));
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&self.deps.pool).await.unwrap()
    }

    async fn all_rows(&self) -> HashMap<&'static str, Vec<String>> {
        let mut all = HashMap::new();
        for table in TABLES.into_iter().filter(|table| *table != "projection_checkpoint") {
            all.insert(table, self.rows(table).await);
        }
        all
    }

    async fn execute(&self, statement: &str) {
        self.deps.pool.execute(AssertSqlSafe(statement.to_owned())).await.unwrap();
    }

    async fn tables(&self) -> Vec<String> {
        let tables = sqlx::query("SHOW TABLES").fetch_all(&self.deps.pool).await.unwrap();
        tables.iter().map(|row| row.get(0)).collect()
    }

    async fn verified(&self) -> verify::Report {
        let deps =
            verify::Deps { journal: self.deps.journal(), pool: self.deps.pool.clone(), partitions: partitions() };
        verify(&deps).await.unwrap()
    }
}

fn config() -> rebuild::Config {
    rebuild::Config {
        partitions: partitions(),
        owner: "rebuild".to_owned(),
        keep_old: false,
        accept_differences: false,
        to_end: false,
    }
}

async fn the_rebuilt_tables_are_the_old_ones_to_the_last_row_and_name(stage: Stage) {
    stage.history().await;
    let (shape, rows, outbox) = (stage.shape().await, stage.all_rows().await, stage.rows("webhook_outbox").await);
    for _ in 0..2 {
        let report = stage.rebuild(config()).await.unwrap();
        assert!(report.swapped && report.is_equal(), "{report:?}");
        assert_eq!(
            report.tables.iter().map(|table| table.live.rows).sum::<u64>(),
            rows.values().flatten().count() as u64
        );
        assert_eq!(stage.shape().await, shape);
        assert_eq!(stage.all_rows().await, rows);
        assert_eq!(stage.rows("webhook_outbox").await, outbox);
    }
    // The projector goes on where it was.
    stage.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
    let (mut projector, _kept) = stage.projector("live");
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn what_was_not_announced_yet_is_left_to_the_projector(stage: Stage) {
    stage.history().await;
    stage.life(Partition(1), TaskId::new(), &[processing(), completed()]).await;
    let report = stage.rebuild(config()).await.unwrap();
    assert!(report.swapped && report.is_equal(), "{report:?}");
    let (mut projector, mut handed_over) = stage.projector("live");
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    stage.end().await;
}

async fn tables_that_were_lost_with_their_checkpoint_come_back_and_nothing_is_announced(stage: Stage) {
    stage.history().await;
    let rows = stage.all_rows().await;
    for table in [
        "task_logs",
        "analysis_shadow_results",
        "analysis_results",
        "analysis_tasks",
        "analysis_batches",
        "projection_faults",
    ] {
        stage.execute(&format!("DELETE FROM {table}")).await;
    }
    stage.execute("DELETE FROM projection_checkpoint").await;
    stage.execute("DELETE FROM webhook_outbox").await;
    let lost = rebuild::Config { accept_differences: true, to_end: true, ..config() };
    let report = stage.rebuild(lost).await.unwrap();
    assert!(report.swapped, "{report:?}");
    assert_eq!(stage.all_rows().await, rows);
    let (mut projector, _kept) = stage.projector("live");
    assert_eq!(projector.step().await.unwrap(), Step::Idle);
    assert_eq!(stage.count("webhook_outbox").await, 0);
    stage.end().await;
}

async fn tables_follow_a_journal_that_lost_its_end_only_when_that_is_asked_for(stage: Stage) {
    stage.history().await;
    for partition in [Partition(0), Partition(1)] {
        let gone = redis::cmd("DEL").arg(stage.deps.keys.journal(partition)).to_owned();
        assert_eq!(stage.deps.link.query::<i64>(&gone).await.unwrap(), 1);
        stage.life(partition, TaskId::new(), &[processing(), completed()]).await;
    }
    let refused = stage.rebuild(config()).await.unwrap_err();
    assert!(matches!(refused, RebuildError::Short { ends: 3, .. }), "{refused}");
    assert!(refused.to_string().contains("--accept-differences --to-end"), "{refused}");
    let lost = rebuild::Config { accept_differences: true, to_end: true, ..config() };
    assert!(stage.rebuild(lost).await.unwrap().swapped);
    assert_eq!(stage.statuses().await, ["completed", "completed"]);
    // And the projector goes on from there.
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    stage.fold().await;
    assert_eq!(stage.statuses().await, ["completed", "completed", "processing"]);
    stage.end().await;
}

async fn under_live_load_nothing_is_lost_doubled_or_announced_twice(stage: Stage) {
    stage.history().await;
    let ended_before = stage.count("webhook_outbox").await;
    let stop = AtomicBool::new(false);
    let write = async {
        let mut lives = 0;
        while !stop.load(Ordering::Relaxed) {
            let partition = Partition(u16::try_from(lives % 2).unwrap());
            stage.life(partition, TaskId::new(), &[processing(), completed()]).await;
            lives += 1;
        }
        lives
    };
    let fold = async {
        let (mut projector, mut handed_over) = stage.projector("live");
        let mut deliveries = Vec::new();
        let mut last = false;
        loop {
            let done = stop.load(Ordering::Relaxed);
            match projector.step().await {
                Ok(Step::Idle) if last => return deliveries,
                Ok(Step::Idle) => last = done,
                Ok(Step::Folded(_) | Step::Fenced) => {}
                // The one that waited behind the fence is rolled back.
                Err(error) => assert!(error.to_string().contains("eadlock"), "{error}"),
            }
            while let Ok(batch) = handed_over.try_recv() {
                deliveries.extend(batch.into_iter().map(|delivery| delivery.id));
            }
        }
    };
    let rebuilds = async {
        for _ in 0..3 {
            let report = stage.rebuild(config()).await.unwrap();
            assert!(report.swapped && report.is_equal(), "{report:?}");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (lives, mut deliveries, ()) = tokio::join!(write, fold, rebuilds);
    let handed_over = deliveries.len();
    deliveries.sort_unstable();
    deliveries.dedup();
    assert_eq!(handed_over, deliveries.len(), "handed to the sender twice");
    let written = usize::try_from(stage.count("webhook_outbox").await - ended_before).unwrap();
    let due = usize::try_from(stage.count("webhook_outbox WHERE state = 0").await).unwrap();
    assert_eq!((written, deliveries.len() + due), (lives, lives), "every outcome once");
    let verified = stage.verified().await;
    assert!(verified.is_equal(), "{verified:?}");
    assert!(lives > 20, "only {lives} lives went on beside three rebuilds");
    stage.end().await;
}

async fn differences_are_counted_and_the_live_tables_stay_unless_they_are_accepted(stage: Stage) {
    stage.history().await;
    let right = stage.all_rows().await;
    stage.execute("UPDATE analysis_tasks SET status = 'failed' ORDER BY id LIMIT 1").await;
    stage.execute("DELETE FROM task_logs ORDER BY id LIMIT 2").await;
    stage
        .execute(
            "INSERT INTO analysis_batches SELECT 7, UUID(), tenant, 1, 1, created_at FROM analysis_batches LIMIT 1",
        )
        .await;
    let wrong = stage.all_rows().await;
    let report = stage.rebuild(config()).await.unwrap();
    assert!(!report.swapped && !report.is_equal());
    let found = |table: &str| {
        let it = report.tables.iter().find(|it| it.table == table).unwrap();
        (it.only_live, it.only_fresh, it.different)
    };
    assert_eq!(found("analysis_tasks"), (0, 0, 1));
    assert_eq!(found("task_logs"), (0, 2, 0));
    assert_eq!(found("analysis_batches"), (1, 0, 0));
    assert_eq!(found("analysis_results"), (0, 0, 0));
    assert_eq!(stage.all_rows().await, wrong);
    assert!(!stage.tables().await.iter().any(|table| table.ends_with("_rebuild") || table.ends_with("_old")));
    let report = stage.rebuild(rebuild::Config { accept_differences: true, keep_old: true, ..config() }).await.unwrap();
    assert!(report.swapped && !report.is_equal());
    assert_eq!(stage.all_rows().await, right);
    assert_eq!(stage.count("task_logs_old").await + 2, stage.count("task_logs").await);
    assert!(stage.verified().await.is_equal());
    // The next one is equal, and clears what was kept.
    assert!(stage.rebuild(config()).await.unwrap().is_equal());
    assert!(!stage.tables().await.iter().any(|table| table.ends_with("_rebuild") || table.ends_with("_old")));
    stage.end().await;
}

async fn the_same_damage_in_two_rows_of_a_range_is_seen(stage: Stage) {
    stage.history().await;
    let damage = "UPDATE analysis_tasks SET model_version = 'v9' WHERE status = 'completed' AND model_version = 'v1' ORDER BY id LIMIT 2";
    sqlx::query(damage).execute(&stage.deps.pool).await.unwrap();
    let report = stage.rebuild(config()).await.unwrap();
    let tasks = report.tables.iter().find(|it| it.table == "analysis_tasks").unwrap();
    assert_eq!((report.swapped, tasks.only_live, tasks.only_fresh, tasks.different), (false, 0, 0, 2), "{tasks:?}");
    stage.end().await;
}

async fn of_two_rebuilds_at_once_one_waits_for_the_other_or_is_refused(stage: Stage) {
    stage.history().await;
    let (left, right) = tokio::join!(stage.rebuild(config()), stage.rebuild(config()));
    let refused = |it: &Result<Report, RebuildError>| matches!(it, Err(RebuildError::AnotherIsRunning { .. }));
    let swapped = |it: &Result<Report, RebuildError>| matches!(it, Ok(report) if report.swapped);
    assert!(swapped(&left) || swapped(&right), "{left:?} {right:?}");
    assert!([&left, &right].into_iter().all(|it| swapped(it) || refused(it)), "{left:?} {right:?}");
    stage.end().await;
}

async fn a_rebuild_waits_for_who_deletes_old_rows_and_names_who_does_not_end(stage: Stage) {
    stage.history().await;
    let mut other = stage.deps.pool.acquire().await.unwrap();
    let lock = "SELECT CAST(GET_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)), 0) AS SIGNED)";
    assert_eq!(sqlx::query_scalar::<_, i64>(lock).fetch_one(&mut *other).await.unwrap(), 1);
    let id: u64 = sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS UNSIGNED)").fetch_one(&mut *other).await.unwrap();
    let refused = stage.rebuild(config()).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("connection {id} of the database server, root from ")), "{refused}");

    let deleting = async {
        stage.until_one_waits("SELECT CAST(GET_LOCK(", "User lock").await;
        sqlx::query("DO RELEASE_ALL_LOCKS()").execute(&mut *other).await.unwrap();
    };
    let (rebuilt, ()) = tokio::join!(stage.rebuild(config()), deleting);
    assert!(rebuilt.unwrap().swapped);
    drop(other);
    stage.end().await;
}

async fn a_journal_that_does_not_reach_from_start_to_checkpoint_is_refused(stage: Stage) {
    stage.history().await;
    let journal = stage.deps.keys.journal(Partition(1));
    let trim = |from: &'static str| {
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&journal).arg("MINID").arg(from);
        trim
    };
    stage.deps.link.query::<i64>(&trim("0-5")).await.unwrap();
    let trimmed = stage.rebuild(config()).await.unwrap_err();
    assert!(matches!(trimmed, RebuildError::Trimmed { partition: Partition(1), begins: 5 }), "{trimmed}");
    stage.deps.link.query::<i64>(redis::cmd("DEL").arg(&journal)).await.unwrap();
    let short = stage.rebuild(config()).await.unwrap_err();
    assert!(matches!(short, RebuildError::Short { partition: Partition(1), ends: 0, .. }), "{short}");
    stage.end().await;
}

async fn what_a_swap_would_lose_is_refused_by_name(stage: Stage) {
    stage.history().await;
    stage.execute("CREATE TABLE notes (task BIGINT UNSIGNED, FOREIGN KEY (task) REFERENCES analysis_tasks (id))").await;
    let referenced = stage.rebuild(config()).await.unwrap_err();
    assert!(matches!(&referenced, RebuildError::Referenced { by, .. } if by == "notes"), "{referenced}");
    stage.execute("DROP TABLE notes").await;
    stage.execute("CREATE TRIGGER tell AFTER INSERT ON task_logs FOR EACH ROW SET @x = 1").await;
    let trigger = stage.rebuild(config()).await.unwrap_err();
    assert!(matches!(&trigger, RebuildError::Trigger { trigger, .. } if trigger == "tell"), "{trigger}");
    stage.end().await;
}

async fn how_a_rebuild_went_can_be_read_by_others(stage: Stage) {
    /// State, events, of how many, report, error, whether it ended.
    type Told = (String, u64, Option<u64>, Option<String>, Option<String>, bool);
    stage.history().await;
    let told = async || -> Vec<Told> {
        sqlx::query_as(
            "SELECT state, events, events_whole, CAST(report AS CHAR), error, ended_at IS NOT NULL FROM rebuilds ORDER BY n",
        )
        .fetch_all(&stage.deps.pool)
        .await
        .unwrap()
    };
    let during = std::sync::Mutex::new(false);
    let report = rebuild(&config(), &stage.rebuild_deps(), |_| *during.lock().unwrap() = true).await.unwrap();
    assert!(*during.lock().unwrap());
    let (state, events, whole, found, error, ended) = told().await.remove(0);
    assert_eq!((state.as_str(), events, whole, error, ended), ("swapped", report.events, Some(events), None, true));
    let found: serde_json::Value = serde_json::from_str(&found.unwrap()).unwrap();
    // Not all of it: servers store decimals with their last digit rounded.
    assert_eq!(found["tables"], report.to_json()["tables"]);
    assert!(found["tables"][0]["live"]["checksum"].as_str().unwrap().len() == 16, "{found}");

    stage.execute("CREATE TRIGGER tell AFTER INSERT ON task_logs FOR EACH ROW SET @x = 1").await;
    stage.rebuild(config()).await.unwrap_err();
    let (state, _, _, found, error, ended) = told().await.remove(1);
    assert_eq!((state.as_str(), found, ended), ("failed", None, true));
    let error = error.unwrap();
    assert!(error.contains("trigger") && !error.contains("tell"), "in general words: {error}");
    stage.end().await;
}

async fn a_rebuild_that_dies_leaves_the_live_tables_in_service_and_the_next_one_clears_up(stage: Stage) {
    stage.history().await;
    let rows = stage.all_rows().await;
    let points: [fn(&Progress) -> bool; 3] = [
        |progress| matches!(progress, Progress::Loaded { .. }),
        |progress| matches!(progress, Progress::Indexed { .. }),
        |progress| matches!(progress, Progress::Compared { .. }),
    ];
    for dies_at in points {
        let deps = stage.rebuild_deps();
        let pool = deps.pool.clone();
        let rebuild = tokio::spawn(async move {
            rebuild(&config(), &deps, |progress| assert!(!dies_at(&progress), "dies here, as the test wants")).await
        });
        assert!(rebuild.await.unwrap_err().is_panic());
        pool.close().await;
        assert!(stage.tables().await.iter().any(|table| table.ends_with("_rebuild")));
        assert_eq!(stage.all_rows().await, rows);
        stage.fold().await;
    }
    let report = stage.rebuild_when_alone().await;
    assert!(report.swapped && report.is_equal(), "{report:?}");
    assert!(!stage.tables().await.iter().any(|table| table.ends_with("_rebuild") || table.ends_with("_old")));
    stage.end().await;
}

async fn a_long_report_delays_the_swap_and_nothing_else(stage: Stage) {
    stage.history().await;
    let mut report = stage.deps.pool.begin().await.unwrap();
    sqlx::query("SELECT COUNT(*) FROM analysis_results").fetch_one(&mut *report).await.unwrap();
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let deps = stage.rebuild_deps();
    let rebuild = tokio::spawn(async move { rebuild(&config(), &deps, |progress| told.send(progress).unwrap()).await });
    while hears.recv().await.unwrap() != Progress::TablesInUse {}
    // Between the attempts the projector works.
    stage.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut projector, _kept) = stage.projector("live");
    while !matches!(projector.step().await, Ok(Step::Folded(3))) {
        assert!(Instant::now() < deadline, "the projector does not get on");
    }
    report.rollback().await.unwrap();
    let report = rebuild.await.unwrap().unwrap();
    assert!(report.swapped && report.is_equal() && report.compared_since == 3, "{report:?}");
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn a_rebuild_that_dies_while_it_waits_for_the_swap_leaves_tables_and_checkpoint_in_step(stage: Stage) {
    stage.history().await;
    let mut report = stage.deps.pool.begin().await.unwrap();
    sqlx::query("SELECT COUNT(*) FROM task_logs").fetch_one(&mut *report).await.unwrap();
    let deps = stage.rebuild_deps();
    let rebuild = tokio::spawn(async move { rebuild(&config(), &deps, |_| ()).await });
    stage.until_a_rename_waits().await;
    rebuild.abort();
    assert!(rebuild.await.unwrap_err().is_cancelled());
    // The statement that was sent lives on at the server; the projector may overtake it.
    let task = TaskId::new();
    stage.life(Partition(0), task, &[processing(), completed()]).await;
    let (mut projector, mut handed_over) = stage.projector("live");
    let fold = async {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !matches!(projector.step().await, Ok(Step::Idle)) {
            assert!(Instant::now() < deadline, "the projector does not get on");
        }
    };
    let (_, rolled_back) = tokio::join!(fold, report.rollback());
    rolled_back.unwrap();
    stage.fold().await;
    let verified = stage.verified().await;
    assert!(verified.is_equal(), "{verified:?}");
    let announced: i64 = stage
        .count(&format!("webhook_outbox o JOIN analysis_tasks t ON t.id = o.analysis_task_id AND t.task_id = '{task}'"))
        .await;
    assert_eq!(announced, 1);
    let mut times = 0;
    while let Ok(batch) = handed_over.try_recv() {
        times += batch.len();
    }
    assert!(times <= 1, "handed over {times} times");
    assert!(stage.rebuild_when_alone().await.is_equal());
    stage.end().await;
}

impl Stage {
    /// The lock of a rebuild that died goes when the server notices; that takes a moment.
    async fn rebuild_when_alone(&self) -> Report {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.rebuild(config()).await {
                Err(RebuildError::AnotherIsRunning { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await
                }
                outcome => return outcome.unwrap(),
            }
        }
    }

    async fn until_a_rename_waits(&self) {
        self.until_one_waits("RENAME TABLE", "Waiting for table metadata lock").await;
    }

    async fn until_one_waits(&self, statement: &str, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let connections = sqlx::raw_sql("SHOW FULL PROCESSLIST").fetch_all(&self.server).await.unwrap();
            let text = |row: &MySqlRow, column| row.try_get_unchecked::<Option<String>, _>(column).unwrap_or_default();
            let waits = |row: &MySqlRow| {
                text(row, "db").is_some_and(|database| database == self.database)
                    && text(row, "Info").is_some_and(|info| info.starts_with(statement))
                    && text(row, "State").is_some_and(|now| now.starts_with(state))
            };
            if connections.iter().any(waits) {
                return;
            }
            assert!(Instant::now() < deadline, "no rename waits");
            tokio::time::sleep(POLL).await;
        }
    }
}

on_each_server! {
    the_rebuilt_tables_are_the_old_ones_to_the_last_row_and_name,
    what_was_not_announced_yet_is_left_to_the_projector,
    tables_that_were_lost_with_their_checkpoint_come_back_and_nothing_is_announced,
    tables_follow_a_journal_that_lost_its_end_only_when_that_is_asked_for,
    under_live_load_nothing_is_lost_doubled_or_announced_twice,
    differences_are_counted_and_the_live_tables_stay_unless_they_are_accepted,
    the_same_damage_in_two_rows_of_a_range_is_seen,
    of_two_rebuilds_at_once_one_waits_for_the_other_or_is_refused,
    a_rebuild_waits_for_who_deletes_old_rows_and_names_who_does_not_end,
    a_journal_that_does_not_reach_from_start_to_checkpoint_is_refused,
    how_a_rebuild_went_can_be_read_by_others,
    what_a_swap_would_lose_is_refused_by_name,
    a_rebuild_that_dies_leaves_the_live_tables_in_service_and_the_next_one_clears_up,
    a_long_report_delays_the_swap_and_nothing_else,
    a_rebuild_that_dies_while_it_waits_for_the_swap_leaves_tables_and_checkpoint_in_step,
}
