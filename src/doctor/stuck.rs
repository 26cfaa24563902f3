//! Tasks that do not go on: on lanes that nobody serves, held by analyzers that are gone, due and not brought back, out of
//! time and not ended; and announcements that are overdue. Every look is bounded: what it finds is counted up to a number.

use std::collections::BTreeMap;

use insightforge_schema::catalogue::Worker;
use insightforge_schema::event::now_us;
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::registry::STABLE;
use redis::Value;
use sqlx::MySqlPool;

use super::{Finding, broken, good, weak};
use crate::caller::plain::count;

/// What janitors do within a second or so is late after this, in milliseconds.
const LATE_MS: i64 = 10_000;
/// Silent entries counted a lane and partition.
const COUNTED: usize = 100;
/// The lease when no analyzer says which; the shipped one.
const LEASE_MS: u64 = 15_000;
/// A webhook is late after this, in seconds; and so many are counted.
const OVERDUE_S: u32 = 60;
const OVERDUE_MOST: i64 = 1_000;
/// A webhook is stuck after this, however often it was tried, in seconds; so many are looked at.
const UNDELIVERED_S: u32 = 3_600;
const UNDELIVERED_MOST: i64 = 20_000;

/// One lane, all partitions together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Load {
    waiting: u64,
    /// Held by somebody silent for longer than two leases.
    silent: u64,
    /// Partitions that hold tasks and have no consumer group.
    groups_missing: u64,
}

/// Looks at the lanes and the sorted sets of every partition.
pub(super) async fn tasks(link: &Link, keys: &Keys, partitions: PartitionCount, workers: &[Worker]) -> Vec<Finding> {
    let lease_ms = workers.iter().filter_map(|worker| worker.limits).map(|limits| limits.lease_ms).max();
    match look(link, keys, partitions, lease_ms.unwrap_or(LEASE_MS)).await {
        Ok((lanes, late)) => lanes.iter().flat_map(|(lane, load)| judge(lane, load, workers)).chain(late).collect(),
        Err(error) => vec![broken(error.to_string(), "start Redis, or correct REDIS_URL")],
    }
}

async fn look(
    link: &Link,
    keys: &Keys,
    partitions: PartitionCount,
    lease_ms: u64,
) -> Result<(BTreeMap<String, Load>, Vec<Finding>), LinkError> {
    let mut lanes: BTreeMap<String, Load> = BTreeMap::new();
    let (mut retries, mut deadlines, mut letters) = (0, 0, 0);
    let late = now_us() / 1_000 - LATE_MS;
    for partition in partitions.iter() {
        let names: Vec<String> = link.query(redis::cmd("SMEMBERS").arg(keys.lanes(partition))).await?;
        for name in names {
            let Some(lane) = Lane::parse(&name) else { continue };
            add(link, keys, partition, &lane, lease_ms, lanes.entry(name).or_default()).await?;
        }
        retries += count_before(link, keys.delayed(partition), late).await?;
        deadlines += count_before(link, keys.expiring(partition), late).await?;
        letters += link.query::<u64>(redis::cmd("ZCARD").arg(keys.dead(partition))).await?;
    }
    let mut findings = Vec::new();
    if retries > 0 {
        findings.push(weak(
            match retries {
                1 => "1 retry is due and not back on its lane".to_owned(),
                _ => format!("{retries} retries are due and not back on their lanes"),
            },
            "start `insightforge analyzer`: every analyzer brings them back",
        ));
    }
    if deadlines > 0 {
        findings.push(weak(
            format!("{} {} out of time and not ended", count(deadlines, "waiting task"), is(deadlines)),
            "start `insightforge api`: it ends them",
        ));
    }
    findings.push(good(match letters {
        0 => "no dead letters".to_owned(),
        letters => format!("{}; see `insightforge dead-letters list`", count(letters, "dead letter")),
    }));
    Ok((lanes, findings))
}

async fn add(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    lease_ms: u64,
    load: &mut Load,
) -> Result<(), LinkError> {
    let key = keys.lane(partition, lane);
    let length: u64 = link.query(redis::cmd("XLEN").arg(&key)).await?;
    let mut pending = redis::cmd("XPENDING");
    pending.arg(&key).arg(lane.group());
    let held: u64 = match link.query::<Vec<Value>>(&pending).await {
        Ok(summary) => match summary.first() {
            Some(Value::Int(held)) => u64::try_from(*held).unwrap_or(0),
            _ => 0,
        },
        Err(LinkError::Refused(text)) if text.contains("NOGROUP") => {
            load.groups_missing += u64::from(length > 0);
            load.waiting += length;
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    load.waiting += length.saturating_sub(held);
    if held > 0 {
        let mut silent = redis::cmd("XPENDING");
        silent.arg(&key).arg(lane.group()).arg("IDLE").arg(2 * lease_ms).arg("-").arg("+").arg(COUNTED);
        load.silent += link.query::<Vec<Value>>(&silent).await?.len() as u64;
    }
    Ok(())
}

async fn count_before(link: &Link, key: String, ms: i64) -> Result<u64, LinkError> {
    link.query(redis::cmd("ZCOUNT").arg(key).arg("-inf").arg(ms)).await
}

fn judge(name: &str, load: &Load, workers: &[Worker]) -> Vec<Finding> {
    let anybody = Lane::parse(name).is_some_and(|lane| lane == Lane::unroutable());
    let served = workers.iter().any(|worker| anybody || worker.lanes.iter().any(|lane| lane == name));
    let mut findings = Vec::new();
    if load.silent > 0 {
        findings.push(weak(
            format!(
                "{name}: {} {} held by analyzers that have been silent for two leases",
                count(load.silent, "task"),
                is(load.silent)
            ),
            "start `insightforge analyzer`: every analyzer takes over from those that are gone",
        ));
    }
    match (load.waiting, served) {
        (0, _) => {}
        (waiting, true) if load.groups_missing > 0 => findings.push(weak(
            format!(
                "{name}: {}, and the consumer group is gone in {}",
                wait(waiting),
                count(load.groups_missing, "partition")
            ),
            "analyzers make it anew by themselves within seconds; if not, restart them",
        )),
        (_, true) => {}
        // Lanes of versions are told with the routes.
        (_, false) if !anybody && Lane::parse(name).is_none_or(|lane| lane.model_version != STABLE) => {}
        (waiting, false) => findings.push(weak(
            format!("{name}: {} and no analyzer takes from it", wait(waiting)),
            "start an analyzer that has it; `insightforge why <task>` says what is missing",
        )),
    }
    findings
}

fn wait(tasks: u64) -> String {
    format!("{} {}", count(tasks, "task"), if tasks == 1 { "waits" } else { "wait" })
}

fn is(things: u64) -> &'static str {
    if things == 1 { "is" } else { "are" }
}

/// Announcements that should have been sent, and those that were not taken for long.
pub(super) async fn webhooks(pool: &MySqlPool) -> Vec<Finding> {
    match look_for_webhooks(pool).await {
        Ok(found) => found,
        Err(error) => vec![broken(error.to_string(), "insightforge migrate")],
    }
}

async fn look_for_webhooks(pool: &MySqlPool) -> Result<Vec<Finding>, sqlx::Error> {
    let late: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM (SELECT 1 FROM webhook_outbox
            WHERE state IN (0, 1) AND due_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND LIMIT ?) overdue",
    )
    .bind(OVERDUE_S)
    .bind(OVERDUE_MOST)
    .fetch_one(pool)
    .await?;
    let undelivered: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT endpoint, COUNT(*), MAX(age) FROM (
            SELECT endpoint, TIMESTAMPDIFF(SECOND, created_at, UTC_TIMESTAMP(6)) AS age FROM webhook_outbox
            WHERE state IN (0, 1) LIMIT ?) pending
        WHERE age > ? GROUP BY endpoint ORDER BY endpoint",
    )
    .bind(UNDELIVERED_MOST)
    .bind(UNDELIVERED_S)
    .fetch_all(pool)
    .await?;
    let overdue = match late {
        0 => good("no webhook is overdue".to_owned()),
        late => weak(
            format!(
                "{}{} should have been sent more than {OVERDUE_S} s ago",
                at_least(late, OVERDUE_MOST),
                count(late.unsigned_abs(), "webhook")
            ),
            "is `insightforge projector` running, and are its receivers answering? GET /api/webhooks/deliveries tells",
        ),
    };
    let undelivered = undelivered.into_iter().map(|(endpoint, owed, oldest_s)| {
        let receiver = if endpoint == "task" { "URLs that callers named".to_owned() } else { format!("endpoint {endpoint:?}") };
        weak(
            format!(
                "{}{} to {receiver} {} been undelivered for more than an hour, the oldest for {} h",
                at_least(owed, UNDELIVERED_MOST),
                count(owed.unsigned_abs(), "webhook"),
                if owed == 1 { "has" } else { "have" },
                oldest_s / 3_600
            ),
            "mend the receiver: what waits is sent within minutes of its first good answer, and given up after about 90 hours",
        )
    });
    Ok(std::iter::once(overdue).chain(undelivered).collect())
}

fn at_least(found: i64, most: i64) -> &'static str {
    if found >= most { "at least " } else { "" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use insightforge_schema::id::TaskId;

    use super::*;
    use crate::doctor::Level;
    use crate::doctor::tests::worker;

    #[test]
    fn a_lane_is_stuck_when_nobody_serves_it_or_its_holders_are_gone() {
        let load = |waiting, silent, groups_missing| Load { waiting, silent, groups_missing };
        for (load, lanes, parts) in [
            (load(5, 0, 0), &["acting:stable"][..], vec![]),
            (load(0, 0, 0), &[], vec![]),
            (load(5, 0, 0), &[], vec!["5 tasks wait and no analyzer"]),
            (load(5, 0, 2), &["acting:stable"], vec!["group is gone in 2 partitions"]),
            (load(1, 0, 1), &["acting:stable"], vec!["1 task waits, and the consumer group is gone in 1 partition"]),
            (load(0, 3, 0), &["acting:stable"], vec!["3 tasks are held"]),
            (load(0, 1, 0), &["acting:stable"], vec!["1 task is held"]),
            (load(1, 3, 0), &["acting:v2"], vec!["3 tasks are held", "1 task waits and no analyzer"]),
        ] {
            let found = judge("acting:stable", &load, &[worker(lanes)]);
            assert_eq!(found.len(), parts.len(), "{found:?}");
            assert!(found.iter().zip(parts).all(|(finding, part)| finding.what.contains(part)), "{found:?}");
            assert!(found.iter().all(|finding| finding.level == Level::Weak && !finding.remedy.is_empty()));
        }
        assert!(judge("unroutable:any", &load(5, 0, 0), &[worker(&[])]).is_empty(), "every analyzer takes from it");
        assert_eq!(judge("unroutable:any", &load(5, 0, 0), &[]).len(), 1);
        assert!(judge("acting:v9", &load(5, 0, 0), &[]).is_empty(), "it is told with the routes");
    }

    #[tokio::test]
    async fn what_does_not_go_on_is_found_on_a_real_redis() {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
        let link = Link::new(&url, Duration::from_secs(10)).unwrap();
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        let (partition, lane) = (Partition(1), Lane::new("acting", "stable"));
        let two = PartitionCount::new(2).unwrap();
        let found = async |workers: &[Worker]| {
            let found = tasks(&link, &keys, two, workers).await;
            found.into_iter().map(|finding| finding.what).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(found(&[]).await, "no dead letters");

        let key = keys.lane(partition, &lane);
        let _: i64 = link.query(redis::cmd("SADD").arg(keys.lanes(partition)).arg(lane.to_string())).await.unwrap();
        for _ in 0..2 {
            let _: String = link.query(redis::cmd("XADD").arg(&key).arg("*").arg("i").arg("x")).await.unwrap();
        }
        assert!(found(&[]).await.contains("acting:stable: 2 tasks wait and no analyzer takes from it"));
        assert!(found(&[worker(&["acting:stable"])]).await.contains("consumer group is gone in 1 partition"));

        let _: Value = link.query(redis::cmd("XGROUP").arg("CREATE").arg(&key).arg("acting").arg("0")).await.unwrap();
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg("acting").arg("gone").arg("COUNT").arg(1).arg("STREAMS").arg(&key).arg(">");
        let _: Value = link.query(&read).await.unwrap();
        for key in [keys.delayed(partition), keys.expiring(partition), keys.dead(partition)] {
            let mut place = redis::cmd("ZADD");
            place.arg(key).arg(1).arg(TaskId::new().to_string());
            let _: i64 = link.query(&place).await.unwrap();
        }
        let all = found(&[worker(&["acting:stable"])]).await;
        for part in ["1 task is held by analyzers", "1 retry is due", "1 waiting task is out of time", "1 dead letter;"]
        {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(!all.contains("task waits"), "one waits, and it is served: {all}");
    }

    #[tokio::test]
    async fn announcements_that_are_overdue_are_counted_on_both_servers() {
        for variable in ["INSIGHTFORGE_TEST_MARIADB_URL", "INSIGHTFORGE_TEST_MYSQL_URL"] {
            let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server"));
            let server = insightforge_schema::tables::pool(&url, 1).unwrap();
            let database = format!("t_{}", uuid::Uuid::new_v4().simple());
            let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {database}"));
            sqlx::query(create).execute(&server).await.unwrap();
            let pool =
                insightforge_schema::tables::pool(&format!("{}/{database}", url.trim_end_matches('/')), 2).unwrap();
            assert_eq!(webhooks(&pool).await[0].level, Level::Broken, "no tables yet");
            insightforge_schema::tables::migrate(&pool).await.unwrap();
            assert_eq!(webhooks(&pool).await[0].what, "no webhook is overdue");
            for (id, state, late_s) in [(1, 0, 90), (2, 1, 90), (3, 0, 5), (4, 2, 90), (5, 3, 90)] {
                sqlx::query(
                    "INSERT INTO webhook_outbox
                        (id, endpoint, analysis_task_id, body, state, due_at, attempts, created_at)
                    VALUES (?, 'e', 1, '', ?, UTC_TIMESTAMP(6) - INTERVAL ? SECOND, 0, UTC_TIMESTAMP(6))",
                )
                .bind(id)
                .bind(state)
                .bind(late_s)
                .execute(&pool)
                .await
                .unwrap();
            }
            let found = webhooks(&pool).await;
            assert!(found[0].what.starts_with("2 webhooks should have been sent"), "{found:?}");
            assert_eq!(found.len(), 1, "none is old");
            // Put off again and again, it is never overdue.
            let old = "UPDATE webhook_outbox SET due_at = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND,
                created_at = UTC_TIMESTAMP(6) - INTERVAL 30 HOUR";
            sqlx::query(old).execute(&pool).await.unwrap();
            let found: Vec<String> = webhooks(&pool).await.into_iter().map(|finding| finding.what).collect();
            let undelivered =
                "3 webhooks to endpoint \"e\" have been undelivered for more than an hour, the oldest for 30 h";
            assert_eq!(found, ["no webhook is overdue", undelivered]);
            pool.close().await;
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE {database}"))).execute(&server).await.unwrap();
        }
    }
}
