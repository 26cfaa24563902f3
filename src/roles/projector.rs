//! `insightforge projector`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use insightforge_projector::archive::Retention;
use insightforge_projector::check::CheckPlan;
use insightforge_projector::retain::RowsKeep;
use insightforge_projector::webhook::{Endpoint, Secret as WebhookSecret, WebhookConfig};
use insightforge_projector::{Config, Deps, Upkeep};
use insightforge_schema::address::AddressPolicy;

use super::{check_journal, check_tables, process_name};
use crate::boot::{self, Ready, RoleArgs};
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs, SealArgs, Secret};

/// Connections to the database: one folds, the others record deliveries and claim what is due.
const DATABASE_CONNECTIONS: u32 = 8;
/// The configured endpoint's name; it stands in `webhook-id` and in the outbox.
const ENDPOINT: &str = "default";
/// The fewest events of a partition that can be kept in Redis.
const LEAST_KEPT: u64 = 1_000;
/// A shorter key of an HMAC can be guessed.
const SECRET_BYTES: usize = 16;

#[derive(clap::Args)]
pub(crate) struct ProjectorArgs {
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
    /// Serves /metrics, /livez and /readyz
    #[arg(long, env = "INSIGHTFORGE_METRICS_ADDR", default_value = "127.0.0.1:9466")]
    metrics_addr: SocketAddr,
    /// Events folded in one transaction at most
    #[arg(long, env = "INSIGHTFORGE_BATCH_EVENTS", default_value_t = 4_000)]
    batch_events: usize,
    /// Replicas of Redis that must have an event before it is folded (`WAIT`), so that the tables are never ahead of what a
    /// failover leaves. The same value for api and projector
    #[arg(long, env = "INSIGHTFORGE_MIN_REPLICAS_ACK", default_value_t = 0)]
    min_replicas_ack: u32,
    /// Events of a partition that stay in Redis at least; older ones leave it once they are in the archive
    #[arg(long, env = "INSIGHTFORGE_JOURNAL_KEEP", default_value_t = 50_000)]
    journal_keep: u64,
    /// Days that rows of ended tasks stay in the tables; 0: for ever. Dead letters stay
    #[arg(long, env = "INSIGHTFORGE_ROWS_KEEP_DAYS", default_value_t = 0)]
    rows_keep_days: u32,
    /// Days that made and given up webhooks stay in the tables; 0: for ever
    #[arg(long, env = "INSIGHTFORGE_DELIVERIES_KEEP_DAYS", default_value_t = 30)]
    deliveries_keep_days: u32,
    /// Days that dead letters stay on their list; older ones are purged, each by an event. 0: for ever
    #[arg(long, env = "INSIGHTFORGE_LETTERS_KEEP_DAYS", default_value_t = 0)]
    letters_keep_days: u32,
    /// Seconds between two comparisons of a sample with the journal; 0: there are none
    #[arg(long, env = "INSIGHTFORGE_CHECK_EVERY_S", default_value_t = 300)]
    check_every_s: u32,
    /// Tasks of such a sample
    #[arg(long, env = "INSIGHTFORGE_CHECK_TASKS", default_value_t = 200)]
    check_tasks: u32,
    /// Told of every task that ended
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_URL", hide_env_values = true, requires = "webhook_secret")]
    webhook_url: Option<Secret>,
    /// Signs what is sent to INSIGHTFORGE_WEBHOOK_URL; at least 16 bytes, or `whsec_` and base64
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_SECRET", hide_env_values = true)]
    webhook_secret: Option<Secret>,
    /// Deliveries in flight at once, in total
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_CONCURRENCY", default_value_t = 256)]
    webhook_concurrency: usize,
    /// Deliveries in flight at once to one endpoint
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_PER_ENDPOINT", default_value_t = 64)]
    webhook_per_endpoint: usize,
    /// Milliseconds that an attempt may take, from the first byte of DNS to the last of the answer
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_TIMEOUT_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    webhook_timeout_ms: u32,
    /// Milliseconds that a webhook belongs to the projector that took it; at least twice the timeout. When it dies, others
    /// send what it had after this time
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_LEASE_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1_000..=3_600_000))]
    webhook_lease_ms: u32,
    /// Networks that callers' webhooks may reach beside public addresses, such as 172.16.0.0/12, separated by commas. The
    /// same value for api and projector
    #[arg(long, env = "INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", default_value = "")]
    webhook_allow_cidrs: String,
}

pub(crate) async fn projector(args: ProjectorArgs) -> anyhow::Result<ExitCode> {
    let logging = args.role.start_logging("projector")?;
    args.role.check_listener("INSIGHTFORGE_METRICS_ADDR", args.metrics_addr)?;
    let webhook = webhook_config(&args)?;
    ensure!(
        args.journal_keep >= LEAST_KEPT,
        "INSIGHTFORGE_JOURNAL_KEEP is {}: with fewer than {LEAST_KEPT} events, tasks that have just ended would be looked for \
         in the archive",
        args.journal_keep
    );
    let archive = args.archive.archive(&args.redis)?;
    let sealer = args.seal.sealer()?;
    let shutdown = boot::shutdown_on_signal()?;
    let (link, keys) = (args.redis.link()?.confirmed_by(args.min_replicas_ack), args.redis.keys());
    let pool = args.database.pool(DATABASE_CONNECTIONS)?;
    let partitions = check_journal(&args.redis, &link).await?;
    check_tables(&pool).await?;
    let metrics = boot::start_metrics()?;
    insightforge_projector::describe_metrics();

    let seconds = |count: u64| (count > 0).then(|| Duration::from_secs(count));
    let days = |count: u32| seconds(u64::from(count) * 86_400);
    let upkeep = Upkeep {
        journal: Retention::keeping(args.journal_keep),
        rows: RowsKeep { tasks: days(args.rows_keep_days), deliveries: days(args.deliveries_keep_days) },
        letters: days(args.letters_keep_days),
        check: CheckPlan { every: seconds(args.check_every_s.into()), tasks: args.check_tasks.into() },
    };
    let config = Config { partitions, owner: process_name()?, batch_events: args.batch_events, webhook, upkeep };
    let ready = Ready::default();
    boot::serve_health(args.metrics_addr, metrics, ready.clone()).await?;
    ready.set(true);
    insightforge_projector::run(config, Deps { link, keys, pool, sealer, archive }, shutdown).await?;
    logging.end().await;
    Ok(ExitCode::SUCCESS)
}

fn webhook_config(args: &ProjectorArgs) -> anyhow::Result<WebhookConfig> {
    let timeout = Duration::from_millis(args.webhook_timeout_ms.into());
    let usual = WebhookConfig::default();
    let mut config = WebhookConfig {
        connect_timeout: usual.connect_timeout.min(timeout),
        total_timeout: timeout,
        lease: Duration::from_millis(args.webhook_lease_ms.into()),
        concurrency: args.webhook_concurrency,
        per_endpoint: args.webhook_per_endpoint,
        addresses: AddressPolicy::parse(&args.webhook_allow_cidrs).context("INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS")?,
        ..usual
    };
    if let (Some(url), Some(secret)) = (&args.webhook_url, &args.webhook_secret) {
        if secret.reveal().len() < SECRET_BYTES {
            bail!("INSIGHTFORGE_WEBHOOK_SECRET has fewer than {SECRET_BYTES} bytes");
        }
        config.endpoints.push(Endpoint {
            name: ENDPOINT.to_owned(),
            url: url.reveal().to_owned(),
            secret: WebhookSecret::new(secret.reveal()),
            legacy_header: true,
        });
    }
    config.check().context("webhook settings")?;
    Ok(config)
}
