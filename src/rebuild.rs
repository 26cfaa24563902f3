//! `insightforge rebuild`: the tables, made again from the journal. Sends nothing.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use insightforge_archive::Journal;
use insightforge_projector::rebuild::{Config, Deps, Progress, Report, rebuild};
use insightforge_schema::id::PartitionCount;

use crate::caller::plain;
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs};
use crate::progress;

/// Between two lines about the load, where there is no bar.
const LINES: Duration = Duration::from_secs(5);

/// One fills, one compares, one fences, one renames, one watches.
const DATABASE_CONNECTIONS: u32 = 8;

/// What an operator wants to know before the first rebuild.
const HELP: &str = "\
The journal is folded into new tables (names ending in _rebuild) while the system works on; they are compared with the
live ones, row counts and checksums at one position, and exchanged for them in one statement. The projector is held for a
moment at the end; no webhook is sent or forgotten, and the outbox is not touched. The disk must hold the tables twice.

A rebuild can be stopped or killed at any time: the live tables stay in service, and the next rebuild clears up. It
refuses to run beside another one, when the journal's beginning is neither in Redis nor in the archive, or when triggers or foreign keys of other tables would
be lost. Statements that use the tables for longer than two seconds delay the exchange; it is tried again for about a
minute and a half.

Exit code 0: the new tables are in service. 1: they are not, and the live ones are as they were.";

#[derive(clap::Args)]
#[command(after_long_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Swap even if the fresh tables differ from the live ones. Without it differences are shown, the live tables stay,
    /// and the exit code is 1. Differences are what one rebuilds for after damage to the tables; after an upgrade they
    /// show events that only the new release can read
    #[arg(long)]
    accept_differences: bool,
    /// Keep the replaced tables under names that end in `_old`, until the next rebuild
    #[arg(long)]
    keep_old: bool,
    /// Fold to the end of the journal, not to where the projector is: for tables that were lost together with the
    /// projector's checkpoint, and for a Redis that lost its last events. Outcomes between the two will never be announced by webhook
    #[arg(long, requires = "accept_differences")]
    to_end: bool,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let link = args.redis.link()?;
    let journal = args.archive.journal(&args.redis, &link)?;
    let partitions = args.redis.recorded_partitions(&link).await?;
    let pool = args.database.pool(DATABASE_CONNECTIONS)?;
    let config = Config {
        partitions,
        owner: format!("rebuild/{}", std::process::id()),
        keep_old: args.keep_old,
        accept_differences: args.accept_differences,
        to_end: args.to_end,
    };
    let teller = Teller::new(events_in(&journal, partitions).await?);
    let report = rebuild(&config, &Deps { journal, pool }, |progress| teller.tell(&progress)).await?;
    teller.bar.finish_and_clear();
    if args.json {
        println!("{}", plain::json(&report.to_json()));
    } else {
        print(&report);
    }
    Ok(if report.swapped { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Events are numbered without a gap, so the last numbers are their count.
async fn events_in(journal: &Journal, partitions: PartitionCount) -> anyhow::Result<u64> {
    let mut events = 0;
    for partition in partitions.iter() {
        events += journal.last_number(partition).await?;
    }
    Ok(events)
}

/// How far it is: a bar on a terminal, else a line now and then.
struct Teller {
    bar: ProgressBar,
    /// When a line last told of the load.
    told: Mutex<Instant>,
}

impl Teller {
    fn new(events: u64) -> Self {
        let bar = progress::things(Some(events));
        bar.set_message("folding");
        Self { bar, told: Mutex::new(Instant::now()) }
    }

    fn tell(&self, progress: &Progress) {
        match progress {
            Progress::Loading { events } => self.bar.set_position(*events),
            Progress::Loaded { .. } => self.bar.set_message("indexing"),
            Progress::Indexed { .. } | Progress::TablesInUse => self.bar.set_message("comparing"),
            Progress::Compared { .. } => self.bar.set_message("swapping"),
        }
        if !self.bar.is_hidden() {
            if !matches!(progress, Progress::Loading { .. }) {
                self.bar.println(say(progress));
            }
        } else if self.is_time(progress) {
            eprintln!("{}", say(progress));
        }
    }

    fn is_time(&self, progress: &Progress) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = !matches!(progress, Progress::Loading { .. }) || told.elapsed() >= LINES;
        if is_time {
            *told = Instant::now();
        }
        is_time
    }
}

fn say(progress: &Progress) -> String {
    match progress {
        Progress::Loading { events } => format!("{events} events …"),
        Progress::Loaded { events, seconds } => {
            format!("folded {events} events in {seconds:.2} s ({:.0} events/s)", *events as f64 / seconds.max(1e-9))
        }
        Progress::Indexed { seconds } => format!("indexed in {seconds:.2} s"),
        Progress::Compared { at, seconds } => format!("compared all rows at {at} in {seconds:.2} s"),
        Progress::TablesInUse => "other statements hold the tables; trying again".to_owned(),
    }
}

fn print(report: &Report) {
    println!("{:<18} {:>12} {:>12}  {:>16}  {:>16}", "table", "live rows", "fresh rows", "live", "fresh");
    for table in &report.tables {
        println!(
            "{:<18} {:>12} {:>12}  {:016x}  {:016x}  {}",
            table.table,
            table.live.rows,
            table.fresh.rows,
            table.live.checksum,
            table.fresh.checksum,
            if table.is_equal() { "equal" } else { "DIFFERENT" }
        );
        if !table.is_equal() {
            let examples: Vec<String> = table.examples.iter().map(ToString::to_string).collect();
            println!(
                "  only in the live table: {}, only in the fresh one: {}, with other content: {}; for example those of \
                 the events {}",
                table.only_live,
                table.only_fresh,
                table.different,
                examples.join(", ")
            );
        }
    }
    println!(
        "all rows compared at {}, the rows of {} later events up to {}",
        report.compared_at, report.compared_since, report.swapped_at
    );
    if report.swapped {
        println!(
            "swapped: {} events, {:.2} s in all; the projector was held for {:.0} ms",
            report.events,
            report.seconds,
            report.fenced.as_secs_f64() * 1e3
        );
    } else {
        println!("not swapped: the live tables stay as they are. --accept-differences swaps all the same");
    }
}
