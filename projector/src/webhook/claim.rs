//! Takes rows that are due again, and rows whose holder went silent, out of the table.
//!
//! Rows whose holder went silent come first: what is due may be more than a claim takes, for as long as a receiver is down.
//! Two steps, so that no body is read under a lock: a short transaction leases the rows (`FOR UPDATE SKIP LOCKED`; of
//! two processes each gets others), then what was leased is read.

use std::sync::Arc;

use bytes::Bytes;
use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::TaskId;
use insightforge_schema::tables::datetime;
use sqlx::{MySqlConnection, MySqlPool, Row};

use super::{DUE, Delivery, GIVEN_UP, LEASED, WebhookConfig, new_lease_token};

/// Rows of one claim.
pub(super) const MAX_ROWS: usize = 512;
/// Rows that one claim leaves in the table for one receiver.
const MAX_LEFT: u64 = 4_096;
/// Bytes of one claim's bodies; a single body may be larger.
const MAX_BYTES: u64 = 8 << 20;

/// Due rows, or leased rows whose lease has ended, the oldest first.
const SELECT_DUE: &str = "\
SELECT id, endpoint, CAST(LENGTH(body) AS UNSIGNED) AS bytes,
    EXISTS (SELECT 1 FROM analysis_tasks t WHERE t.id = webhook_outbox.analysis_task_id) AS has_task
FROM webhook_outbox FORCE INDEX (webhook_outbox_due)
WHERE state = ? AND due_at <= ? ORDER BY due_at LIMIT ? FOR UPDATE SKIP LOCKED";

const LEASE: &str = "\
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]',
    state TINYINT UNSIGNED PATH '$[2]'
)) new STRAIGHT_JOIN webhook_outbox o ON o.id = new.id AND o.endpoint = new.endpoint
SET o.state = new.state, o.due_at = ?, o.lease_token = ?, o.finished_at = CASE WHEN new.state = 3 THEN ? END";

const SELECT_LEASED: &str = "\
SELECT o.id, o.endpoint, o.url, o.secret, o.body, o.trace, o.attempts, o.created_at, t.task_id
FROM JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]'
)) new STRAIGHT_JOIN webhook_outbox o ON o.id = new.id AND o.endpoint = new.endpoint
JOIN analysis_tasks t ON t.id = o.analysis_task_id
WHERE o.state = 1 AND o.lease_token = ?";

/// What is due for one receiver; the second form for a caller's host.
const SELECT_LEFT: [&str; 2] = [
    "\
SELECT id, endpoint FROM webhook_outbox FORCE INDEX (webhook_outbox_due)
WHERE state = 0 AND due_at <= ? AND endpoint = ? AND created_at > ? LIMIT ? FOR UPDATE SKIP LOCKED",
    "\
SELECT id, endpoint FROM webhook_outbox FORCE INDEX (webhook_outbox_due)
WHERE state = 0 AND due_at <= ? AND endpoint = 'task' AND LEFT(url, CHAR_LENGTH(?)) = ? AND created_at > ?
LIMIT ? FOR UPDATE SKIP LOCKED",
];

const LEAVE: &str = "\
UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
    id BIGINT UNSIGNED PATH '$[0]',
    endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]'
)) new STRAIGHT_JOIN webhook_outbox o ON o.id = new.id AND o.endpoint = new.endpoint
SET o.due_at = ?";

/// When deliveries were last made due by an order.
const ORDERED: &str = "SELECT MAX(done_at) FROM webhook_orders WHERE kind = 'resend'";

/// A row to lease: id, endpoint, the state it gets.
type Key = (u64, String, u8);

/// What is due for a receiver that is sent nothing for a while: it stays in the table, unread.
#[derive(Debug)]
pub(super) struct Left {
    /// The receiver's lane: an endpoint's name, or a caller's `scheme://host:port`.
    pub(super) lane: Arc<str>,
    pub(super) is_configured: bool,
    pub(super) until_us: i64,
    /// What was created then or before is taken all the same.
    pub(super) created_after_us: i64,
}

/// What a claim brought.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) deliveries: Vec<Delivery>,
    /// Whether there may be more.
    pub(super) more: bool,
}

/// Leases what is due at `now_us`, as much as one claim takes; not what is `left`.
///
/// # Errors
/// What the server says. When the second step fails, the lease of the first ends by itself.
pub(super) async fn claim(
    pool: &MySqlPool,
    config: &WebhookConfig,
    left: &[Left],
    now_us: i64,
) -> Result<Claimed, sqlx::Error> {
    for left in left {
        leave(pool, left, now_us).await?;
    }
    let (lease_token, lease_ends_us) = (new_lease_token(), config.lease_ends_us(now_us));
    let mut transaction = pool.begin().await?;
    let mut due = Due::default();
    due.select(&mut transaction, LEASED, now_us).await?;
    due.select(&mut transaction, DUE, now_us).await?;
    if due.keys.is_empty() {
        transaction.rollback().await?;
        return Ok(Claimed::default());
    }
    // In key order, as every writer locks them.
    due.keys.sort_unstable();
    let keys = serde_json::to_string(&due.keys).expect("numbers and texts are JSON");
    sqlx::query(LEASE)
        .bind(&keys)
        .bind(datetime(lease_ends_us))
        .bind(lease_token)
        .bind(datetime(now_us))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    fail::reached(Step::OutboxClaimed);
    for (id, endpoint, _) in due.keys.iter().filter(|(.., state)| *state == GIVEN_UP) {
        tracing::error!(id, endpoint, "a webhook was given up: its task has no row");
    }

    let rows = sqlx::query(SELECT_LEASED).bind(&keys).bind(lease_token).fetch_all(pool).await?;
    let read = rows.iter().map(|row| read(row, lease_token, lease_ends_us)).collect::<Result<_, _>>();
    let mut deliveries: Vec<Delivery> = read?;
    let keep_us = i64::try_from(config.give_up_after.as_micros()).unwrap_or(i64::MAX);
    if deliveries.iter().any(|delivery| delivery.created_us < now_us.saturating_sub(keep_us)) {
        // Whatever somebody orders to be sent again begins anew. Which rows those were is not written anywhere, so the others
        // are given that time, too.
        let ordered: Option<chrono::NaiveDateTime> = sqlx::query_scalar(ORDERED).fetch_one(pool).await?;
        let ordered_us = ordered.map_or(i64::MIN, |at| at.and_utc().timestamp_micros());
        deliveries.iter_mut().for_each(|delivery| delivery.created_us = delivery.created_us.max(ordered_us));
    }
    Ok(Claimed { deliveries, more: due.full })
}

/// Puts off what is due for a receiver, without reading it.
async fn leave(pool: &MySqlPool, left: &Left, now_us: i64) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let query = sqlx::query_as(SELECT_LEFT[usize::from(!left.is_configured)]).bind(datetime(now_us));
    let query = if left.is_configured {
        query.bind(&*left.lane)
    } else {
        // With the slash, so that no other host begins like this one. A URL that is written otherwise is read, and put off.
        let origin = format!("{}/", left.lane);
        query.bind(origin.clone()).bind(origin)
    };
    let query = query.bind(datetime(left.created_after_us)).bind(MAX_LEFT);
    let mut keys: Vec<(u64, String)> = query.fetch_all(&mut *transaction).await?;
    keys.sort_unstable();
    let keys = serde_json::to_string(&keys).expect("numbers and texts are JSON");
    sqlx::query(LEAVE).bind(keys).bind(datetime(left.until_us)).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// What one claim takes.
#[derive(Default)]
struct Due {
    keys: Vec<Key>,
    bytes: u64,
    full: bool,
}

impl Due {
    async fn select(&mut self, connection: &mut MySqlConnection, state: u8, now_us: i64) -> Result<(), sqlx::Error> {
        let room = MAX_ROWS - self.keys.len();
        if self.full {
            return Ok(());
        }
        let rows =
            sqlx::query(SELECT_DUE).bind(state).bind(datetime(now_us)).bind(room as u64).fetch_all(connection).await?;
        self.full = rows.len() == room;
        for row in &rows {
            self.bytes += row.try_get::<u64, _>("bytes")?;
            if self.bytes > MAX_BYTES && !self.keys.is_empty() {
                self.full = true;
                break;
            }
            let state = if row.try_get::<bool, _>("has_task")? { LEASED } else { GIVEN_UP };
            self.keys.push((row.try_get("id")?, row.try_get("endpoint")?, state));
        }
        Ok(())
    }
}

fn read(row: &sqlx::mysql::MySqlRow, lease_token: u64, lease_ends_us: i64) -> Result<Delivery, sqlx::Error> {
    let task: &str = row.try_get("task_id")?;
    let task: TaskId = task.parse().map_err(|_| sqlx::Error::Decode("task_id is no id".into()))?;
    Ok(Delivery {
        id: row.try_get("id")?,
        endpoint: Arc::from(row.try_get::<&str, _>("endpoint")?),
        url: row.try_get("url")?,
        sealed_secret: row.try_get("secret")?,
        task,
        body: Bytes::from(row.try_get::<Vec<u8>, _>("body")?),
        trace: row.try_get("trace")?,
        attempts: row.try_get("attempts")?,
        created_us: row.try_get::<chrono::NaiveDateTime, _>("created_at")?.and_utc().timestamp_micros(),
        lease_token,
        lease_ends_us,
    })
}
