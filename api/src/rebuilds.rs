//! Rebuilds of the tables: how far one is that runs, and what the last ones found; and what the continuous comparison with the
//! journal found last.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use sqlx::types::Json as JsonColumn;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::Unavailable;
use crate::problem::Problem;
use crate::shape::utc;

/// Rebuilds that are shown.
const SHOWN: u32 = 20;
/// One that has not moved its row for so many seconds has died.
const SILENT_S: i64 = 30;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(rebuilds))
}

/// Rebuilds and the comparison.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rebuilds {
    /// Newest first.
    rebuilds: Vec<RebuildView>,
    /// `null` while nothing has been compared.
    check: Option<CheckView>,
}

/// One rebuild.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RebuildView {
    rebuild: u64,
    /// Who does it.
    owner: String,
    state: RebuildState,
    /// Folded so far.
    events: u64,
    /// In the journal when it began.
    events_whole: Option<u64>,
    started_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// What it found: for each table the rows and checksums of the live and the fresh one. As `insightforge rebuild --json` has it.
    #[schema(value_type = Option<Object>)]
    report: Option<serde_json::Value>,
    /// What kept it from its end, in general words; its own output says more.
    error: Option<String>,
}

/// Where a rebuild stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RebuildState {
    Loading,
    Indexing,
    Comparing,
    Swapping,
    /// The new tables are in service.
    Swapped,
    /// There were differences; the old tables stayed.
    Different,
    Failed,
    /// It ended without a word.
    Died,
}

/// The last comparison of the tables with the journal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckView {
    checked_at: DateTime<Utc>,
    tasks: u64,
    events: u64,
    differences: u64,
    /// When one last found a difference, and one of those.
    differed_at: Option<DateTime<Utc>>,
    difference: Option<String>,
}

/// Rebuilds of the tables
///
/// How far one is that runs, what the last 20 found, and what the continuous comparison with the journal found last.
#[utoipa::path(
    get, path = "/api/rebuilds", operation_id = "listRebuilds", tag = "journal",
    responses((status = 200, description = "Newest first", body = Rebuilds), Unavailable)
)]
pub(crate) async fn rebuilds(State(app): State<Arc<App>>) -> Result<Json<Rebuilds>, Problem> {
    let rows: Vec<Row> = ask(sqlx::query_as(
        "SELECT n, owner, state, events, events_whole, started_at, updated_at, ended_at, report, error, \
            TIMESTAMPDIFF(SECOND, updated_at, UTC_TIMESTAMP(6)) AS silent_s \
         FROM rebuilds ORDER BY n DESC LIMIT ?",
    )
    .bind(SHOWN)
    .fetch_all(&app.pool))
    .await?;
    let check: Option<Check> = ask(sqlx::query_as(
        "SELECT checked_at, tasks, events, differences, differed_at, difference FROM projection_checks WHERE part = 0",
    )
    .fetch_optional(&app.pool))
    .await?;
    let rebuilds = rows.into_iter().map(Row::view).collect();
    Ok(Json(Rebuilds { rebuilds, check: check.map(CheckView::from) }))
}

#[derive(FromRow)]
struct Row {
    n: u64,
    owner: String,
    state: String,
    events: u64,
    events_whole: Option<u64>,
    started_at: NaiveDateTime,
    updated_at: NaiveDateTime,
    ended_at: Option<NaiveDateTime>,
    report: Option<JsonColumn<serde_json::Value>>,
    error: Option<String>,
    /// By the server's clock, like the row's own moments.
    silent_s: i64,
}

impl Row {
    fn view(self) -> RebuildView {
        let state = match &*self.state {
            "swapped" => RebuildState::Swapped,
            "different" => RebuildState::Different,
            "failed" => RebuildState::Failed,
            _ if self.silent_s > SILENT_S => RebuildState::Died,
            "indexing" => RebuildState::Indexing,
            "comparing" => RebuildState::Comparing,
            "swapping" => RebuildState::Swapping,
            _ => RebuildState::Loading,
        };
        RebuildView {
            rebuild: self.n,
            owner: self.owner,
            state,
            events: self.events,
            events_whole: self.events_whole,
            started_at: utc(self.started_at),
            updated_at: utc(self.updated_at),
            ended_at: self.ended_at.map(utc),
            report: self.report.map(|report| report.0),
            error: self.error,
        }
    }
}

#[derive(FromRow)]
struct Check {
    checked_at: NaiveDateTime,
    tasks: u64,
    events: u64,
    differences: u64,
    differed_at: Option<NaiveDateTime>,
    difference: Option<String>,
}

impl From<Check> for CheckView {
    fn from(row: Check) -> Self {
        Self {
            checked_at: utc(row.checked_at),
            tasks: row.tasks,
            events: row.events,
            differences: row.differences,
            differed_at: row.differed_at.map(utc),
            difference: row.difference,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebuild_that_stopped_telling_has_died_unless_it_told_of_its_end() {
        let stands = |state: &str, silent_s: i64| {
            let at = Utc::now().naive_utc();
            let (owner, state) = (String::new(), state.to_owned());
            let row = Row {
                n: 1,
                owner,
                state,
                events: 0,
                events_whole: None,
                started_at: at,
                updated_at: at,
                ended_at: None,
                report: None,
                error: None,
                silent_s,
            };
            row.view().state
        };
        assert_eq!(stands("loading", 2), RebuildState::Loading);
        assert_eq!(stands("comparing", 31), RebuildState::Died);
        assert_eq!(stands("swapped", 3_600), RebuildState::Swapped);
    }
}
