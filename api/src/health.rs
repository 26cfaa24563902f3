//! Is it well? For load balancers (`/livez`, `/readyz`) and for people and dashboards (`/api/health`). Answers are kept for
//! a second, so that asking often costs nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::future::{join_all, try_join_all};
use insightforge_schema::catalogue;
use insightforge_schema::event::now_us;
use insightforge_schema::id::Partition;
use insightforge_schema::journal::{last_number, range};
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::folded;

/// How old an answer may be.
const KEEP: Duration = Duration::from_secs(1);
/// A server that takes longer than this is not there.
const PROBE: Duration = Duration::from_millis(800);
/// For all that is looked up beyond that.
const LOOK: Duration = Duration::from_secs(3);
/// Tables that are further behind than this are worth a word, in seconds.
const LAG_S: f64 = 30.0;
/// So is a task that has been on a lane for longer than this, in seconds.
const WAIT_S: f64 = 300.0;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(livez)).routes(routes!(readyz))
}

/// What was found out lately.
#[derive(Default)]
pub(crate) struct Health {
    servers: Mutex<Option<(Instant, Servers)>>,
    report: Mutex<Option<(Instant, Arc<Report>)>>,
}

/// This process answers
#[utoipa::path(get, path = "/livez", operation_id = "isLive", tag = "health", responses((status = 200, description = "It does", body = String)))]
pub(crate) async fn livez() -> &'static str {
    "ok"
}

/// Whether this process can accept work
///
/// It can while Redis answers. An outage of MySQL is shown, and stops only folding and old reads.
#[utoipa::path(
    get, path = "/readyz", operation_id = "isReady", tag = "health",
    responses(
        (status = 200, description = "It can", body = Servers),
        (status = 503, description = "Redis does not answer", body = Servers)
    )
)]
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> (StatusCode, Json<Servers>) {
    let servers = servers(&app).await;
    let status = if servers.redis.up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(servers))
}

/// How the whole system is
///
/// `ok`; `degraded` when work is accepted but something needs a look, which `problems` says in words; `down` when no work is
/// accepted.
#[utoipa::path(
    get, path = "/api/health", operation_id = "getHealth", tag = "health",
    responses(
        (status = 200, description = "`ok` or `degraded`", body = Report),
        (status = 503, description = "`down`", body = Report)
    )
)]
pub(crate) async fn health(State(app): State<Arc<App>>) -> (StatusCode, Json<Arc<Report>>) {
    let report = report(&app).await;
    let status = if report.status == Overall::Down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(report))
}

/// The servers behind this process.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Servers {
    pub(crate) redis: Server,
    pub(crate) mysql: Server,
}

#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Server {
    pub(crate) up: bool,
    /// How long the smallest question took.
    latency_us: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Overall {
    Ok,
    Degraded,
    Down,
}

/// How the whole system is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    status: Overall,
    /// What needs a look, in words; empty when all is well.
    problems: Vec<String>,
    version: &'static str,
    components: Components,
}

#[derive(Debug, Serialize, ToSchema)]
struct Components {
    redis: Server,
    mysql: Server,
    /// `null` while it cannot be found out.
    projector: Option<Projector>,
    analyzers: Option<Analyzers>,
    backlog: Option<Backlog>,
}

/// How far the tables are behind the journal.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Projector {
    pub(crate) lag_events: u64,
    /// Age of the oldest event that is not folded yet.
    pub(crate) lag_seconds: f64,
    /// The tables have events that the journal has not: Redis lost its end, and nothing is folded.
    pub(crate) journal_moved_back: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Analyzers {
    alive: usize,
    /// How many of them serve each task type.
    by_task_type: BTreeMap<String, usize>,
}

/// Tasks that wait for an attempt or are in one.
#[derive(Debug, Serialize, ToSchema)]
struct Backlog {
    tasks: u64,
    /// Those among them whose next attempt is not due yet.
    delayed: u64,
    /// Beyond so many, uploads are answered 429.
    limit: u64,
    dead_letters: u64,
    lanes: Vec<LaneLoad>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct LaneLoad {
    task_type: String,
    model_version: String,
    tasks: u64,
    /// Since when the oldest of them lies there.
    oldest_seconds: f64,
    /// Analyzers alive that serve it.
    analyzers: usize,
}

/// How many tasks of each lane no analyzer serves, by the lane's name in figures; `None` while that cannot be found out.
pub(crate) async fn unserved(app: &App) -> Option<Vec<(String, u64)>> {
    let report = report(app).await;
    let lanes = &report.components.backlog.as_ref()?.lanes;
    let unserved = |lane: &LaneLoad| if lane.analyzers == 0 { lane.tasks } else { 0 };
    Some(lanes.iter().map(|lane| (format!("{}:{}", lane.task_type, lane.model_version), unserved(lane))).collect())
}

pub(crate) async fn servers(app: &App) -> Servers {
    // Who comes while another asks waits for that answer.
    let mut kept = app.health.servers.lock().await;
    if let Some((at, servers)) = *kept
        && at.elapsed() < KEEP
    {
        return servers;
    }
    let ping = redis::cmd("PING");
    let (redis, mysql) =
        tokio::join!(probe(app.link.query::<String>(&ping)), probe(sqlx::query("SELECT 1").execute(&app.pool)));
    let servers = Servers { redis, mysql };
    *kept = Some((Instant::now(), servers));
    servers
}

async fn probe<T, E>(question: impl Future<Output = Result<T, E>>) -> Server {
    let began = Instant::now();
    let up = matches!(timeout(PROBE, question).await, Ok(Ok(_)));
    let latency_us = up.then(|| u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
    Server { up, latency_us }
}

async fn report(app: &App) -> Arc<Report> {
    let mut kept = app.health.report.lock().await;
    if let Some((at, report)) = &*kept
        && at.elapsed() < KEEP
    {
        return report.clone();
    }
    let servers = servers(app).await;
    let (mut projector, mut work) = (None, None);
    if servers.redis.up {
        let asked = tokio::join!(timeout(LOOK, behind(app, servers.mysql)), timeout(LOOK, work_load(app)));
        projector = asked.0.ok().flatten();
        work = asked.1.ok().and_then(Result::ok);
    }
    let (analyzers, backlog) = work.unzip();
    let components = Components { redis: servers.redis, mysql: servers.mysql, projector, analyzers, backlog };
    let mut report = Report::new(components, app.config.version);
    if servers.redis.up && app.link.is_cluster() {
        report.add(masters_away(app).await);
    }
    let report = Arc::new(report);
    *kept = Some((Instant::now(), report.clone()));
    report
}

impl Report {
    fn new(components: Components, version: &'static str) -> Self {
        let problems = components.problems();
        let status = match (components.redis.up, problems.is_empty()) {
            (false, _) => Overall::Down,
            (true, true) => Overall::Ok,
            (true, false) => Overall::Degraded,
        };
        Self { status, problems, version, components }
    }

    fn add(&mut self, problem: Option<String>) {
        if let Some(problem) = problem {
            self.problems.push(problem);
            if self.status == Overall::Ok {
                self.status = Overall::Degraded;
            }
        }
    }
}

/// Of a cluster one master is enough for this process to be of use; work for the others' partitions waits.
async fn masters_away(app: &App) -> Option<String> {
    let Ok(Ok(servers)) = timeout(PROBE, app.link.servers()).await else {
        return Some("no node of the Redis Cluster says who its masters are".to_owned());
    };
    let ping = redis::cmd("PING");
    let probes = servers.iter().map(|(_, server)| probe(server.query::<String>(&ping)));
    let away = join_all(probes).await.iter().filter(|server| !server.up).count();
    (away > 0)
        .then(|| format!("{away} of {} Redis masters do not answer: work for their partitions waits", servers.len()))
}

impl Components {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.redis.up {
            problems.push("Redis does not answer: no work is accepted".to_owned());
        }
        if !self.mysql.up {
            problems.push("MySQL does not answer: work is accepted, folding and old reads wait".to_owned());
        }
        match self.projector {
            Some(lag) if lag.journal_moved_back => problems.push(
                "the tables have events that the journal has not: Redis lost its end, nothing is folded; see `insightforge doctor`"
                    .to_owned(),
            ),
            Some(lag) if lag.lag_seconds > LAG_S => problems.push(format!(
                "the tables are {} events and {:.0} s behind the journal: does a projector run?",
                lag.lag_events, lag.lag_seconds
            )),
            None if self.redis.up && self.mysql.up => problems.push("the projector's lag is not known".to_owned()),
            _ => {}
        }
        match &self.analyzers {
            Some(analyzers) if analyzers.alive == 0 => problems.push("no analyzer is alive".to_owned()),
            None if self.redis.up => problems.push("the analyzers are not known".to_owned()),
            _ => {}
        }
        let Some(backlog) = &self.backlog else { return problems };
        if backlog.tasks >= backlog.limit {
            problems.push(format!("{} tasks wait: uploads are answered 429", backlog.tasks));
        }
        for lane in backlog.lanes.iter().filter(|lane| lane.tasks > 0) {
            let LaneLoad { task_type, model_version, tasks, oldest_seconds, analyzers } = lane;
            if *analyzers == 0 {
                problems.push(format!("{tasks} tasks wait for {task_type} {model_version}, which no analyzer serves"));
            } else if *oldest_seconds > WAIT_S {
                problems.push(format!("a task waits for {task_type} {model_version} for {oldest_seconds:.0} s"));
            }
        }
        problems
    }
}

/// How far the tables are behind; `None` when either side cannot be read.
pub(crate) async fn behind(app: &App, mysql: Server) -> Option<Projector> {
    if !mysql.up {
        return None;
    }
    let folded = folded::everywhere(app).await.ok()?;
    let partitions =
        app.config.partitions.iter().zip(folded).map(|(partition, folded)| partition_behind(app, partition, folded));
    let partitions = try_join_all(partitions).await.ok()?;
    Some(Projector {
        lag_events: partitions.iter().map(|lag| lag.lag_events).sum(),
        lag_seconds: partitions.iter().map(|lag| lag.lag_seconds).fold(0.0, f64::max),
        journal_moved_back: partitions.iter().any(|lag| lag.journal_moved_back),
    })
}

async fn partition_behind(app: &App, partition: Partition, folded: u64) -> Result<Projector, LinkError> {
    let last = last_number(&app.link, &app.keys, partition).await?;
    if last <= folded {
        return Ok(Projector { lag_events: 0, lag_seconds: 0.0, journal_moved_back: last < folded });
    }
    let oldest = range(&app.link, &app.keys, partition, folded + 1, None, 1).await?;
    let age_us = oldest.first().map_or(0, |event| (now_us() - event.meta.at_us).max(0));
    Ok(Projector { lag_events: last - folded, lag_seconds: age_us as f64 / 1e6, journal_moved_back: false })
}

async fn work_load(app: &App) -> Result<(Analyzers, Backlog), LinkError> {
    let workers = catalogue::workers(&app.link, &app.keys).await?;
    let (seconds, _): (u64, u64) = app.link.query(&redis::cmd("TIME")).await?;
    let parts = try_join_all(app.config.partitions.iter().map(|partition| on_lanes(app, partition, seconds))).await?;
    let serving = |lane: &Lane| {
        let name = lane.to_string();
        // Tasks nobody can serve are ended by every analyzer.
        workers.iter().filter(|worker| *lane == Lane::unroutable() || worker.lanes.contains(&name)).count()
    };
    let mut lanes: BTreeMap<Lane, LaneLoad> = BTreeMap::new();
    let (mut delayed, mut dead_letters) = (0, 0);
    for part in parts {
        delayed += part.delayed;
        dead_letters += part.dead;
        for (lane, tasks, oldest_seconds) in part.lanes {
            let analyzers = serving(&lane);
            let load = lanes.entry(lane.clone()).or_insert_with(|| LaneLoad {
                task_type: lane.task_type,
                model_version: lane.model_version,
                tasks: 0,
                oldest_seconds: 0.0,
                analyzers,
            });
            load.tasks += tasks;
            load.oldest_seconds = load.oldest_seconds.max(oldest_seconds);
        }
    }
    let lanes: Vec<LaneLoad> = lanes.into_values().collect();
    let tasks = lanes.iter().map(|lane| lane.tasks).sum::<u64>() + delayed;
    let mut by_task_type = BTreeMap::new();
    for worker in &workers {
        let mut types: Vec<_> =
            worker.lanes.iter().filter_map(|name| Lane::parse(name)).map(|it| it.task_type).collect();
        types.sort_unstable();
        types.dedup();
        for task_type in types {
            *by_task_type.entry(task_type).or_insert(0) += 1;
        }
    }
    let backlog = Backlog { tasks, delayed, limit: app.config.max_backlog, dead_letters, lanes };
    Ok((Analyzers { alive: workers.len(), by_task_type }, backlog))
}

struct PartLoad {
    lanes: Vec<(Lane, u64, f64)>,
    delayed: u64,
    dead: u64,
}

async fn on_lanes(app: &App, partition: Partition, now_s: u64) -> Result<PartLoad, LinkError> {
    let names: Vec<String> = app.link.query(redis::cmd("SMEMBERS").arg(app.keys.lanes(partition))).await?;
    let lanes = names.iter().filter_map(|name| Lane::parse(name)).map(async |lane| {
        let key = app.keys.lane(partition, &lane);
        let tasks: u64 = app.link.query(redis::cmd("XLEN").arg(&key)).await?;
        let mut first = redis::cmd("XRANGE");
        first.arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
        let first: Vec<(String, Vec<String>)> = app.link.query(&first).await?;
        Ok::<_, LinkError>((lane, tasks, first.first().map_or(0.0, |(id, _)| age_s(id, now_s))))
    });
    let lanes = try_join_all(lanes).await?;
    let delayed = app.link.query(redis::cmd("ZCARD").arg(app.keys.delayed(partition))).await?;
    let dead = app.link.query(redis::cmd("ZCARD").arg(app.keys.dead(partition))).await?;
    Ok(PartLoad { lanes, delayed, dead })
}

/// An entry's id begins with the time by Redis' clock.
fn age_s(entry_id: &str, now_s: u64) -> f64 {
    let at_ms = entry_id.split('-').next().and_then(|ms| ms.parse::<u64>().ok());
    at_ms.map_or(0.0, |at_ms| (now_s * 1_000).saturating_sub(at_ms) as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Components {
        let up = Server { up: true, latency_us: Some(100) };
        let lane = LaneLoad {
            task_type: "t".to_owned(),
            model_version: "v1".to_owned(),
            tasks: 3,
            oldest_seconds: 1.0,
            analyzers: 1,
        };
        Components {
            redis: up,
            mysql: up,
            projector: Some(Projector { lag_events: 5, lag_seconds: 0.1, journal_moved_back: false }),
            analyzers: Some(Analyzers { alive: 1, by_task_type: BTreeMap::new() }),
            backlog: Some(Backlog { tasks: 3, delayed: 0, limit: 10, dead_letters: 1, lanes: vec![lane] }),
        }
    }

    fn judge(change: impl FnOnce(&mut Components)) -> (Overall, String) {
        let mut components = well();
        change(&mut components);
        let report = Report::new(components, "0");
        (report.status, report.problems.join("; "))
    }

    #[test]
    fn each_thing_that_needs_a_look_is_said_in_words() {
        let down = Server { up: false, latency_us: None };
        assert_eq!(judge(|_| ()), (Overall::Ok, String::new()));
        let outage = "MySQL does not answer: work is accepted, folding and old reads wait";
        assert_eq!(judge(|it| (it.mysql, it.projector) = (down, None)), (Overall::Degraded, outage.to_owned()));
        type Change = fn(&mut Components);
        let cases: [(Change, &str); 5] = [
            (
                |it| it.projector = Some(Projector { lag_events: 9, lag_seconds: 31.0, journal_moved_back: false }),
                "9 events and 31 s behind",
            ),
            (|it| it.projector = None, "lag is not known"),
            (|it| it.analyzers = Some(Analyzers { alive: 0, by_task_type: BTreeMap::new() }), "no analyzer is alive"),
            (|it| it.backlog.as_mut().unwrap().tasks = 10, "answered 429"),
            (
                |it| it.backlog.as_mut().unwrap().lanes[0].analyzers = 0,
                "3 tasks wait for t v1, which no analyzer serves",
            ),
        ];
        for (change, words) in cases {
            let (status, problems) = judge(change);
            assert_eq!(status, Overall::Degraded);
            assert!(problems.contains(words), "{problems} – {words}");
        }
        let (status, _) = judge(|it| {
            (it.redis, it.projector, it.analyzers, it.backlog) = (down, None, None, None);
        });
        assert_eq!(status, Overall::Down);
    }

    #[test]
    fn an_entry_s_age_is_never_negative() {
        assert!((age_s("1000-0", 3) - 2.0).abs() < 1e-9);
        assert!(age_s("9000-0", 3).abs() < 1e-9);
        assert!(age_s("x", 3).abs() < 1e-9);
    }
}
