//! How many tasks of a query there are by status, type, version and error: what a page offers to narrow it by.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::Utc;
use serde::Serialize;
use sqlx::QueryBuilder;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::list::{LOOKED_INTO, Meant};
use crate::problem::Problem;
use crate::query::{Query, sql};

/// The newest so many tasks are counted.
const COUNTED: u32 = 50_000;
/// Values of one facet that are named.
const NAMED: usize = 50;
/// Combinations of values; so many are not reached by tasks of real installations.
const GROUPS: u32 = 10_000;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(facets))
}

/// Counts of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Facets {
    /// Tasks that fit, as far as they were counted.
    matched: u64,
    /// `false` when there may be more: the newest of them were counted.
    matched_is_exact: bool,
    status: Vec<Count>,
    task_type: Vec<Count>,
    model_version: Vec<Count>,
    error_code: Vec<Count>,
}

/// How many have a value.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Count {
    value: String,
    count: u64,
}

/// Count tasks by status, type, version and error
///
/// Of the newest 50,000 that fit (20,000 where documents have to be looked into for a text), most first.
#[utoipa::path(
    get, path = "/api/tasks/facets", operation_id = "countTasks", tag = "tasks", params(Meant),
    responses((status = 200, description = "Counts", body = Facets), Invalid, Unavailable)
)]
pub(crate) async fn facets(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Facets>, Problem> {
    let query = Meant::parse(query.as_deref())?;
    let groups: Vec<Group> = ask(question(&query).build_query_as().fetch_all(&app.pool)).await?;
    let looked: Vec<(i64,)> =
        if query.has_text() { ask(looked_at(&query).build_query_as().fetch_all(&app.pool)).await? } else { Vec::new() };
    Ok(Json(Facets::new(groups, looked.first().map(|(count,)| *count as u64))))
}

/// Status, type, version, error, count.
type Group = (String, String, String, Option<String>, i64);

fn question(query: &Query) -> QueryBuilder<sqlx::MySql> {
    let now = Utc::now();
    let mut ask = QueryBuilder::new("SELECT status, task_type, model_version, error_code, COUNT(*) FROM ");
    if query.has_text() {
        ask.push("(SELECT id near_id FROM analysis_tasks WHERE TRUE");
        sql::push(&mut ask, query, now);
        ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(LOOKED_INTO);
        ask.push(") near STRAIGHT_JOIN analysis_tasks ON id = near_id WHERE TRUE");
        sql::push_texts(&mut ask, query);
    } else {
        ask.push("(SELECT status, task_type, model_version, error_code FROM analysis_tasks WHERE TRUE");
        sql::push(&mut ask, query, now);
        // Keys are nearly in the order of times, and the rows themselves lie in theirs: nothing is sorted. Where a time is
        // asked for, the newest rows are not those that fit, and the index of times leads to them.
        ask.push(if query.has_time() {
            " ORDER BY created_at DESC, id DESC LIMIT "
        } else {
            " ORDER BY id DESC LIMIT "
        });
        ask.push_bind(COUNTED).push(") near");
    }
    ask.push(" GROUP BY status, task_type, model_version, error_code LIMIT ").push_bind(GROUPS);
    ask
}

/// How many documents a search looked into.
fn looked_at(query: &Query) -> QueryBuilder<sqlx::MySql> {
    let mut ask = QueryBuilder::new("SELECT COUNT(*) FROM (SELECT 1 FROM analysis_tasks WHERE TRUE");
    sql::push(&mut ask, query, Utc::now());
    ask.push(" LIMIT ").push_bind(LOOKED_INTO).push(") near");
    ask
}

impl Facets {
    fn new(groups: Vec<Group>, looked_at: Option<u64>) -> Self {
        let mut all = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        let mut matched = 0;
        for (status, task_type, model_version, error_code, count) in groups {
            let count = u64::try_from(count).unwrap_or(0);
            matched += count;
            let values = [Some(status), Some(task_type), Some(model_version), error_code];
            for (facet, value) in all.iter_mut().zip(values) {
                if let Some(value) = value {
                    *facet.entry(value).or_insert(0) += count;
                }
            }
        }
        let [status, task_type, model_version, error_code] = all.map(most_first);
        let matched_is_exact = match looked_at {
            Some(looked_at) => looked_at < u64::from(LOOKED_INTO),
            None => matched < u64::from(COUNTED),
        };
        Self { matched, matched_is_exact, status, task_type, model_version, error_code }
    }
}

fn most_first(counts: BTreeMap<String, u64>) -> Vec<Count> {
    let mut counts: Vec<Count> = counts.into_iter().map(|(value, count)| Count { value, count }).collect();
    counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
    counts.truncate(NAMED);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_facet_counts_every_task_once() {
        let group = |status: &str, task_type: &str, code: Option<&str>, count| {
            (status.to_owned(), task_type.to_owned(), "v1".to_owned(), code.map(str::to_owned), count)
        };
        let groups = vec![
            group("failed", "a", Some("timeout"), 3),
            group("failed", "b", Some("panic"), 4),
            group("completed", "a", None, 5),
        ];
        let facets = Facets::new(groups, None);
        let told = |counts: &[Count]| counts.iter().map(|it| format!("{} {}", it.value, it.count)).collect::<Vec<_>>();
        assert_eq!((facets.matched, facets.matched_is_exact), (12, true));
        assert_eq!(told(&facets.status), ["failed 7", "completed 5"]);
        assert_eq!(told(&facets.task_type), ["a 8", "b 4"]);
        assert_eq!(told(&facets.model_version), ["v1 12"]);
        assert_eq!(told(&facets.error_code), ["panic 4", "timeout 3"]);
    }
}
