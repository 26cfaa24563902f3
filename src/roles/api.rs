//! `insightforge api`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use futures_util::future::BoxFuture;
use insightforge_api::system::{Build, Inspection};
use insightforge_api::{Config, Deps};
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::link::Link;

use super::{check_journal, mention_tables};
use crate::boot::{self, Ready, RoleArgs};
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs, SealArgs};
use crate::{doctor, settings};

/// Connections to the database: lists and look-ups only, no upload waits for one.
const DATABASE_CONNECTIONS: u32 = 16;

/// The largest upload that can be allowed, in bytes: written as a literal it can be twice as long, and the tables' server
/// takes 16 MiB in one statement.
const BODY_CEILING: usize = 7 << 20;

#[derive(clap::Args)]
pub(crate) struct ApiArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    seal: SealArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    /// Serves callers
    #[arg(long, env = "INSIGHTFORGE_HTTP_ADDR", default_value = "127.0.0.1:8080")]
    http_addr: SocketAddr,
    /// Serves the former model server's callers (`/analyze`, `/result/…`) on an address of their own. Without it they are
    /// served on INSIGHTFORGE_HTTP_ADDR while that is loopback, else not at all
    #[arg(long, env = "INSIGHTFORGE_INTERNAL_ADDR")]
    internal_addr: Option<SocketAddr>,
    /// Serves /metrics, /livez and /readyz
    #[arg(long, env = "INSIGHTFORGE_METRICS_ADDR", default_value = "127.0.0.1:9464")]
    metrics_addr: SocketAddr,
    /// Waiting tasks beyond which uploads are answered 429
    #[arg(long, env = "INSIGHTFORGE_MAX_BACKLOG", default_value_t = 1_000_000)]
    max_backlog: u64,
    /// Largest body of one upload, in bytes; 7 MiB at most
    #[arg(long, env = "INSIGHTFORGE_MAX_BODY_BYTES", default_value_t = 1_048_576)]
    max_body_bytes: usize,
    /// Largest body of one batch upload, in bytes; it is streamed, not held
    #[arg(long, env = "INSIGHTFORGE_MAX_BATCH_BYTES", default_value_t = 104_857_600)]
    max_batch_bytes: u64,
    /// Replicas of Redis that must have an upload before it is answered 202 (`WAIT`); where too few confirm within ten
    /// seconds the answer is 503, and the upload may or may not run: send it again under its idempotency key. The same
    /// value for api and projector
    #[arg(long, env = "INSIGHTFORGE_MIN_REPLICAS_ACK", default_value_t = 0)]
    min_replicas_ack: u32,
    /// Longest wait a caller may ask for with `Prefer: wait=N` or a long poll, in seconds
    #[arg(long, env = "INSIGHTFORGE_WAIT_LIMIT_S", default_value_t = 30)]
    wait_limit_s: u64,
    /// Networks that callers' webhooks may reach beside public addresses, such as 172.16.0.0/12, separated by commas. The
    /// same value for api and projector
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", default_value = "")]
    webhook_allow_cidrs: String,
}

pub(crate) async fn api(args: ApiArgs) -> anyhow::Result<ExitCode> {
    let logging = args.role.start_logging("api")?;
    args.role.check_listener("INSIGHTFORGE_HTTP_ADDR", args.http_addr)?;
    if let Some(addr) = args.internal_addr {
        args.role.check_listener("INSIGHTFORGE_INTERNAL_ADDR", addr)?;
    }
    args.role.check_listener("INSIGHTFORGE_METRICS_ADDR", args.metrics_addr)?;
    ensure!(
        args.max_body_bytes <= BODY_CEILING,
        "INSIGHTFORGE_MAX_BODY_BYTES is {}: documents above {BODY_CEILING} do not fit into a statement of the tables' server",
        args.max_body_bytes
    );
    let addresses = AddressPolicy::parse(&args.webhook_allow_cidrs).context("INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS")?;
    let sealer = args.seal.sealer()?;
    let shutdown = boot::shutdown_on_signal()?;
    let keys = args.redis.keys();
    let link = args.redis.link()?.confirmed_by(args.min_replicas_ack);
    let pool = args.database.reading_pool(DATABASE_CONNECTIONS)?;
    let partitions = check_journal(&args.redis, &link).await?;
    mention_tables(&pool).await;
    let metrics = boot::start_metrics()?;
    insightforge_api::describe_metrics();

    let config = Config {
        http_addr: args.http_addr,
        internal_addr: args.internal_addr,
        partitions,
        max_backlog: args.max_backlog,
        max_body_bytes: args.max_body_bytes,
        max_batch_bytes: args.max_batch_bytes,
        wait_limit_s: args.wait_limit_s,
        addresses,
        version: env!("CARGO_PKG_VERSION"),
    };
    let archive = args.archive.archive(&args.redis)?;
    let inspection = inspection(&args, &link)?;
    let deps = Deps { link, keys, pool, sealer, archive, models: insightforge_analyzer::card::built_in(), inspection };
    let ready = Ready::default();
    boot::serve_health(args.metrics_addr, metrics, ready.clone()).await?;
    let listening = move |addr: SocketAddr| {
        ready.set(true);
        tracing::info!(%addr, "listening");
    };
    insightforge_api::run(config, deps, listening, shutdown).await?;
    logging.end().await;
    Ok(ExitCode::SUCCESS)
}

/// What doctor looks at, over connections that no caller waits for.
fn inspection(args: &ApiArgs, link: &Link) -> anyhow::Result<Inspection> {
    let build = Build {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    };
    let (redis, archive, link) = (args.redis.clone(), args.archive.clone(), link.sibling());
    let pool = args.database.reading_pool(2)?;
    let look = move || {
        let (redis, archive, link, pool) = (redis.clone(), archive.clone(), link.clone(), pool.clone());
        Box::pin(async move { doctor::look(&redis, &link, &pool, &archive).await }) as BoxFuture<'static, _>
    };
    Ok(Inspection { build, settings: settings::of_this_process(), look: Arc::new(look) })
}
