//! A waiting task's place in line, how fast the line moves, and when its turn comes.

use chrono::{DateTime, Utc};
use insightforge_schema::event::{Change, Meta};
use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::standing::{Ahead, Standing, ahead, recent_endings};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Server, Sources};

/// How far back endings count for the pace.
const WINDOW_US: i64 = 60_000_000;
/// Endings of one batch carry one time: no pace is measured over less than this.
const SHORTEST_US: i64 = 1_000_000;

/// A waiting task's line: its lane in its partition.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Queue {
    /// `<task type>:<version or alias>`.
    pub lane: String,
    pub partition: u16,
    /// Waiting tasks before it.
    pub ahead: u64,
    /// `false` when there are at least so many: counting stopped.
    pub ahead_is_exact: bool,
    /// All waiting tasks of the line, this one and those behind it among them.
    pub waiting: u64,
    /// Taken by analyzers and not yet ended.
    pub in_flight: u64,
    /// Tasks of the line that ended in a second lately; `null` when none did within the last minute.
    pub per_second: Option<f64>,
    /// When its turn comes at that pace; `null` when nobody can tell or nobody is there to take it.
    pub eta_s: Option<f64>,
    pub eta_at: Option<DateTime<Utc>>,
}

/// Where the task waits; `None` when an analyzer has it already.
pub(super) async fn queue(
    sources: Sources<'_>,
    partition: Partition,
    standing: &Standing,
    analyzers: &[Server],
) -> Result<Option<Queue>, LinkError> {
    let Standing { lane, line, token, now_ms, .. } = standing;
    let Some(Ahead { tasks, exact }) = ahead(sources.link, sources.keys, partition, lane, line, token).await? else {
        return Ok(None);
    };
    let endings = recent_endings(sources.link, sources.keys, partition).await?;
    let per_second = pace(&endings, lane, now_ms * 1_000);
    // Whoever is counted as before it includes what is being worked on: it must be done first.
    let before = (tasks + line.pending + 1) as f64;
    let eta_s = per_second.filter(|_| !analyzers.is_empty()).map(|pace| before / pace);
    let eta_at = eta_s.and_then(|seconds| DateTime::from_timestamp_millis(now_ms + (seconds * 1_000.0) as i64));
    Ok(Some(Queue {
        lane: lane.to_string(),
        partition: partition.0,
        ahead: tasks,
        ahead_is_exact: exact,
        waiting: line.length.saturating_sub(line.pending),
        in_flight: line.pending,
        per_second,
        eta_s,
        eta_at,
    }))
}

/// Endings of the lane's tasks in a second, from the newest on back.
fn pace(endings: &[(Meta, Change)], lane: &Lane, now_us: i64) -> Option<f64> {
    let of_lane = endings.iter().filter(|(_, change)| is_of(change, lane)).map(|(meta, _)| meta.at_us);
    let times: Vec<i64> = of_lane.filter(|at_us| now_us - at_us <= WINDOW_US).collect();
    let span_us = (now_us - times.iter().min()?).max(SHORTEST_US);
    Some(times.len() as f64 / (span_us as f64 / 1e6))
}

/// Whether the task that ended had waited on the lane: the route says what was asked for.
fn is_of(change: &Change, lane: &Lane) -> bool {
    let (task_type, model_version, route) = match change {
        Change::Completed(it) => (&it.task_type, &it.model_version, &it.route),
        Change::Failed(it) => (&it.task_type, &it.model_version, &it.route),
        _ => return false,
    };
    let asked = route.as_ref().map_or(model_version, |route| &route.asked);
    *task_type == lane.task_type && *asked == lane.model_version
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Completed, Route};

    use super::*;

    fn ended(at_s: i64, asked: &str) -> (Meta, Change) {
        let meta =
            Meta { at_us: at_s * 1_000_000, tenant: String::new(), actor: String::new(), attempt: 1, trace: None };
        let route = Route {
            asked: asked.to_owned(),
            reason: String::new(),
            digest: String::new(),
            backend: String::new(),
            device: String::new(),
            registry_n: 0,
        };
        let completed = Completed {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            result: String::new(),
            inference_us: 0,
            batch_size: 1,
            route: Some(route),
        };
        (meta, Change::Completed(completed))
    }

    #[test]
    fn the_pace_counts_what_the_lane_ended_lately() {
        let lane = Lane::new("acting", "stable");
        let at = |times: &[i64]| times.iter().map(|at| ended(*at, "stable")).collect::<Vec<_>>();
        for (endings, expected) in [
            (vec![], None),
            (at(&[100, 98, 96, 90]), Some(0.4)),
            // A whole batch a moment ago: no less than a second.
            (at(&[100, 100, 100]), Some(3.0)),
            // What ended more than a minute ago does not count.
            (at(&[39, 30]), None),
            (at(&[80, 30]), Some(0.05)),
            (vec![ended(100, "v1"), ended(99, "candidate")], None),
        ] {
            let found = pace(&endings, &lane, 100_000_000);
            assert!(
                found.zip(expected).map_or(found == expected, |(a, b)| (a - b).abs() < 1e-9),
                "{found:?} {expected:?}"
            );
        }
    }
}
