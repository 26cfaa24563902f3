//! Waits until a run has come to rest, and writes down all that can be seen of it from outside.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use insightforge_schema::keys::Lane;
use serde_json::Value;
use sqlx::Connection;
use sqlx::mysql::MySqlConnection;
use uuid::Uuid;

use crate::audit::{Announced, Seen};
use crate::faults::Strike;
use crate::journal::Journal;
use crate::receiver::Delivery;
use crate::site::Site;

/// Without any progress for so long, what is open is stuck.
const PATIENCE: Duration = Duration::from_secs(80);
/// How far outside the fault an attempt may have begun or ended that is in doubt: a record is written together with
/// others, a little after the answer.
const DOUBT: Duration = Duration::from_millis(2_500);

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
        journal.read_on(&site.redis, &site.keys, site.partitions).await.expect("Redis answers");
        let (folded, undelivered) = progress(site).await.unwrap_or((0, u64::MAX));
        let told = site.receiver.distinct();
        let own = site.load.ledger.lock().unwrap().accepted.values().filter(|it| it.own_webhook).count();
        let all_told = told >= journal.tasks.len() + own && undelivered == 0;
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
    strike: Strike,
    deliveries: &HashMap<String, Vec<Delivery>>,
) -> Seen {
    journal.read_on(&site.redis, &site.keys, site.partitions).await.expect("Redis answers");
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
        webhooks: announcements(site, strike, deliveries),
        dead: dead(site).await,
        left: left(site).await,
        complaints,
    }
}

async fn tasks(tables: &mut MySqlConnection) -> BTreeMap<u64, (Uuid, String)> {
    let rows: Vec<(u64, String, String)> =
        sqlx::query_as("SELECT id, task_id, status FROM analysis_tasks").fetch_all(tables).await.unwrap();
    rows.into_iter().map(|(row, task, status)| (row, (task.parse().unwrap_or_default(), status))).collect()
}

async fn results(tables: &mut MySqlConnection) -> HashMap<u64, usize> {
    let rows: Vec<u64> =
        sqlx::query_scalar("SELECT analysis_task_id FROM analysis_results").fetch_all(tables).await.unwrap();
    let mut results = HashMap::new();
    rows.into_iter().for_each(|row| *results.entry(row).or_default() += 1);
    results
}

async fn logs(tables: &mut MySqlConnection) -> BTreeMap<u64, String> {
    let rows: Vec<(u64, String)> =
        sqlx::query_as("SELECT id, event_type FROM task_logs").fetch_all(tables).await.unwrap();
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

fn announcements(
    site: &Site<'_>,
    strike: Strike,
    deliveries: &HashMap<String, Vec<Delivery>>,
) -> HashMap<String, Vec<Announced>> {
    let doubtful = site.kind.leaves_attempts_in_doubt();
    let (from, to) = (strike.began.checked_sub(DOUBT).unwrap_or(strike.began), strike.healed + DOUBT);
    let announced = |delivery: &Delivery| Announced {
        body: serde_json::from_slice(&delivery.body).unwrap_or(Value::Null),
        in_doubt: doubtful && (from..to).contains(&delivery.at),
    };
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
