//! Settings shared by the commands: each a flag with an environment twin. Libraries read no environment; this is the one
//! place that does.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use insightforge_archive::{Archive, Journal};
use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use sqlx::MySqlPool;

/// What has no default stands together in the help.
const REQUIRED: &str = "Required, as a flag or a variable";

/// How long a call to Redis is repeated before it fails.
const REDIS_DEADLINE: Duration = Duration::from_secs(10);

/// A setting that must not be shown: its `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where the journal is.
#[derive(Args, Clone, Debug)]
pub(crate) struct RedisArgs {
    /// Redis 7.0 or later, `redis://` or `rediss://`; a cluster: `redis+cluster://` or `rediss+cluster://` with some of its
    /// nodes, `[user:password@]host:port,host:port`
    #[arg(
        long,
        env = "REDIS_URL",
        default_value = "redis://127.0.0.1:6379",
        hide_env_values = true,
        hide_default_value = false
    )]
    pub(crate) redis_url: Secret,
    /// First part of every Redis key; one installation, one prefix
    #[arg(long, env = "INSIGHTFORGE_KEY_PREFIX", default_value = "if", value_parser = key_prefix)]
    pub(crate) key_prefix: String,
    /// Streams the journal is spread over: recorded by the first `migrate` (4 unless given) and then fixed; a command
    /// that is given another count refuses to start
    #[arg(long, env = "INSIGHTFORGE_PARTITIONS")]
    pub(crate) partitions: Option<u16>,
}

impl RedisArgs {
    pub(crate) fn link(&self) -> anyhow::Result<Link> {
        Link::new(self.redis_url.reveal(), REDIS_DEADLINE).context("REDIS_URL")
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(&self.key_prefix)
    }

    /// The recorded partition count.
    ///
    /// # Errors
    /// When the installation was never migrated, or the setting names another count.
    pub(crate) async fn recorded_partitions(&self, link: &Link) -> anyhow::Result<PartitionCount> {
        let recorded: Option<u16> = link.query(redis::cmd("HGET").arg(self.keys().config()).arg("partitions")).await?;
        let recorded = recorded
            .context("this Redis holds no installation under this key prefix yet: run `insightforge migrate` first")?;
        match self.partitions {
            Some(wanted) if wanted != recorded => bail!(
                "this installation has {recorded} partitions and INSIGHTFORGE_PARTITIONS asks for {wanted}: \
                 the count is fixed at the first start, because it decides where every task lives"
            ),
            _ => PartitionCount::new(recorded)
                .with_context(|| format!("the recorded partition count {recorded} is impossible")),
        }
    }
}

fn key_prefix(text: &str) -> Result<String, String> {
    let fine =
        !text.is_empty() && text.len() <= 32 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fine { Ok(text.to_owned()) } else { Err("1 to 32 letters, digits, `-`, `_` or `.`".to_owned()) }
}

/// The variables whose values object stores are opened with, by the names that `object_store` gives them.
const OBJECT_STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// Where the journal goes beyond Redis.
#[derive(Args, Clone, Debug)]
pub(crate) struct ArchiveArgs {
    /// The journal's archive: a folder, or s3://, gs://, az:// or file:// with bucket and prefix (credentials in AWS_…,
    /// GOOGLE_… or AZURE_… variables). Empty: there is none, and nothing leaves Redis. The same value for every command
    #[arg(long, env = "INSIGHTFORGE_ARCHIVE", default_value = "")]
    archive: String,
}

impl ArchiveArgs {
    pub(crate) fn archive(&self, redis: &RedisArgs) -> anyhow::Result<Option<Archive>> {
        if self.archive.is_empty() {
            return Ok(None);
        }
        let options = std::env::vars_os().filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            OBJECT_STORES.iter().any(|prefix| name.starts_with(prefix)).then(|| (name.to_ascii_lowercase(), value))
        });
        Archive::open(&self.archive, options, &redis.key_prefix).map(Some).context("INSIGHTFORGE_ARCHIVE")
    }

    /// The journal with all of its past.
    pub(crate) fn journal(&self, redis: &RedisArgs, link: &Link) -> anyhow::Result<Journal> {
        Ok(Journal { link: link.clone(), keys: redis.keys(), archive: self.archive(redis)? })
    }
}

/// Where the tables are.
#[derive(Args, Clone, Debug)]
pub(crate) struct DatabaseArgs {
    /// MySQL 8+ or MariaDB 10.6+, `mysql://user:password@host:port/database`
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, help_heading = REQUIRED)]
    pub(crate) database_url: Secret,
}

impl DatabaseArgs {
    pub(crate) fn pool(&self, max_connections: u32) -> anyhow::Result<MySqlPool> {
        tables::pool(self.database_url.reveal(), max_connections).context("DATABASE_URL")
    }

    /// For a role that only reads and has callers waiting.
    pub(crate) fn reading_pool(&self, max_connections: u32) -> anyhow::Result<MySqlPool> {
        tables::reading_pool(self.database_url.reveal(), max_connections).context("DATABASE_URL")
    }
}

/// The key that seals secrets inside events.
#[derive(Args, Clone, Debug)]
pub(crate) struct SealArgs {
    /// 64 hex digits; seals the webhook secrets of single tasks at rest. The same value for api and projector
    #[arg(long, env = "INSIGHTFORGE_ENCRYPTION_KEY", hide_env_values = true, help_heading = REQUIRED)]
    pub(crate) encryption_key: Secret,
}

impl SealArgs {
    pub(crate) fn sealer(&self) -> anyhow::Result<Sealer> {
        let mut key = [0_u8; 32];
        if hex::decode_to_slice(self.encryption_key.reveal(), &mut key).is_err() {
            bail!("INSIGHTFORGE_ENCRYPTION_KEY must be 64 hex digits (for example from `openssl rand -hex 32`)");
        }
        Ok(Sealer::new(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_setting_shows_in_no_output() {
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn a_key_prefix_cannot_break_the_hash_tag() {
        assert!(key_prefix("if").is_ok());
        for bad in ["", "a{b", "a}b", "a b", "a:b"] {
            assert!(key_prefix(bad).is_err(), "{bad:?}");
        }
    }
}
