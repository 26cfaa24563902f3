//! `insightforge dead-letters`: tasks that failed for good, listed, searched, repeated and purged. The same functions serve
//! HTTP; see `insightforge_api::dead_letters`.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Subcommand;
use insightforge_api::app::App;
use insightforge_api::dead_letters::act::{self, Act, Acted, Bulk, By, MAX_LIMIT};
use insightforge_api::dead_letters::filter::Filter;
use insightforge_api::dead_letters::search::{DeadLetter, Letter, search};
use insightforge_api::problem::Problem;
use insightforge_api::system::Inspection;
use insightforge_api::{Config, Deps};
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::id::TaskId;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::caller::plain::{self, count};
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs, SealArgs};
use crate::models::login;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    seal: SealArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Those that fit, latest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// The most to show
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// `next` of the page before
        #[arg(long, value_parser = letter)]
        after: Option<Letter>,
    },
    /// Repeat one, or all that fit, as new tasks
    Redrive(ActArgs),
    /// Take one, or all that fit, off the list for good; the tasks stay failed
    Purge(ActArgs),
}

#[derive(clap::Args)]
struct FilterArgs {
    /// Only this task type
    #[arg(long)]
    task_type: Option<String>,
    /// Only this error code, such as timeout
    #[arg(long)]
    code: Option<String>,
    /// Given up at or after: 2026-01-31T12:00:00Z, or a time ago (10m, 2h, 1d)
    #[arg(long, value_parser = time)]
    from: Option<DateTime<Utc>>,
    /// Given up before
    #[arg(long, value_parser = time)]
    to: Option<DateTime<Utc>>,
    /// Part of the error message, in upper or lower case
    #[arg(long)]
    text: Option<String>,
}

#[derive(clap::Args)]
struct ActArgs {
    /// One letter; without it, all that fit
    task: Option<TaskId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Go on behind what a call before dealt with: its `next`
    #[arg(long, value_parser = letter)]
    after: Option<Letter>,
    /// The most of one call; 1000 at most
    #[arg(long, default_value_t = act::DEFAULT_LIMIT)]
    limit: usize,
    /// Do it; without it, all that fit are only counted
    #[arg(long)]
    apply: bool,
    /// Why, for those who read the history
    #[arg(long)]
    reason: Option<String>,
    /// Who is written down as having done it; the login name unless given
    #[arg(long)]
    by: Option<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let app = open(&args, &stop).await?;
    let done = match args.what {
        What::List { filter, limit, after } => list(&app, &filter.read()?, limit, after, args.json).await,
        What::Redrive(wanted) => deal(&app, Act::Redrive, wanted, args.json).await,
        What::Purge(wanted) => deal(&app, Act::Purge, wanted, args.json).await,
    };
    stop.cancel();
    done
}

/// The door's inside without its listeners.
async fn open(args: &Args, stop: &CancellationToken) -> anyhow::Result<Arc<App>> {
    let link = args.redis.link()?;
    let nowhere = ([127, 0, 0, 1], 0).into();
    let config = Config {
        http_addr: nowhere,
        internal_addr: None,
        partitions: args.redis.recorded_partitions(&link).await?,
        max_backlog: u64::MAX,
        max_body_bytes: 0,
        max_batch_bytes: 0,
        wait_limit_s: 0,
        addresses: AddressPolicy::default(),
        version: env!("CARGO_PKG_VERSION"),
    };
    let deps = Deps {
        link,
        keys: args.redis.keys(),
        pool: args.database.reading_pool(2)?,
        sealer: args.seal.sealer()?,
        archive: args.archive.archive(&args.redis)?,
        models: insightforge_analyzer::card::built_in(),
        inspection: Inspection::default(),
    };
    Ok(App::new(config, deps, stop).await?)
}

async fn list(
    app: &App,
    filter: &Filter,
    limit: usize,
    mut after: Option<Letter>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (mut letters, mut unreadable) = (Vec::new(), 0);
    loop {
        let found = search(app, filter, limit.clamp(1, 10_000) - letters.len(), after).await.map_err(explain)?;
        letters.extend(found.letters);
        unreadable += found.unreadable;
        after = found.next;
        if after.is_none() || letters.len() >= limit {
            break;
        }
    }
    if json {
        let next = after.map(|next| next.to_string());
        println!("{}", json!({ "dead_letters": letters, "next": next, "unreadable": unreadable }));
        return Ok(ExitCode::SUCCESS);
    }
    letters.iter().for_each(print);
    if letters.is_empty() {
        println!("no dead letter fits");
    }
    if unreadable > 0 && filter != &Filter::default() {
        println!("{unreadable} more cannot be read until the tables have caught up");
    }
    if let Some(next) = after {
        println!("there are more: --after {next}");
    }
    Ok(ExitCode::SUCCESS)
}

fn print(letter: &DeadLetter) {
    let at = letter.failed_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default();
    let story = match &letter.story {
        Some(story) => format!(
            "{} {}  {} after {}: {}",
            story.task_type,
            story.model_version,
            story.error_code.as_deref().unwrap_or("?"),
            count(story.attempts.into(), "attempt"),
            cut(story.error_message.as_deref().unwrap_or_default()),
        ),
        None => "not in the tables yet".to_owned(),
    };
    println!("{at}  {}  {story}", letter.task_id);
}

async fn deal(app: &App, act: Act, args: ActArgs, json: bool) -> anyhow::Result<ExitCode> {
    let reason = args.reason.or_else(|| (act == Act::Purge).then(|| "purged by command".to_owned()));
    let by = By { actor: format!("cli/{}", args.by.unwrap_or_else(login)), reason, trace: None };
    let filter = args.filter.read()?;
    if let Some(task) = args.task {
        if filter != Filter::default() || args.after.is_some() {
            bail!("one letter is named by its id; a filter or a place beside it has no meaning");
        }
        let new = act::on_one(app, act, task, &by).await.map_err(explain)?;
        match (json, new) {
            (true, new) => println!("{}", json!({ "task_id": task, "redriven_as": new })),
            (false, Some(new)) => println!("task {task} is repeated as {new}"),
            (false, None) => println!("task {task} is off the list"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !(1..=MAX_LIMIT).contains(&args.limit) {
        bail!("--limit must be from 1 to {MAX_LIMIT}");
    }
    let bulk = Bulk { filter, after: args.after, limit: args.limit, dry_run: !args.apply };
    let acted = act::on_all(app, act, &bulk, &by).await.map_err(explain)?;
    if json {
        println!("{}", serde_json::to_string(&acted)?)
    } else {
        tell(act, &acted, args.limit)
    }
    Ok(if acted.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(act: Act, acted: &Acted, limit: usize) {
    let done = if act == Act::Redrive { "repeated" } else { "purged" };
    let at_least = if acted.more { "at least " } else { "" };
    if acted.dry_run {
        let fit = if acted.matched == 1 && !acted.more { "fits" } else { "fit" };
        let letters = count(acted.matched, "dead letter");
        println!("{at_least}{letters} {fit}; --apply has them {done}, {limit} a call");
        return;
    }
    println!("{} {done}", count(acted.done, "dead letter"));
    if acted.already > 0 {
        println!("{} {done} before", count(acted.already, "dead letter"));
    }
    if acted.left > 0 {
        println!("{} left on the list", count(acted.left, "dead letter"));
    }
    for refused in &acted.refused {
        println!("  left: {}: {}", refused.task_id, cut(&refused.detail));
    }
    if let Some(next) = &acted.next {
        println!("there may be more that fit: --after {next}");
    }
}

/// With what was done before it, if anything was.
fn explain(problem: Problem) -> anyhow::Error {
    match problem.more.as_ref().and_then(|more| more.get("acted")) {
        Some(acted) => anyhow!("{}; before that: {acted}", problem.detail),
        None => anyhow!(problem.detail),
    }
}

impl FilterArgs {
    fn read(self) -> anyhow::Result<Filter> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            bail!("--to must be later than --from");
        }
        Ok(Filter { task_type: self.task_type, error_code: self.code, from: self.from, to: self.to, text: self.text })
    }
}

fn letter(text: &str) -> Result<Letter, String> {
    text.parse().map_err(|()| "must be the `next` of another page".to_owned())
}

/// A time, or a time ago.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    let count = text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<i64>().ok());
    let ago = count.filter(|_| unit > 0).and_then(|count| TimeDelta::try_seconds(count.checked_mul(unit)?));
    let time = ago.and_then(|ago| Utc::now().checked_sub_signed(ago));
    time.ok_or_else(|| "neither a time (2026-01-31T12:00:00Z) nor a time ago (10m, 2h, 1d)".to_owned())
}

/// On one line: the text is a stranger's.
fn cut(text: &str) -> String {
    plain::line(text, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_a_time_ago() {
        assert_eq!(time("1970-01-01T00:00:01Z").unwrap().timestamp(), 1);
        let ago = Utc::now() - time("2h").unwrap();
        assert!((7_190..7_210).contains(&ago.num_seconds()));
        for bad in ["", "h", "yesterday", "5w", "99999999999999999d"] {
            assert!(time(bad).is_err(), "{bad:?}");
        }
    }
}
