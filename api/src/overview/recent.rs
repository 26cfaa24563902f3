//! How long it took lately, what failed, and how deliveries went: bounded looks at the newest rows.

use chrono::{NaiveDateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;

use crate::app::App;
use crate::ask::ask;
use crate::problem::Problem;

/// Completed tasks whose times are looked at.
const SAMPLE: u32 = 1_000;
/// Failed tasks whose errors are counted: the newest.
const FAILED: u32 = 2_000;
/// Attempts to deliver that are looked at.
const ATTEMPTS: u32 = 2_000;
/// Deliveries that are counted.
const OUTSTANDING: u32 = 10_000;
/// Errors that are named.
const NAMED: u32 = 20;
/// A webhook is overdue after this, in seconds.
const OVERDUE_S: u32 = 60;

/// How a time is spread over a sample, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct Spread {
    p50: f64,
    p95: f64,
    p99: f64,
}

/// The times of the newest completed tasks of the last hour.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Latency {
    /// How many tasks.
    sample: usize,
    /// From the upload to the made delivery; of tasks that nobody is told of, to the result.
    end_to_end_ms: Option<Spread>,
    /// From the upload to the first attempt.
    wait_ms: Option<Spread>,
    /// In the model, shared by all tasks of a micro-batch.
    inference_ms: Option<Spread>,
    /// From the result to its row; of tasks that somebody is told of.
    fold_ms: Option<Spread>,
    /// From the row to the made delivery.
    delivery_ms: Option<Spread>,
}

/// How often an error ended a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema, FromRow)]
pub(crate) struct Failure {
    error_code: String,
    #[sqlx(try_from = "i64")]
    count: u64,
}

/// How deliveries went in the last hour: the newest attempts.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Webhooks {
    pub(crate) tried: u64,
    pub(crate) delivered: u64,
    /// The share of attempts that were delivered; `null` without any.
    pub(crate) success: Option<f64>,
    /// What an attempt takes.
    p95_ms: Option<f64>,
    /// Deliveries that are still to be made, counted up to 10,000.
    outstanding: u64,
    /// Those among them that should have been made a minute ago.
    pub(crate) overdue: u64,
}

pub(super) async fn latency(app: &App) -> Result<Latency, Problem> {
    let rows: Vec<Times> = ask(sqlx::query_as(TIMES).bind(an_hour_ago()).bind(SAMPLE).fetch_all(&app.pool)).await?;
    Ok(Latency::of(&rows))
}

pub(super) async fn failures(app: &App) -> Result<Vec<Failure>, Problem> {
    ask(sqlx::query_as(
        "SELECT COALESCE(error_code, '') error_code, COUNT(*) count FROM \
         (SELECT error_code FROM analysis_tasks WHERE status = 'failed' AND created_at >= ? \
          ORDER BY created_at DESC, id DESC LIMIT ?) near \
         GROUP BY error_code ORDER BY count DESC, error_code LIMIT ?",
    )
    .bind(an_hour_ago())
    .bind(FAILED)
    .bind(NAMED)
    .fetch_all(&app.pool))
    .await
}

pub(super) async fn webhooks(app: &App) -> Result<Webhooks, Problem> {
    let attempts: Vec<Attempt> =
        ask(sqlx::query_as("SELECT outcome, duration_us, created_at FROM webhook_attempts ORDER BY id DESC LIMIT ?")
            .bind(ATTEMPTS)
            .fetch_all(&app.pool))
        .await?;
    let (outstanding, overdue): (i64, i64) = ask(sqlx::query_as(
        "SELECT COUNT(*), CAST(COALESCE(SUM(due_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND), 0) AS SIGNED) FROM \
         (SELECT due_at FROM webhook_outbox WHERE state IN (0, 1) LIMIT ?) near",
    )
    .bind(OVERDUE_S)
    .bind(OUTSTANDING)
    .fetch_one(&app.pool))
    .await?;
    let since = an_hour_ago();
    let attempts: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.created_at >= since).collect();
    let tried = attempts.len() as u64;
    let delivered = attempts.iter().filter(|attempt| attempt.outcome == "delivered").count() as u64;
    let took = attempts.iter().map(|attempt| attempt.duration_us as f64 / 1e3).collect();
    Ok(Webhooks {
        tried,
        delivered,
        success: (tried > 0).then(|| delivered as f64 / tried as f64),
        p95_ms: spread(took).map(|spread| spread.p95),
        outstanding: u64::try_from(outstanding).unwrap_or(0),
        overdue: u64::try_from(overdue).unwrap_or(0),
    })
}

fn an_hour_ago() -> NaiveDateTime {
    (Utc::now() - TimeDelta::hours(1)).naive_utc()
}

/// A delivery's row is keyed by the event that it announces, as the result's is.
const TIMES: &str = "\
SELECT t.created_at, t.started_at, t.completed_at, r.inference_us,
    (SELECT MIN(o.created_at) FROM webhook_outbox o WHERE o.id = r.id) folded_at,
    (SELECT MAX(o.finished_at) FROM webhook_outbox o WHERE o.id = r.id AND o.state = 2) delivered_at
FROM (SELECT id near_id FROM analysis_tasks WHERE status = 'completed' AND created_at >= ?
      ORDER BY created_at DESC, id DESC LIMIT ?) near
STRAIGHT_JOIN analysis_tasks t ON t.id = near_id
STRAIGHT_JOIN analysis_results r ON r.analysis_task_id = t.id";

#[derive(FromRow)]
struct Attempt {
    outcome: String,
    duration_us: u64,
    created_at: NaiveDateTime,
}

#[derive(FromRow)]
struct Times {
    created_at: NaiveDateTime,
    started_at: Option<NaiveDateTime>,
    completed_at: Option<NaiveDateTime>,
    inference_us: u64,
    folded_at: Option<NaiveDateTime>,
    delivered_at: Option<NaiveDateTime>,
}

impl Latency {
    fn of(rows: &[Times]) -> Self {
        let each = |time: fn(&Times) -> Option<f64>| spread(rows.iter().filter_map(time).collect());
        Self {
            sample: rows.len(),
            end_to_end_ms: each(|row| between(Some(row.created_at), row.delivered_at.or(row.completed_at))),
            wait_ms: each(|row| between(Some(row.created_at), row.started_at)),
            inference_ms: each(|row| Some(row.inference_us as f64 / 1e3)),
            fold_ms: each(|row| between(row.completed_at, row.folded_at)),
            delivery_ms: each(|row| between(row.folded_at, row.delivered_at)),
        }
    }
}

/// Milliseconds; clocks of different machines can disagree.
fn between(from: Option<NaiveDateTime>, to: Option<NaiveDateTime>) -> Option<f64> {
    let micros = (to? - from?).num_microseconds()?;
    Some(micros.max(0) as f64 / 1e3)
}

/// `None` of nothing.
pub(crate) fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    // The nearest rank.
    let at = |share: f64| values[((values.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last)];
    Some(Spread { p50: at(0.5), p95: at(0.95), p99: at(0.99) })
}

impl Spread {
    pub(crate) fn p95(self) -> f64 {
        self.p95
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_takes_the_nearest_rank() {
        assert_eq!(spread(Vec::new()), None);
        assert_eq!(spread(vec![7.0]), Some(Spread { p50: 7.0, p95: 7.0, p99: 7.0 }));
        let hundred = (1..=100).rev().map(f64::from).collect();
        assert_eq!(spread(hundred), Some(Spread { p50: 50.0, p95: 95.0, p99: 99.0 }));
    }

    #[test]
    fn a_task_that_nobody_is_told_of_ends_with_its_result() {
        let at = |ms: i64| NaiveDateTime::default() + TimeDelta::milliseconds(ms);
        let row = |folded: Option<i64>, delivered: Option<i64>| Times {
            created_at: at(0),
            started_at: Some(at(5)),
            completed_at: Some(at(12)),
            inference_us: 1_500,
            folded_at: folded.map(at),
            delivered_at: delivered.map(at),
        };
        let told = Latency::of(&[row(Some(20), Some(23))]);
        let p50 = |spread: Option<Spread>| spread.map(|spread| spread.p50);
        let all = [told.end_to_end_ms, told.wait_ms, told.inference_ms, told.fold_ms, told.delivery_ms].map(p50);
        assert_eq!(all, [Some(23.0), Some(5.0), Some(1.5), Some(8.0), Some(3.0)]);
        let untold = Latency::of(&[row(None, None)]);
        assert_eq!((p50(untold.end_to_end_ms), untold.fold_ms, untold.delivery_ms), (Some(12.0), None, None));
    }
}
