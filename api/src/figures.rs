//! How the versions of a task type did lately: runs, failures, times, and what they say. Of each version the newest tasks of a
//! stretch of time, found by an index, so that what is asked stays the same however much there is.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use insightforge_schema::registry::ALIASES;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::FromRow;
use sqlx::types::Json as JsonColumn;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::insight::{LabelShare, Said};
use crate::overview::{Spread, spread};
use crate::params::Params;
use crate::path::Path;
use crate::problem::Problem;

/// Tasks of a version that are looked at: the newest.
const SAMPLE: u32 = 1_000;
/// Tasks of a version that are counted.
const COUNTED: u32 = 50_000;
/// Failed tasks, of all types, that are looked at for those asked for by an alias: the newest.
const FAILED: u32 = 2_000;
/// A longer result is not looked at for its label, in bytes.
const RESULT_BYTES: u32 = 4_096;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(figures))
}

/// Since when.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it describes the parameters; they are read one by one")]
pub(crate) struct Within {
    /// `hour`, which it is unless given, or `day`: of tasks submitted since then.
    #[param(example = "day")]
    within: Option<String>,
}

/// How the versions of a task type did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Figures {
    task_type: String,
    /// Of tasks submitted since then.
    from: DateTime<Utc>,
    versions: Vec<VersionFigures>,
}

/// How one version did. A task that was asked for by an alias counts for the version that answered, or failed at it; while it
/// waits, for none.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct VersionFigures {
    version: String,
    /// Tasks, counted up to 50,000.
    tasks: u64,
    tasks_are_exact: bool,
    /// How many of them the rest is about: the newest 1,000, and those of the same time that failed and were asked for by an
    /// alias.
    sampled: usize,
    completed: u64,
    failed: u64,
    /// `false` when so many tasks, of all types, failed lately that those asked for by an alias may be missing here.
    failed_is_exact: bool,
    /// Of those that completed or failed; `null` without any.
    failure_share: Option<f64>,
    /// In the model, shared by all tasks of a micro-batch.
    inference_ms: Option<Spread>,
    /// From the upload to the result.
    total_ms: Option<Spread>,
    /// Of results of up to 4 KiB.
    labels: Vec<LabelShare>,
}

/// How a task type's versions did lately
///
/// For each version of the last hour or day: tasks, failures, times, and the mix of labels, of its newest 1,000 tasks.
#[utoipa::path(
    get, path = "/api/models/{task_type}/figures", operation_id = "getModelFigures", tag = "models",
    params(("task_type" = String, Path, example = "sentiment_analysis"), Within),
    responses((status = 200, description = "By version", body = Figures), Absent, Invalid, Unavailable)
)]
pub(crate) async fn figures(
    State(app): State<Arc<App>>,
    Path(task_type): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Figures>, Problem> {
    let mut params = Params::parse(query.as_deref());
    let within = params.take("within", |text| match text {
        "hour" => Ok(TimeDelta::hours(1)),
        "day" => Ok(TimeDelta::days(1)),
        _ => Err("must be hour or day"),
    });
    params.finish()?;
    let from = Utc::now() - within.unwrap_or(TimeDelta::hours(1));
    let seen = app.models.look_again().await;
    let known = seen.models.iter().filter(|known| known.card.task_type == task_type);
    let versions: Vec<String> = known.map(|known| known.card.version.clone()).collect();
    if versions.is_empty() {
        return Err(Problem::not_found("there is no such task type; /api/models lists those there are"));
    }
    let failed = FailedByAlias::read(&app, &task_type, from).await?;
    let mut figures = Figures { task_type, from, versions: Vec::new() };
    for version in versions {
        let of = VersionFigures::read(&app, &figures.task_type, version, from, &failed).await?;
        figures.versions.push(of);
    }
    Ok(Json(figures))
}

const RUNS: &str = "\
SELECT t.status, t.created_at, t.completed_at, r.inference_us,
    CASE WHEN LENGTH(r.result_data) <= ? THEN r.result_data END result_data
FROM (SELECT id near_id FROM analysis_tasks WHERE task_type = ? AND model_version = ? AND created_at >= ?
      ORDER BY created_at DESC, id DESC LIMIT ?) near
STRAIGHT_JOIN analysis_tasks t ON t.id = near_id
LEFT JOIN analysis_results r ON r.analysis_task_id = t.id";

const COUNT: &str = "\
SELECT COUNT(*) FROM
    (SELECT 1 FROM analysis_tasks WHERE task_type = ? AND model_version = ? AND created_at >= ? LIMIT ?) near";

/// The row of a task without a result goes by what was asked for; who failed at it stands in its log.
const FAILED_BY_ALIAS: &str = "\
SELECT l.details, t.created_at FROM (SELECT id near_id FROM analysis_tasks
      WHERE status = 'failed' AND created_at >= ? ORDER BY created_at DESC, id DESC LIMIT ?) near
STRAIGHT_JOIN analysis_tasks t ON t.id = near_id AND t.task_type = ? AND t.model_version IN (?, ?, ?)
STRAIGHT_JOIN task_logs l ON l.analysis_task_id = t.id AND l.event_type = 'failed'";

/// What a log says of a failure.
#[derive(Debug, Deserialize)]
struct FailedAt {
    model_version: Option<String>,
}

/// When those tasks were submitted that failed lately and were asked for by an alias.
#[derive(Debug, Default)]
struct FailedByAlias {
    at: HashMap<String, Vec<NaiveDateTime>>,
    /// Of tasks from before, which failed too, nothing is known.
    since: Option<NaiveDateTime>,
}

/// The oldest failure that is looked at, when there are more.
const FAILED_SINCE: &str = "\
SELECT created_at FROM analysis_tasks WHERE status = 'failed' AND created_at >= ?
ORDER BY created_at DESC, id DESC LIMIT 1 OFFSET ?";

impl FailedByAlias {
    async fn read(app: &App, task_type: &str, from: DateTime<Utc>) -> Result<Self, Problem> {
        let since = sqlx::query_as(FAILED_SINCE).bind(from.naive_utc()).bind(FAILED - 1);
        let since: Option<(NaiveDateTime,)> = ask(since.fetch_optional(&app.pool)).await?;
        let mut question = sqlx::query_as(FAILED_BY_ALIAS).bind(from.naive_utc()).bind(FAILED).bind(task_type);
        for alias in ALIASES {
            question = question.bind(alias);
        }
        let logs: Vec<(JsonColumn<FailedAt>, NaiveDateTime)> = ask(question.fetch_all(&app.pool)).await?;
        let mut failed = Self { since: since.map(|(since,)| since), ..Self::default() };
        for (log, submitted_at) in logs {
            if let Some(version) = log.0.model_version {
                failed.at.entry(version).or_default().push(submitted_at);
            }
        }
        Ok(failed)
    }
}

#[derive(FromRow)]
struct Run {
    status: String,
    created_at: NaiveDateTime,
    completed_at: Option<NaiveDateTime>,
    inference_us: Option<u64>,
    result_data: Option<JsonColumn<Box<RawValue>>>,
}

impl VersionFigures {
    async fn read(
        app: &App,
        task_type: &str,
        version: String,
        from: DateTime<Utc>,
        failed_by_alias: &FailedByAlias,
    ) -> Result<Self, Problem> {
        let runs = sqlx::query_as(RUNS).bind(RESULT_BYTES).bind(task_type).bind(&version);
        let runs: Vec<Run> = ask(runs.bind(from.naive_utc()).bind(SAMPLE).fetch_all(&app.pool)).await?;
        let mut tasks = runs.len() as u64;
        if tasks == u64::from(SAMPLE) {
            let count = sqlx::query_as(COUNT).bind(task_type).bind(&version);
            let (counted,): (i64,) = ask(count.bind(from.naive_utc()).bind(COUNTED).fetch_one(&app.pool)).await?;
            tasks = u64::try_from(counted).unwrap_or(0);
        }
        Ok(Self::of(version, tasks, &runs, failed_by_alias))
    }

    fn of(version: String, tasks: u64, runs: &[Run], failed_by_alias: &FailedByAlias) -> Self {
        // Failures of a longer time than the rest is about would be too many beside it.
        let is_cut = runs.len() == SAMPLE as usize;
        let begin = runs.iter().map(|run| run.created_at).min().filter(|_| is_cut);
        let all_failed = failed_by_alias.at.get(&version).map_or(&[][..], Vec::as_slice);
        let more_failed = all_failed.iter().filter(|at| begin.is_none_or(|begin| **at >= begin)).count() as u64;
        let failed_is_exact = failed_by_alias.since.is_none_or(|since| begin.is_some_and(|begin| begin > since));
        let ended_as = |status: &str| runs.iter().filter(|run| run.status == status).count() as u64;
        let (completed, failed) = (ended_as("completed"), ended_as("failed") + more_failed);
        let total_ms = |run: &Run| {
            let micros = (run.completed_at? - run.created_at).num_microseconds()?;
            (run.status == "completed").then(|| micros.max(0) as f64 / 1e3)
        };
        let mut labels: HashMap<String, u64> = HashMap::new();
        for result in runs.iter().filter_map(|run| run.result_data.as_ref()) {
            // A result of another shape counts, and says nothing here.
            let said: Said = serde_json::from_str(result.0.get()).unwrap_or_default();
            if let Some(label) = said.sentiment {
                *labels.entry(label).or_default() += 1;
            }
        }
        Self {
            version,
            tasks: tasks + all_failed.len() as u64,
            tasks_are_exact: tasks < u64::from(COUNTED) && failed_by_alias.since.is_none(),
            sampled: runs.len() + more_failed as usize,
            completed,
            failed,
            failed_is_exact,
            failure_share: (completed + failed > 0).then(|| failed as f64 / (completed + failed) as f64),
            inference_ms: spread(runs.iter().filter_map(|run| Some(run.inference_us? as f64 / 1e3)).collect()),
            total_ms: spread(runs.iter().filter_map(total_ms).collect()),
            labels: LabelShare::of(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(status: &str, result: Option<&str>) -> Run {
        let created_at = NaiveDateTime::default();
        Run {
            status: status.to_owned(),
            created_at,
            completed_at: (status != "pending").then(|| created_at + TimeDelta::milliseconds(30)),
            inference_us: result.map(|_| 2_000),
            result_data: result.map(|text| JsonColumn(RawValue::from_string(text.to_owned()).unwrap())),
        }
    }

    #[test]
    fn what_waits_is_no_failure_and_only_results_have_times_and_labels() {
        let runs = [
            run("completed", Some(r#"{"sentiment":"Positive"}"#)),
            run("completed", Some(r#"{"sentiment":"Negative"}"#)),
            run("completed", Some("[]")),
            run("failed", None),
            run("pending", None),
        ];
        let figures = VersionFigures::of("v1".to_owned(), 5, &runs, &FailedByAlias::default());
        assert_eq!((figures.completed, figures.failed, figures.failure_share), (3, 1, Some(0.25)));
        assert_eq!((figures.inference_ms.map(Spread::p95), figures.total_ms.map(Spread::p95)), (Some(2.0), Some(30.0)));
        assert_eq!(figures.labels.len(), 2);
        let none = VersionFigures::of("v1".to_owned(), 0, &[], &FailedByAlias::default());
        assert_eq!((none.failure_share, none.inference_ms, none.tasks_are_exact), (None, None, true));
    }
    #[test]
    fn failures_by_alias_count_for_the_time_that_the_sample_is_of() {
        let second = |at: i64| NaiveDateTime::default() + TimeDelta::seconds(at);
        let runs = |count: i64| -> Vec<Run> {
            (0..count).map(|at| Run { created_at: second(10_000 - at), ..run("completed", None) }).collect()
        };
        // One before the newest thousand began, and two since.
        let at = HashMap::from([("v1".to_owned(), vec![second(5), second(9_001), second(9_900)])]);
        for (count, since, failed, is_exact) in [
            (1_000, None, 2, true),
            (999, None, 3, true),
            (1_000, Some(5), 2, true),
            (1_000, Some(9_001), 2, false),
            (999, Some(5), 3, false),
        ] {
            let failed_by_alias = FailedByAlias { at: at.clone(), since: since.map(second) };
            let figures = VersionFigures::of("v1".to_owned(), 50, &runs(count), &failed_by_alias);
            let told = (figures.failed, figures.failed_is_exact, figures.sampled as i64);
            assert_eq!(told, (failed, is_exact, count + failed as i64), "{count} {since:?}");
            assert_eq!((figures.tasks, figures.tasks_are_exact), (53, since.is_none()));
        }
    }
}
