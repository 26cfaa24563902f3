//! Every fault by its name. How each strikes stands in the modules below.

pub(crate) mod cluster;
pub(crate) mod database;
pub(crate) mod network;
pub(crate) mod rebuild;
pub(crate) mod redis;
pub(crate) mod roles;

use std::time::{Duration, Instant};

use insightforge_schema::fail::Step;

use crate::fleet::{ANALYZER, API, PROJECTOR};
use crate::proxy::Weather;
use crate::request::Extra;
use crate::site::Site;

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill(&'static [&'static str]),
    /// An analyzer, under the lease the program ships with.
    KillUnderShippedLease,
    /// A role dies at a step.
    At(Step),
    /// An analyzer is stopped beyond its lease and goes on.
    Zombie,
    TwoProjectors,
    TerminateAll,
    RollingRestart,
    ModelServer,
    ModelHostKilled,
    ModelHostStopped,
    RedisRestart,
    RedisKill,
    /// With `appendfsync everysec`.
    RedisKillEverySecond,
    RedisFrozen,
    RedisGroupsDestroyed,
    /// Lanes and the set of delayed tasks are deleted.
    RedisKeysLost,
    RedisScriptsFlushed,
    RedisFull,
    RedisDiskFull,
    RedisLink(Weather),
    /// A master of a Redis Cluster dies.
    ClusterFailover,
    /// The same, and its replica had received nothing for a while.
    ClusterFailoverLagging,
    /// Each master of a Redis Cluster hands over to its replica.
    ClusterRolling,
    DatabaseRestart,
    DatabaseKill,
    DatabaseFrozen,
    DatabaseAway,
    DatabaseLocked,
    DatabaseLockWait,
    DatabaseDeadlocks,
    DatabaseReadOnly,
    DatabaseDiskFull,
    DatabaseLink(Weather),
    /// The clock of every role jumps back an hour.
    ClockBack,
    /// Redis' clock jumps back an hour, …
    RedisClockBack,
    /// … and an analyzer dies at that moment.
    RedisClockBackKill,
    /// A rebuild is killed, and another runs while a projector is.
    RebuildUnderKill,
}

const SLOW: Weather = Weather::Slow(Duration::from_millis(100));

/// All of them, in the order of the table.
pub(crate) fn all() -> Vec<Fault> {
    let named = [
        ("kill-api", Kind::Kill(&[API])),
        ("kill-analyzer", Kind::Kill(&[ANALYZER])),
        ("kill-analyzer-shipped-lease", Kind::KillUnderShippedLease),
        ("kill-projector", Kind::Kill(&[PROJECTOR])),
        ("kill-everything", Kind::Kill(&[API, ANALYZER, ANALYZER, PROJECTOR])),
        ("zombie-analyzer", Kind::Zombie),
        ("two-projectors", Kind::TwoProjectors),
        ("terminate-everything", Kind::TerminateAll),
        ("rolling-restart", Kind::RollingRestart),
        ("model-server-answers-badly", Kind::ModelServer),
        ("model-process-killed", Kind::ModelHostKilled),
        ("model-process-hangs", Kind::ModelHostStopped),
        ("redis-restart", Kind::RedisRestart),
        ("redis-kill", Kind::RedisKill),
        ("redis-kill-everysec", Kind::RedisKillEverySecond),
        ("redis-frozen", Kind::RedisFrozen),
        ("redis-groups-destroyed", Kind::RedisGroupsDestroyed),
        ("redis-keys-lost", Kind::RedisKeysLost),
        ("redis-scripts-flushed", Kind::RedisScriptsFlushed),
        ("redis-out-of-memory", Kind::RedisFull),
        ("redis-disk-full", Kind::RedisDiskFull),
        ("redis-link-slow", Kind::RedisLink(SLOW)),
        ("redis-link-cut", Kind::RedisLink(Weather::Cut)),
        ("redis-link-reset", Kind::RedisLink(Weather::Reset)),
        ("redis-link-black-hole", Kind::RedisLink(Weather::BlackHole)),
        ("redis-link-half-open", Kind::RedisLink(Weather::HalfOpen)),
        ("cluster-failover", Kind::ClusterFailover),
        ("cluster-failover-lagging", Kind::ClusterFailoverLagging),
        ("cluster-rolling", Kind::ClusterRolling),
        ("database-restart", Kind::DatabaseRestart),
        ("database-kill", Kind::DatabaseKill),
        ("database-frozen", Kind::DatabaseFrozen),
        ("database-away", Kind::DatabaseAway),
        ("database-tables-locked", Kind::DatabaseLocked),
        ("database-lock-wait", Kind::DatabaseLockWait),
        ("database-deadlocks", Kind::DatabaseDeadlocks),
        ("database-read-only", Kind::DatabaseReadOnly),
        ("database-disk-full", Kind::DatabaseDiskFull),
        ("database-link-slow", Kind::DatabaseLink(SLOW)),
        ("database-link-cut", Kind::DatabaseLink(Weather::Cut)),
        ("database-link-reset", Kind::DatabaseLink(Weather::Reset)),
        ("database-link-black-hole", Kind::DatabaseLink(Weather::BlackHole)),
        ("database-link-half-open", Kind::DatabaseLink(Weather::HalfOpen)),
        ("clock-back-an-hour", Kind::ClockBack),
        ("redis-clock-back", Kind::RedisClockBack),
        ("redis-clock-back-kill-analyzer", Kind::RedisClockBackKill),
        ("rebuild-under-fault", Kind::RebuildUnderKill),
    ];
    let named = named.into_iter().map(|(name, kind)| Fault { name: name.to_owned(), kind });
    let steps = Step::ALL.iter().map(|step| Fault { name: format!("at-{}", step.name()), kind: Kind::At(*step) });
    named.chain(steps).collect()
}

/// Those with these names, in the order of the table; or a name that none has.
pub(crate) fn named<'n>(names: &[&'n str]) -> Result<Vec<Fault>, &'n str> {
    let mut faults = all();
    match names.iter().find(|name| faults.iter().all(|fault| fault.name != **name)) {
        Some(unknown) => Err(unknown),
        None => {
            faults.retain(|fault| names.contains(&fault.name.as_str()));
            Ok(faults)
        }
    }
}

/// When a fault struck, and when all it took away was there again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) began: Instant,
    pub(crate) healed: Instant,
}

/// What a run needs before it begins.
impl Kind {
    pub(crate) fn extra(self) -> Extra {
        match self {
            // Their tasks are long enough at work to be caught there, and are tried again.
            Self::Zombie
            | Self::ModelServer
            | Self::RedisFull
            | Self::RedisKeysLost
            | Self::RedisClockBackKill
            | Self::At(Step::RetryWritten | Step::MoveUnsent | Step::MoveWritten) => Extra::Rude,
            Self::ModelHostKilled | Self::ModelHostStopped => Extra::Hosted,
            _ => Extra::None,
        }
    }

    /// On a Redis Cluster, and every upload confirmed by a replica.
    pub(crate) fn on_cluster(self) -> bool {
        matches!(self, Self::ClusterFailover | Self::ClusterFailoverLagging | Self::ClusterRolling)
    }

    pub(crate) fn lease_ms(self) -> Option<u64> {
        (self != Self::KillUnderShippedLease).then_some(3_000)
    }

    /// Of so many first announcements the receiver refuses one.
    pub(crate) fn refused_announcements(self) -> usize {
        if self == Self::At(Step::OutboxClaimed) { 40 } else { 0 }
    }

    /// Whether the clocks of all roles tell the time throughout.
    pub(crate) fn leaves_clocks_alone(self) -> bool {
        !matches!(self, Self::ClockBack | Self::RedisClockBack | Self::RedisClockBackKill)
    }

    /// Whether Redis runs with a clock that can be set.
    pub(crate) fn sets_redis_clock(self) -> bool {
        matches!(self, Self::RedisClockBack | Self::RedisClockBackKill)
    }

    /// Whether uploads and analysis must go on while it lasts.
    pub(crate) fn spares_intake(self) -> bool {
        matches!(
            self,
            Self::DatabaseRestart
                | Self::DatabaseKill
                | Self::DatabaseFrozen
                | Self::DatabaseAway
                | Self::DatabaseLocked
                | Self::DatabaseLockWait
                | Self::DatabaseReadOnly
                | Self::DatabaseDiskFull
                | Self::DatabaseLink(_)
        )
    }
}

/// Strikes, and heals.
pub(crate) async fn strike(kind: Kind, site: &mut Site<'_>) -> Strike {
    match kind {
        Kind::Kill(names) => roles::kill(site, names).await,
        Kind::KillUnderShippedLease => roles::kill(site, &[ANALYZER]).await,
        Kind::At(step) => roles::die_at(site, step).await,
        Kind::Zombie => roles::zombie(site).await,
        Kind::TwoProjectors => roles::two_projectors(site).await,
        Kind::TerminateAll => roles::terminate_all(site).await,
        Kind::RollingRestart => roles::rolling_restart(site).await,
        Kind::ModelServer => roles::wait(site).await,
        Kind::ModelHostKilled => roles::strike_model_processes(site, rustix::process::Signal::KILL).await,
        Kind::ModelHostStopped => roles::strike_model_processes(site, rustix::process::Signal::STOP).await,
        Kind::ClockBack => roles::clock_back(site).await,
        Kind::RedisClockBack => redis::clock_back(site, false).await,
        Kind::RedisClockBackKill => redis::clock_back(site, true).await,
        Kind::RebuildUnderKill => rebuild::under_kill(site).await,
        Kind::RedisRestart => redis::restart(site).await,
        Kind::RedisKill | Kind::RedisKillEverySecond => redis::kill(site).await,
        Kind::RedisFrozen => redis::freeze(site).await,
        Kind::RedisGroupsDestroyed => redis::destroy_groups(site).await,
        Kind::RedisKeysLost => redis::lose_keys(site).await,
        Kind::RedisScriptsFlushed => redis::flush_scripts(site).await,
        Kind::RedisFull => redis::fill_memory(site).await,
        Kind::RedisDiskFull => redis::fill_disk(site).await,
        Kind::RedisLink(weather) => network::redis(site, weather).await,
        Kind::ClusterFailover => cluster::fail_over(site, false).await,
        Kind::ClusterFailoverLagging => cluster::fail_over(site, true).await,
        Kind::ClusterRolling => cluster::hand_over_each(site).await,
        Kind::DatabaseRestart => database::restart(site, 200, 2_000).await,
        Kind::DatabaseKill => database::kill(site).await,
        Kind::DatabaseFrozen => database::freeze(site).await,
        Kind::DatabaseAway => database::away(site).await,
        Kind::DatabaseLocked => database::lock_tables(site).await,
        Kind::DatabaseLockWait => database::hold_the_checkpoint(site).await,
        Kind::DatabaseDeadlocks => database::deadlock(site).await,
        Kind::DatabaseReadOnly => database::read_only(site).await,
        Kind::DatabaseDiskFull => database::fill_disk(site).await,
        Kind::DatabaseLink(weather) => network::database(site, weather).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_fault_has_is_not_passed_over() {
        let named = |names: &[&'static str]| named(names).map(|faults| faults.len());
        assert_eq!(named(&["kill-api", "at-fold-read"]), Ok(2));
        assert_eq!(named(&["kill-api", "kill-the-api"]), Err("kill-the-api"));
    }

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> = all().into_iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), all().len());
    }
}
