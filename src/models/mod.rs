//! `insightforge models`: which model version answers, and who decided it. Reads and writes the registry in Redis.
//!
//! [`print`] puts routes, cards and events into words or JSON.

mod print;

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;
use insightforge_schema::catalogue;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::registry::{Command, Conditions, Registry, Undoes, Written, history};

use crate::config::RedisArgs;

/// Entries of the registry read by one call.
const PAGE: usize = 1_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    /// Who is written down as having decided; the login name unless given
    #[arg(long, global = true)]
    by: Option<String>,
    /// Why, for those who read the history
    #[arg(long, global = true)]
    reason: Option<String>,
    /// Do it although no running analyzer could answer for an alias afterwards
    #[arg(long, global = true)]
    force: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Every version with the part it plays and the analyzers that have it, and packages that were refused
    List {
        /// Only this one
        task_type: Option<String>,
    },
    /// A version's card: data, quality, weaknesses, limits
    Show {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: String,
    },
    /// Make a version the stable one
    Promote {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: String,
    },
    /// Point the alias `candidate` at a version; at none without one
    Candidate {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: Option<String>,
    },
    /// Let a version answer a share of those who ask for the stable one
    Canary {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: String,
        /// Of the callers, in per cent with two decimals at most; 0 ends it
        #[arg(long)]
        percent: Percent,
    },
    /// Ask versions as well, beside the answer; none ends it
    Shadow { task_type: String, versions: Vec<String> },
    /// End the canary under way; when none is, go back to the stable version before. With a version, take back what that
    /// one has: said twice, it is done once
    Rollback {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: Option<String>,
    },
    /// Let a version answer nobody any more, for good
    Retire {
        task_type: String,
        #[arg(id = "model_version", value_name = "VERSION")]
        version: String,
    },
    /// What happened to model versions, the latest last
    History {
        /// Only this one
        task_type: Option<String>,
        /// The last so many events
        #[arg(long, default_value_t = 50)]
        last: usize,
    },
}

/// A share in 1/10000, written as per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Percent(u16);

impl std::str::FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || part.len() > 2 || !digits(whole) || !digits(part) {
            return Err("it must be a number from 0 to 100 with two decimals at most, such as 2.5".to_owned());
        }
        match format!("{whole}{part:0<2}").parse::<u16>() {
            Ok(share) if share <= 10_000 => Ok(Self(share)),
            _ => Err("it must be 100 at most".to_owned()),
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    let mut registry = Registry::new(link.clone(), keys.clone());
    let command = match args.what {
        What::List { task_type } => {
            registry.refresh().await?;
            let workers = catalogue::workers(&link, &keys).await?;
            print::list(&registry.routes(), &workers, task_type.as_deref(), args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Show { task_type, version } => {
            registry.refresh().await?;
            let cards = catalogue::models(&link, &keys).await?;
            let Some(card) = cards.into_iter().find(|card| card.task_type == task_type && card.version == version)
            else {
                bail!(
                    "no analyzer has announced {task_type} {version}; `insightforge models list` shows what there is"
                );
            };
            print::show(&registry.routes(), &card, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        What::History { task_type, last } => {
            let entries = last_entries(&link, &keys, task_type.as_deref(), last).await?;
            print::history(&entries, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        What::Promote { task_type, version } => Command::Promote { task_type, version },
        What::Candidate { task_type, version } => Command::Candidate { task_type, version },
        What::Canary { task_type, version, percent } => Command::Canary { task_type, version, share: percent.0 },
        What::Shadow { task_type, versions } => Command::Shadow { task_type, versions },
        What::Rollback { task_type, version } => {
            Command::Rollback { task_type, undoes: version.map_or(Undoes::Newest, Undoes::Version) }
        }
        What::Retire { task_type, version } => Command::Retire { task_type, version },
    };
    let actor = format!("cli/{}", args.by.unwrap_or_else(login));
    let workers = if args.force { None } else { Some(catalogue::workers(&link, &keys).await?) };
    let conditions = Conditions { at: None, staffed_by: workers.as_deref() };
    let written = registry.write_if(conditions, &command, &actor, args.reason.as_deref()).await?;
    let entries = match written {
        Written::Events(entries) => entries,
        Written::Unchanged => Vec::new(),
    };
    print::written(&entries, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The last entries, of one task type or of all.
async fn last_entries(
    link: &Link,
    keys: &Keys,
    task_type: Option<&str>,
    last: usize,
) -> anyhow::Result<Vec<insightforge_schema::registry::Entry>> {
    let mut kept = std::collections::VecDeque::new();
    let mut next = 1;
    loop {
        let page = history(link, keys, next, PAGE).await.context("reading the registry")?;
        let Some(end) = page.last() else { return Ok(kept.into()) };
        next = end.n + 1;
        kept.extend(page.into_iter().filter(|it| task_type.is_none_or(|wanted| it.change.task_type() == Some(wanted))));
        while kept.len() > last {
            kept.pop_front();
        }
    }
}

/// `<user>@<host>`, as far as it is known.
pub(crate) fn login() -> String {
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let user = if user.is_empty() { "unknown" } else { user.as_str() };
    format!("{user}@{}", host.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_written_as_per_cent() {
        for (text, share) in [("0", 0), ("5", 500), ("2.5", 250), ("0.01", 1), ("100", 10_000), ("100.00", 10_000)] {
            assert_eq!(text.parse(), Ok(Percent(share)), "{text}");
        }
        for text in ["", "-1", "100.01", "101", "1.234", "5%", "1e1", ".5", "99999999"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
