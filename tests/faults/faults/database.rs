//! What happens to the database.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};
use tokio::time::sleep;

use super::Strike;
use crate::site::Site;

pub(super) async fn restart(site: &mut Site<'_>, shortest_ms: u64, longest_ms: u64) -> Strike {
    let began = Instant::now();
    site.mariadb.server.terminate().await;
    sleep(site.dice.millis(shortest_ms, longest_ms)).await;
    site.mariadb.up().await;
    Strike { began, healed: Instant::now() }
}

/// Away for longer than anybody waits for an answer; `--away-s` says how long, else it is 10 to 15 s.
pub(super) async fn away(site: &mut Site<'_>) -> Strike {
    let seconds = std::env::var("INSIGHTFORGE_FAULTS_AWAY_S").ok().and_then(|text| text.parse::<u64>().ok());
    let (shortest_ms, longest_ms) = seconds.map_or((10_000, 15_000), |s| (s * 1_000, s * 1_000 + 1));
    restart(site, shortest_ms, longest_ms).await
}

pub(super) async fn kill(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.mariadb.server.kill().await;
    sleep(site.dice.millis(200, 2_000)).await;
    site.mariadb.up().await;
    Strike { began, healed: Instant::now() }
}

pub(super) async fn freeze(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.mariadb.server.signal(Signal::STOP);
    sleep(site.dice.millis(4_000, 8_000)).await;
    site.mariadb.server.signal(Signal::CONT);
    Strike { began, healed: Instant::now() }
}

/// Somebody locks the table of tasks.
pub(super) async fn lock_tables(site: &mut Site<'_>) -> Strike {
    let mut other = connect(site).await;
    let began = Instant::now();
    other.execute("LOCK TABLES analysis_tasks WRITE").await.unwrap();
    sleep(site.dice.millis(2_000, 4_000)).await;
    other.execute("UNLOCK TABLES").await.unwrap();
    Strike { began, healed: Instant::now() }
}

/// Somebody holds the checkpoint's row for longer than a statement waits for a lock.
pub(super) async fn hold_the_checkpoint(site: &mut Site<'_>) -> Strike {
    let mut other = connect(site).await;
    let began = Instant::now();
    // For sessions that begin from now on; those of the pool are ended, and the projector has to connect again.
    site.mariadb.say("SET GLOBAL innodb_lock_wait_timeout = 1").await;
    for id in sessions(site).await {
        let _ = site.mariadb.root.execute(AssertSqlSafe(format!("KILL {id}"))).await;
    }
    other.execute("SET innodb_lock_wait_timeout = 20").await.unwrap();
    other.execute("BEGIN").await.unwrap();
    other.execute("SELECT * FROM projection_checkpoint FOR UPDATE").await.unwrap();
    sleep(site.dice.millis(2_500, 4_000)).await;
    other.execute("ROLLBACK").await.unwrap();
    site.mariadb.say("SET GLOBAL innodb_lock_wait_timeout = 50").await;
    Strike { began, healed: Instant::now() }
}

/// Connections of the roles.
async fn sessions(site: &Site<'_>) -> Vec<i64> {
    let list = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = 'roles'";
    sqlx::query_scalar(list).fetch_all(&site.mariadb.root).await.unwrap()
}

/// Somebody locks rows in another order than the projector, again and again.
pub(super) async fn deadlock(site: &mut Site<'_>) -> Strike {
    let mut other = connect(site).await;
    let began = Instant::now();
    let length = site.dice.millis(2_000, 3_000);
    while began.elapsed() < length {
        let outcome: Result<(), sqlx::Error> = async {
            other.execute("BEGIN").await?;
            let newest = "UPDATE analysis_tasks SET tenant = tenant WHERE status IN ('pending', 'processing') \
                 ORDER BY id DESC LIMIT 20";
            other.execute(newest).await?;
            sleep(Duration::from_millis(15)).await;
            other.execute("UPDATE projection_checkpoint SET owner = owner ORDER BY part DESC").await?;
            other.execute("COMMIT").await?;
            Ok(())
        }
        .await;
        if outcome.is_err() {
            // This one was the victim; the projector goes on.
            let _ = other.execute("ROLLBACK").await;
        }
        sleep(Duration::from_millis(10)).await;
    }
    Strike { began, healed: Instant::now() }
}

pub(super) async fn read_only(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.mariadb.say("SET GLOBAL read_only = 1").await;
    sleep(site.dice.millis(2_000, 4_000)).await;
    site.mariadb.say("SET GLOBAL read_only = 0").await;
    Strike { began, healed: Instant::now() }
}

pub(super) async fn fill_disk(site: &mut Site<'_>) -> Strike {
    let began = Instant::now();
    site.mariadb.server.room.as_ref().expect("it has a disk of its own").fill();
    sleep(site.dice.millis(3_000, 6_000)).await;
    site.mariadb.server.room.as_ref().expect("it has a disk of its own").free();
    if site.mariadb.server.has_ended() {
        site.mariadb.up().await;
    }
    Strike { began, healed: Instant::now() }
}

/// As root, past the proxy.
async fn connect(site: &Site<'_>) -> MySqlConnection {
    let url = format!("mysql://root@{}/{}", site.mariadb.server.addr, site.database);
    MySqlConnection::connect(&url).await.unwrap()
}
