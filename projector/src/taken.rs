//! Task ids that were submitted before: the first row keeps the id, every later `submitted` is a fault.

use std::collections::HashSet;

use insightforge_schema::event::Event;
use insightforge_schema::id::TaskId;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlConnection;

/// Ids asked for at once.
const IDS: usize = 2_000;

/// Row ids of those `submitted` events whose task id has another row, in the tables whose names end in `suffix` or earlier
/// among `events`.
///
/// # Errors
/// What the server says.
pub(crate) async fn taken_ids(
    connection: &mut MySqlConnection,
    suffix: &str,
    events: &[Event],
) -> Result<HashSet<u64>, sqlx::Error> {
    let submitted: Vec<&Event> = events.iter().filter(|event| event.first == event.position).collect();
    let statement = format!(
        "SELECT t.task_id, t.id FROM JSON_TABLE(?, '$[*]' COLUMNS (
        id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin PATH '$')) wanted
        STRAIGHT_JOIN analysis_tasks{suffix} t ON t.task_id = wanted.id"
    );
    // Who has the id, as far as is known.
    let mut owners: std::collections::HashMap<TaskId, u64> = std::collections::HashMap::new();
    for chunk in submitted.chunks(IDS) {
        let ids: Vec<TaskId> = chunk.iter().map(|event| event.task).collect();
        let ids = serde_json::to_string(&ids).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let rows: Vec<(String, u64)> =
            sqlx::query_as(AssertSqlSafe(&*statement)).bind(ids).fetch_all(&mut *connection).await?;
        owners.extend(rows.into_iter().filter_map(|(task, id)| Some((task.parse().ok()?, id))));
    }
    let mut refused = HashSet::new();
    for event in submitted {
        let id = event.position.row_id();
        let owner = owners.entry(event.task).or_insert(id);
        if *owner < id {
            refused.insert(id);
        }
    }
    Ok(refused)
}
