//! The projector on a real Redis and real databases: every test runs on each of them.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_projector::lag::Lag;
use insightforge_projector::project::{Projector, Step};
use insightforge_projector::webhook::{Delivery, Endpoint, Secret, WebhookConfig};
use insightforge_projector::{Config, Deps};
use insightforge_schema::event::{
    Change, Completed, DeadLettered, Failed, Meta, Processing, Submitted, encode, now_us,
};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use tokio::sync::mpsc;

struct Stage {
    server: MySqlPool,
    database: String,
    deps: Deps,
}

impl Stage {
    async fn new(variable: &str) -> Self {
        let redis = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
            .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        let name = uuid::Uuid::new_v4().simple().to_string();
        let server = tables::pool(&url, 1).unwrap();
        let database = format!("t_{name}");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
        let pool = tables::pool(&format!("{}/{database}", url.trim_end_matches('/')), 4).unwrap();
        tables::migrate(&pool).await.unwrap();
        let link = Link::new(&redis, Duration::from_secs(10)).unwrap();
        let deps = Deps { link, keys: Keys::new(&format!("t{name}")), pool, sealer: Sealer::new(&[7; 32]) };
        Self { server, database, deps }
    }

    fn projector(&self, owner: &str) -> (Projector, mpsc::Receiver<Vec<Delivery>>) {
        let endpoint = Endpoint {
            name: "default".to_owned(),
            url: "http://127.0.0.1:9/".to_owned(),
            secret: Secret::new("0123456789abcdef"),
            legacy_header: true,
        };
        let config = Config {
            partitions: PartitionCount::new(2).unwrap(),
            owner: owner.to_owned(),
            batch_events: 4_000,
            webhook: WebhookConfig { endpoints: vec![endpoint], ..WebhookConfig::default() },
        };
        let (handoff, handed_over) = mpsc::channel(4);
        (Projector::new(&config, &self.deps, handoff, Lag::new(config.partitions)), handed_over)
    }

    /// Appends an event; its number.
    async fn append(&self, partition: Partition, task: TaskId, first: u64, change: &Change) -> u64 {
        let meta = Meta {
            at_us: now_us(),
            tenant: "default".to_owned(),
            actor: "test".to_owned(),
            attempt: u32::from(first > 0),
            trace: None,
        };
        let mut add = redis::cmd("XADD");
        add.arg(self.deps.keys.journal(partition)).arg("0-*").arg("type").arg(change.event_type());
        add.arg("task").arg(task.to_string()).arg("first").arg(first).arg("e").arg(encode(&meta, change));
        let id: String = self.deps.link.query(&add).await.unwrap();
        id[2..].parse().unwrap()
    }

    async fn life(&self, partition: Partition, task: TaskId, changes: &[Change]) -> u64 {
        let first = self.append(partition, task, 0, &submitted(r#"{"text":"今天 😀"}"#)).await;
        for change in changes {
            self.append(partition, task, first, change).await;
        }
        first
    }

    async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&self.deps.pool)
            .await
            .unwrap()
    }

    async fn statuses(&self) -> Vec<String> {
        let rows =
            sqlx::query("SELECT status FROM analysis_tasks ORDER BY id").fetch_all(&self.deps.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn end(self) {
        self.deps.pool.close().await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {}", self.database))).execute(&self.server).await.unwrap();
    }
}

fn submitted(data: &str) -> Change {
    Change::Submitted(Submitted {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        data: data.to_owned(),
        user_id: Some(7),
        webhook: None,
        batch: None,
        retry_of: None,
    })
}

fn processing() -> Change {
    Change::Processing(Processing { worker: "w".to_owned() })
}

fn completed() -> Change {
    Change::Completed(Completed {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        result: r#"{"sentiment":"Positive"}"#.to_owned(),
        inference_us: 5,
        batch_size: 1,
    })
}

fn failed() -> Change {
    Change::Failed(Failed {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        code: "bad_input".to_owned(),
        message: "/text is empty".to_owned(),
        permanent: true,
    })
}

async fn whole_lives_become_rows_logs_results_and_announcements(stage: Stage) {
    let (mut projector, mut handed_over) = stage.projector("one");
    let (good, bad) = (TaskId::new(), TaskId::new());
    stage.life(Partition(0), good, &[processing(), completed()]).await;
    let letter = Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() });
    stage.life(Partition(1), bad, &[processing(), failed(), letter]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(7));
    assert_eq!(stage.statuses().await, ["completed", "failed"]);
    assert_eq!((stage.count("task_logs").await, stage.count("analysis_results").await), (7, 1));
    let deliveries = handed_over.try_recv().unwrap();
    assert_eq!(deliveries.len(), 2);
    let body: serde_json::Value = serde_json::from_slice(&deliveries[0].body).unwrap();
    assert_eq!((&body["task_id"], &body["status"]), (&good.to_string().into(), &"completed".into()));
    assert_eq!(body["result"]["sentiment"], "Positive");
    let leased: i64 = stage.count("webhook_outbox WHERE state = 1").await;
    assert_eq!(leased, 2);
    let text: String =
        sqlx::query_scalar("SELECT JSON_UNQUOTE(JSON_EXTRACT(data_payload, '$.text')) FROM analysis_tasks LIMIT 1")
            .fetch_one(&stage.deps.pool)
            .await
            .unwrap();
    assert_eq!(text, "今天 😀");
    stage.end().await;
}

async fn a_life_folded_event_by_event_and_by_a_new_projector_ends_in_the_same_rows(stage: Stage) {
    let task = TaskId::new();
    let first = stage.append(Partition(0), task, 0, &submitted("not json")).await;
    let (mut one, _kept) = stage.projector("one");
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    stage.append(Partition(0), task, first, &processing()).await;
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    // The next one has nothing in memory and loads the task.
    let (mut two, mut handed_over) = stage.projector("two");
    stage.append(Partition(0), task, first, &completed()).await;
    assert_eq!(two.step().await.unwrap(), Step::Folded(1));
    assert_eq!(stage.statuses().await, ["completed"]);
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    assert_eq!(stage.count("task_logs").await, 3);
    stage.end().await;
}

async fn of_two_projectors_one_is_fenced_and_nothing_is_folded_twice(stage: Stage) {
    let (mut one, _one) = stage.projector("one");
    let (mut two, _two) = stage.projector("two");
    stage.life(Partition(0), TaskId::new(), &[]).await;
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    assert_eq!(two.step().await.unwrap(), Step::Idle);
    stage.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
    let (left, right) = tokio::join!(one.step(), two.step());
    let mut outcomes = [left.unwrap(), right.unwrap()].map(|step| format!("{step:?}"));
    outcomes.sort();
    assert_eq!(outcomes, ["Fenced", "Folded(3)"]);
    assert_eq!((stage.count("task_logs").await, stage.count("webhook_outbox").await), (4, 1));
    stage.end().await;
}

async fn what_cannot_be_folded_is_a_fault_and_holds_nothing_up(stage: Stage) {
    let (mut projector, _kept) = stage.projector("one");
    let task = TaskId::new();
    stage.life(Partition(0), task, &[completed(), processing(), completed(), completed()]).await;
    // The same id again, long after its record was gone.
    stage.life(Partition(0), task, &[processing()]).await;
    stage.append(Partition(0), TaskId::new(), 999, &processing()).await;
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(10));
    assert_eq!(stage.statuses().await, ["completed", "processing"]);
    assert_eq!((stage.count("projection_faults").await, stage.count("task_logs").await), (5, 5));
    stage.end().await;
}

async fn a_lost_connection_changes_nothing_and_the_step_is_made_again(stage: Stage) {
    let (mut projector, mut handed_over) = stage.projector("one");
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    let task = TaskId::new();
    stage.life(Partition(0), task, &[processing(), completed()]).await;
    // Writers wait for this lock; the projector's connection is killed while it waits.
    let mut lock = stage.deps.pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM projection_checkpoint FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    let kill = async {
        loop {
            let waiting: Vec<(u64,)> = sqlx::query_as(AssertSqlSafe(format!(
                "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE db = '{}' AND info LIKE 'UPDATE JSON_TABLE%'",
                stage.database
            )))
            .fetch_all(&stage.server)
            .await
            .unwrap();
            if let Some((id,)) = waiting.first() {
                sqlx::query(AssertSqlSafe(format!("KILL {id}"))).execute(&stage.server).await.unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (step, ()) = tokio::join!(projector.step(), kill);
    assert!(step.is_err(), "{step:?}");
    lock.rollback().await.unwrap();
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    assert_eq!(stage.statuses().await, ["processing", "completed"]);
    stage.end().await;
}

/// Each test once a server.
macro_rules! on_each_server {
    ($($test:ident),* $(,)?) => {
        mod on_mariadb {
            $(#[tokio::test] async fn $test() { super::$test(super::Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await).await })*
        }
        mod on_mysql {
            $(#[tokio::test] async fn $test() { super::$test(super::Stage::new("INSIGHTFORGE_TEST_MYSQL_URL").await).await })*
        }
    };
}

on_each_server! {
    whole_lives_become_rows_logs_results_and_announcements,
    a_life_folded_event_by_event_and_by_a_new_projector_ends_in_the_same_rows,
    of_two_projectors_one_is_fenced_and_nothing_is_folded_twice,
    what_cannot_be_folded_is_a_fault_and_holds_nothing_up,
    a_lost_connection_changes_nothing_and_the_step_is_made_again,
}
