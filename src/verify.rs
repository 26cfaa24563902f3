//! `insightforge verify`: is every row what the journal says? Writes nothing.

use std::process::ExitCode;

use insightforge_projector::verify::{Deps, Difference, Report, verify_sample, verify_telling};
use serde_json::{Value, json};

use crate::caller::plain::{self, count};
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs};
use crate::progress;

const DATABASE_CONNECTIONS: u32 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Look only at about so many tasks, chosen at random
    #[arg(long)]
    sample: Option<u64>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let link = args.redis.link()?;
    let journal = args.archive.journal(&args.redis, &link)?;
    let partitions = args.redis.recorded_partitions(&link).await?;
    let pool = args.database.pool(DATABASE_CONNECTIONS)?;
    let deps = Deps { journal, pool, partitions };
    let began = std::time::Instant::now();
    let report = match args.sample {
        Some(tasks) => verify_sample(&deps, tasks).await?,
        None => {
            let bar = progress::things(Some(0));
            bar.set_message("comparing");
            let report = verify_telling(&deps, |events, of| {
                bar.set_length(of);
                bar.set_position(events);
            });
            let report = report.await;
            bar.finish_and_clear();
            report?
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if args.json {
        println!("{}", plain::json(&as_json(&report, seconds)));
    } else {
        print(&report, seconds);
    }
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn as_json(report: &Report, seconds: f64) -> Value {
    let examples = report.examples.iter().map(|Difference { table, origin, what }| {
        json!({ "table": table, "origin": origin.map(|origin| origin.to_string()), "what": what })
    });
    json!({
        "equal": report.is_equal(), "events": report.events, "tasks": report.tasks, "at": report.at.to_string(),
        "differences": report.differences, "examples": examples.collect::<Vec<_>>(), "seconds": seconds,
    })
}

fn print(report: &Report, seconds: f64) {
    for Difference { table, origin, what } in &report.examples {
        let origin = origin.map(|origin| format!(" {origin}")).unwrap_or_default();
        println!("{table}{origin}: {what}");
    }
    if report.differences > report.examples.len() as u64 {
        println!("…");
    }
    println!(
        "{}, {}, at {}: {} ({seconds:.2} s)",
        count(report.events, "event"),
        count(report.tasks, "task"),
        report.at,
        count(report.differences, "difference")
    );
}
