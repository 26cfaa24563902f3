//! What happens to a Redis of one server.

use std::time::{Duration, Instant};

use insightforge_schema::id::Partition;
use insightforge_schema::keys::Lane;
use rustix::process::Signal;
use tokio::time::sleep;

use super::Strike;
use crate::fleet::ANALYZER;
use crate::journal::Journal;
use crate::site::Site;

pub(super) async fn restart(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.redis.server.terminate().await;
    sleep(site.dice.millis(200, 1_500)).await;
    site.redis.up().await;
    Strike { began, healed: Instant::now() }
}

pub(super) async fn kill(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.redis.server.kill().await;
    sleep(site.dice.millis(200, 1_500)).await;
    site.redis.up().await;
    Strike { began, healed: Instant::now() }
}

/// Stopped for longer than a call waits for its answer: what was sent is carried out when it goes on, and has been sent
/// again by then.
pub(super) async fn freeze(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.redis.server.signal(Signal::STOP);
    sleep(site.dice.millis(5_500, 7_500)).await;
    site.redis.server.signal(Signal::CONT);
    Strike { began, healed: Instant::now() }
}

/// Every lane loses its consumer group, and with it who holds what; a few times.
pub(super) async fn destroy_groups(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    let mut destroyed = 0;
    for _ in 0..4 {
        for partition in site.partitions.iter() {
            let names: Vec<String> = site.redis.query(redis::cmd("SMEMBERS").arg(site.keys.lanes(partition))).await;
            for lane in names.iter().filter_map(|name| Lane::parse(name)) {
                let mut destroy = redis::cmd("XGROUP");
                destroy.arg("DESTROY").arg(site.keys.lane(partition, &lane)).arg(lane.group());
                destroyed += site.redis.query::<i64>(&destroy).await;
            }
        }
        sleep(site.dice.millis(100, 600)).await;
    }
    if destroyed == 0 {
        site.complaints.push("there was no group to destroy".to_owned());
    }
    Strike { began, healed: Instant::now() }
}

/// Somebody deletes what is derived from the journal: every lane with what waits and runs there, their names, the sets of delayed
/// tasks and of deadlines, and some records of tasks that are not over.
pub(super) async fn lose_keys(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    let mut lost = 0;
    for _ in 0..4 {
        for partition in site.partitions.iter() {
            let names: Vec<String> = site.redis.query(redis::cmd("SMEMBERS").arg(site.keys.lanes(partition))).await;
            let lanes = names.iter().filter_map(|name| Lane::parse(name));
            let lanes: Vec<String> = lanes.map(|lane| site.keys.lane(partition, &lane)).collect();
            for lane in &lanes {
                lost += lose_records(site, partition, lane).await;
                lost += site.redis.query::<i64>(redis::cmd("XLEN").arg(lane)).await;
            }
            let others = [site.keys.lanes(partition), site.keys.delayed(partition), site.keys.expiring(partition)];
            site.redis.query::<i64>(redis::cmd("DEL").arg(&others).arg(&lanes)).await;
        }
        sleep(site.dice.millis(100, 600)).await;
    }
    if lost == 0 {
        site.complaints.push("nothing was on the lanes or delayed".to_owned());
    }
    Strike { began, healed: Instant::now() }
}

/// Records of the first tasks on a lane whose callers did not bring ids: those may be sent again meanwhile, and would be told
/// that their id is taken.
async fn lose_records(site: &mut Site<'_>, partition: Partition, lane: &str) -> i64 {
    let range = redis::cmd("XRANGE").arg(lane).arg("-").arg("+").arg("COUNT").arg(10).to_owned();
    let entries: Vec<(String, Vec<(String, String)>)> = site.redis.query(&range).await;
    let mut lost = 0;
    for (_, fields) in entries {
        let id = fields.iter().find(|(name, _)| name == "i").and_then(|(_, id)| id.parse().ok());
        let Some(record) = id.map(|id| site.keys.record(partition, id)) else { continue };
        if site
            .redis
            .query::<Option<String>>(redis::cmd("HGET").arg(&record).arg("h"))
            .await
            .unwrap_or_default()
            .is_empty()
        {
            lost += site.redis.query::<i64>(redis::cmd("DEL").arg(&record)).await;
        }
    }
    lost
}

pub(super) async fn flush_scripts(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    for _ in 0..10 {
        site.redis.query::<String>(redis::cmd("SCRIPT").arg("FLUSH")).await;
        sleep(site.dice.millis(20, 150)).await;
    }
    Strike { began, healed: Instant::now() }
}

/// `maxmemory` is reached under `noeviction`.
pub(super) async fn fill_memory(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    let refused = |site: &Site<'_>| site.load.ledger.lock().unwrap().refused.get(&503).copied().unwrap_or(0);
    let before = refused(site);
    let info: String = site.redis.query(redis::cmd("INFO").arg("memory")).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    let bound = used.expect("Redis tells its memory") + site.dice.below(64 << 10);
    set(site, "maxmemory", &bound.to_string()).await;
    sleep(site.dice.millis(1_500, 3_500)).await;
    if refused(site) == before {
        site.complaints.push("no upload was refused although Redis had no memory left".to_owned());
    }
    // Also with an analyzer that starts only now.
    site.fleet.kill(ANALYZER).await;
    site.fleet.start(&[ANALYZER]).await;
    if !all_end(site, Duration::from_secs(15)).await {
        site.complaints.push("what was accepted before does not come to its end without memory".to_owned());
    }
    set(site, "maxmemory", "0").await;
    Strike { began, healed: Instant::now() }
}

/// Whether every task comes to its end within the time, while no other is taken.
async fn all_end(site: &Site<'_>, within: Duration) -> bool {
    let (mut journal, deadline) = (Journal::default(), Instant::now() + within);
    while Instant::now() < deadline {
        journal.read_on(&site.journal, site.partitions).await.unwrap();
        if journal.open() == 0 {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

async fn set(site: &Site<'_>, name: &str, value: &str) {
    site.redis.query::<String>(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await;
}

/// Its log cannot grow: under `appendfsync always` Redis ends then, rather than to promise what it cannot keep.
pub(super) async fn fill_disk(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.redis.server.room.as_ref().expect("it has a disk of its own").fill();
    let deadline = Instant::now() + site.dice.millis(1_500, 3_000);
    while Instant::now() < deadline && !site.redis.server.has_ended() {
        sleep(Duration::from_millis(20)).await;
    }
    site.redis.server.room.as_ref().expect("it has a disk of its own").free();
    if site.redis.server.has_ended() {
        site.redis.up().await;
    }
    Strike { began, healed: Instant::now() }
}

/// Its clock says an hour less, from now on. With an analyzer that dies as it jumps: what that one held was delivered in what
/// is the future now.
pub(super) async fn clock_back(site: &mut Site<'_>, with_kill: bool) -> Strike {
    let began = Instant::now();
    if with_kill {
        site.fleet.kill(ANALYZER).await;
    }
    site.redis.set_clock(-3_600);
    let told: (i64, i64) = site.redis.query(&redis::cmd("TIME")).await;
    let truly = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    if truly.as_secs().abs_diff(told.0.unsigned_abs()) < 3_000 {
        site.complaints.push(format!("Redis' clock was not moved: it says {}, and it is {}", told.0, truly.as_secs()));
    }
    sleep(site.dice.millis(500, 1_000)).await;
    if with_kill {
        site.fleet.start(&[ANALYZER]).await;
    }
    Strike { began, healed: Instant::now() }
}
