//! Tasks whose rows were deleted because they ended long ago: how everybody who compares or folds tells them from a loss.
//!
//! The rule is one moment, the horizon, which moves forward before the first row goes: a task that ended before it may be
//! absent from the tables, with all of its rows, unless it is on the dead-letter list. Whose rows went is noted with the
//! deletion, and for a while: what may follow an end changes nothing then. Any other event of a task that has no row is a fault,
//! as it is where nothing is ever deleted.

use std::borrow::Cow;
use std::collections::HashSet;

use insightforge_schema::event::{Change, Event};
use insightforge_schema::tables::datetime;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::fold::{Known, missing};

/// Rows that one statement asks for or deletes.
const IDS: usize = 500;
/// Notes that one pass forgets.
const FORGOTTEN: u64 = 10_000;
/// Which tasks may be absent; takes the horizon.
const ENDED_BEFORE: &str =
    "t.completed_at < ? AND t.dead_lettered = FALSE AND t.status IN ('completed', 'failed', 'cancelled')";
/// The tables with rows of tasks, and the tasks' own last.
const CHILDREN: [&str; 3] = ["analysis_results", "analysis_shadow_results", "task_logs"];

/// Tasks that ended before this moment may be absent, in microseconds since 1970-01-01 UTC; `None` when none was ever
/// deleted.
///
/// # Errors
/// What the server says.
pub(crate) async fn horizon<'c>(from: impl sqlx::MySqlExecutor<'c>) -> Result<Option<i64>, sqlx::Error> {
    let at: Option<chrono::NaiveDateTime> =
        sqlx::query_scalar("SELECT ended_before FROM rows_horizon WHERE part = 0").fetch_optional(from).await?;
    Ok(at.map(|at| at.and_utc().timestamp_micros()))
}

/// Moves the horizon, never back.
///
/// # Errors
/// What the server says.
pub(crate) async fn move_horizon(pool: &MySqlPool, to_us: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO rows_horizon (part, ended_before, updated_at) VALUES (0, ?, UTC_TIMESTAMP(6))
        ON DUPLICATE KEY UPDATE ended_before = GREATEST(ended_before, VALUES(ended_before)), updated_at = UTC_TIMESTAMP(6)",
    )
    .bind(datetime(to_us))
    .execute(pool)
    .await?;
    Ok(())
}

/// Which of these tasks have a row in the tables whose names end in `suffix`, by row id.
///
/// # Errors
/// What the server says.
pub(crate) async fn present(
    connection: &mut MySqlConnection,
    suffix: &str,
    table: &str,
    ids: &[u64],
) -> Result<HashSet<u64>, sqlx::Error> {
    let statement = format!(
        "SELECT t.id FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
        STRAIGHT_JOIN {table}{suffix} t ON t.id = wanted.id"
    );
    let mut found = HashSet::new();
    for ids in ids.chunks(IDS * 4) {
        let ids = serde_json::json!(ids).to_string();
        let some: Vec<u64> =
            sqlx::query_scalar(AssertSqlSafe(&*statement)).bind(ids).fetch_all(&mut *connection).await?;
        found.extend(some);
    }
    Ok(found)
}

/// Whether a task that is over may still meet this event. Such events come late when the projector is late; besides, only who
/// still finds the task's record in Redis can append one, and that is gone soon.
pub(crate) fn may_follow_an_end(change: &Change) -> bool {
    matches!(change, Change::DeadLettered(_) | Change::Redriven(_) | Change::Purged(_) | Change::Shadowed(_))
}

/// The events without those that change nothing because the rows of their tasks were deleted. `known` has what the tables
/// whose names end in `suffix` have of the others.
///
/// # Errors
/// What the server says.
pub(crate) async fn without_retired<'e>(
    connection: &mut MySqlConnection,
    suffix: &str,
    events: &'e [Event],
    known: &Known,
) -> Result<Cow<'e, [Event]>, sqlx::Error> {
    let absent = missing(events, known);
    if absent.is_empty() {
        return Ok(Cow::Borrowed(events));
    }
    let retired = present(connection, "", "rows_retired", &absent).await?;
    let changes_nothing = |event: &Event| retired.contains(&event.first.row_id()) && may_follow_an_end(&event.change);
    let before = events.len();
    let kept: Vec<Event> = events.iter().filter(|event| !changes_nothing(event)).cloned().collect();
    if kept.len() == before {
        return Ok(Cow::Borrowed(events));
    }
    tracing::info!(events = before - kept.len(), suffix, "events of tasks whose rows were deleted change nothing");
    Ok(Cow::Owned(kept))
}

/// Notes that the rows of these tasks are deleted by the same transaction.
///
/// # Errors
/// What the server says.
pub(crate) async fn note(connection: &mut MySqlConnection, ids: &[u64]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO rows_retired (id, retired_at)
        SELECT wanted.id, UTC_TIMESTAMP(6) FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted
        ON DUPLICATE KEY UPDATE rows_retired.id = rows_retired.id",
    )
    .bind(serde_json::json!(ids).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets some of what was noted before this moment; no event comes any more.
///
/// # Errors
/// What the server says.
pub(crate) async fn forget(pool: &MySqlPool, before_us: i64) -> Result<(), sqlx::Error> {
    let statement = "DELETE FROM rows_retired WHERE retired_at < ? ORDER BY retired_at LIMIT ?";
    sqlx::query(statement).bind(datetime(before_us)).bind(FORGOTTEN).execute(pool).await?;
    Ok(())
}

/// Takes those tasks out of the tables whose names end in `suffix` that ended before the horizon and are absent from the
/// live ones; how many.
///
/// # Errors
/// What the server says.
pub(crate) async fn retire_as_live(connection: &mut MySqlConnection, suffix: &str) -> Result<u64, sqlx::Error> {
    let Some(horizon) = horizon(&mut *connection).await? else { return Ok(0) };
    let statement = format!(
        "SELECT t.id FROM analysis_tasks{suffix} t LEFT JOIN analysis_tasks live ON live.id = t.id
        WHERE t.id > ? AND live.id IS NULL AND {ENDED_BEFORE} ORDER BY t.id LIMIT {IDS}"
    );
    let (mut after, mut retired) = (0, 0);
    loop {
        let ids: Vec<u64> = sqlx::query_scalar(AssertSqlSafe(&*statement))
            .bind(after)
            .bind(datetime(horizon))
            .fetch_all(&mut *connection)
            .await?;
        let Some(last) = ids.last() else { return Ok(retired) };
        after = *last;
        retired += ids.len() as u64;
        delete(connection, suffix, &ids).await?;
    }
}

/// Tasks of the live tables that ended before `horizon_us`, locked: nothing else changes them in this transaction. From
/// those created at `after` on; some, in the order of their creation, each with when that was.
///
/// # Errors
/// What the server says.
pub(crate) async fn lock_ended(
    connection: &mut MySqlConnection,
    horizon_us: i64,
    after: chrono::NaiveDateTime,
) -> Result<Vec<(u64, chrono::NaiveDateTime)>, sqlx::Error> {
    let statement = format!(
        "SELECT t.id, t.created_at FROM analysis_tasks t FORCE INDEX (analysis_tasks_created)
        WHERE t.created_at >= ? AND t.created_at < ? AND {ENDED_BEFORE}
        ORDER BY t.created_at, t.id LIMIT {IDS} FOR UPDATE SKIP LOCKED"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(after)
        .bind(datetime(horizon_us))
        .bind(datetime(horizon_us))
        .fetch_all(connection)
        .await
}

/// Deletes tasks with all of their rows.
///
/// # Errors
/// What the server says.
pub(crate) async fn delete(connection: &mut MySqlConnection, suffix: &str, ids: &[u64]) -> Result<(), sqlx::Error> {
    let ids = serde_json::json!(ids).to_string();
    let wanted = "JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) wanted";
    for table in CHILDREN {
        let statement =
            format!("DELETE t FROM {wanted} STRAIGHT_JOIN {table}{suffix} t ON t.analysis_task_id = wanted.id");
        sqlx::query(AssertSqlSafe(statement)).bind(&ids).execute(&mut *connection).await?;
    }
    let statement = format!("DELETE t FROM {wanted} STRAIGHT_JOIN analysis_tasks{suffix} t ON t.id = wanted.id");
    sqlx::query(AssertSqlSafe(statement)).bind(&ids).execute(&mut *connection).await?;
    Ok(())
}
