//! What keeps the tables from growing for ever, and what keeps them honest: on real servers.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::time::Duration;

use insightforge_projector::check::{self, CheckPlan, Checker};
use insightforge_projector::letters::LetterKeeper;
use insightforge_projector::project;
use insightforge_projector::rebuild::{self, rebuild};
use insightforge_projector::retain::{Janitor, RowsKeep, Step};
use insightforge_projector::verify::{self, verify, verify_sample, verify_stretch};
use insightforge_schema::event::{BatchReceived, Change, DeadLettered, Redriven, now_us};
use insightforge_schema::id::{Partition, TaskId};
use sqlx::AssertSqlSafe;
use stage::{Stage, completed, failed, on_each_server, partitions, processing, routed, shadowed};

const PART: Partition = Partition(0);
const OTHER: Partition = Partition(1);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE_US: i64 = 60_000_000;

impl Stage {
    async fn fold(&self) {
        let (mut projector, _kept) = self.projector("live");
        while projector.step().await.unwrap() != project::Step::Idle {}
    }

    fn verify_deps(&self) -> verify::Deps {
        verify::Deps { journal: self.deps.journal(), pool: self.deps.pool.clone(), partitions: partitions() }
    }

    async fn verified(&self) -> verify::Report {
        verify(&self.verify_deps()).await.unwrap()
    }

    async fn rebuilt(&self) -> rebuild::Report {
        let config = rebuild::Config {
            partitions: partitions(),
            owner: "rebuild".to_owned(),
            keep_old: false,
            accept_differences: false,
            to_end: false,
        };
        rebuild(&config, &rebuild::Deps { journal: self.deps.journal(), pool: self.pool(8) }, |_| ()).await.unwrap()
    }

    async fn execute(&self, statement: &str) -> u64 {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.deps.pool).await.unwrap().rows_affected()
    }

    /// All announcements are made but those of these tasks.
    async fn delivered_but(&self, owed: &[u64]) {
        let owed: Vec<String> = owed.iter().map(|id| (id * 1024).to_string()).chain(["0".to_owned()]).collect();
        self.execute(&format!(
            "UPDATE webhook_outbox SET state = 2, finished_at = UTC_TIMESTAMP(6) WHERE analysis_task_id NOT IN ({})",
            owed.join(", ")
        ))
        .await;
    }

    /// Steps until nothing is left to do, days from now.
    async fn tidied(&self, days: u32, keep: RowsKeep) -> Vec<Step> {
        let mut janitor = Janitor::new(self.deps.pool.clone(), keep);
        let now = now_us() + i64::from(days) * 86_400_000_000;
        let mut steps = Vec::new();
        loop {
            match janitor.step(now).await.unwrap() {
                Step::Idle => return steps,
                step => steps.push(step),
            }
        }
    }
}

fn letter() -> Change {
    Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() })
}

async fn tasks_that_ended_long_ago_go_with_all_their_rows_and_nobody_takes_it_for_a_loss(stage: Stage) {
    let shadows = [processing(), routed(), shadowed(Some("{}")), shadowed(None)];
    for partition in [PART, OTHER] {
        for _ in 0..300 {
            stage.life(partition, TaskId::new(), &[processing(), completed()]).await;
        }
        stage.life(partition, TaskId::new(), &shadows).await;
        let batch = Change::BatchReceived(BatchReceived { accepted: 3, rejected: 1 });
        stage.append(partition, TaskId::new(), 0, &batch).await;
    }
    let (repeated, lettered) = (TaskId::new(), TaskId::new());
    let gone = stage.life(PART, repeated, &[processing(), failed()]).await;
    let owed = stage.life(PART, TaskId::new(), &[processing(), failed()]).await;
    let dead = stage.life(PART, lettered, &[processing(), failed(), letter()]).await;
    let runs = stage.life(PART, TaskId::new(), &[processing()]).await;
    stage.fold().await;
    // Illegal from the beginning: recorded, and no task of it.
    stage.life(PART, repeated, &[processing()]).await;
    stage.fold().await;
    let faults = stage.count("projection_faults").await;
    assert!(faults > 0);
    stage.delivered_but(&[owed]).await;

    let keep = RowsKeep { tasks: Some(DAY), deliveries: None };
    assert_eq!(stage.tidied(0, keep).await, [], "nothing is old yet");
    let steps = stage.tidied(10, keep).await;
    let tasks: usize = steps.iter().map(|step| if let Step::Tasks(tasks) = step { *tasks } else { 0 }).sum();
    assert_eq!((tasks, steps.len()), (603, 2), "{steps:?}");
    let left: Vec<u64> = sqlx::query_scalar("SELECT id DIV 1024 FROM analysis_tasks ORDER BY id")
        .fetch_all(&stage.deps.pool)
        .await
        .unwrap();
    assert_eq!(left, [owed, dead, runs]);
    let rows =
        [stage.count("task_logs").await, stage.count("analysis_results").await, stage.count("webhook_outbox").await];
    assert_eq!(rows, [3 + 4 + 2, 0, 2]);
    assert_eq!((stage.count("analysis_batches").await, stage.count("projection_faults").await), (2, faults));

    let check = async |when: &str| {
        let verified = stage.verified().await;
        assert!(verified.is_equal(), "{when}: {verified:?}");
        let rebuilt = stage.rebuilt().await;
        assert!(rebuilt.swapped && rebuilt.is_equal(), "{when}: {rebuilt:?}");
        let (sample, stretch) =
            (verify_sample(&stage.verify_deps(), 50).await, verify_stretch(&stage.verify_deps(), 5_000).await);
        assert_eq!((sample.unwrap().differences, stretch.unwrap().differences), (0, 0), "{when}");
    };
    check("after the deletion").await;
    // The dead letter is repeated, and somebody repeats a task whose rows went at the same moment.
    let redriven = |as_task| Change::Redriven(Redriven { as_task, reason: None });
    for (task, first) in [(lettered, dead), (repeated, gone)] {
        stage.append(PART, task, first, &redriven(TaskId::new())).await;
    }
    stage.fold().await;
    assert_eq!(stage.count("projection_faults").await, faults, "what happens to a deleted task is no fault");
    check("after events of deleted tasks").await;
    stage.life(OTHER, TaskId::new(), &[processing(), completed()]).await;
    stage.fold().await;
    stage.delivered_but(&[owed]).await;
    stage.tidied(20, keep).await;
    check("after the next deletion").await;

    // A row that went for no such reason is missed.
    for table in ["task_logs", "webhook_outbox"] {
        stage.execute(&format!("DELETE FROM {table} WHERE analysis_task_id = {}", runs * 1024)).await;
    }
    stage.execute(&format!("DELETE FROM analysis_tasks WHERE id = {}", runs * 1024)).await;
    let verified = stage.verified().await;
    assert_eq!(
        verified.examples.first().map(|found| (found.table, found.origin.unwrap().n)),
        Some(("analysis_tasks", runs))
    );
    stage.end().await;
}

async fn what_cannot_have_happened_is_a_fault_also_where_rows_were_deleted(stage: Stage) {
    let gone = TaskId::new();
    let first = stage.life(PART, gone, &[processing(), failed()]).await;
    let stays = stage.life(PART, TaskId::new(), &[processing()]).await;
    // Impossible, and recorded while the task has its row.
    stage.append(PART, gone, first, &processing()).await;
    stage.fold().await;
    assert_eq!(stage.count("projection_faults").await, 1);
    stage.delivered_but(&[]).await;
    let keep = RowsKeep { tasks: Some(DAY), deliveries: None };
    assert_eq!(stage.tidied(10, keep).await, [Step::Tasks(1)]);
    assert!(stage.verified().await.is_equal(), "what was recorded before stays");

    // Of a task that begins with no `submitted`, of one that begins later than the event, and of one that is deleted.
    stage.append(PART, TaskId::new(), first + 1, &processing()).await;
    stage.append(PART, TaskId::new(), 1_000, &completed()).await;
    stage.append(PART, TaskId::new(), stays + 1, &Change::Redriven(Redriven { as_task: gone, reason: None })).await;
    stage.fold().await;
    assert_eq!(stage.count("projection_faults").await, 4);
    let verified = stage.verified().await;
    assert!(verified.is_equal(), "{verified:?}");
    let rebuilt = stage.rebuilt().await;
    assert!(rebuilt.swapped && rebuilt.is_equal(), "{rebuilt:?}");
    // Late, and possible: it changes nothing. Late, and impossible: told.
    stage.append(PART, gone, first, &Change::Redriven(Redriven { as_task: TaskId::new(), reason: None })).await;
    stage.append(PART, gone, first, &completed()).await;
    stage.fold().await;
    assert_eq!(stage.count("projection_faults").await, 5);
    let verified = stage.verified().await;
    assert!(verified.is_equal(), "{verified:?}");

    stage.execute("DELETE FROM projection_faults WHERE event_type = 'completed'").await;
    let missing: Vec<_> = stage.verified().await.examples.into_iter().map(|found| (found.table, found.what)).collect();
    let row = ("projection_faults", "the row is missing".to_owned());
    assert_eq!(missing.iter().filter(|found| **found == row).count(), 2, "{missing:?}");
    stage.end().await;
}

async fn announcements_that_are_over_go_after_their_time_and_those_that_are_not_stay(stage: Stage) {
    let mut firsts = Vec::new();
    for _ in 0..700 {
        firsts.push(stage.life(PART, TaskId::new(), &[processing(), completed()]).await);
    }
    stage.fold().await;
    stage.delivered_but(&[firsts[3], firsts[650]]).await;
    let attempt = "INSERT INTO webhook_attempts (outbox_id, endpoint, attempt, outcome, duration_us, created_at)
        SELECT id, endpoint, 1, 'delivered', 5, created_at FROM webhook_outbox";
    stage.execute(attempt).await;
    let keep = RowsKeep { tasks: None, deliveries: Some(DAY) };
    assert_eq!(stage.tidied(0, keep).await, []);
    let steps = stage.tidied(2, keep).await;
    let deleted: u64 = steps.iter().map(|step| if let Step::Deliveries(deleted) = step { *deleted } else { 0 }).sum();
    assert_eq!(deleted, 698, "{steps:?}");
    assert_eq!((stage.count("webhook_outbox").await, stage.count("webhook_attempts").await), (2, 2));
    assert_eq!(stage.count("analysis_tasks").await, 700);
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn dead_letters_that_are_too_old_are_purged_by_an_event_each_and_the_others_stay(stage: Stage) {
    let list = async |partition, task: TaskId, ago_days: i64| {
        let died_ms = now_us() / 1_000 - ago_days * 86_400_000;
        let mut add = redis::cmd("ZADD");
        add.arg(stage.deps.keys.dead(partition)).arg(died_ms).arg(task.to_string());
        let _: i64 = stage.deps.link.query(&add).await.unwrap();
    };
    let (mut old, young, unfolded) = (Vec::new(), TaskId::new(), TaskId::new());
    for partition in [PART, OTHER] {
        for _ in 0..210 {
            old.push(TaskId::new());
            stage.life(partition, old[old.len() - 1], &[processing(), failed(), letter()]).await;
            list(partition, old[old.len() - 1], 9).await;
        }
    }
    stage.life(PART, young, &[processing(), failed(), letter()]).await;
    list(PART, young, 3).await;
    list(PART, unfolded, 20).await;
    stage.fold().await;

    let keeper = |keep| LetterKeeper::new(stage.deps.clone(), partitions(), keep);
    assert_eq!(keeper(None).step(now_us()).await.unwrap(), 0, "for ever");
    assert_eq!(keeper(None).count().await.unwrap(), 422);
    let mut steps = Vec::new();
    while let Some(purged) = Some(keeper(Some(7 * DAY)).step(now_us()).await.unwrap()).filter(|purged| *purged > 0) {
        steps.push(purged);
    }
    assert_eq!((steps.iter().sum::<usize>(), steps.len()), (420, 4), "{steps:?}");
    assert_eq!(keeper(None).count().await.unwrap(), 2);

    stage.fold().await;
    assert_eq!(stage.count("analysis_tasks WHERE dead_lettered").await, 1);
    assert_eq!(stage.count("projection_faults").await, 0);
    let said = "task_logs WHERE event_type = 'purged' AND details LIKE '%\"retention\"%more than 7 days%'";
    assert_eq!(stage.count(said).await, 420);
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn nothing_is_deleted_while_a_rebuild_is_at_work(stage: Stage) {
    stage.life(PART, TaskId::new(), &[processing(), completed()]).await;
    stage.fold().await;
    stage.delivered_but(&[]).await;
    let mut other = stage.deps.pool.acquire().await.unwrap();
    let lock = "SELECT CAST(GET_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)), 0) AS SIGNED)";
    assert_eq!(sqlx::query_scalar::<_, i64>(lock).fetch_one(&mut *other).await.unwrap(), 1);
    let mut janitor = Janitor::new(stage.deps.pool.clone(), RowsKeep { tasks: Some(DAY), deliveries: Some(DAY) });
    let later = now_us() + 10 * 86_400_000_000;
    assert_eq!(janitor.step(later).await.unwrap(), Step::Waiting);
    sqlx::query("DO RELEASE_ALL_LOCKS()").execute(&mut *other).await.unwrap();
    drop(other);
    assert_eq!(janitor.step(later).await.unwrap(), Step::Tasks(1));
    stage.end().await;
}

async fn the_continuous_check_finds_what_is_wrong_and_what_is_missing_and_remembers_it(stage: Stage) {
    for partition in [PART, OTHER] {
        for _ in 0..40 {
            stage.life(partition, TaskId::new(), &[processing(), completed()]).await;
        }
    }
    stage.fold().await;
    let plan = CheckPlan { every: Some(Duration::from_secs(60)), tasks: 5_000 };
    let mut checker = Checker::new(stage.verify_deps(), plan, "checker".to_owned());
    let mut now = now_us();
    let mut check = async || {
        now += 2 * MINUTE_US;
        let first = checker.step(now).await.unwrap();
        assert_eq!(checker.step(now + MINUTE_US / 2).await.unwrap(), check::Step::Early);
        let noted: (u64, Option<chrono::NaiveDateTime>, Option<String>) =
            sqlx::query_as("SELECT differences, differed_at, difference FROM projection_checks")
                .fetch_one(&stage.deps.pool)
                .await
                .unwrap();
        match first {
            check::Step::Checked { tasks, differences, .. } => {
                assert!(tasks > 0);
                assert_eq!(noted.0, differences);
                (differences, noted.1.is_some(), noted.2.unwrap_or_default())
            }
            check::Step::Early => panic!("it is time"),
        }
    };
    assert_eq!(check().await, (0, false, String::new()));

    stage.execute("UPDATE analysis_results SET inference_us = 99").await;
    let (differences, _, example) = check().await;
    assert!(differences > 0 && example.contains("analysis_results") && example.contains("inference_us"), "{example}");
    stage.execute("UPDATE analysis_results SET inference_us = 5").await;
    let (differences, remembered, example) = check().await;
    assert_eq!((differences, remembered), (0, true));
    assert!(example.contains("inference_us"), "the last difference stays readable: {example}");

    // No row of the last tasks is left: only the journal knows of them.
    for table in ["analysis_results", "task_logs"] {
        stage.execute(&format!("DELETE FROM {table} WHERE analysis_task_id >= 100 * 1024")).await;
    }
    stage.execute("DELETE FROM analysis_tasks WHERE id >= 100 * 1024").await;
    let mut missed = 0;
    for _ in 0..20 {
        let (differences, _, example) = check().await;
        if differences > 0 {
            assert!(example.contains("task_logs") && example.contains("missing"), "{example}");
            missed += 1;
        }
    }
    assert!(missed > 0);
    stage.end().await;
}

on_each_server!(
    tasks_that_ended_long_ago_go_with_all_their_rows_and_nobody_takes_it_for_a_loss,
    what_cannot_have_happened_is_a_fault_also_where_rows_were_deleted,
    announcements_that_are_over_go_after_their_time_and_those_that_are_not_stay,
    dead_letters_that_are_too_old_are_purged_by_an_event_each_and_the_others_stay,
    nothing_is_deleted_while_a_rebuild_is_at_work,
    the_continuous_check_finds_what_is_wrong_and_what_is_missing_and_remembers_it,
);
