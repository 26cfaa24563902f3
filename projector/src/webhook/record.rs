//! Writes what came of deliveries: the outbox row and the attempt, many in one transaction.
//!
//! Work-conserving: what arrives while one transaction runs is the next. The rows travel as one JSON parameter that
//! the server unfolds (`JSON_TABLE`: MySQL 8, MariaDB 10.6), so that there are two statements, prepared once, whatever
//! their number. A row whose lease token is no longer this delivery's stays as it is: another process has it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use sqlx::MySqlPool;
use tokio::sync::{Notify, mpsc};

use super::attempt::Attempted;
use super::claim::Wake;
use super::measure::Meters;
use super::schedule::Verdict;
use super::Delivery;

/// The most rows of one transaction.
const MAX_BATCH: usize = 512;
/// The pause after a failed transaction; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// `webhook_outbox.state`.
pub(super) const DUE: u8 = 0;
pub(super) const LEASED: u8 = 1;
const DELIVERED: u8 = 2;
const GIVEN_UP: u8 = 3;

/// Something to write.
pub(super) enum Record {
    Attempted(Box<Attempted>),
    /// Not sent: due again at `due_us`, no attempt used up.
    Returned { delivery: Delivery, due_us: i64 },
}

/// The new state of an outbox row: `[id, endpoint, lease_token, state, due_us, attempts, finished_us]`.
#[derive(Serialize)]
struct OutboxRow<'a>(u64, &'a str, u64, u8, i64, u16, Option<i64>);

/// A new row of `webhook_attempts`: `[id, endpoint, attempt, outcome, status_code, error, duration_us, at_us]`.
#[derive(Serialize)]
struct AttemptRow<'a>(u64, &'a str, u16, &'a str, Option<u16>, Option<&'a str>, u64, i64);

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

const INSERT_ATTEMPTS: &str = "\
INSERT INTO webhook_attempts (outbox_id, endpoint, attempt, outcome, status_code, error, duration_us, created_at)
SELECT id, endpoint, attempt, outcome, status_code, error, duration_us,
       TIMESTAMP'1970-01-01 00:00:00' + INTERVAL at_us MICROSECOND
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
    attempt SMALLINT UNSIGNED PATH '$[2]',
    outcome VARCHAR(16) PATH '$[3]',
    status_code SMALLINT UNSIGNED PATH '$[4]',
    error VARCHAR(255) PATH '$[5]',
    duration_us BIGINT UNSIGNED PATH '$[6]',
    at_us BIGINT PATH '$[7]'
)) new";

/// Writes records until their channel closes.
pub(super) struct Recorder {
    pub(super) pool: MySqlPool,
    pub(super) records: mpsc::Receiver<Record>,
    /// Told after every transaction: there is room for more.
    pub(super) recorded: Arc<Notify>,
    pub(super) wake: Arc<Wake>,
    pub(super) meters: Arc<Meters>,
}

impl Recorder {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.records.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.write_until_written(&mut batch).await;
            for record in &batch {
                self.note(record);
            }
            batch.clear();
            self.recorded.notify_one();
        }
    }

    async fn write_until_written(&self, batch: &mut [Record]) {
        // In key order: two processes never lock the same rows the other way round.
        batch.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
        let mut pause = FIRST_PAUSE;
        loop {
            match write(&self.pool, batch).await {
                Ok(lost) => {
                    if lost > 0 {
                        tracing::warn!(lost, "deliveries were taken over before they were recorded");
                    }
                    return;
                }
                Err(error) => tracing::warn!(%error, rows = batch.len(), "webhook results wait for the database"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn note(&self, record: &Record) {
        match record {
            Record::Attempted(attempted) => {
                self.meters.attempted(attempted.verdict, attempted.took);
                if let Verdict::Retry(_) = attempted.verdict {
                    self.wake.at(due_us(attempted));
                }
            }
            Record::Returned { due_us, .. } => self.wake.at(*due_us),
        }
    }
}

/// Writes one batch; returns how many rows belonged to someone else by then.
async fn write(pool: &MySqlPool, batch: &[Record]) -> Result<u64, sqlx::Error> {
    let outbox: Vec<OutboxRow<'_>> = batch.iter().map(outbox_row).collect();
    let attempts: Vec<AttemptRow<'_>> = batch.iter().filter_map(attempt_row).collect();
    let mut transaction = pool.begin().await?;
    let updated = sqlx::query(UPDATE_OUTBOX).bind(json(&outbox)).execute(&mut *transaction).await?.rows_affected();
    if !attempts.is_empty() {
        sqlx::query(INSERT_ATTEMPTS).bind(json(&attempts)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok((outbox.len() as u64).saturating_sub(updated))
}

fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("numbers and texts are JSON")
}

fn outbox_row(record: &Record) -> OutboxRow<'_> {
    match record {
        Record::Attempted(it) => {
            let (state, finished_us) = match it.verdict {
                Verdict::Retry(_) => (DUE, None),
                Verdict::Delivered => (DELIVERED, Some(it.at_us)),
                Verdict::GaveUp | Verdict::Blocked => (GIVEN_UP, Some(it.at_us)),
            };
            let row = &it.delivery;
            let attempts = row.attempts.saturating_add(1);
            OutboxRow(row.id, &row.endpoint, row.lease_token, state, due_us(it), attempts, finished_us)
        }
        Record::Returned { delivery: row, due_us } => {
            OutboxRow(row.id, &row.endpoint, row.lease_token, DUE, *due_us, row.attempts, None)
        }
    }
}

fn attempt_row(record: &Record) -> Option<AttemptRow<'_>> {
    let Record::Attempted(it) = record else { return None };
    let row = &it.delivery;
    let duration_us = u64::try_from(it.took.as_micros()).unwrap_or(u64::MAX);
    let attempt = row.attempts.saturating_add(1);
    let outcome = it.verdict.as_str();
    Some(AttemptRow(row.id, &row.endpoint, attempt, outcome, it.status_code, it.error.as_deref(), duration_us, it.at_us))
}

fn key(record: &Record) -> (u64, &str) {
    let delivery = match record {
        Record::Attempted(it) => &it.delivery,
        Record::Returned { delivery, .. } => delivery,
    };
    (delivery.id, &delivery.endpoint)
}

/// When a delivery is due again; for one that ended, when that was.
fn due_us(it: &Attempted) -> i64 {
    let Verdict::Retry(wait) = it.verdict else { return it.at_us };
    it.at_us.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))
}
