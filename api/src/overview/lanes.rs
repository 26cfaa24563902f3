//! What waits on the lanes, since when, and who takes from them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use insightforge_schema::catalogue::{self, Worker};
use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use redis::Value;
use serde::Serialize;
use utoipa::ToSchema;

use super::Now;
use crate::app::App;

/// The tasks that wait for one model, or run in it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct LaneLoad {
    pub(crate) task_type: String,
    /// A version, or an alias such as `stable`.
    pub(crate) model_version: String,
    /// Nobody has taken them yet.
    pub(crate) waiting: u64,
    pub(crate) in_flight: u64,
    /// Since when the oldest of the waiting lies there.
    pub(crate) oldest_s: f64,
    /// Analyzers alive that take from it.
    pub(crate) analyzers: usize,
}

/// The analyzers that are alive.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Crew {
    pub(crate) alive: usize,
    pub(crate) workers: Vec<WorkerView>,
}

/// One analyzer.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct WorkerView {
    name: String,
    /// `<task type>:<version or alias>` of the lanes it takes from.
    lanes: Vec<String>,
    in_flight: u32,
    started_at: Option<DateTime<Utc>>,
    /// When it last took something.
    last_read_at: Option<DateTime<Utc>>,
    /// When it last said that it is alive.
    seen_at: Option<DateTime<Utc>>,
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) lanes: Vec<LaneLoad>,
    pub(super) crew: Crew,
    delayed: u64,
    dead_letters: u64,
}

impl Load {
    pub(super) fn now(&self, limit: u64) -> Now {
        Now {
            waiting: self.lanes.iter().map(|lane| lane.waiting).sum(),
            in_flight: self.lanes.iter().map(|lane| lane.in_flight).sum(),
            delayed: self.delayed,
            dead_letters: self.dead_letters,
            limit,
        }
    }

    #[cfg(test)]
    pub(super) fn of(lanes: Vec<LaneLoad>, alive: usize) -> Self {
        Self { lanes, crew: Crew { alive, workers: Vec::new() }, delayed: 0, dead_letters: 0 }
    }
}

/// Looks at every lane of every partition.
pub(super) async fn load(app: &App) -> Result<Load, LinkError> {
    let workers = catalogue::workers(&app.link, &app.keys).await?;
    let (seconds, micros): (i64, i64) = app.link.query(&redis::cmd("TIME")).await?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let parts = try_join_all(app.config.partitions.iter().map(|partition| part(app, partition, now_ms))).await?;
    let mut lanes: BTreeMap<Lane, LaneLoad> = BTreeMap::new();
    let (mut delayed, mut dead_letters) = (0, 0);
    for part in parts {
        delayed += part.delayed;
        dead_letters += part.dead_letters;
        for (lane, line) in part.lines {
            let load = lanes.entry(lane.clone()).or_insert_with(|| LaneLoad {
                analyzers: serving(&workers, &lane),
                task_type: lane.task_type,
                model_version: lane.model_version,
                waiting: 0,
                in_flight: 0,
                oldest_s: 0.0,
            });
            load.waiting += line.waiting;
            load.in_flight += line.in_flight;
            load.oldest_s = load.oldest_s.max(line.oldest_s);
        }
    }
    let crew = Crew { alive: workers.len(), workers: workers.into_iter().map(WorkerView::from).collect() };
    Ok(Load { lanes: lanes.into_values().collect(), crew, delayed, dead_letters })
}

fn serving(workers: &[Worker], lane: &Lane) -> usize {
    let name = lane.to_string();
    // Tasks nobody can serve are ended by every analyzer.
    workers.iter().filter(|worker| *lane == Lane::unroutable() || worker.lanes.contains(&name)).count()
}

/// One partition's share.
struct Part {
    lines: Vec<(Lane, Line)>,
    delayed: u64,
    dead_letters: u64,
}

#[derive(Debug, Default, PartialEq)]
struct Line {
    waiting: u64,
    in_flight: u64,
    oldest_s: f64,
}

async fn part(app: &App, partition: Partition, now_ms: i64) -> Result<Part, LinkError> {
    let names: Vec<String> = app.link.query(redis::cmd("SMEMBERS").arg(app.keys.lanes(partition))).await?;
    let lines = names.iter().filter_map(|name| Lane::parse(name)).map(async |lane| {
        let line = line(app, partition, &lane, now_ms).await?;
        Ok::<_, LinkError>((lane, line))
    });
    let lines = try_join_all(lines).await?;
    let delayed = app.link.query(redis::cmd("ZCARD").arg(app.keys.delayed(partition))).await?;
    let dead_letters = app.link.query(redis::cmd("ZCARD").arg(app.keys.dead(partition))).await?;
    Ok(Part { lines, delayed, dead_letters })
}

/// An entry stays on its lane until its attempt has ended: those that were given out are pending, the others wait.
async fn line(app: &App, partition: Partition, lane: &Lane, now_ms: i64) -> Result<Line, LinkError> {
    let key = app.keys.lane(partition, lane);
    let length: u64 = app.link.query(redis::cmd("XLEN").arg(&key)).await?;
    if length == 0 {
        return Ok(Line::default());
    }
    let (in_flight, given_out) = group(app, &key, lane.group()).await?;
    let mut first = redis::cmd("XRANGE");
    first.arg(&key).arg(format!("({given_out}")).arg("+").arg("COUNT").arg(1);
    let first: Vec<(String, Vec<String>)> = app.link.query(&first).await?;
    let oldest_s = first.first().map_or(0.0, |(id, _)| age_s(id, now_ms));
    Ok(Line { waiting: length.saturating_sub(in_flight), in_flight, oldest_s })
}

/// How many entries are being worked on, and the last that was given out.
async fn group(app: &App, key: &str, name: &str) -> Result<(u64, String), LinkError> {
    let groups: Vec<BTreeMap<String, Value>> = app.link.query(redis::cmd("XINFO").arg("GROUPS").arg(key)).await?;
    let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).ok();
    let ours = groups.iter().find(|group| group.get("name").and_then(text).as_deref() == Some(name));
    let Some(ours) = ours else { return Ok((0, "0-0".to_owned())) };
    let pending = ours.get("pending").and_then(|value| redis::from_redis_value::<u64>(value.clone()).ok());
    let last = ours.get("last-delivered-id").and_then(text);
    Ok((pending.unwrap_or(0), last.unwrap_or_else(|| "0-0".to_owned())))
}

/// An entry's id begins with the time by Redis' clock.
fn age_s(entry_id: &str, now_ms: i64) -> f64 {
    let at_ms = entry_id.split('-').next().and_then(|ms| ms.parse::<i64>().ok());
    at_ms.map_or(0.0, |at_ms| (now_ms - at_ms).max(0) as f64 / 1e3)
}

impl From<Worker> for WorkerView {
    fn from(worker: Worker) -> Self {
        let time = |ms: i64| DateTime::from_timestamp_millis(ms).filter(|_| ms > 0);
        Self {
            started_at: time(worker.started_ms),
            last_read_at: time(worker.last_read_ms),
            seen_at: time(worker.seen_ms),
            name: worker.name,
            lanes: worker.lanes,
            in_flight: worker.in_flight,
        }
    }
}
