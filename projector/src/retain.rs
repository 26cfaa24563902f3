//! Rows that nobody wants to keep: tasks that ended long ago, and announcements that were made or given up long ago. Off
//! unless asked for, in small transactions, and never while a rebuild is at work.

use std::time::Duration;

use chrono::NaiveDateTime;
use insightforge_schema::event::now_us;
use insightforge_schema::tables::datetime;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlConnection;
use tokio_util::sync::CancellationToken;

use crate::rebuild::{connect, release, take};
use crate::{measure, retired};

/// Between two passes over what there is, and after a failure.
const BETWEEN: Duration = Duration::from_secs(60);
/// Between two transactions: others write too.
const BREATH: Duration = Duration::from_millis(20);
/// The horizon moves in steps of at least this.
const STEP_US: i64 = 60_000_000;
/// How long it is known whose rows were deleted: far longer than an event of such a task can be late.
const NOTED: Duration = Duration::from_secs(30 * 86_400);
/// Announcements looked at by one step.
const OUTBOX_ROWS: usize = 500;

/// How long rows stay. Plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsKeep {
    /// Tasks, counted from their end; `None`: for ever.
    pub tasks: Option<Duration>,
    /// Announcements that were delivered or given up; `None`: for ever.
    pub deliveries: Option<Duration>,
}

impl Default for RowsKeep {
    fn default() -> Self {
        Self { tasks: None, deliveries: Some(Duration::from_secs(30 * 86_400)) }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many tasks are gone, with all of their rows.
    Tasks(usize),
    /// So many announcements are gone.
    Deliveries(u64),
    /// A rebuild is at work.
    Waiting,
    /// Nothing is older than what is kept; the next step begins at the beginning again.
    Idle,
}

/// Deletes, step by step.
pub struct Janitor {
    pool: MySqlPool,
    keep: RowsKeep,
    /// Has the lock against rebuilds during a step, and stays: steps follow each other closely.
    alone: Option<MySqlConnection>,
    /// Where the pass is: creation of the last task, key of the last announcement.
    tasks_after: NaiveDateTime,
    outbox_after: u64,
}

impl Janitor {
    #[must_use]
    pub fn new(pool: MySqlPool, keep: RowsKeep) -> Self {
        Self { pool, keep, alone: None, tasks_after: NaiveDateTime::default(), outbox_after: 0 }
    }

    /// Deletes some of what is too old at `now_us`.
    ///
    /// # Errors
    /// What the server says; nothing was deleted, or a whole part.
    pub async fn step(&mut self, now_us: i64) -> Result<Step, sqlx::Error> {
        let mut alone = match self.alone.take() {
            Some(alone) => alone,
            None => connect(&self.pool).await?,
        };
        if !take(&mut alone, 0).await? {
            self.alone = Some(alone);
            return Ok(Step::Waiting);
        }
        let step = self.step_alone(now_us).await;
        // A lock that cannot be given back goes with its connection.
        if release(&mut alone).await.is_ok() {
            self.alone = Some(alone);
        }
        if matches!(step, Ok(Step::Idle)) {
            (self.tasks_after, self.outbox_after) = (NaiveDateTime::default(), 0);
        }
        step
    }

    async fn step_alone(&mut self, now_us: i64) -> Result<Step, sqlx::Error> {
        if let Some(keep) = self.keep.tasks {
            let deleted = self.delete_tasks(before(now_us, keep)).await?;
            if deleted > 0 {
                return Ok(Step::Tasks(deleted));
            }
            retired::forget(&self.pool, before(now_us, NOTED)).await?;
        }
        if let Some(keep) = self.keep.deliveries {
            let deleted = self.delete_deliveries(before(now_us, keep)).await?;
            if deleted > 0 {
                return Ok(Step::Deliveries(deleted));
            }
        }
        Ok(Step::Idle)
    }

    async fn delete_tasks(&mut self, ended_before: i64) -> Result<usize, sqlx::Error> {
        // First it is said, then it is done: who compares in between finds what is expected, and more.
        let said = retired::horizon(&self.pool).await?;
        if said.is_none_or(|said| ended_before - said >= STEP_US) {
            retired::move_horizon(&self.pool, ended_before).await?;
        }
        let said = retired::horizon(&self.pool).await?.unwrap_or(i64::MIN).min(ended_before);
        loop {
            let mut transaction = self.pool.begin().await?;
            let ended = retired::lock_ended(&mut transaction, said, self.tasks_after).await?;
            let Some((_, last)) = ended.last() else {
                transaction.rollback().await?;
                return Ok(0);
            };
            let ids: Vec<u64> = ended.iter().map(|(id, _)| *id).collect();
            let owed = owed(&mut transaction, &ids).await?;
            let ids: Vec<u64> = ids.into_iter().filter(|id| !owed.contains(id)).collect();
            // Many of the same moment that are all owed something would be found again and again.
            self.tasks_after = if ids.is_empty() { *last + chrono::Duration::microseconds(1) } else { *last };
            if ids.is_empty() {
                transaction.rollback().await?;
                continue;
            }
            delete_announced(&mut transaction, &ids).await?;
            retired::delete(&mut transaction, "", &ids).await?;
            retired::note(&mut transaction, &ids).await?;
            transaction.commit().await?;
            return Ok(ids.len());
        }
    }

    async fn delete_deliveries(&mut self, finished_before: i64) -> Result<u64, sqlx::Error> {
        loop {
            let rows: Vec<(u64, String, bool, bool)> = sqlx::query_as(
                "SELECT id, endpoint, state IN (2, 3) AND finished_at IS NOT NULL AND finished_at < ?, created_at < ?
                FROM webhook_outbox WHERE id >= ? ORDER BY id LIMIT ?",
            )
            .bind(datetime(finished_before))
            .bind(datetime(finished_before))
            .bind(self.outbox_after)
            .bind(OUTBOX_ROWS as u64)
            .fetch_all(&self.pool)
            .await?;
            let Some((last, ..)) = rows.last() else { return Ok(0) };
            let young = rows.iter().all(|(.., old)| !old);
            let mut over: Vec<(u64, &str)> =
                rows.iter().filter(|(.., over, _)| *over).map(|(id, endpoint, ..)| (*id, &**endpoint)).collect();
            over.sort_unstable();
            // A page may end within the announcements of one event; a full page of one event does not exist.
            let next = if rows.len() == OUTBOX_ROWS { (*last).max(self.outbox_after + 1) } else { *last + 1 };
            if !over.is_empty() {
                let deleted = delete_over(&self.pool, &over).await?;
                self.outbox_after = next;
                return Ok(deleted);
            }
            if young {
                return Ok(0);
            }
            self.outbox_after = next;
        }
    }

    /// Steps until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let pause = match self.step(now_us()).await {
                Ok(step @ (Step::Tasks(_) | Step::Deliveries(_))) => {
                    measure::deleted(step);
                    BREATH
                }
                Ok(Step::Idle | Step::Waiting) => BETWEEN,
                Err(error) => {
                    tracing::warn!(%error, "old rows could not be deleted; trying again");
                    BETWEEN
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

fn before(now_us: i64, keep: Duration) -> i64 {
    now_us.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

/// Tasks with an announcement that is still to be made. It is keyed by the terminal event, which the history knows.
async fn owed(connection: &mut MySqlConnection, ids: &[u64]) -> Result<Vec<u64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT DISTINCT l.analysis_task_id FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
        STRAIGHT_JOIN task_logs l ON l.analysis_task_id = wanted.id
        STRAIGHT_JOIN webhook_outbox o ON o.id = l.id WHERE o.state < 2",
    )
    .bind(serde_json::json!(ids).to_string())
    .fetch_all(connection)
    .await
}

/// Deletes the announcements of tasks, with their attempts.
async fn delete_announced(connection: &mut MySqlConnection, ids: &[u64]) -> Result<(), sqlx::Error> {
    let ids = serde_json::json!(ids).to_string();
    for (table, key) in [("webhook_attempts", "outbox_id"), ("webhook_outbox", "id")] {
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "DELETE t FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
            STRAIGHT_JOIN task_logs l ON l.analysis_task_id = wanted.id
            STRAIGHT_JOIN {table} t ON t.{key} = l.id"
        )))
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Deletes announcements that are over, with their attempts; how many.
async fn delete_over(pool: &MySqlPool, keys: &[(u64, &str)]) -> Result<u64, sqlx::Error> {
    let keys = serde_json::json!(keys).to_string();
    let wanted = "JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$[0]',
        endpoint VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PATH '$[1]')) wanted";
    let mut transaction = pool.begin().await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "DELETE t FROM {wanted} STRAIGHT_JOIN webhook_attempts t ON t.outbox_id = wanted.id AND t.endpoint = wanted.endpoint"
    )))
    .bind(&keys)
    .execute(&mut *transaction)
    .await?;
    let deleted = sqlx::query(sqlx::AssertSqlSafe(format!(
        "DELETE t FROM {wanted} STRAIGHT_JOIN webhook_outbox t ON t.id = wanted.id AND t.endpoint = wanted.endpoint
        WHERE t.state IN (2, 3)"
    )))
    .bind(&keys)
    .execute(&mut *transaction)
    .await?
    .rows_affected();
    transaction.commit().await?;
    Ok(deleted)
}
