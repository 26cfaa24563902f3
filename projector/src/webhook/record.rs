//! Writes what came of deliveries: the attempt and the outbox row, many in one transaction.
//!
//! Work-conserving: what arrives while one transaction runs is the next. There are two statements, whatever the number of
//! rows: attempts travel as literals, the outbox rows' new states as one JSON parameter that the server unfolds
//! (`JSON_TABLE`: MySQL 8, MariaDB 10.6). A row whose lease token is no longer this delivery's belongs to another process
//! and stays as it is; so a transaction that is repeated because its answer was lost finds nothing left to do.

use std::collections::HashSet;
use std::time::Duration;

use insightforge_schema::fail::{self, Step};
use serde::Serialize;
use sqlx::{AssertSqlSafe, Executor, MySqlPool};
use tokio::sync::mpsc;

use super::attempt::Attempted;
use super::measure::Meters;
use super::schedule::Verdict;
use super::{DELIVERED, DUE, Delivery, GIVEN_UP};
use crate::literal::inserts;
use crate::rows::{Kind, Table, Time};

/// The most rows of one transaction.
const MAX_BATCH: usize = 512;
/// The pause after a failed transaction; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Something to write.
pub(super) enum Record {
    Attempted(Box<Attempted>),
    /// Not sent: due again at `due_us`, no attempt used up.
    Returned {
        delivery: Delivery,
        due_us: i64,
    },
}

/// So many records were written.
pub(super) struct Written(pub(super) usize);

/// The new state of an outbox row.
#[derive(Serialize)]
struct OutboxRow<'a>(u64, &'a str, u64, u8, i64, u16, Option<i64>);

/// A new row of `webhook_attempts`.
#[derive(Serialize)]
struct AttemptRow<'a>(
    u64,
    &'a str,
    u16,
    &'static str,
    Option<u16>,
    Option<&'a str>,
    u64,
    Time,
    Option<i64>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<&'a str>,
    Option<u8>,
);

const UPDATE_OUTBOX: &str = "\
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
    lease_token BIGINT UNSIGNED PATH '$[2]',
    state TINYINT UNSIGNED PATH '$[3]',
    due_us BIGINT PATH '$[4]',
    attempts SMALLINT UNSIGNED PATH '$[5]',
    finished_us BIGINT PATH '$[6]'
)) new STRAIGHT_JOIN webhook_outbox o ON o.id = new.id AND o.endpoint = new.endpoint
SET o.state = new.state,
    o.due_at = TIMESTAMP'1970-01-01 00:00:00' + INTERVAL new.due_us MICROSECOND,
    o.attempts = new.attempts,
    o.finished_at = TIMESTAMP'1970-01-01 00:00:00' + INTERVAL new.finished_us MICROSECOND,
    o.lease_token = NULL
WHERE o.state = 1 AND o.lease_token = new.lease_token";

const ATTEMPTS: Table = Table {
    name: "webhook_attempts",
    columns: &[
        ("outbox_id", Kind::Number("BIGINT UNSIGNED")),
        ("endpoint", Kind::Text("VARCHAR(64)")),
        ("attempt", Kind::Number("SMALLINT UNSIGNED")),
        ("outcome", Kind::Text("VARCHAR(16)")),
        ("status_code", Kind::Number("SMALLINT UNSIGNED")),
        ("error", Kind::Text("VARCHAR(255)")),
        ("duration_us", Kind::Number("BIGINT UNSIGNED")),
        ("created_at", Kind::Time),
        ("sent_s", Kind::Number("BIGINT")),
        ("signature", Kind::Text("VARCHAR(64)")),
        ("legacy_signature", Kind::Text("CHAR(64)")),
        ("trace", Kind::Text("VARCHAR(55)")),
        ("answer_type", Kind::Text("VARCHAR(128)")),
        ("answer", Kind::Text("VARCHAR(2048)")),
        ("answer_cut", Kind::Number("TINYINT")),
    ],
};

/// Those of the rows that are still this process's.
const SELECT_HELD: &str = "\
SELECT o.id, o.endpoint, o.lease_token FROM JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
    lease_token BIGINT UNSIGNED PATH '$[2]'
)) new STRAIGHT_JOIN webhook_outbox o ON o.id = new.id AND o.endpoint = new.endpoint
WHERE o.state = 1 AND o.lease_token = new.lease_token";

/// Writes records until their channel closes.
pub(super) struct Recorder {
    pub(super) pool: MySqlPool,
    pub(super) records: mpsc::UnboundedReceiver<Record>,
    pub(super) written: mpsc::UnboundedSender<Written>,
    pub(super) meters: Meters,
}

impl Recorder {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            let received = self.records.recv_many(&mut batch, MAX_BATCH).await;
            if received == 0 {
                return;
            }
            self.write_until_written(&mut batch).await;
            batch.drain(..).for_each(|record| self.meters.recorded(&record));
            // Nobody listens any more once the loop has stopped.
            let _ = self.written.send(Written(received));
        }
    }

    /// Writes those of the batch that are still this process's; the others leave it.
    async fn write_until_written(&self, batch: &mut Vec<Record>) {
        // In key order: two processes never lock the same rows the other way round.
        batch.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_write(batch).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, rows = batch.len(), "webhook results wait for the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// `false` when some rows were another's: they have left the batch, nothing was written.
    async fn try_write(&self, batch: &mut Vec<Record>) -> Result<bool, sqlx::Error> {
        if batch.is_empty() || write(&self.pool, batch).await? {
            return Ok(true);
        }
        let held = held(&self.pool, batch).await?;
        let before = batch.len();
        // By token, too: after a long outage a batch can hold what came of a row twice, once under a lease that was lost.
        batch.retain(|record| {
            let Delivery { id, endpoint, lease_token, .. } = record.delivery();
            held.contains(&(*id, endpoint.to_string(), *lease_token))
        });
        let lost = before - batch.len();
        if lost > 0 {
            tracing::warn!(lost, "deliveries were taken over before they were recorded");
            self.meters.lost(lost as u64);
        }
        Ok(false)
    }
}

/// Writes the whole batch, or nothing when some of its rows belong to someone else by now.
async fn write(pool: &MySqlPool, batch: &[Record]) -> Result<bool, sqlx::Error> {
    let outbox: Vec<OutboxRow<'_>> = batch.iter().map(Record::outbox_row).collect();
    let mut transaction = pool.begin().await?;
    let updated = sqlx::query(UPDATE_OUTBOX).bind(json(&outbox)).execute(&mut *transaction).await?.rows_affected();
    if updated != batch.len() as u64 {
        transaction.rollback().await?;
        return Ok(false);
    }
    for statement in inserts(&ATTEMPTS, "", batch.iter().filter_map(Record::attempt_row)) {
        transaction.execute(AssertSqlSafe(statement)).await?;
    }
    fail::reached(Step::RecordUncommitted);
    transaction.commit().await?;
    fail::reached(Step::RecordCommitted);
    Ok(true)
}

async fn held(pool: &MySqlPool, batch: &[Record]) -> Result<HashSet<(u64, String, u64)>, sqlx::Error> {
    let outbox: Vec<OutboxRow<'_>> = batch.iter().map(Record::outbox_row).collect();
    let held = sqlx::query_as(SELECT_HELD).bind(json(&outbox)).fetch_all(pool).await?;
    Ok(held.into_iter().collect())
}

fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("numbers and texts are JSON")
}

impl Record {
    pub(super) fn delivery(&self) -> &Delivery {
        match self {
            Self::Attempted(it) => &it.delivery,
            Self::Returned { delivery, .. } => delivery,
        }
    }

    fn key(&self) -> (u64, &str) {
        (self.delivery().id, &self.delivery().endpoint)
    }

    fn attempt_row(&self) -> Option<AttemptRow<'_>> {
        let Self::Attempted(it) = self else { return None };
        let Delivery { id, endpoint, attempts, .. } = &it.delivery;
        let (outcome, error) = (it.verdict.as_str(), it.error.as_deref());
        let duration_us = u64::try_from(it.took.as_micros()).unwrap_or(u64::MAX);
        let attempt = attempts.saturating_add(1);
        let (sent, said) = (it.sent.as_ref(), it.said.as_ref());
        Some(AttemptRow(
            *id,
            endpoint,
            attempt,
            outcome,
            it.status_code,
            error,
            duration_us,
            Time(it.at_us),
            sent.map(|sent| sent.at_s),
            sent.and_then(|sent| sent.signature.as_deref()),
            sent.and_then(|sent| sent.legacy.as_deref()),
            sent.and_then(|sent| sent.trace.as_deref()),
            said.and_then(|said| said.content_type.as_deref()),
            said.map(|said| &*said.text),
            said.map(|said| u8::from(said.cut)),
        ))
    }

    fn outbox_row(&self) -> OutboxRow<'_> {
        let Delivery { id, endpoint, lease_token, attempts, .. } = self.delivery();
        let (state, due_us, made, finished_us) = match self {
            Self::Returned { due_us, .. } => (DUE, *due_us, 0, None),
            Self::Attempted(it) => match it.verdict {
                Verdict::Retry(wait) => (DUE, it.at_us.saturating_add(micros(wait)), 1, None),
                Verdict::Delivered => (DELIVERED, it.at_us, 1, Some(it.at_us)),
                Verdict::GaveUp | Verdict::Blocked => (GIVEN_UP, it.at_us, 1, Some(it.at_us)),
            },
        };
        OutboxRow(*id, endpoint, *lease_token, state, due_us, attempts.saturating_add(made), finished_us)
    }
}

fn micros(wait: Duration) -> i64 {
    i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use insightforge_schema::id::TaskId;
    use insightforge_schema::tables;

    use super::*;
    use crate::webhook::lane::Health;

    fn delivered(lease_token: u64) -> Record {
        let delivery = Delivery {
            id: 1024,
            endpoint: Arc::from("shop"),
            url: None,
            sealed_secret: None,
            task: TaskId::new(),
            body: Bytes::new(),
            trace: None,
            attempts: 0,
            created_us: 0,
            lease_token,
            lease_ends_us: 0,
        };
        Record::Attempted(Box::new(Attempted {
            delivery,
            lane: None,
            verdict: Verdict::Delivered,
            health: Health::Good,
            status_code: Some(200),
            error: None,
            sent: None,
            said: None,
            took: Duration::ZERO,
            at_us: 1,
        }))
    }

    #[tokio::test]
    async fn what_came_of_a_row_under_a_lost_lease_does_not_hold_up_what_came_of_it_later() {
        let url = std::env::var("INSIGHTFORGE_TEST_MARIADB_URL").expect("INSIGHTFORGE_TEST_MARIADB_URL names a server");
        let server = tables::pool(&url, 1).unwrap();
        let database = format!("t_{}", uuid::Uuid::new_v4().simple());
        server.execute(AssertSqlSafe(format!("CREATE DATABASE {database}"))).await.unwrap();
        let pool = tables::pool(&format!("{}/{database}", url.trim_end_matches('/')), 2).unwrap();
        tables::migrate(&pool).await.unwrap();
        pool.execute(
            "INSERT INTO webhook_outbox (id, endpoint, analysis_task_id, body, state, due_at, lease_token, attempts,
            created_at) VALUES (1024, 'shop', 1024, '{}', 1, UTC_TIMESTAMP(6), 2, 0, UTC_TIMESTAMP(6))",
        )
        .await
        .unwrap();

        let (to_record, records) = mpsc::unbounded_channel();
        let (written, mut was_written) = mpsc::unbounded_channel();
        for lease_token in [1, 2] {
            to_record.send(delivered(lease_token)).ok().unwrap();
        }
        drop(to_record);
        let recorder = Recorder { pool: pool.clone(), records, written, meters: Meters::new() };
        tokio::time::timeout(Duration::from_secs(20), recorder.run()).await.expect("the recorder ends");

        assert_eq!(was_written.recv().await.unwrap().0, 2);
        let state: u8 = sqlx::query_scalar("SELECT state FROM webhook_outbox").fetch_one(&pool).await.unwrap();
        let attempts: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM webhook_attempts").fetch_one(&pool).await.unwrap();
        assert_eq!((state, attempts), (DELIVERED, 1));
        pool.close().await;
        server.execute(AssertSqlSafe(format!("DROP DATABASE {database}"))).await.unwrap();
    }
}
