//! A database of its own for a test, rows in its outbox, and senders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use insightforge_projector::webhook::schedule::Schedule;
use insightforge_projector::webhook::send::{Lookup, system_lookup};
use insightforge_projector::webhook::{self, Delivery, Endpoint, Secret, WebhookConfig, WebhookDeps, WebhookError};
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::id::TaskId;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// What an outbox row's `state` says.
pub(crate) const DUE: u8 = 0;
pub(crate) const LEASED: u8 = 1;
pub(crate) const DELIVERED: u8 = 2;
pub(crate) const GIVEN_UP: u8 = 3;

/// Waits for something that happens in another task or process.
pub(crate) async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Stage {
    server: MySqlPool,
    /// The server's URL, without a database.
    pub(crate) server_url: String,
    pub(crate) database: String,
    pub(crate) pool: MySqlPool,
    pub(crate) sealer: Sealer,
    rows: AtomicU64,
}

/// An outbox row, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Added {
    pub(crate) id: u64,
    pub(crate) task: TaskId,
}

/// What the outbox says of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outbox {
    pub(crate) state: u8,
    pub(crate) attempts: u16,
    pub(crate) token: Option<u64>,
    /// Seconds until it is due.
    pub(crate) due_in_s: i64,
}

/// A sender at work; killed when it is dropped.
pub(crate) struct Running {
    pub(crate) shutdown: CancellationToken,
    pub(crate) handoff: mpsc::Sender<Vec<Delivery>>,
    task: AbortOnDropHandle<Result<(), WebhookError>>,
}

impl Running {
    /// Stops it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

impl Stage {
    pub(crate) async fn new(variable: &str) -> Self {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        let server_url = url.trim_end_matches('/').to_owned();
        let server = tables::pool(&server_url, 1).unwrap();
        let database = format!("t_{}", uuid::Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
        let pool = tables::pool(&format!("{server_url}/{database}"), 4).unwrap();
        tables::migrate(&pool).await.unwrap();
        Self { server, server_url, database, pool, sealer: Sealer::new(&[7; 32]), rows: AtomicU64::new(1) }
    }

    /// Quick to look and to try again; the tests' receivers on loopback are configured endpoints.
    pub(crate) fn config(endpoints: &[(&str, String)]) -> WebhookConfig {
        let endpoint = |(name, url): &(&str, String)| Endpoint {
            name: (*name).to_owned(),
            url: url.clone(),
            secret: Secret::new(SECRET),
            legacy_header: true,
        };
        WebhookConfig {
            endpoints: endpoints.iter().map(endpoint).collect(),
            poll: Duration::from_millis(20),
            schedule: Schedule::new(vec![Duration::from_millis(20); 4]),
            ..WebhookConfig::default()
        }
    }

    /// [`Self::config`] with callers' webhooks to loopback allowed.
    pub(crate) fn open_config(endpoints: &[(&str, String)]) -> WebhookConfig {
        WebhookConfig { addresses: AddressPolicy::parse("127.0.0.1").unwrap(), ..Self::config(endpoints) }
    }

    pub(crate) fn start(&self, config: WebhookConfig) -> Running {
        self.start_with(config, system_lookup())
    }

    pub(crate) fn start_with(&self, config: WebhookConfig, lookup: Lookup) -> Running {
        self.start_at(&self.server_url, config, lookup)
    }

    /// A sender has a pool of its own: when it is killed, its connections die with it.
    pub(crate) fn start_at(&self, server_url: &str, config: WebhookConfig, lookup: Lookup) -> Running {
        let (handoff, handed_over) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let pool = tables::pool(&format!("{server_url}/{}", self.database), 4).unwrap();
        let deps = WebhookDeps { pool, sealer: self.sealer.clone(), lookup };
        let task = tokio::spawn(webhook::run(config, deps, handed_over, shutdown.clone()));
        Running { shutdown, handoff, task: AbortOnDropHandle::new(task) }
    }

    /// A due row for a configured endpoint.
    pub(crate) async fn add(&self, endpoint: &str) -> Added {
        self.add_row(endpoint, None, None).await
    }

    pub(crate) async fn add_many(&self, endpoint: &str, count: usize) {
        for _ in 0..count {
            self.add(endpoint).await;
        }
    }

    /// So many more rows like this one, of the same task, due since different moments.
    pub(crate) async fn copy(&self, row: Added, count: i64) {
        let first = self.rows.fetch_add(u64::try_from(count).unwrap(), Ordering::SeqCst);
        let ids: Vec<u64> = (first..).take(usize::try_from(count).unwrap()).map(|n| n * 1024).collect();
        sqlx::query(
            "INSERT INTO webhook_outbox (id, endpoint, analysis_task_id, url, secret, body, state, due_at, attempts, created_at)
            SELECT new.id, o.endpoint, o.analysis_task_id, o.url, o.secret, o.body, 0,
                UTC_TIMESTAMP(6) - INTERVAL new.id MICROSECOND, 0, o.created_at
            FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) new JOIN webhook_outbox o ON o.id = ?",
        )
        .bind(serde_json::json!(ids).to_string())
        .bind(row.id)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    /// A due row for a task's own webhook.
    pub(crate) async fn add_own(&self, url: &str, secret: Option<&str>) -> Added {
        self.add_row(webhook::TASK_ENDPOINT, Some(url), secret).await
    }

    async fn add_row(&self, endpoint: &str, url: Option<&str>, secret: Option<&str>) -> Added {
        let (id, task) = (self.rows.fetch_add(1, Ordering::SeqCst) * 1024, TaskId::new());
        let sealed = secret.map(|secret| self.sealer.seal(secret.as_bytes(), task.0.as_bytes()));
        sqlx::query(
            "INSERT INTO analysis_tasks (id, task_id, tenant, task_type, data_payload, model_version, status, attempt,
            dead_lettered, last_n, created_at, updated_at)
            VALUES (?, ?, 'default', 'acting', '{}', 'v1', 'completed', 1, FALSE, 3, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .bind(id)
        .bind(task.to_string())
        .execute(&self.pool)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO webhook_outbox (id, endpoint, analysis_task_id, url, secret, body, state, due_at, attempts,
            created_at) VALUES (?, ?, ?, ?, ?, ?, 0, UTC_TIMESTAMP(6), 0, UTC_TIMESTAMP(6))",
        )
        .bind(id)
        .bind(endpoint)
        .bind(id)
        .bind(url)
        .bind(sealed)
        .bind(body(task))
        .execute(&self.pool)
        .await
        .unwrap();
        Added { id, task }
    }

    pub(crate) async fn outbox(&self, row: Added) -> Outbox {
        let row = sqlx::query(
            "SELECT state, attempts, lease_token, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), due_at) AS due_in_s
            FROM webhook_outbox WHERE id = ?",
        )
        .bind(row.id)
        .fetch_one(&self.pool)
        .await
        .unwrap();
        Outbox {
            state: row.get("state"),
            attempts: row.get("attempts"),
            token: row.get("lease_token"),
            due_in_s: row.get("due_in_s"),
        }
    }

    /// The row's attempts: outcome, status code, error.
    pub(crate) async fn attempts(&self, row: Added) -> Vec<(String, Option<u16>, Option<String>)> {
        sqlx::query_as(
            "SELECT outcome, status_code, error FROM webhook_attempts WHERE outbox_id = ? ORDER BY attempt, id",
        )
        .bind(row.id)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    /// Waits until the row's state is `state`.
    pub(crate) async fn becomes(&self, row: Added, state: u8) {
        eventually(&format!("row {} in state {state}", row.id), async || self.outbox(row).await.state == state).await;
    }

    /// Rows of a table, with a condition if need be.
    pub(crate) async fn count(&self, rows: &str) -> i64 {
        let statement = format!("SELECT COUNT(*) FROM {rows}");
        sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn execute(&self, statement: &str) {
        sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&self.pool).await.unwrap();
    }

    /// At the end of a test.
    pub(crate) async fn end(&self) {
        self.pool.close().await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {}", self.database))).execute(&self.server).await.unwrap();
    }
}

/// The bytes to be sent; not ASCII only.
pub(crate) fn body(task: TaskId) -> Vec<u8> {
    format!(r#"{{"task_id":"{task}","status":"completed","result":{{"text":"好 😀"}}}}"#).into_bytes()
}
