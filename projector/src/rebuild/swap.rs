//! The fence and the swap.
//!
//! The fence is a lock on the checkpoint's rows: a projector's transaction begins with moving them, so it waits before it
//! has written anything. The swap is one `RENAME TABLE`, which is atomic on both servers. It exchanges the checkpoint
//! together with what it describes: whatever the timing, the tables in service and their checkpoint agree, and a rebuild
//! that dies leaves them so.
//!
//! `RENAME` needs the checkpoint's table for itself and cannot have it while the fence stands. So it is sent first, through
//! a second connection, and the fence falls once it queues. The projector that waited behind the fence then holds its place
//! on the old tables; the servers see that the two wait for each other and roll the projector back, which begins again on
//! the new ones. Should it slip through instead and commit to the old tables, the new ones are behind by one transaction
//! that the projector folds again; the outbox keeps one row an announcement, so nothing is announced twice.

use std::time::Duration;

use insightforge_schema::id::PartitionCount;
use sqlx::mysql::{MySqlConnection, MySqlDatabaseError};
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlPool, Row};

use super::fresh::{CHECKPOINT, FRESH, OLD, swapped};
use crate::checkpoint::LIVE;

/// How long a statement waits for locks before it makes way again.
const LOCK_WAIT_S: u32 = 2;
/// How often it is looked whether the rename queues.
const LOOK: Duration = Duration::from_millis(3);
/// A lock was not had in time.
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// The servers chose this statement to break a circle.
const DEADLOCK: u16 = 1213;

/// What came of an attempt to swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Swapped,
    /// Another statement held one of the tables for too long; everything is as it was.
    TablesInUse,
    /// The fresh tables differ from the live ones, and that was not accepted.
    Refused,
}

/// While it lives no projector can write.
pub(super) struct Fence {
    transaction: sqlx::Transaction<'static, sqlx::MySql>,
    /// Last event of every partition in the live tables.
    pub(super) checkpoint: Vec<u64>,
}

impl Fence {
    /// Waits for a transaction under way and keeps the next ones out; `None` when that took too long.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn raise(pool: &MySqlPool, partitions: PartitionCount) -> Result<Option<Self>, sqlx::Error> {
        let mut transaction = pool.begin().await?;
        bound_waits(&mut transaction).await?;
        let rows = sqlx::query_as("SELECT projection, part, last_n FROM projection_checkpoint FOR UPDATE")
            .fetch_all(&mut *transaction)
            .await;
        let rows: Vec<(String, u16, u64)> = match rows {
            Err(error) if is_lock_wait(&error) => return Ok(None),
            rows => rows?,
        };
        let of = |part: u16| rows.iter().find(|row| row.0 == LIVE && row.1 == part).map_or(0, |row| row.2);
        let checkpoint = partitions.iter().map(|partition| of(partition.0)).collect();
        Ok(Some(Self { transaction, checkpoint }))
    }

    /// Lets the projector go on with the tables as they are.
    pub(super) async fn lower(self) -> Result<(), sqlx::Error> {
        self.transaction.rollback().await
    }

    /// Puts the fresh tables into service.
    ///
    /// # Errors
    /// What the server says; the fence has fallen, and either all tables were exchanged or none.
    pub(super) async fn swap(self, pool: &MySqlPool) -> Result<Attempt, sqlx::Error> {
        // Other projections keep their places.
        pool.execute(AssertSqlSafe(format!(
            "REPLACE INTO {CHECKPOINT}{FRESH} SELECT * FROM {CHECKPOINT} WHERE projection <> '{LIVE}'"
        )))
        .await?;
        let mut renamer = pool.acquire().await?.detach();
        bound_waits(&mut renamer).await?;
        let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut renamer).await?;
        // A task of its own: a statement that was sent is seen through to its answer.
        let rename = tokio::spawn(async move {
            let outcome = renamer.execute(AssertSqlSafe(rename_statement())).await.map(|_| ());
            let _ = renamer.close().await;
            outcome
        });
        // The statement is on its way: from here on nothing may end this function before its answer is there.
        while !rename.is_finished() && !queues(pool, id).await.unwrap_or(true) {
            tokio::time::sleep(LOOK).await;
        }
        if let Err(error) = self.transaction.commit().await {
            tracing::debug!(%error, "the fence fell with its connection");
        }
        match rename.await.expect("sending a statement does not panic") {
            Ok(()) => Ok(Attempt::Swapped),
            Err(error) if is_lock_wait(&error) => Ok(Attempt::TablesInUse),
            Err(error) => Err(error),
        }
    }
}

fn rename_statement() -> String {
    let renames: Vec<String> =
        swapped().map(|table| format!("{table} TO {table}{OLD}, {table}{FRESH} TO {table}")).collect();
    format!("RENAME TABLE {}", renames.join(", "))
}

/// Whether the connection waits for a table. (`information_schema.processlist` would do, if MySQL did not fail there on
/// other connections' binary parameters.)
async fn queues(pool: &MySqlPool, id: u64) -> Result<bool, sqlx::Error> {
    for row in sqlx::raw_sql("SHOW PROCESSLIST").fetch_all(pool).await? {
        let (its, state): (u64, Option<String>) = (row.try_get_unchecked("Id")?, row.try_get_unchecked("State")?);
        if its == id {
            return Ok(state.is_some_and(|state| state.starts_with("Waiting for table metadata lock")));
        }
    }
    Ok(false)
}

async fn bound_waits(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    connection
        .execute(AssertSqlSafe(format!(
            "SET SESSION lock_wait_timeout = {LOCK_WAIT_S}, SESSION innodb_lock_wait_timeout = {LOCK_WAIT_S}"
        )))
        .await?;
    Ok(())
}

fn is_lock_wait(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error)
        if error.try_downcast_ref::<MySqlDatabaseError>()
            .is_some_and(|error| [LOCK_WAIT_TIMEOUT, DEADLOCK].contains(&error.number())))
}
