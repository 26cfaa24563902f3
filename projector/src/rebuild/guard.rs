//! Alone, and on ground that a rebuild understands: what is checked before anything is created.

use insightforge_archive::Journal;
use insightforge_schema::id::PartitionCount;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, MySqlPool, Row};

use super::RebuildError;
use super::fresh::swapped;

/// How long a rebuild waits for the lock, in seconds: who deletes old rows has it for a moment, again and again.
const WAIT_S: u32 = 5;

/// Locks belong to the server, so the name tells the database; a name has 64 characters at most.
const LOCK: &str =
    "SELECT CAST(GET_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)), ?) AS SIGNED)";
const UNLOCK: &str = "DO RELEASE_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32)))";
const HOLDER: &str =
    "SELECT CAST(IS_USED_LOCK(CONCAT('insightforge_rebuild_', LEFT(SHA2(DATABASE(), 256), 32))) AS SIGNED)";

/// Takes the lock that only one rebuild of a database can hold, or waits for it for a while. It goes with the connection: a
/// rebuild that dies leaves nothing to clean up.
///
/// # Errors
/// [`RebuildError::AnotherIsRunning`], which says who has it.
pub(super) async fn be_alone(pool: &MySqlPool) -> Result<MySqlConnection, RebuildError> {
    let mut connection = connect(pool).await?;
    if take(&mut connection, WAIT_S).await? {
        return Ok(connection);
    }
    Err(RebuildError::AnotherIsRunning { holder: holder(&mut connection).await? })
}

/// Lets the next rebuild begin; a closed connection would let it only once the server has noticed.
pub(super) async fn let_others(mut alone: MySqlConnection) {
    if let Err(error) = release(&mut alone).await {
        tracing::debug!(%error, "the lock goes with the connection");
    }
    let _ = alone.close().await;
}

/// A connection that can hold the lock for as long as a load takes, silent meanwhile.
///
/// # Errors
/// What the server says.
pub(crate) async fn connect(pool: &MySqlPool) -> Result<MySqlConnection, sqlx::Error> {
    let mut connection = pool.acquire().await?.detach();
    sqlx::query("SET SESSION wait_timeout = 31536000").execute(&mut connection).await?;
    Ok(connection)
}

/// Whether the lock could be had within so many seconds.
///
/// # Errors
/// What the server says.
pub(crate) async fn take(connection: &mut MySqlConnection, wait_s: u32) -> Result<bool, sqlx::Error> {
    let got: Option<i64> = sqlx::query_scalar(LOCK).bind(wait_s).fetch_one(connection).await?;
    Ok(got == Some(1))
}

/// Gives the lock to whoever waits for it.
///
/// # Errors
/// What the server says; then it goes with the connection.
pub(crate) async fn release(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection.execute(UNLOCK).await?;
    Ok(())
}

/// Who has the lock, for people: as much as this user may see.
async fn holder(connection: &mut MySqlConnection) -> Result<String, sqlx::Error> {
    let held: Option<i64> = sqlx::query_scalar(HOLDER).fetch_one(&mut *connection).await?;
    let Some(id) = held else { return Ok("somebody who has just ended".to_owned()) };
    for row in sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(connection).await? {
        if row.try_get_unchecked::<u64, _>("Id")? == id.unsigned_abs() {
            // The servers do not agree on whether these are text.
            let text = |column| row.try_get_unchecked::<Vec<u8>, _>(column).unwrap_or_default();
            let (user, host) = (text("User"), text("Host"));
            let (user, host) = (String::from_utf8_lossy(&user), String::from_utf8_lossy(&host));
            return Ok(format!("connection {id} of the database server, {user} from {host}"));
        }
    }
    Ok(format!("connection {id} of the database server"))
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

/// Refuses a journal that does not reach from the first event to the checkpoint, or to its own end when that is what is asked
/// for; stream and archive taken together.
///
/// # Errors
/// [`RebuildError::Trimmed`], [`RebuildError::Short`].
pub(super) async fn check_journal(
    journal: &Journal,
    partitions: PartitionCount,
    checkpoint: &[u64],
    to_end: bool,
) -> Result<(), RebuildError> {
    for (partition, &folded) in partitions.iter().zip(checkpoint) {
        let ends = journal.last_number(partition).await?;
        if ends < folded && !to_end {
            return Err(RebuildError::Short { partition, folded, ends });
        }
        let begins = journal.begins(partition).await?;
        if begins > 1 {
            return Err(RebuildError::Trimmed { partition, begins });
        }
    }
    Ok(())
}
