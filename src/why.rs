//! `insightforge why <task>`: why a task is not done, or how it ended, as `GET /api/tasks/{id}/why` says it.

use std::process::ExitCode;

use anyhow::anyhow;
use insightforge_api::why::{Sources, explain};
use insightforge_schema::id::TaskId;
use insightforge_schema::registry::Registry;

use crate::config::{DatabaseArgs, RedisArgs};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// The task's id
    task: TaskId,
    /// Everything as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    let pool = args.database.reading_pool(2)?;
    let partitions = args.redis.recorded_partitions(&link).await?;
    let mut registry = Registry::new(link.clone(), keys.clone());
    registry.refresh().await?;
    let routes = registry.routes();
    let sources = Sources { link: &link, keys: &keys, partitions, pool: &pool, routes: &routes };
    let Some(why) = Box::pin(explain(sources, args.task)).await.map_err(|problem| anyhow!(problem.detail))? else {
        eprintln!("there is no task {}", args.task);
        return Ok(ExitCode::FAILURE);
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&why)?);
    } else {
        for sentence in &why.sentences {
            println!("{sentence}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
