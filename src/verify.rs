//! `insightforge verify`: is every row what the journal says? Writes nothing.

use std::process::ExitCode;

use insightforge_projector::verify::{Deps, verify};

use crate::config::{DatabaseArgs, RedisArgs};

const DATABASE_CONNECTIONS: u32 = 2;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    let partitions = args.redis.recorded_partitions(&link).await?;
    let pool = args.database.pool(DATABASE_CONNECTIONS)?;
    let report = verify(&Deps { link, keys, pool, partitions }).await?;
    for difference in &report.examples {
        let origin = difference.origin.map(|origin| format!(" {origin}")).unwrap_or_default();
        let task = difference.task.map(|task| format!(" (task {task})")).unwrap_or_default();
        println!("{}{origin}{task}: {}", difference.table, difference.what);
    }
    println!("{} events, {} tasks at {}: {} differences", report.events, report.tasks, report.at, report.differences);
    Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
