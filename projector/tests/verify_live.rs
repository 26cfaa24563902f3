//! Verifications on a real Redis and real databases: every test runs on each of them.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use insightforge_projector::project::Step;
use insightforge_projector::verify::{Deps, Report, verify, verify_sample};
use insightforge_schema::event::{BatchLine, BatchReceived, Change, DeadLettered, Redriven, RetryScheduled, Webhook};
use insightforge_schema::id::{Partition, TaskId};
use sqlx::{AssertSqlSafe, Executor};
use stage::{Stage, completed, failed, on_each_server, partitions, processing, routed, shadowed, submitted};

/// Parents before their children.
const TABLES: [&str; 6] = [
    "analysis_tasks",
    "analysis_results",
    "analysis_shadow_results",
    "task_logs",
    "analysis_batches",
    "projection_faults",
];

impl Stage {
    fn verify_deps(&self) -> Deps {
        Deps { journal: self.deps.journal(), pool: self.deps.pool.clone(), partitions: partitions() }
    }

    async fn verified(&self) -> Report {
        verify(&self.verify_deps()).await.unwrap()
    }

    async fn fold(&self) {
        let (mut projector, _kept) = self.projector("live");
        while projector.step().await.unwrap() != Step::Idle {}
    }

    async fn execute(&self, statement: &str) -> u64 {
        self.deps.pool.execute(AssertSqlSafe(statement.to_owned())).await.unwrap().rows_affected()
    }

    /// Every kind of event and every kind of document, folded; 28 events of 8 tasks.
    async fn history(&self) {
        let retry = Change::RetryScheduled(RetryScheduled {
            code: "timeout".to_owned(),
            message: "no answer".to_owned(),
            next_attempt: 2,
            due_us: 1_700_000_000_000_000,
        });
        let dead = Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() });
        let redriven = Change::Redriven(Redriven { as_task: TaskId::new(), reason: None });
        let cancelled = Change::Cancelled(insightforge_schema::event::Cancelled {
            reason: "not\u{0}\u{1} needed 'x' \\".to_owned(),
        });
        self.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
        self.life(Partition(1), TaskId::new(), &[processing(), retry, processing(), failed(), dead, redriven]).await;
        self.life(Partition(1), TaskId::new(), &[cancelled]).await;
        let shadows = [shadowed(Some("no document")), shadowed(None)];
        self.life(Partition(0), TaskId::new(), &[&[processing(), routed()], &shadows[..]].concat()).await;
        let twice = TaskId::new();
        self.life(Partition(0), twice, &[processing(), completed(), completed()]).await;
        for data in
            [r#"{"b":1.50,"a":[1e3,-0.0,12345678901234567890123],"a":"again \ud83d\ude00 \\ '"}"#, "no document"]
        {
            let Change::Submitted(mut it) = submitted(data) else { unreachable!("it is a submitted") };
            it.webhook =
                Some(Webhook { url: "https://example.org/?k=1".to_owned(), sealed_secret: Some(vec![0, 200, 7]) });
            it.batch = Some(BatchLine { id: uuid::Uuid::new_v4(), line: 4 });
            it.retry_of = Some(TaskId::new());
            self.append(Partition(1), TaskId::new(), 0, &Change::Submitted(it)).await;
        }
        let batch = Change::BatchReceived(BatchReceived { accepted: 3, rejected: 1 });
        self.append(Partition(0), TaskId::new(), 0, &batch).await;
        self.fold().await;
        self.life(Partition(0), twice, &[processing()]).await;
        self.life(Partition(0), TaskId::new(), &[processing()]).await;
        self.fold().await;
    }
}

async fn what_the_projector_folded_is_what_a_verification_expects(stage: Stage) {
    stage.history().await;
    let report = stage.verified().await;
    assert!(report.is_equal(), "{report:#?}");
    assert_eq!((report.events, report.tasks), (28, 8));
    assert_eq!(stage.count("projection_faults").await, 3, "the history has illegal events");
    let sample = verify_sample(&stage.verify_deps(), 100).await.unwrap();
    assert!(sample.is_equal() && sample.tasks > 0, "{sample:#?}");
    stage.end().await;
}

async fn every_kind_of_damage_is_found_and_named(stage: Stage) {
    stage.history().await;
    let damages = [
        (
            "UPDATE analysis_tasks SET status = 'failed' WHERE status = 'completed' ORDER BY id LIMIT 1",
            "analysis_tasks",
            "status",
        ),
        ("UPDATE analysis_tasks SET data_payload = '{\"b\":1}' ORDER BY id LIMIT 1", "analysis_tasks", "data_payload"),
        ("UPDATE analysis_tasks SET last_n = last_n + 1 WHERE status = 'processing'", "analysis_tasks", "last_n"),
        (
            "UPDATE analysis_tasks SET webhook_secret = x'00' WHERE webhook_secret IS NOT NULL LIMIT 1",
            "analysis_tasks",
            "webhook_secret",
        ),
        ("UPDATE analysis_tasks SET user_id = NULL ORDER BY id LIMIT 1", "analysis_tasks", "user_id is NULL, not `7`"),
        (
            "UPDATE analysis_results SET created_at = created_at + INTERVAL 1 MICROSECOND ORDER BY id LIMIT 1",
            "analysis_results",
            "created_at",
        ),
        ("DELETE FROM analysis_results ORDER BY id LIMIT 1", "analysis_results", "missing"),
        (
            "UPDATE analysis_results SET route_reason = 'exact' WHERE route_reason = 'canary'",
            "analysis_results",
            "route_reason is `exact`, not `canary`",
        ),
        (
            "UPDATE analysis_shadow_results SET agrees = 1 WHERE result_data IS NULL",
            "analysis_shadow_results",
            "agrees is `1`, not `0`",
        ),
        ("DELETE FROM analysis_shadow_results ORDER BY id LIMIT 1", "analysis_shadow_results", "missing"),
        ("DELETE FROM task_logs WHERE event_type = 'dead_lettered'", "task_logs", "missing"),
        (
            "UPDATE task_logs SET details = JSON_SET(details, '$.attempt', 9) ORDER BY id LIMIT 1",
            "task_logs",
            "details",
        ),
        ("UPDATE analysis_batches SET accepted = 4", "analysis_batches", "accepted is `4`, not `3`"),
        ("DELETE FROM projection_faults ORDER BY id LIMIT 1", "projection_faults", "missing"),
        (
            "INSERT INTO projection_faults SELECT id + 1024 * 1000, task_id, event_type, reason, created_at FROM projection_faults LIMIT 1",
            "projection_faults",
            "rows",
        ),
        (
            "INSERT INTO analysis_batches SELECT 2048, UUID(), tenant, 1, 1, created_at FROM analysis_batches LIMIT 1",
            "analysis_batches",
            "does not make",
        ),
    ];
    for (damage, table, what) in damages {
        for table in TABLES {
            stage.execute(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
        }
        assert_eq!(stage.execute(damage).await, 1, "{damage}");
        let report = stage.verified().await;
        let named = report.examples.iter().any(|it| it.table == table && it.what.contains(what));
        assert!(named, "{damage}: {report:#?}");
        assert!(!format!("{report:?}").contains("example.org"), "a webhook's address is shown: {report:?}");
        for table in TABLES.into_iter().rev() {
            stage.execute(&format!("DELETE FROM {table}")).await;
        }
        for table in TABLES {
            stage.execute(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
            stage.execute(&format!("DROP TABLE kept_{table}")).await;
        }
    }
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn a_projector_may_go_on_while_a_verification_runs(stage: Stage) {
    stage.history().await;
    let (mut projector, mut handed_over) = stage.projector("live");
    let live = async {
        for _ in 0..20 {
            stage.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
            projector.step().await.unwrap();
            while handed_over.try_recv().is_ok() {}
        }
    };
    let verify = async {
        for _ in 0..5 {
            let report = stage.verified().await;
            assert!(report.is_equal(), "{report:#?}");
        }
    };
    tokio::join!(live, verify);
    assert!(stage.verified().await.is_equal());
    stage.end().await;
}

async fn a_journal_without_its_beginning_or_its_end_says_nothing_about_the_tables(stage: Stage) {
    stage.history().await;
    let journal = stage.deps.keys.journal(Partition(0));
    stage.deps.link.query::<i64>(redis::cmd("XDEL").arg(&journal).arg("0-3")).await.unwrap();
    let error = verify(&stage.verify_deps()).await.unwrap_err();
    let missing = "events 3 to 3 of partition 00 are neither in the journal's stream nor in the archive";
    assert!(error.to_string().contains(missing), "{error}");
    stage.end().await;
}

on_each_server! {
    what_the_projector_folded_is_what_a_verification_expects,
    every_kind_of_damage_is_found_and_named,
    a_projector_may_go_on_while_a_verification_runs,
    a_journal_without_its_beginning_or_its_end_says_nothing_about_the_tables,
}
