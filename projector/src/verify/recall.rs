//! A task that is no longer in memory, from its own events: its history says where they stand, the journal what they are.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::try_join_all;
use insightforge_schema::event::Event;
use insightforge_schema::id::position_of_row;
use insightforge_schema::task::{Task, apply};

use super::VerifyError;
use crate::fold::Known;
use crate::snapshot::Snapshot;
use crate::window::Reader;

/// Tasks whose history is asked for at once, and events.
const TASKS: usize = 1_000;
const EVENTS: usize = 64;

/// The events of the tasks with these row ids, in order; with `upto` only those that stand there or before.
pub(super) async fn events_of(
    reader: &Reader,
    snapshot: &mut Snapshot,
    tasks: &[u64],
    upto: Option<&[u64]>,
) -> Result<Vec<Event>, VerifyError> {
    let mut ids: Vec<u64> = Vec::new();
    for tasks in tasks.chunks(TASKS) {
        let some: Vec<u64> = sqlx::query_scalar(
            "SELECT l.id FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
            STRAIGHT_JOIN task_logs l ON l.analysis_task_id = wanted.id",
        )
        .bind(serde_json::json!(tasks).to_string())
        .fetch_all(&mut snapshot.connection)
        .await?;
        ids.extend(some);
    }
    ids.sort_unstable();
    let mut events = Vec::with_capacity(ids.len());
    for ids in ids.chunks(EVENTS) {
        let reads = ids.iter().map(|id| position_of_row(*id)).filter(|position| {
            upto.is_none_or(|upto| upto.get(usize::from(position.partition.0)).is_some_and(|last| position.n <= *last))
        });
        let reads = reads.map(|position| reader.journal.range(position.partition, position.n, Some(position.n), 1));
        events.extend(try_join_all(reads).await?.into_iter().flatten());
    }
    Ok(events)
}

/// Folds earlier events and remembers what they made.
pub(super) fn fold_into(known: &mut Known, events: &[Event]) {
    let mut tasks: BTreeMap<u64, Task> = BTreeMap::new();
    let mut by_task: HashMap<u64, Vec<&Event>> = HashMap::new();
    for event in events {
        by_task.entry(event.first.row_id()).or_default().push(event);
    }
    for (id, events) in by_task {
        let task = events.into_iter().fold(None, |task: Option<Task>, event| {
            // An illegal event changes nothing; it was told of where it stands.
            apply(task.clone(), event).ok().or(task)
        });
        if let Some(task) = task {
            tasks.insert(id, task);
        }
    }
    tasks.into_values().for_each(|task| known.insert(task));
}
