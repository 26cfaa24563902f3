//! Ids that callers bring although they name tasks that Redis does not remember: ended long ago, or lost by it and not yet put
//! back. Only the tables know them, and a second task under the id would have no row, no announcement and no end that anybody
//! is told of.
//!
//! Intake waits for nobody: tables that do not answer at once are not asked, and the id is taken for a new one.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use insightforge_schema::id::TaskId;
use metrics::counter;
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
    /// Those of the ids that name a task which Redis does not remember.
    pub(crate) async fn among(&self, app: &App, ids: &[TaskId]) -> HashSet<TaskId> {
        let mut known = Vec::new();
        for ids in ids.chunks(IDS) {
            if self.is_pausing() {
                break;
            }
            match tokio::time::timeout(PATIENCE, rows_of(&app.pool, ids)).await {
                Ok(Ok(found)) => known.extend(found),
                Ok(Err(_)) | Err(_) => self.pause(),
            }
        }
        // Those that Redis remembers are judged there, by what the request says.
        let remembered = join_all(known.iter().map(|task| async move {
            let record = app.keys.record(app.config.partitions.of_task(*task), *task);
            app.link.query::<bool>(redis::cmd("EXISTS").arg(record)).await.unwrap_or(true)
        }))
        .await;
        known.iter().zip(remembered).filter(|(_, remembered)| !remembered).map(|(task, _)| *task).collect()
    }

    fn is_pausing(&self) -> bool {
        self.not_before.lock().is_ok_and(|not_before| not_before.is_some_and(|until| Instant::now() < until))
    }

    fn pause(&self) {
        counter!("if_ids_unchecked_total").increment(1);
        tracing::warn!(?PAUSE, "the tables do not answer at once: ids that callers bring are taken for new ones");
        if let Ok(mut not_before) = self.not_before.lock() {
            *not_before = Some(Instant::now() + PAUSE);
        }
    }
}

async fn rows_of(pool: &MySqlPool, ids: &[TaskId]) -> Result<Vec<TaskId>, sqlx::Error> {
    let mut select = QueryBuilder::new("SELECT task_id FROM analysis_tasks WHERE task_id IN (");
    let mut list = select.separated(", ");
    for id in ids {
        list.push_bind(id.to_string());
    }
    select.push(")");
    let found: Vec<String> = select.build_query_scalar().fetch_all(pool).await?;
    Ok(found.iter().filter_map(|id| id.parse().ok()).collect())
}
