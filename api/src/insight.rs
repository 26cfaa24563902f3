//! What the results of a query say together: labels and scores over time, entities. Of the newest results, and it says of how
//! many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::types::Json as JsonColumn;
use sqlx::{FromRow, MySql, QueryBuilder};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::list::{LOOKED_INTO, Meant};
use crate::problem::Problem;
use crate::query::{Query, sql};
use crate::shape::utc;

/// Results that are looked at.
const SAMPLE: u32 = 2_000;
/// Completed tasks that are counted.
const COUNTED: u32 = 50_000;
/// A longer result is not looked at, in bytes.
const RESULT_BYTES: u32 = 65_536;
/// Labels and entities that are named, the most frequent.
const LABELS: usize = 20;
const ENTITIES: usize = 30;
/// Entities of all results together that are told apart.
const ENTITIES_MOST: usize = 20_000;
/// Points of a curve at most.
const POINTS: i64 = 60;
/// The lengths that a point of a curve can stand for, in seconds.
const BUCKETS: [i64; 9] = [60, 300, 900, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000];
/// Steps of the distribution of scores, which are from 0 to 1.
const STEPS: usize = 10;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(insight))
}

/// What the results of a query say together.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Insight {
    /// Completed tasks that fit, counted up to 50,000.
    matched: u64,
    matched_is_exact: bool,
    /// How many results were looked at: the newest.
    sampled: usize,
    /// When the first and the last of them were completed.
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    /// What a point of `over_time` stands for.
    bucket_s: i64,
    labels: Vec<LabelShare>,
    over_time: Vec<Point>,
    mean_score: Option<f64>,
    /// Scores from 0 to 1 in ten equal steps.
    scores: Vec<ScoreStep>,
    entities: Vec<EntityCount>,
    models: Vec<ModelCount>,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct LabelShare {
    label: String,
    count: u64,
    /// Of the results that have a label.
    share: f64,
}

/// The results of a stretch of time.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct Point {
    /// Its beginning.
    at: DateTime<Utc>,
    count: u64,
    labels: BTreeMap<String, u64>,
    mean_score: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct ScoreStep {
    from: f64,
    to: f64,
    count: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct EntityCount {
    text: String,
    #[serde(rename = "type")]
    entity_type: String,
    count: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct ModelCount {
    task_type: String,
    model_version: String,
    count: u64,
}

/// What results say together
///
/// Labels, scores and entities of the newest 2,000 results that fit, and how they changed over time.
#[utoipa::path(
    get, path = "/api/insight", operation_id = "getInsight", tag = "results", params(Meant),
    responses((status = 200, description = "What they say", body = Insight), Invalid, Unavailable)
)]
pub(crate) async fn insight(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Result<Json<Insight>, Problem> {
    let query = Meant::parse(query.as_deref())?;
    let now = Utc::now();
    let (rows, counted) =
        tokio::join!(async { ask(sample(&query, now).build_query_as::<Row>().fetch_all(&app.pool)).await }, async {
            ask(count(&query, now).build_query_as::<(i64,)>().fetch_one(&app.pool)).await
        },);
    let results: Vec<Answer> = rows?.into_iter().map(Answer::from).collect();
    let (limit, matched) = (u64::from(most(&query)), u64::try_from(counted?.0).unwrap_or(0));
    let exact = matched < limit && !query.has_text();
    Ok(Json(Insight::of(results, matched, exact)))
}

fn most(query: &Query) -> u32 {
    if query.has_text() { LOOKED_INTO } else { COUNTED }
}

fn sample(query: &Query, now: DateTime<Utc>) -> QueryBuilder<MySql> {
    let mut ask = QueryBuilder::new(
        "SELECT t.task_type, t.model_version, t.completed_at, \
         CASE WHEN LENGTH(r.result_data) <= ",
    );
    ask.push_bind(RESULT_BYTES).push(" THEN r.result_data END result_data FROM ");
    ask.push("(SELECT id near_id FROM analysis_tasks WHERE status = 'completed'");
    sql::push(&mut ask, query, now);
    let near = if query.has_text() { LOOKED_INTO } else { SAMPLE };
    ask.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(near);
    ask.push(
        ") near STRAIGHT_JOIN analysis_tasks t ON t.id = near_id \
         STRAIGHT_JOIN analysis_results r ON r.analysis_task_id = t.id WHERE TRUE",
    );
    sql::push_texts(&mut ask, query);
    ask.push(" ORDER BY t.created_at DESC, t.id DESC LIMIT ").push_bind(SAMPLE);
    ask
}

/// Those that fit everything but texts.
fn count(query: &Query, now: DateTime<Utc>) -> QueryBuilder<MySql> {
    let mut ask = QueryBuilder::new("SELECT COUNT(*) FROM (SELECT 1 FROM analysis_tasks WHERE status = 'completed'");
    sql::push(&mut ask, query, now);
    ask.push(" LIMIT ").push_bind(most(query)).push(") near");
    ask
}

#[derive(FromRow)]
struct Row {
    task_type: String,
    model_version: String,
    completed_at: Option<NaiveDateTime>,
    result_data: Option<JsonColumn<Box<RawValue>>>,
}

/// What is taken of a result; models may say more, and other things.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Said {
    #[serde(default, alias = "label", alias = "class")]
    pub(crate) sentiment: Option<String>,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    entities: Vec<Entity>,
}

#[derive(Debug, Deserialize)]
struct Entity {
    text: String,
    #[serde(rename = "type", default)]
    entity_type: String,
}

struct Answer {
    model: (String, String),
    at: Option<DateTime<Utc>>,
    said: Said,
}

impl From<Row> for Answer {
    fn from(row: Row) -> Self {
        // A result of another shape counts, and says nothing here.
        let said = row.result_data.and_then(|result| serde_json::from_str(result.0.get()).ok()).unwrap_or_default();
        Self { model: (row.task_type, row.model_version), at: row.completed_at.map(utc), said }
    }
}

/// A mean under way.
#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

#[derive(Default)]
struct Stretch {
    count: u64,
    labels: BTreeMap<String, u64>,
    score: Mean,
}

impl Insight {
    fn of(results: Vec<Answer>, matched: u64, matched_is_exact: bool) -> Self {
        let times = || results.iter().filter_map(|answer| answer.at);
        let (from, to) = (times().min(), times().max());
        let span_s = from.zip(to).map_or(0, |(from, to)| (to - from).num_seconds());
        let bucket_s =
            BUCKETS.into_iter().find(|bucket| span_s / bucket < POINTS).unwrap_or(BUCKETS[BUCKETS.len() - 1]);
        let sampled = results.len();
        let mut labels: HashMap<String, u64> = HashMap::new();
        let mut models: HashMap<(String, String), u64> = HashMap::new();
        let mut entities: HashMap<(String, String), u64> = HashMap::new();
        let mut over_time: BTreeMap<i64, Stretch> = BTreeMap::new();
        let (mut score, mut steps) = (Mean::default(), [0_u64; STEPS]);
        for Answer { model, at, said } in results {
            *models.entry(model).or_default() += 1;
            let mut stretch = at.map(|at| over_time.entry(at.timestamp().div_euclid(bucket_s)).or_default());
            if let Some(stretch) = &mut stretch {
                stretch.count += 1;
            }
            if let Some(label) = said.sentiment {
                if let Some(stretch) = &mut stretch {
                    *stretch.labels.entry(label.clone()).or_default() += 1;
                }
                *labels.entry(label).or_default() += 1;
            }
            if let Some(value) = said.score.filter(|score| score.is_finite()) {
                score.add(value);
                if let Some(stretch) = &mut stretch {
                    stretch.score.add(value);
                }
                steps[((value.clamp(0.0, 1.0) * STEPS as f64) as usize).min(STEPS - 1)] += 1;
            }
            for entity in said.entities {
                let known = (entity.text, entity.entity_type);
                if entities.len() < ENTITIES_MOST || entities.contains_key(&known) {
                    *entities.entry(known).or_default() += 1;
                }
            }
        }
        let step = |at: usize| at as f64 / STEPS as f64;
        Self {
            matched,
            matched_is_exact,
            sampled,
            from,
            to,
            bucket_s,
            labels: LabelShare::of(labels),
            over_time: over_time.into_iter().filter_map(|(at, stretch)| stretch.point(at * bucket_s)).collect(),
            mean_score: score.value(),
            scores: (steps.iter().enumerate())
                .map(|(at, count)| ScoreStep { from: step(at), to: step(at + 1), count: *count })
                .collect(),
            entities: most_first(entities, ENTITIES, |(text, entity_type), count| EntityCount {
                text,
                entity_type,
                count,
            }),
            models: most_first(models, LABELS, |(task_type, model_version), count| ModelCount {
                task_type,
                model_version,
                count,
            }),
        }
    }
}

impl LabelShare {
    /// The most frequent first.
    pub(crate) fn of(labels: HashMap<String, u64>) -> Vec<Self> {
        let labelled: u64 = labels.values().sum();
        let share = |count: u64| count as f64 / labelled.max(1) as f64;
        most_first(labels, LABELS, |label, count| Self { label, count, share: share(count) })
    }
}

impl Stretch {
    fn point(self, at_s: i64) -> Option<Point> {
        let at = DateTime::from_timestamp(at_s, 0)?;
        Some(Point { at, count: self.count, labels: self.labels, mean_score: self.score.value() })
    }
}

fn most_first<K: Ord, T>(counts: HashMap<K, u64>, most: usize, make: impl Fn(K, u64) -> T) -> Vec<T> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.into_iter().take(most).map(|(key, count)| make(key, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(at_s: i64, said: &str) -> Answer {
        Answer {
            model: ("a".to_owned(), "v1".to_owned()),
            at: DateTime::from_timestamp(at_s, 0),
            said: serde_json::from_str(said).unwrap_or_default(),
        }
    }

    #[test]
    fn results_of_every_shape_are_counted_for_what_they_say() {
        let insight = Insight::of(
            vec![
                answer(0, r#"{"sentiment":"Positive","score":0.95}"#),
                answer(30, r#"{"sentiment":"Negative","score":0.05,"more":{}}"#),
                answer(60, r#"{"label":"Positive","score":1.0}"#),
                answer(3_000, r#"{"entities":[{"text":"台灣","type":"LOCATION"},{"text":"台灣","type":"LOCATION"}]}"#),
                answer(3_000, "[1]"),
            ],
            9,
            true,
        );
        assert_eq!((insight.sampled, insight.bucket_s), (5, 60));
        assert_eq!(insight.labels[0].label, "Positive");
        assert!((insight.labels[0].share - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(insight.over_time.iter().map(|point| point.count).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(insight.over_time[0].mean_score, Some(0.5));
        assert_eq!(insight.over_time[2].mean_score, None);
        let steps: Vec<u64> = insight.scores.iter().map(|step| step.count).collect();
        assert_eq!(steps, [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!((insight.entities[0].text.as_str(), insight.entities[0].count), ("台灣", 2));
        assert_eq!(insight.models[0].count, 5);
    }

    #[test]
    fn a_curve_has_no_more_points_than_can_be_seen() {
        for (span_s, bucket_s) in [(0, 60), (3_599, 60), (3_600, 300), (86_400, 3_600), (40 * 86_400, 86_400)] {
            let insight = Insight::of(vec![answer(0, "{}"), answer(span_s, "{}")], 2, true);
            assert_eq!(insight.bucket_s, bucket_s, "{span_s}");
        }
    }
}
