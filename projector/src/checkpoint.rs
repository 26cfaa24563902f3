//! How far the projection has read, and the fence: the checkpoint moves by compare-and-set as the first statement of the
//! transaction that writes the rows, so that of two projectors with the same events one writes and the other is told.

use insightforge_schema::event::now_us;
use insightforge_schema::id::{Partition, PartitionCount};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, MySqlPool};

/// The projection whose tables are read.
pub const LIVE: &str = "live";

/// One partition's step: events after `from`, up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    pub part: u16,
    pub from: u64,
    pub to: u64,
    /// When event `to` happened, in microseconds since 1970-01-01 UTC.
    pub event_us: i64,
}

/// The last folded event of every partition, in order; rows that do not exist yet are created at 0.
///
/// # Errors
/// What the server says.
pub async fn read(pool: &MySqlPool, partitions: PartitionCount, owner: &str) -> Result<Vec<u64>, sqlx::Error> {
    let mut rows: Vec<(u16, u64)> = fetch(pool, "").await?;
    if rows.len() < usize::from(partitions.get()) {
        for part in partitions.iter() {
            begin(pool, "", part, owner).await?;
        }
        rows = fetch(pool, "").await?;
    }
    Ok(in_order(partitions, &rows))
}

/// The last folded event of every partition that has one, and when it happened, in microseconds since 1970-01-01 UTC.
///
/// # Errors
/// What the server says.
pub(crate) async fn moments(pool: &MySqlPool) -> Result<Vec<(Partition, u64, i64)>, sqlx::Error> {
    let rows: Vec<(u16, u64, chrono::NaiveDateTime)> = sqlx::query_as(
        "SELECT part, last_n, event_at FROM projection_checkpoint WHERE projection = ? AND event_at IS NOT NULL",
    )
    .bind(LIVE)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|(part, last_n, at)| (Partition(part), last_n, at.and_utc().timestamp_micros())).collect())
}

/// The last folded event of every partition, in order, as the connection's transaction sees them.
///
/// # Errors
/// What the server says.
pub async fn seen_by(
    connection: &mut MySqlConnection,
    suffix: &str,
    partitions: PartitionCount,
) -> Result<Vec<u64>, sqlx::Error> {
    Ok(in_order(partitions, &fetch(connection, suffix).await?))
}

/// The last event of every partition, in order, that all projections have folded; `None` where there is no checkpoint.
///
/// # Errors
/// What the server says.
pub async fn lowest(pool: &MySqlPool, partitions: PartitionCount) -> Result<Vec<Option<u64>>, sqlx::Error> {
    let rows: Vec<(u16, u64)> =
        sqlx::query_as("SELECT part, MIN(last_n) FROM projection_checkpoint GROUP BY part").fetch_all(pool).await?;
    let of = |part: Partition| rows.iter().find(|(have, _)| *have == part.0).map(|(_, last_n)| *last_n);
    Ok(partitions.iter().map(of).collect())
}

fn in_order(partitions: PartitionCount, rows: &[(u16, u64)]) -> Vec<u64> {
    let of = |part: Partition| rows.iter().find(|(have, _)| *have == part.0).map_or(0, |(_, last_n)| *last_n);
    partitions.iter().map(of).collect()
}

/// Creates the checkpoint of a partition, at 0, unless there is one.
///
/// # Errors
/// What the server says.
pub async fn begin(pool: &MySqlPool, suffix: &str, part: Partition, owner: &str) -> Result<(), sqlx::Error> {
    sqlx::query(AssertSqlSafe(format!(
        "INSERT IGNORE INTO projection_checkpoint{suffix} (projection, part, last_n, owner, updated_at)
        VALUES (?, ?, 0, ?, UTC_TIMESTAMP(6))"
    )))
    .bind(LIVE)
    .bind(part.0)
    .bind(owner)
    .execute(pool)
    .await?;
    Ok(())
}

async fn fetch<'c>(from: impl sqlx::MySqlExecutor<'c>, suffix: &str) -> Result<Vec<(u16, u64)>, sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(format!(
        "SELECT part, last_n FROM projection_checkpoint{suffix} WHERE projection = ?"
    )))
    .bind(LIVE)
    .fetch_all(from)
    .await
}

/// Moves the checkpoints; `false` when another projector moved one of them before, and the transaction must be rolled
/// back. The order of `advances` is that of their partitions, so that two projectors cannot lock each other out.
///
/// # Errors
/// What the server says.
pub async fn advance(
    connection: &mut MySqlConnection,
    suffix: &str,
    owner: &str,
    advances: &[Advance],
) -> Result<bool, sqlx::Error> {
    let epoch = "TIMESTAMP'1970-01-01 00:00:00'";
    let statement = format!(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
            part SMALLINT UNSIGNED PATH '$[0]', from_n BIGINT UNSIGNED PATH '$[1]', to_n BIGINT UNSIGNED PATH '$[2]',
            event_us BIGINT PATH '$[3]')) new
        STRAIGHT_JOIN projection_checkpoint{suffix} c ON c.projection = ? AND c.part = new.part AND c.last_n = new.from_n
        SET c.last_n = new.to_n, c.owner = ?, c.event_at = {epoch} + INTERVAL new.event_us MICROSECOND,
            c.updated_at = {epoch} + INTERVAL ? MICROSECOND"
    );
    let rows: Vec<_> = advances.iter().map(|it| (it.part, it.from, it.to, it.event_us)).collect();
    let json = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let moved = sqlx::query(AssertSqlSafe(statement))
        .bind(json)
        .bind(LIVE)
        .bind(owner)
        .bind(now_us())
        .execute(connection)
        .await?
        .rows_affected();
    Ok(moved == advances.len() as u64)
}
