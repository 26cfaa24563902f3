//! What happened to a task type's versions, and what shadow versions said beside the answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::{DateTime, NaiveDateTime, Utc};
use insightforge_schema::registry::{Entry, history as read};
use serde::Serialize;
use sqlx::{FromRow, MySql, QueryBuilder};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::params::{self, Params};
use crate::path::Path;
use crate::problem::Problem;
use crate::shape::{Document, time_of, utc};

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MOST: u32 = 200;
/// Entries read at once; the registry holds what people and packages do, which is little.
const PAGE: usize = 1_000;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(history)).routes(routes!(shadow))
}

/// Which part of the history.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes the query, which is read one by one")]
pub(crate) struct HistoryQuery {
    /// Only events before this number: `next` of the page before.
    before: Option<u64>,
    /// How many at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// Something that happened to a version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegistryEvent {
    /// The registry's number.
    n: u64,
    #[schema(example = "promoted")]
    event: String,
    at: Option<DateTime<Utc>>,
    /// Who did it.
    actor: String,
    /// Why, in their words.
    reason: Option<String>,
    #[schema(value_type = Object)]
    data: serde_json::Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegistryHistory {
    events: Vec<RegistryEvent>,
    /// For the next page, as `before`; `null` on the last one.
    next: Option<u64>,
}

/// What happened to a task type's versions
///
/// Newest first: registrations, promotions, canaries, shadows, rollbacks, retirements, with who and why.
#[utoipa::path(
    get, path = "/api/models/{task_type}/history", operation_id = "getModelHistory", tag = "models",
    params(("task_type" = String, Path, example = "sentiment_analysis"), HistoryQuery),
    responses((status = 200, description = "The events", body = RegistryHistory), Absent, Invalid, Unavailable)
)]
pub(crate) async fn history(
    State(app): State<Arc<App>>,
    Path(task_type): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<RegistryHistory>, Problem> {
    let mut params = Params::parse(query.as_deref());
    let before: u64 = params.take("before", params::whole).unwrap_or(u64::MAX);
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST) as usize;
    params.finish()?;
    let mut mine = Vec::new();
    let mut from = 1;
    loop {
        let page = read(&app.link, &app.keys, from, PAGE).await?;
        let Some(last) = page.last().map(|entry| entry.n) else { break };
        mine.extend(page.into_iter().filter(|it| it.change.task_type() == Some(&task_type) && it.n < before));
        from = last + 1;
    }
    if mine.is_empty() && !app.models.look_again().await.task_types().contains(&&*task_type) {
        return Err(Problem::not_found("there is no such task type; /api/models lists those there are"));
    }
    let rest = mine.len().saturating_sub(limit);
    let events: Vec<RegistryEvent> = mine.drain(rest..).rev().map(RegistryEvent::from).collect();
    let next = (rest > 0).then(|| events.last().map(|event| event.n)).flatten();
    Ok(Json(RegistryHistory { events, next }))
}

impl From<Entry> for RegistryEvent {
    fn from(entry: Entry) -> Self {
        let data = serde_json::to_value(&entry.change).unwrap_or_default();
        Self {
            n: entry.n,
            event: entry.change.event_type().to_owned(),
            at: time_of(entry.meta.at_us),
            actor: entry.meta.actor,
            reason: entry.meta.reason,
            data: data["data"].clone(),
        }
    }
}

/// Which shadow results.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes the query, which is read one by one")]
pub(crate) struct ShadowQuery {
    /// Only this shadow version.
    #[param(max_length = 64)]
    version: Option<String>,
    /// Only results made at this time or later: RFC 3339, or a day.
    from: Option<DateTime<Utc>>,
    /// Only results made before this time.
    to: Option<DateTime<Utc>>,
    /// How many examples of disagreement at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// How a shadow version compares with the versions that answered.
#[derive(Debug, Serialize, ToSchema, FromRow)]
pub(crate) struct ShadowFigures {
    version: String,
    digest: String,
    /// The version that answered.
    answered_by: Option<String>,
    /// Tasks that both were asked.
    compared: u64,
    /// Of those, where both say the same: the same top label or the same entities.
    agreed: u64,
    /// Of those, where the shadow gave no result.
    failed: u64,
    /// Mean time of the shadow, in microseconds a document: it is asked about several at once.
    mean_us: f64,
}

/// A task where a shadow says something else.
#[derive(Debug, Serialize, ToSchema)]
struct Disagreement {
    task_id: String,
    version: String,
    answered_by: Option<String>,
    #[schema(value_type = Option<Object>)]
    answer: Option<Document>,
    #[schema(value_type = Option<Object>)]
    shadow: Option<Document>,
    error_code: Option<String>,
    at: DateTime<Utc>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShadowComparison {
    versions: Vec<ShadowFigures>,
    /// Newest first.
    disagreements: Vec<Disagreement>,
}

/// What a page of shadow results is chosen by.
struct Chosen {
    task_type: String,
    version: Option<String>,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

/// How shadow versions compare with the answers
#[utoipa::path(
    get, path = "/api/models/{task_type}/shadow", operation_id = "getShadowComparison", tag = "models",
    params(("task_type" = String, Path, example = "sentiment_analysis"), ShadowQuery),
    responses((status = 200, description = "Figures and examples", body = ShadowComparison), Invalid, Unavailable)
)]
pub(crate) async fn shadow(
    State(app): State<Arc<App>>,
    Path(task_type): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ShadowComparison>, Problem> {
    let mut params = Params::parse(query.as_deref());
    let version = params.take("version", params::name);
    let (from, to) = (params.take("from", params::time), params.take("to", params::time));
    let limit = params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST);
    params.finish()?;
    let chosen = Chosen { task_type, version, from, to };
    let mut figures = QueryBuilder::new(
        "SELECT s.model_version AS version, s.model_digest AS digest, r.model_version AS answered_by, \
         CAST(COUNT(*) AS UNSIGNED) AS compared, CAST(SUM(s.agrees) AS UNSIGNED) AS agreed, \
         CAST(SUM(s.error_code IS NOT NULL) AS UNSIGNED) AS failed, CAST(AVG(s.took_us) AS DOUBLE) AS mean_us",
    );
    chosen.push(&mut figures);
    figures.push(" GROUP BY s.model_version, s.model_digest, r.model_version ORDER BY 1, 3, 2");
    let versions = ask(figures.build_query_as::<ShadowFigures>().fetch_all(&app.pool)).await?;
    let mut examples = QueryBuilder::new(
        "SELECT t.task_id, s.model_version AS version, r.model_version AS answered_by, r.result_data AS answer, \
         s.result_data AS shadow, s.error_code, s.created_at AS at",
    );
    chosen.push(&mut examples);
    examples.push(" AND NOT s.agrees ORDER BY s.created_at DESC, s.id DESC LIMIT ").push_bind(limit);
    let examples = ask(examples.build_query_as::<Row>().fetch_all(&app.pool)).await?;
    Ok(Json(ShadowComparison { versions, disagreements: examples.into_iter().map(Disagreement::from).collect() }))
}

impl Chosen {
    fn push(&self, query: &mut QueryBuilder<MySql>) {
        query.push(
            " FROM analysis_shadow_results s JOIN analysis_tasks t ON t.id = s.analysis_task_id \
             LEFT JOIN analysis_results r ON r.analysis_task_id = s.analysis_task_id WHERE s.task_type = ",
        );
        query.push_bind(self.task_type.clone());
        if let Some(version) = &self.version {
            query.push(" AND s.model_version = ").push_bind(version.clone());
        }
        if let Some(from) = self.from {
            query.push(" AND s.created_at >= ").push_bind(from.naive_utc());
        }
        if let Some(to) = self.to {
            query.push(" AND s.created_at < ").push_bind(to.naive_utc());
        }
    }
}

#[derive(FromRow)]
struct Row {
    task_id: String,
    version: String,
    answered_by: Option<String>,
    answer: Option<sqlx::types::Json<Box<serde_json::value::RawValue>>>,
    shadow: Option<sqlx::types::Json<Box<serde_json::value::RawValue>>>,
    error_code: Option<String>,
    at: NaiveDateTime,
}

impl From<Row> for Disagreement {
    fn from(row: Row) -> Self {
        Self {
            task_id: row.task_id,
            version: row.version,
            answered_by: row.answered_by,
            answer: row.answer.map(|json| json.0.into()),
            shadow: row.shadow.map(|json| json.0.into()),
            error_code: row.error_code,
            at: utc(row.at),
        }
    }
}
