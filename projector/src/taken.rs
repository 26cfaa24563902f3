//! Ids that were there before: the first row keeps the id, every later `submitted` or `batch_received` is a fault.

use std::collections::{HashMap, HashSet};

use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::TaskId;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

/// Ids asked for at once.
const IDS: usize = 2_000;

/// Row ids of those `submitted` and `batch_received` events whose id has another row, in the tables whose names end in
/// `suffix` or earlier among `events`.
///
/// # Errors
/// What the server says.
pub(crate) async fn taken_ids(
    connection: &mut MySqlConnection,
    suffix: &str,
    events: &[Event],
) -> Result<HashSet<u64>, sqlx::Error> {
    let (batches, tasks): (Vec<&Event>, Vec<&Event>) = events
        .iter()
        .filter(|event| event.first == event.position)
        .partition(|event| matches!(event.change, Change::BatchReceived(_)));
    let mut taken = taken(connection, &format!("analysis_tasks{suffix}"), "task_id", &tasks).await?;
    taken.extend(self::taken(connection, &format!("analysis_batches{suffix}"), "batch_id", &batches).await?);
    Ok(taken)
}

async fn taken(
    connection: &mut MySqlConnection,
    table: &str,
    column: &str,
    events: &[&Event],
) -> Result<HashSet<u64>, sqlx::Error> {
    let statement = format!(
        "SELECT t.{column}, t.id FROM JSON_TABLE(?, '$[*]' COLUMNS (
        id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PATH '$')) wanted
        STRAIGHT_JOIN {table} t ON t.{column} = wanted.id"
    );
    // Who has the id, as far as is known.
    let mut owners: HashMap<TaskId, u64> = HashMap::new();
    for chunk in events.chunks(IDS) {
        let ids: Vec<TaskId> = chunk.iter().map(|event| event.task).collect();
        let ids = serde_json::to_string(&ids).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let rows: Vec<(String, u64)> =
            sqlx::query_as(AssertSqlSafe(&*statement)).bind(ids).fetch_all(&mut *connection).await?;
        owners.extend(rows.into_iter().filter_map(|(id, row)| Some((id.parse().ok()?, row))));
    }
    let mut refused = HashSet::new();
    for event in events {
        let id = event.position.row_id();
        let owner = owners.entry(event.task).or_insert(id);
        if *owner < id {
            refused.insert(id);
        }
    }
    Ok(refused)
}
