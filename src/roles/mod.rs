//! The three roles: settings, checks at the start, and the library crate that does the work.

mod analyzer;
mod api;
mod projector;

use anyhow::{Context, bail};
use insightforge_api::system::{Finding, Level};
use insightforge_schema::id::PartitionCount;
use insightforge_schema::link::Link;
use sqlx::MySqlPool;

use crate::config::RedisArgs;
use crate::doctor;

pub(crate) use analyzer::{AnalyzerArgs, analyzer};
pub(crate) use api::{ApiArgs, api};
pub(crate) use projector::{ProjectorArgs, projector};

/// Says what is weaker than shipped, refuses what cannot work, and gives the recorded partition count.
async fn check_journal(redis: &RedisArgs, link: &Link) -> anyhow::Result<PartitionCount> {
    tell(doctor::check_redis(link).await)?;
    redis.recorded_partitions(link).await
}

/// The same for the tables, for a role that cannot work without them.
async fn check_tables(pool: &MySqlPool) -> anyhow::Result<()> {
    tell(doctor::check_database(pool).await)
}

/// The same for a role that accepts work whatever the tables do: an outage is said, and nothing is refused.
async fn mention_tables(pool: &MySqlPool) {
    if let Err(error) = check_tables(pool).await {
        tracing::warn!("{error}; uploads are accepted, and what only the tables know is answered 503");
    }
}

fn tell(findings: Vec<Finding>) -> anyhow::Result<()> {
    for Finding { level, what, remedy } in findings {
        match level {
            Level::Good => tracing::debug!("{what}"),
            Level::Weak => tracing::warn!(remedy, "{what}"),
            Level::Broken => bail!("{what}: {remedy}"),
        }
    }
    Ok(())
}

fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?;
    Ok(name.trim().to_owned())
}

/// Unique for every start of a process and readable in events: `<host>-<pid>-<random>`.
fn process_name() -> anyhow::Result<String> {
    let host = host_name()?;
    // 64 bytes at most, by the kernel; cut so that the whole stays within what a consumer's name may have.
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    Ok(format!("{host}-{}-{:08x}", std::process::id(), rand::random::<u32>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_starts_of_a_process_have_two_names() {
        let (one, other) = (process_name().unwrap(), process_name().unwrap());
        assert_ne!(one, other);
        assert!(one.len() <= 128);
    }

    #[test]
    fn a_broken_server_stops_the_start_with_its_remedy() {
        let finding = |level| Finding { level, what: "it is old".to_owned(), remedy: "renew it".to_owned() };
        assert!(tell(vec![finding(Level::Good), finding(Level::Weak)]).is_ok());
        assert_eq!(tell(vec![finding(Level::Broken)]).unwrap_err().to_string(), "it is old: renew it");
    }
}
