//! The tables are derived: they can be built again while work goes on, and nobody outside notices.

use std::time::Instant;

use sqlx::{AssertSqlSafe, MySqlPool, Row};

use crate::eventually;
use crate::installation::{Database, Installation};
use crate::process::run;

const BEFORE: usize = 150;
const DURING: usize = 150;
/// Rebuilds that are killed, each a little later than the one before.
const KILLS: u32 = 12;

async fn a_rebuild_under_load_gives_equal_tables_and_sends_nothing(database: Database) {
    let installation = Installation::running(database).await;
    let caller = installation.caller();
    let mut tasks = caller.upload_many(BEFORE, 8).await;
    installation.every_task_completed_once(&tasks).await;
    let before = fingerprints(&installation.pool, Some(&tasks[BEFORE - 1].to_string())).await;

    let load = tokio::spawn(async move { caller.upload_many(DURING, 4).await });
    installation.run(&["rebuild"]).await;
    tasks.extend(load.await.unwrap());
    installation.every_task_completed_once(&tasks).await;
    let after = fingerprints(&installation.pool, Some(&tasks[BEFORE - 1].to_string())).await;
    assert_eq!(before, after, "the rebuild changed rows that were there");

    // Now in the quiet: everything, and not one webhook more.
    let (sent, whole) = (installation.receiver.deliveries().len(), fingerprints(&installation.pool, None).await);
    installation.run(&["rebuild"]).await;
    assert_eq!(fingerprints(&installation.pool, None).await, whole);
    installation.run(&["verify"]).await;
    assert_eq!(installation.receiver.deliveries().len(), sent);
    assert!(installation.receiver.counts().values().all(|count| *count == 1), "a webhook was sent again");
    installation.end().await;
}

async fn verify_finds_a_row_that_somebody_changed_and_a_rebuild_heals_it(database: Database) {
    let installation = Installation::running(database).await;
    let tasks = installation.caller().upload_many(20, 4).await;
    installation.every_task_completed_once(&tasks).await;
    installation.run(&["verify"]).await;

    let change = "UPDATE analysis_results SET result_data = '{\"sentiment\":\"Negative\"}' ORDER BY id LIMIT 1";
    sqlx::query(change).execute(&installation.pool).await.unwrap();
    installation.run_badly(&["verify"]).await;
    // Differences are somebody's to look at before they are gone.
    installation.run_badly(&["rebuild"]).await;
    installation.run_badly(&["verify"]).await;
    installation.run(&["rebuild", "--accept-differences"]).await;
    installation.run(&["verify"]).await;
    installation.end().await;
}

async fn a_rebuild_that_is_killed_at_any_moment_leaves_the_system_at_work(database: Database) {
    let installation = Installation::running(database).await;
    let caller = installation.caller();
    let mut tasks = caller.upload_many(BEFORE, 8).await;
    installation.every_task_completed_once(&tasks).await;
    let begin = Instant::now();
    installation.run(&["rebuild"]).await;
    let whole = begin.elapsed();

    let load = tokio::spawn(async move { caller.upload_many(DURING, 4).await });
    for part in 1..=KILLS {
        // The process is killed when its time is over; the last ones may come to their end.
        let time = whole * part / KILLS;
        let _ = tokio::time::timeout(time, run(&installation.settings, &["rebuild"])).await;
    }
    tasks.extend(load.await.unwrap());
    installation.every_task_completed_once(&tasks).await;
    assert!(installation.receiver.counts().values().all(|count| *count == 1), "a webhook was sent again");
    installation.run(&["verify"]).await;
    // The server lets the next one begin once it has noticed that the last one is gone.
    eventually("a rebuild comes to its end", async || {
        run(&installation.settings, &["rebuild"]).await.status.success().then_some(())
    })
    .await;
    installation.run(&["verify"]).await;
    installation.end().await;
}

/// Rows and checksum of each table; of the tasks whose id is at most `up_to` when it is given.
async fn fingerprints(pool: &MySqlPool, up_to: Option<&str>) -> Vec<(i64, String)> {
    let of_task = "analysis_task_id IN (SELECT id FROM analysis_tasks WHERE task_id <= ?)";
    let tables = [
        (
            "analysis_tasks",
            "id, task_id, status, attempt, worker, data_payload, model_version, last_n, started_at, \
          completed_at, created_at, updated_at",
            "task_id <= ?",
        ),
        ("analysis_results", "id, analysis_task_id, result_data, inference_us, created_at", of_task),
        ("task_logs", "id, analysis_task_id, event_type, description, details, created_at", of_task),
    ];
    let mut fingerprints = Vec::new();
    for (table, columns, bound) in tables {
        let query = format!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(CRC32(CONCAT_WS('|', {columns}))), 0) AS CHAR) FROM {table} WHERE {bound}"
        );
        // Above every id, `~` sorts last.
        let row = sqlx::query(AssertSqlSafe(query)).bind(up_to.unwrap_or("~")).fetch_one(pool).await.unwrap();
        fingerprints.push((row.get(0), row.get(1)));
    }
    fingerprints
}

macro_rules! on_every_database {
    ($($test:ident)*) => {
        mod mariadb {
            use super::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::MariaDb).await })*
        }
        mod mysql {
            use super::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::MySql).await })*
        }
    };
}

on_every_database! {
    a_rebuild_under_load_gives_equal_tables_and_sends_nothing
    verify_finds_a_row_that_somebody_changed_and_a_rebuild_heals_it
    a_rebuild_that_is_killed_at_any_moment_leaves_the_system_at_work
}
