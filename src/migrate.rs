//! `insightforge migrate`: the tables, and the one decision that cannot be taken back: how many partitions.

use std::process::ExitCode;

use anyhow::{Context, bail};
use insightforge_schema::id::{MAX_PARTITIONS, PartitionCount};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::{catalogue, tables};

use crate::caller::plain::count;
use crate::config::{DatabaseArgs, RedisArgs};

/// Version of the key layout; a release that lays keys out differently refuses an older installation.
const LAYOUT: u32 = 1;

/// Partitions of a new installation unless it asks for another count: enough to spread over a small cluster, few enough
/// for full batches on one machine.
const PARTITIONS: u16 = 4;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let pool = args.database.pool(2)?;
    // The tables know it too, should Redis have lost it: two counts would be two journals.
    let folded = tables::partitions(&pool).await.context("asking the tables how many partitions they have")?;
    if let (Some(given), Some(folded)) = (args.redis.partitions, folded)
        && given != folded
    {
        bail!("INSIGHTFORGE_PARTITIONS is {given}, and the tables were made from a journal of {folded} partitions");
    }
    let wanted = args.redis.partitions.or(folded).unwrap_or(PARTITIONS);
    let Some(wanted) = PartitionCount::new(wanted) else {
        bail!("INSIGHTFORGE_PARTITIONS must be between 1 and {MAX_PARTITIONS}, not {wanted}");
    };
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    record(&link, &keys, wanted).await?;
    let partitions = args.redis.recorded_partitions(&link).await?;
    catalogue::announce_models(&link, &keys, &insightforge_analyzer::card::built_in()).await?;
    if let Some(folded) = folded.filter(|folded| *folded != partitions.get()) {
        bail!(
            "this Redis holds an installation of {} partitions, and the tables were made from a journal of {folded}: are they of \
             the same installation?",
            partitions.get()
        );
    }
    tables::migrate(&pool).await.context("migrating the tables")?;
    if args.json {
        println!("{}", serde_json::json!({ "tables": "up to date", "partitions": partitions.get() }));
    } else {
        println!("tables are up to date; {}", count(partitions.get().into(), "partition"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Records layout and partition count, unless an earlier start has.
async fn record(link: &Link, keys: &Keys, partitions: PartitionCount) -> anyhow::Result<()> {
    for (field, value) in [("layout", LAYOUT), ("partitions", u32::from(partitions.get()))] {
        let mut record = redis::cmd("HSETNX");
        link.query::<i64>(record.arg(keys.config()).arg(field).arg(value)).await?;
    }
    let layout: u32 = link.query(redis::cmd("HGET").arg(keys.config()).arg("layout")).await?;
    if layout != LAYOUT {
        bail!("the journal in this Redis has key layout {layout}, this release writes layout {LAYOUT}");
    }
    Ok(())
}
