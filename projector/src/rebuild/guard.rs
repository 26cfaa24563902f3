//! Alone, and on ground that a rebuild understands: what is checked before anything is created.

use insightforge_archive::Journal;
use insightforge_schema::id::PartitionCount;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, MySqlPool};

use super::RebuildError;
use super::fresh::swapped;

/// Locks belong to the server, so the name tells the database; a name has 64 characters at most.
const LOCK: &str =
    "SELECT CAST(GET_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)), 0) AS SIGNED)";
const UNLOCK: &str = "DO RELEASE_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)))";

/// Takes the lock that only one rebuild of a database can hold. It goes with the connection: a rebuild that dies leaves
/// nothing to clean up.
///
/// # Errors
/// [`RebuildError::AnotherIsRunning`].
pub(crate) async fn be_alone(pool: &MySqlPool) -> Result<MySqlConnection, RebuildError> {
    let mut connection = pool.acquire().await?.detach();
    // The connection is silent for as long as the load takes.
    sqlx::query("SET SESSION wait_timeout = 31536000").execute(&mut connection).await?;
    let got: Option<i64> = sqlx::query_scalar(LOCK).fetch_one(&mut connection).await?;
    if got == Some(1) { Ok(connection) } else { Err(RebuildError::AnotherIsRunning) }
}

/// Lets the next rebuild begin; a closed connection would let it only once the server has noticed.
pub(crate) async fn let_others(mut alone: MySqlConnection) {
    if let Err(error) = alone.execute(UNLOCK).await {
        tracing::debug!(%error, "the lock goes with the connection");
    }
    let _ = alone.close().await;
}

/// Refuses what a swap would silently lose: triggers stay with the old tables, foreign keys of other tables follow them.
///
/// # Errors
/// [`RebuildError::Trigger`], [`RebuildError::Referenced`].
pub(super) async fn check_tables(pool: &MySqlPool) -> Result<(), RebuildError> {
    let triggers: Vec<(String, String)> = sqlx::query_as(
        "SELECT trigger_name, event_object_table FROM information_schema.triggers
        WHERE event_object_schema = DATABASE()",
    )
    .fetch_all(pool)
    .await?;
    if let Some((trigger, table)) = triggers.into_iter().find(|(_, table)| swapped().any(|ours| ours == table)) {
        return Err(RebuildError::Trigger { trigger, table });
    }
    let references: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name, referenced_table_name FROM information_schema.key_column_usage
        WHERE referenced_table_schema = DATABASE() AND table_schema = DATABASE()",
    )
    .fetch_all(pool)
    .await?;
    let foreign =
        |(by, table): &(String, String)| swapped().any(|ours| ours == table) && !swapped().any(|ours| ours == by);
    match references.into_iter().find(foreign) {
        Some((by, table)) => Err(RebuildError::Referenced { table, by }),
        None => Ok(()),
    }
}

/// Refuses a journal that does not reach from the first event to the checkpoint, stream and archive taken together.
///
/// # Errors
/// [`RebuildError::Trimmed`], [`RebuildError::Short`].
pub(super) async fn check_journal(
    journal: &Journal,
    partitions: PartitionCount,
    checkpoint: &[u64],
) -> Result<(), RebuildError> {
    for (partition, &folded) in partitions.iter().zip(checkpoint) {
        let ends = journal.last_number(partition).await?;
        if ends < folded {
            return Err(RebuildError::Short { partition, folded, ends });
        }
        let begins = journal.begins(partition).await?;
        if begins > 1 {
            return Err(RebuildError::Trimmed { partition, begins });
        }
    }
    Ok(())
}
