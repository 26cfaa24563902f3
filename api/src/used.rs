//! Ids that callers bring although they name tasks that ended longer ago than Redis remembers: only the tables know them, and
//! a second task under the id would have no row, no announcement and no end that anybody is told of.
//!
//! Intake waits for nobody: tables that do not answer at once are not asked, and the id is taken for a new one.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use insightforge_schema::id::TaskId;
use sqlx::{MySqlPool, QueryBuilder};

use crate::app::App;

/// The tables must answer within this time …
const PATIENCE: Duration = Duration::from_millis(100);
/// … or are not asked for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Ids of one question.
const IDS: usize = 1_000;

/// Asks about ids.
#[derive(Default)]
pub(crate) struct UsedIds {
    not_before: Mutex<Option<Instant>>,
}

impl UsedIds {
    /// Those of the ids that name a task which has ended and has left Redis.
    pub(crate) async fn among(&self, app: &App, ids: &[TaskId]) -> HashSet<TaskId> {
        let mut ended = Vec::new();
        for ids in ids.chunks(IDS) {
            if self.is_pausing() {
                break;
            }
            match tokio::time::timeout(PATIENCE, ended_of(&app.pool, ids)).await {
                Ok(Ok(found)) => ended.extend(found),
                Ok(Err(_)) | Err(_) => self.pause(),
            }
        }
        // Those that Redis remembers are judged there, by what the request says.
        let remembered = join_all(ended.iter().map(|task| async move {
            let record = app.keys.record(app.config.partitions.of_task(*task), *task);
            app.link.query::<bool>(redis::cmd("EXISTS").arg(record)).await.unwrap_or(true)
        }))
        .await;
        ended.iter().zip(remembered).filter(|(_, remembered)| !remembered).map(|(task, _)| *task).collect()
    }

    fn is_pausing(&self) -> bool {
        self.not_before.lock().is_ok_and(|not_before| not_before.is_some_and(|until| Instant::now() < until))
    }

    fn pause(&self) {
        if let Ok(mut not_before) = self.not_before.lock() {
            *not_before = Some(Instant::now() + PAUSE);
        }
    }
}

async fn ended_of(pool: &MySqlPool, ids: &[TaskId]) -> Result<Vec<TaskId>, sqlx::Error> {
    let mut select = QueryBuilder::new(
        "SELECT task_id FROM analysis_tasks WHERE status IN ('completed', 'failed', 'cancelled') AND task_id IN (",
    );
    let mut list = select.separated(", ");
    for id in ids {
        list.push_bind(id.to_string());
    }
    select.push(")");
    let found: Vec<String> = select.build_query_scalar().fetch_all(pool).await?;
    Ok(found.iter().filter_map(|id| id.parse().ok()).collect())
}
