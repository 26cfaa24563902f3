//! Folds the whole journal again, in memory, and compares with the tables: no row is written.

use std::collections::HashMap;

use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::{Cursor, PartitionCount, Position, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::task::{self, Task};
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::snapshot::Snapshot;
use crate::window::Reader;
use crate::write;

pub use crate::window::WindowError;

/// Differences told in full.
const EXAMPLES: usize = 20;

/// What a verification needs.
#[derive(Clone)]
pub struct Deps {
    pub link: Link,
    pub keys: Keys,
    pub pool: MySqlPool,
    pub partitions: PartitionCount,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the tables were when they were looked at.
    pub at: Cursor,
    pub events: u64,
    pub tasks: u64,
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
}

/// A row that is not what the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub table: &'static str,
    /// Where the row comes from in the journal.
    pub origin: Option<Position>,
    pub task: Option<TaskId>,
    pub what: String,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Journal(#[from] WindowError),
    #[error("the database: {0}")]
    Tables(#[from] sqlx::Error),
}

/// Compares the tables with the journal, as both were at one position. A projector may go on meanwhile.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify(deps: &Deps) -> Result<Report, VerifyError> {
    let mut snapshot = Snapshot::take(&deps.pool, deps.partitions).await?;
    let reader = Reader { link: deps.link.clone(), keys: deps.keys.clone(), partitions: deps.partitions };
    let at = Cursor(snapshot.checkpoint.clone());
    let mut report = Report { at, events: 0, tasks: 0, differences: 0, examples: Vec::new() };
    let mut tasks: HashMap<u64, Task> = HashMap::new();
    let (mut logs, mut results) = (0_u64, 0_u64);
    let mut after = vec![0; snapshot.checkpoint.len()];
    while let Some(window) = reader.window(&after, &snapshot.checkpoint).await? {
        report.events += window.events.len() as u64;
        for event in &window.events {
            if let Some(change) = take_in(&mut tasks, event) {
                logs += 1;
                results += u64::from(matches!(change, Change::Completed(_)));
            }
        }
        after = window.upto;
    }
    report.tasks = tasks.len() as u64;
    let mut ids: Vec<u64> = tasks.keys().copied().collect();
    ids.sort_unstable();
    for ids in ids.chunks(1_000) {
        let rows: HashMap<u64, Task> = write::load(&mut snapshot.connection, "", ids)
            .await?
            .into_iter()
            .map(|task| (task.first.row_id(), task))
            .collect();
        for id in ids {
            report.compare_task(&tasks[id], rows.get(id));
        }
    }
    for (table, expected) in [("analysis_tasks", report.tasks), ("task_logs", logs), ("analysis_results", results)] {
        let statement = format!("SELECT COUNT(*) FROM {table}");
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut snapshot.connection).await?;
        if rows.unsigned_abs() != expected {
            let what = format!("{rows} rows, the journal makes {expected}");
            report.add(Difference { table, origin: None, task: None, what });
        }
    }
    snapshot.release().await?;
    Ok(report)
}

/// The event's change, when it made a row.
fn take_in<'e>(tasks: &mut HashMap<u64, Task>, event: &'e Event) -> Option<&'e Change> {
    if matches!(event.change, Change::BatchReceived(_)) {
        return None;
    }
    let id = event.first.row_id();
    let task = task::apply(tasks.get(&id).cloned(), event).ok()?;
    tasks.insert(id, task);
    Some(&event.change)
}

impl Report {
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences == 0
    }

    fn compare_task(&mut self, task: &Task, row: Option<&Task>) {
        let what = match row {
            Some(row) if row == task => return,
            Some(row) => format!("the row is {row:?}, the journal makes {task:?}"),
            None => "there is no row".to_owned(),
        };
        let (origin, task) = (Some(task.first), Some(task.id));
        self.add(Difference { table: "analysis_tasks", origin, task, what });
    }

    fn add(&mut self, difference: Difference) {
        self.differences += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(difference);
        }
    }
}
