//! The live tables as they are at one position, whatever the projector does meanwhile.

use insightforge_schema::id::PartitionCount;
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection, Executor, MySqlPool};

use crate::checkpoint;

/// A reading transaction; it ends with its connection.
pub(crate) struct Snapshot {
    pub(crate) connection: MySqlConnection,
    /// Last event of every partition in the tables.
    pub(crate) checkpoint: Vec<u64>,
}

impl Snapshot {
    /// # Errors
    /// What the server says.
    pub(crate) async fn take(pool: &MySqlPool, partitions: PartitionCount) -> Result<Self, sqlx::Error> {
        let mut connection = pool.acquire().await?.detach();
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
        let checkpoint = checkpoint::seen_by(&mut connection, "", partitions).await?;
        Ok(Self { connection, checkpoint })
    }

    /// Gives the tables free; when this returns, the server has done so.
    ///
    /// # Errors
    /// What the server says.
    pub(crate) async fn release(mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("ROLLBACK").await?;
        self.connection.close().await
    }
}
