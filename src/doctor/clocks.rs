//! Whether the clocks of this host, of Redis and of the database agree: retries, deadlines and leases compare times of
//! different machines.

use insightforge_schema::event::now_us;
use insightforge_schema::link::Link;
use sqlx::MySqlPool;

use super::{Finding, good, weak};

/// A difference that changes when things happen enough for people to notice, in milliseconds.
const NOTICEABLE_MS: i64 = 1_000;

/// Redis' clock, of every master of a cluster: deadlines and the age of waiting tasks go by it.
pub(super) async fn redis(link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    // An outage is told elsewhere.
    for (name, server) in link.servers().await.unwrap_or_default() {
        let before = now_us();
        let time: Result<(i64, i64), _> = server.query(&redis::cmd("TIME")).await;
        let after = now_us();
        let whose = if link.is_cluster() { format!("Redis at {name}") } else { "Redis".to_owned() };
        findings.extend(time.map(|(seconds, micros)| judge(&whose, seconds * 1_000_000 + micros, before, after)));
    }
    findings
}

/// The database's: webhooks are due by it.
pub(super) async fn database(pool: &MySqlPool) -> Vec<Finding> {
    // The first question may have to open a connection, which takes its time.
    let ask = || sqlx::query_scalar::<_, chrono::NaiveDateTime>("SELECT UTC_TIMESTAMP(6)").fetch_one(pool);
    let _connected = ask().await;
    let before = now_us();
    let time = ask().await;
    let after = now_us();
    time.map(|time| judge("the database", time.and_utc().timestamp_micros(), before, after)).into_iter().collect()
}

/// `theirs` was read between `before` and `after` by this host's clock.
fn judge(whose: &str, theirs: i64, before: i64, after: i64) -> Finding {
    let ahead_ms = match theirs {
        theirs if theirs > after => (theirs - after) / 1_000,
        theirs if theirs < before => (theirs - before) / 1_000,
        _ => 0,
    };
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let what = format!("the clock of {whose} is {} ms {side} this host's", ahead_ms.abs());
    if ahead_ms.abs() < NOTICEABLE_MS {
        return good(what);
    }
    weak(what, "synchronise the clocks (chrony, systemd-timesyncd): retries, deadlines and webhooks come early or late")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_clock_is_judged_by_what_cannot_be_the_way_there_and_back() {
        for (theirs, level, part) in [
            (1_500_000, Level::Good, "0 ms ahead"),
            (2_400_000, Level::Good, "400 ms ahead of this"),
            (5_000_000, Level::Weak, "3000 ms ahead of this"),
            (-5_000_000, Level::Weak, "6000 ms behind this"),
        ] {
            let finding = judge("Redis", theirs, 1_000_000, 2_000_000);
            assert!(finding.level == level && finding.what.contains(part), "{finding:?}");
        }
    }
}
