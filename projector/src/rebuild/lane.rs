//! A connection that writes what it is handed while the next batch is being made.

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlPool};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fresh::FRESH;
use crate::checkpoint::{self, Advance};

/// Batches that wait for the connection.
const WAITING: usize = 1;

/// Batches of one transaction: a commit waits for the disk, and a rebuild that dies begins anew anyway.
const TOGETHER: usize = 8;

/// What is written together, in this order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Statements with one JSON parameter.
    pub(super) updates: Vec<(String, String)>,
    /// Whole statements.
    pub(super) inserts: Vec<String>,
    /// The way of the checkpoint.
    pub(super) advances: Vec<Advance>,
}

/// A writing connection.
pub(super) struct Lane {
    batches: mpsc::Sender<Batch>,
    written: JoinHandle<Result<(), sqlx::Error>>,
}

impl Lane {
    /// # Errors
    /// What the server says.
    pub(super) async fn open(pool: &MySqlPool, owner: &str) -> Result<Self, sqlx::Error> {
        let mut connection = pool.acquire().await?.detach();
        // Parents are written through another connection, and come from the same fold.
        connection.execute("SET SESSION foreign_key_checks = 0").await?;
        let (batches, handed) = mpsc::channel(WAITING);
        Ok(Self { batches, written: tokio::spawn(write_all(connection, handed, owner.to_owned())) })
    }

    /// Hands over a batch, waiting for room; `false` when the connection has failed, and [`Self::finish`] says why.
    pub(super) async fn hand(&self, batch: Batch) -> bool {
        self.batches.send(batch).await.is_ok()
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// What the server said of the first batch that it refused; that one and later ones were not written.
    pub(super) async fn finish(self) -> Result<(), sqlx::Error> {
        drop(self.batches);
        self.written.await.expect("writing does not panic")
    }
}

async fn write_all(
    mut connection: MySqlConnection,
    mut handed: mpsc::Receiver<Batch>,
    owner: String,
) -> Result<(), sqlx::Error> {
    loop {
        let mut transaction = connection.begin().await?;
        for _ in 0..TOGETHER {
            let Some(batch) = handed.recv().await else {
                transaction.commit().await?;
                return connection.close().await;
            };
            if let Err(error) = write(&mut transaction, batch, &owner).await {
                transaction.rollback().await?;
                return Err(error);
            }
        }
        transaction.commit().await?;
    }
}

async fn write(connection: &mut MySqlConnection, batch: Batch, owner: &str) -> Result<(), sqlx::Error> {
    if !batch.advances.is_empty() && !checkpoint::advance(connection, FRESH, owner, &batch.advances).await? {
        return Err(sqlx::Error::Protocol("somebody else moved the checkpoint of the fresh tables".to_owned()));
    }
    for statement in batch.inserts {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    for (statement, json) in batch.updates {
        sqlx::query(AssertSqlSafe(statement)).bind(json).execute(&mut *connection).await?;
    }
    Ok(())
}
