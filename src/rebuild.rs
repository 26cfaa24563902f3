//! `insightforge rebuild`: the tables, made again from the journal. Sends nothing.

use std::process::ExitCode;

use insightforge_projector::rebuild::{Config, Deps, Progress, Report, rebuild};

use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs};

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
    /// projector's checkpoint. Outcomes between the two will never be announced by webhook
    #[arg(long, requires = "accept_differences")]
    to_end: bool,
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
    let report = rebuild(&config, &Deps { journal, pool }, |progress| eprintln!("{}", say(&progress))).await?;
    print(&report);
    Ok(if report.swapped { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    println!("{:<18} {:>12} {:>12}  {:>8}  {:>8}", "table", "live rows", "fresh rows", "live", "fresh");
    for table in &report.tables {
        println!(
            "{:<18} {:>12} {:>12}  {:08x}  {:08x}  {}",
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
