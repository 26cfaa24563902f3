//! When a sampled task's row says completed, and when its result can be fetched.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use tokio::task::spawn_local;
use uuid::Uuid;

use super::ledger::Ledger;
use super::load::Target;
use super::wire::{self, Connection};

/// Between two looks at least.
const BETWEEN: Duration = Duration::from_millis(2);
/// Between two looks at rows also this part of the oldest one's age: latencies are measured to a sixteenth, and a system
/// that is behind is not slowed by being watched.
const PART_OF_AGE: u32 = 16;
const BETWEEN_AT_MOST: Duration = Duration::from_millis(200);
/// Tasks one look asks for, the oldest.
const ROWS_A_LOOK: usize = 32;
/// Results watched at once; samples beyond are not watched.
const RESULTS_AT_ONCE: usize = 32;

/// Asks for the rows of sampled tasks until it is aborted.
pub(super) async fn rows(pool: MySqlPool, ledger: Rc<Ledger>) {
    loop {
        let (wanted, age) = ledger.rows_wanted(ROWS_A_LOOK);
        if wanted.is_empty() {
            ledger.sampled().await;
            continue;
        }
        // A failed look is repeated; the audit reports a database that stays away.
        if let Ok(completed) = ended(&pool, &wanted).await {
            ledger.rows_seen(&completed);
        }
        tokio::time::sleep((age / PART_OF_AGE).clamp(BETWEEN, BETWEEN_AT_MOST)).await;
    }
}

/// Those of `ids` whose row says that they ended.
pub(super) async fn ended(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    // Plain text and not a prepared statement: each length of the list would be another one to prepare first.
    let list: Vec<String> = ids.iter().map(|id| format!("'{}'", id.hyphenated())).collect();
    let query = format!(
        "SELECT task_id FROM analysis_tasks WHERE status IN ('completed', 'failed', 'cancelled') AND task_id IN ({})",
        list.join(",")
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(pool).await?;
    rows.iter().map(|row| row.try_get::<String, _>(0)).map(|id| Ok(id?.parse().unwrap_or_default())).collect()
}

#[derive(Deserialize)]
struct Shown {
    status: String,
}

/// Fetches the results of sampled tasks until it is aborted.
pub(super) async fn results(target: Target, ledger: Rc<Ledger>) {
    let idle = Rc::new(RefCell::new(Vec::new()));
    loop {
        let wanted = ledger.take_results_wanted();
        if wanted.is_empty() {
            ledger.sampled().await;
            continue;
        }
        for id in wanted {
            if ledger.result_watch_began(RESULTS_AT_ONCE) {
                spawn_local(result(target.clone(), id, Rc::clone(&idle), Rc::clone(&ledger)));
            }
        }
    }
}

/// Fetches one result until it says completed; a broken connection ends the watch, and the sample is not counted.
async fn result(target: Target, id: Uuid, idle: Rc<RefCell<Vec<Connection>>>, ledger: Rc<Ledger>) {
    let request = wire::get(&target.0, &format!("/api/result/{id}"));
    let kept = idle.borrow_mut().pop();
    let connection = match kept {
        Some(connection) => Ok(connection),
        None => Connection::connect(&target.0).await,
    };
    if let Ok(mut connection) = connection {
        while let Ok(answer) = connection.exchange(&request).await {
            let reusable = answer.keeps_alive();
            if serde_json::from_slice::<Shown>(&answer.body).is_ok_and(|shown| shown.status == "completed") {
                ledger.result_seen(id);
                if reusable {
                    idle.borrow_mut().push(connection);
                }
                break;
            }
            if !reusable {
                break;
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
    ledger.result_watch_ended();
}

/// Waits until the samples still watched are seen, or none was for `settle`.
pub(super) async fn wait_for_samples(ledger: &Ledger, settle: Duration) {
    while ledger.watching() {
        if tokio::time::timeout(settle, ledger.progress()).await.is_err() {
            return;
        }
    }
}
