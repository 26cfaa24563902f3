//! How far the tables are: the number of the last event of a partition that is in them, 0 before the first. One word of
//! the server each; how long it may take is the caller's to say (see [`crate::ask`]).

use insightforge_schema::id::Partition;

use crate::app::App;

/// Of every partition, in order.
///
/// # Errors
/// What the server says.
pub(crate) async fn everywhere(app: &App) -> Result<Vec<u64>, sqlx::Error> {
    let rows: Vec<(u16, u64)> =
        sqlx::query_as("SELECT part, last_n FROM projection_checkpoint WHERE projection = 'live'")
            .fetch_all(&app.pool)
            .await?;
    let last = |partition: Partition| rows.iter().find(|(part, _)| *part == partition.0).map_or(0, |(_, n)| *n);
    Ok(app.config.partitions.iter().map(last).collect())
}

/// Of one.
///
/// # Errors
/// What the server says.
pub(crate) async fn of(app: &App, partition: Partition) -> Result<u64, sqlx::Error> {
    let last: Option<u64> =
        sqlx::query_scalar("SELECT last_n FROM projection_checkpoint WHERE projection = 'live' AND part = ?")
            .bind(partition.0)
            .fetch_optional(&app.pool)
            .await?;
    Ok(last.unwrap_or(0))
}
