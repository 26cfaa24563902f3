//! `insightforge verify`: is every row what the journal says? Writes nothing.

use std::process::ExitCode;

use insightforge_projector::verify::{Deps, Difference, verify, verify_sample};

use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs};

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
        None => verify(&deps).await?,
    };
    for Difference { table, origin, what } in &report.examples {
        let origin = origin.map(|origin| format!(" {origin}")).unwrap_or_default();
        println!("{table}{origin}: {what}");
    }
    if report.differences > report.examples.len() as u64 {
        println!("…");
    }
    println!(
        "{} events, {} tasks, at {}: {} differences ({:.2} s)",
        report.events,
        report.tasks,
        report.at,
        report.differences,
        began.elapsed().as_secs_f64()
    );
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
