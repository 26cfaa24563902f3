//! Waits until a run has come to rest, and writes down all that can be seen of it from outside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use insightforge_archive::ReadError;
use insightforge_schema::keys::Lane;
use serde_json::Value;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::audit::{Announced, Logged, Row, Seen};
use crate::journal::Journal;
use crate::receiver::Delivery;
use crate::request::mark_in;
use crate::site::Site;

/// Without any progress for so long, what is open is stuck.
const PATIENCE: Duration = Duration::from_secs(80);

/// Returns when every task has ended, is folded and announced; or when nothing moves any more.
pub(crate) async fn drain(site: &mut Site<'_>) -> Journal {
    let mut journal = Journal::default();
    let (mut before, mut moved) = ((0, 0, 0), Instant::now());
    while moved.elapsed() < PATIENCE {
        site.fleet.supervise();
        if site.mariadb.server.has_ended() {
            // Long after its disk was full it may still give up.
            site.mariadb.up().await;
        }
        if !read_on(&mut journal, site).await {
            break;
        }
        let (folded, undelivered) = progress(site).await.unwrap_or((0, u64::MAX));
        let told = site.receiver.distinct();
        let all_told = told >= journal.announcements() && undelivered == 0;
        if journal.open() == 0 && folded == journal.events() && all_told {
            break;
        }
        let now = (journal.events(), folded, told);
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    journal
}

/// Reads the journal on; `false` when events of it are nowhere: then it has a gap, and nobody can wait for its end.
async fn read_on(journal: &mut Journal, site: &Site<'_>) -> bool {
    match journal.read_on(&site.journal, site.partitions).await {
        Ok(()) => true,
        Err(ReadError::Link(error)) => panic!("Redis does not answer who looks: {error}"),
        Err(error) => {
            journal.gaps.push(error.to_string());
            false
        }
    }
}

/// How many events the tables have, and how many announcements are not recorded as delivered.
async fn progress(site: &Site<'_>) -> Result<(u64, u64), sqlx::Error> {
    let mut connection = connect(site).await?;
    let sums = "SELECT CAST(COALESCE(SUM(last_n), 0) AS UNSIGNED), \
         (SELECT CAST(COUNT(*) AS UNSIGNED) FROM webhook_outbox WHERE state <> 2) FROM projection_checkpoint";
    let sums = sqlx::query_as(sums).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(sums)
}

/// As root, past the proxy.
async fn connect(site: &Site<'_>) -> Result<MySqlConnection, sqlx::Error> {
    MySqlConnection::connect(&format!("mysql://root@{}/{}", site.mariadb.server.addr, site.database)).await
}

/// Everything there is to see, once every role has ended.
pub(crate) async fn collect(
    site: &mut Site<'_>,
    mut journal: Journal,
    deliveries: &HashMap<String, Vec<Delivery>>,
) -> Seen {
    read_on(&mut journal, site).await;
    match journal.compare_archive(&site.journal, site.partitions).await {
        Ok(left_redis) => site.left_redis = left_redis,
        Err(error) => journal.gaps.push(error.to_string()),
    }
    let mut tables = connect(site).await.expect("the database answers");
    let ledger = std::mem::take(&mut *site.load.ledger.lock().unwrap());
    let mut complaints = faults_of_the_fold(&mut tables).await;
    complaints.extend(undelivered(&mut tables).await);
    Seen {
        ledger,
        journal,
        tasks: tasks(&mut tables).await,
        results: results(&mut tables).await,
        logs: logs(&mut tables).await,
        shadows: shadows(&mut tables).await,
        webhooks: announcements(deliveries),
        deaths: std::mem::take(&mut site.deaths),
        clocks_are_right: site.kind.leaves_clocks_alone(),
        dead: dead(site).await,
        left: left(site).await,
        complaints,
    }
}

/// Announcements that the tables hold as delivered, by `webhook-id`.
pub(crate) async fn recorded(site: &Site<'_>) -> HashSet<String> {
    let mut tables = connect(site).await.expect("the database answers");
    let delivered = "SELECT task.task_id, told.endpoint FROM webhook_outbox told \
         JOIN analysis_tasks task ON task.id = told.analysis_task_id WHERE told.state = 2";
    let rows: Vec<(String, String)> = sqlx::query_as(delivered).fetch_all(&mut tables).await.unwrap();
    rows.into_iter().map(|(task, endpoint)| format!("msg_{}_{endpoint}", task.replace('-', ""))).collect()
}

async fn tasks(tables: &mut MySqlConnection) -> BTreeMap<u64, Row> {
    let rows: Vec<(u64, String, String, String)> =
        sqlx::query_as("SELECT id, task_id, status, CAST(data_payload AS CHAR) FROM analysis_tasks")
            .fetch_all(tables)
            .await
            .unwrap();
    let row = |(id, task, status, data): (u64, String, String, String)| {
        (id, Row { task: task.parse().unwrap_or_default(), status, mark: mark_in(&data) })
    };
    rows.into_iter().map(row).collect()
}

async fn results(tables: &mut MySqlConnection) -> HashMap<u64, Vec<Value>> {
    let rows: Vec<(u64, String)> =
        sqlx::query_as("SELECT analysis_task_id, CAST(result_data AS CHAR) FROM analysis_results")
            .fetch_all(tables)
            .await
            .unwrap();
    let mut results: HashMap<u64, Vec<Value>> = HashMap::new();
    for (row, document) in rows {
        results.entry(row).or_default().push(serde_json::from_str(&document).unwrap_or_default());
    }
    results
}

async fn logs(tables: &mut MySqlConnection) -> BTreeMap<u64, Logged> {
    let rows: Vec<(u64, u64, String)> =
        sqlx::query_as("SELECT id, analysis_task_id, event_type FROM task_logs").fetch_all(tables).await.unwrap();
    rows.into_iter().map(|(row, task_row, event_type)| (row, Logged { task_row, event_type })).collect()
}

async fn shadows(tables: &mut MySqlConnection) -> BTreeSet<u64> {
    let rows: Vec<u64> = sqlx::query_scalar("SELECT id FROM analysis_shadow_results").fetch_all(tables).await.unwrap();
    rows.into_iter().collect()
}

async fn faults_of_the_fold(tables: &mut MySqlConnection) -> Vec<String> {
    sqlx::query_scalar("SELECT CONCAT(event_type, ': ', reason) FROM projection_faults")
        .fetch_all(tables)
        .await
        .unwrap()
}

/// Announcements that are in the outbox and not recorded as delivered.
async fn undelivered(tables: &mut MySqlConnection) -> Vec<String> {
    let open = "SELECT CONCAT('announcement ', id, ' to ', endpoint, ' is in state ', state) FROM webhook_outbox WHERE state <> 2";
    sqlx::query_scalar(open).fetch_all(tables).await.unwrap()
}

fn announcements(deliveries: &HashMap<String, Vec<Delivery>>) -> HashMap<String, Vec<Announced>> {
    let announced = |it: &Delivery| Announced { body: it.body.clone(), at: it.at, flaw: it.flaw.clone() };
    deliveries.iter().map(|(id, all)| (id.clone(), all.iter().map(announced).collect())).collect()
}

async fn dead(site: &Site<'_>) -> HashSet<Uuid> {
    let mut dead = HashSet::new();
    for partition in site.partitions.iter() {
        let range = redis::cmd("ZRANGE").arg(site.keys.dead(partition)).arg(0).arg(-1).clone();
        let members: Vec<String> = site.redis.query(&range).await;
        dead.extend(members.iter().filter_map(|member| member.parse::<Uuid>().ok()));
    }
    dead
}

/// What is left in Redis of work that should be done.
async fn left(site: &Site<'_>) -> Vec<String> {
    let mut left = Vec::new();
    for partition in site.partitions.iter() {
        let delayed: u64 = site.redis.query(redis::cmd("ZCARD").arg(site.keys.delayed(partition))).await;
        if delayed > 0 {
            left.push(format!("partition {partition}: {delayed} tasks wait for their next attempt"));
        }
        let names: Vec<String> = site.redis.query(redis::cmd("SMEMBERS").arg(site.keys.lanes(partition))).await;
        for lane in names.iter().filter_map(|name| Lane::parse(name)) {
            let key = site.keys.lane(partition, &lane);
            let waiting: u64 = site.redis.query(redis::cmd("XLEN").arg(&key)).await;
            let pending: Vec<redis::Value> = site.redis.query(redis::cmd("XPENDING").arg(&key).arg(lane.group())).await;
            if waiting > 0 || pending.first() != Some(&redis::Value::Int(0)) {
                left.push(format!("partition {partition}, {lane}: {waiting} entries, pending {:?}", pending.first()));
            }
        }
    }
    left
}
