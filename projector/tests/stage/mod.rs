//! What every test here stands on: a real Redis under a prefix of its own, a real database of its own, and a journal that
//! the test writes.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its part")]

use std::time::Duration;

use insightforge_projector::lag::Lag;
use insightforge_projector::project::Projector;
use insightforge_projector::webhook::{Delivery, Endpoint, Secret, WebhookConfig};
use insightforge_projector::{Config, Deps, Upkeep};
use insightforge_schema::event::{
    Change, Completed, Failed, Meta, Processing, Route, ShadowError, Shadowed, Submitted, encode, now_us,
};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use tokio::sync::mpsc;

pub(crate) struct Stage {
    pub(crate) server: MySqlPool,
    pub(crate) database: String,
    url: String,
    pub(crate) deps: Deps,
}

impl Stage {
    pub(crate) async fn new(variable: &str) -> Self {
        let redis = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
            .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        let name = uuid::Uuid::new_v4().simple().to_string();
        let server = tables::pool(&url, 1).unwrap();
        let database = format!("t_{name}");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
        let url = format!("{}/{database}", url.trim_end_matches('/'));
        let pool = tables::pool(&url, 4).unwrap();
        tables::migrate(&pool).await.unwrap();
        let link = Link::new(&redis, Duration::from_secs(10)).unwrap();
        let keys = Keys::new(&format!("t{name}"));
        let deps = Deps { link, keys, pool, sealer: Sealer::new(&[7; 32]), archive: None };
        Self { server, database, url, deps }
    }

    /// Another pool of the same database.
    pub(crate) fn pool(&self, connections: u32) -> MySqlPool {
        tables::pool(&self.url, connections).unwrap()
    }

    pub(crate) fn projector(&self, owner: &str) -> (Projector, mpsc::Receiver<Vec<Delivery>>) {
        let endpoint = Endpoint {
            name: "default".to_owned(),
            url: "http://127.0.0.1:9/".to_owned(),
            secret: Secret::new("0123456789abcdef"),
            legacy_header: true,
        };
        let config = Config {
            partitions: partitions(),
            owner: owner.to_owned(),
            batch_events: 4_000,
            webhook: WebhookConfig { endpoints: vec![endpoint], ..WebhookConfig::default() },
            upkeep: Upkeep::default(),
        };
        let (handoff, handed_over) = mpsc::channel(4);
        (Projector::new(&config, &self.deps, handoff, Lag::new(config.partitions)), handed_over)
    }

    /// Appends an event; its number.
    pub(crate) async fn append(&self, partition: Partition, task: TaskId, first: u64, change: &Change) -> u64 {
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

    pub(crate) async fn life(&self, partition: Partition, task: TaskId, changes: &[Change]) -> u64 {
        let first = self.append(partition, task, 0, &submitted(r#"{"text":"今天 😀"}"#)).await;
        for change in changes {
            self.append(partition, task, first, change).await;
        }
        first
    }

    pub(crate) async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&self.deps.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn statuses(&self) -> Vec<String> {
        let rows =
            sqlx::query("SELECT status FROM analysis_tasks ORDER BY id").fetch_all(&self.deps.pool).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// The connection on which a projector's write waits, if one does. (`information_schema.processlist` would do, if
    /// MySQL did not fail there on what other connections say in four-byte characters.)
    pub(crate) async fn waiting_writer(&self) -> Option<u64> {
        for row in sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(&self.server).await.unwrap() {
            let database: Option<Vec<u8>> = row.try_get_unchecked("db").unwrap();
            let statement: Option<Vec<u8>> = row.try_get_unchecked("Info").unwrap();
            if database.is_some_and(|database| database == self.database.as_bytes())
                && statement.is_some_and(|statement| statement.starts_with(b"UPDATE JSON_TABLE"))
            {
                return Some(row.try_get_unchecked("Id").unwrap());
            }
        }
        None
    }

    pub(crate) async fn end(self) {
        self.deps.pool.close().await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {}", self.database))).execute(&self.server).await.unwrap();
    }
}

pub(crate) fn submitted(data: &str) -> Change {
    Change::Submitted(Submitted {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        data: data.to_owned(),
        user_id: Some(7),
        webhook: None,
        batch: None,
        retry_of: None,
        expires_us: None,
    })
}

pub(crate) fn processing() -> Change {
    Change::Processing(Processing { worker: "w".to_owned() })
}

pub(crate) fn completed() -> Change {
    Change::Completed(Completed {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        result: r#"{"sentiment":"Positive"}"#.to_owned(),
        inference_us: 5,
        batch_size: 1,
        route: None,
    })
}

/// Completed by the canary.
pub(crate) fn routed() -> Change {
    let Change::Completed(completed) = completed() else { unreachable!("it is a completed") };
    let route = Route {
        asked: "stable".to_owned(),
        reason: "canary".to_owned(),
        digest: "9f86d081".to_owned(),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        registry_n: 4,
    };
    Change::Completed(Completed { model_version: "v2".to_owned(), route: Some(route), ..completed })
}

/// What a shadow said, or that it failed.
pub(crate) fn shadowed(result: Option<&str>) -> Change {
    let error = ShadowError { code: "timeout".to_owned(), message: "no answer".to_owned() };
    Change::Shadowed(Shadowed {
        task_type: "acting".to_owned(),
        model_version: "v3".to_owned(),
        digest: "60303ae2".to_owned(),
        backend: "rten 0.27".to_owned(),
        device: "cpu".to_owned(),
        result: result.map(str::to_owned),
        error: result.is_none().then_some(error),
        agrees: result.is_some(),
        took_us: 231,
        batch_size: 3,
    })
}

pub(crate) fn failed() -> Change {
    Change::Failed(Failed {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        code: "bad_input".to_owned(),
        message: "/text is empty".to_owned(),
        permanent: true,
        route: None,
    })
}

pub(crate) fn partitions() -> PartitionCount {
    PartitionCount::new(2).unwrap()
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
pub(crate) use on_each_server;
