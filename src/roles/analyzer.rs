//! `insightforge analyzer`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use insightforge_analyzer::{Config, Deps, Pattern};
use insightforge_api::infer;
use insightforge_api::serve::Listener;
use insightforge_inference::remote::Secrets;
use insightforge_inference::store::Apart;
use insightforge_inference::{OpenOptions, Opener, Store, StoreOptions};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::registry::{Registry, follow};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{check_journal, host_name, process_name};
use crate::boot::{self, Ready, RoleArgs};
use crate::config::RedisArgs;
use crate::mirrors::Mirrors;
use crate::model_host;

/// Between two looks of the synchronous door at the routes.
const ROUTES_EVERY: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
pub(crate) struct AnalyzerArgs {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    pub(crate) role: RoleArgs,
    /// Serves /metrics, /livez and /readyz
    #[arg(long, env = "INSIGHTFORGE_METRICS_ADDR", default_value = "127.0.0.1:9465")]
    metrics_addr: SocketAddr,
    /// Serves the synchronous door (`/api/infer`, `/v2/…`), to which the api passes requests on; without it there is none
    /// here
    #[arg(long, env = "INSIGHTFORGE_INFER_ADDR")]
    infer_addr: Option<SocketAddr>,
    /// How the api reaches that door, `host:port`; where it listens, or this host's name, unless given
    #[arg(long, env = "INSIGHTFORGE_INFER_ADVERTISE", requires = "infer_addr")]
    infer_advertise: Option<String>,
    /// Tasks of one type in flight at once
    #[arg(long, env = "INSIGHTFORGE_MAX_IN_FLIGHT", default_value_t = 256)]
    max_in_flight: usize,
    /// Folders with model packages beside those of the program (`<folder>/<task type>/<version>/model.toml`), separated by
    /// commas; looked at every two seconds. Or object stores (`s3://bucket/folder`, `gs://`, `az://`, `https://` with
    /// WebDAV), looked at every thirty seconds, with the credentials of AWS_…, GOOGLE_… and AZURE_… variables
    #[arg(long, env = "INSIGHTFORGE_MODELS", default_value = "")]
    models: String,
    /// Where packages of object stores are kept, in a folder of this process's own; a temporary one unless given
    #[arg(long, env = "INSIGHTFORGE_MODELS_CACHE")]
    models_cache: Option<PathBuf>,
    /// Who decides whether a model runs in a process of its own: its package, or always where its backend is `onnx` or
    /// `onnxruntime`
    #[arg(long, env = "INSIGHTFORGE_MODELS_ISOLATION", value_enum, default_value_t = ModelsIsolation::Package)]
    models_isolation: ModelsIsolation,
    /// Memory of all loaded models together, in MiB; those used least are unloaded and come back when asked
    #[arg(long, env = "INSIGHTFORGE_MODELS_MEMORY_MB", default_value_t = 512)]
    models_memory_mb: u64,
    /// The library of ONNX Runtime (`libonnxruntime.so`), for packages of the backend `onnxruntime`
    #[arg(long, env = "INSIGHTFORGE_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// The models to answer for, such as `sentiment_analysis:v1.0,text_classification`, separated by commas; all unless
    /// given
    #[arg(long, env = "INSIGHTFORGE_SERVE", default_value = "")]
    serve: String,
    /// Threads that compute at once, of all models together; the machine's cores unless given
    #[arg(long, env = "INSIGHTFORGE_INFERENCE_THREADS")]
    inference_threads: Option<NonZeroUsize>,
    /// A holder silent for this long loses its tasks to others, in milliseconds
    #[arg(long, env = "INSIGHTFORGE_LEASE_MS", default_value_t = 15_000)]
    lease_ms: u64,
    /// One call of a model; longer counts as hung, in milliseconds
    #[arg(long, env = "INSIGHTFORGE_TASK_TIMEOUT_MS", default_value_t = 120_000)]
    task_timeout_ms: u64,
    /// Attempts a task has before it is failed and dead-lettered
    #[arg(long, env = "INSIGHTFORGE_MAX_ATTEMPTS", default_value_t = 3)]
    max_attempts: u32,
    /// Bound of the random delay before the second attempt, in milliseconds; doubles with each further one
    #[arg(long, env = "INSIGHTFORGE_BACKOFF_BASE_MS", default_value_t = 1_000)]
    backoff_base_ms: u64,
    /// Bound of the random delay before any attempt, in milliseconds
    #[arg(long, env = "INSIGHTFORGE_BACKOFF_CAP_MS", default_value_t = 60_000)]
    backoff_cap_ms: u64,
    /// How long a stopping analyzer goes on with what it has in flight before it hands the rest back, in milliseconds
    #[arg(long, env = "INSIGHTFORGE_DRAIN_MS", default_value_t = 8_000)]
    drain_ms: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModelsIsolation {
    Package,
    Process,
}

pub(crate) async fn analyzer(args: AnalyzerArgs) -> anyhow::Result<ExitCode> {
    let logging = args.role.start_logging("analyzer")?;
    args.role.check_listener("INSIGHTFORGE_METRICS_ADDR", args.metrics_addr)?;
    if let Some(addr) = args.infer_addr {
        args.role.check_listener("INSIGHTFORGE_INFER_ADDR", addr)?;
    }
    let shutdown = boot::shutdown_on_signal()?;
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    let partitions = check_journal(&args.redis, &link).await?;
    let metrics = boot::start_metrics()?;
    insightforge_analyzer::describe_metrics();
    infer::describe_metrics();

    let mirrors = Mirrors::open(parts(&args.models), args.models_cache.as_deref())?;
    let store = store(&args, mirrors.folders())?;
    let listener = match args.infer_addr {
        Some(addr) => Some(Listener::bind(addr).await.context("INSIGHTFORGE_INFER_ADDR")?),
        None => None,
    };
    let config = Config {
        partitions,
        worker_name: process_name()?,
        max_in_flight: args.max_in_flight,
        lease_ms: args.lease_ms,
        task_timeout_ms: args.task_timeout_ms,
        max_attempts: args.max_attempts,
        backoff_base_ms: args.backoff_base_ms,
        backoff_cap_ms: args.backoff_cap_ms,
        serve: patterns(&args.serve)?,
        infer_addr: listener.as_ref().map(|listener| advertised(&args, listener.addr())).transpose()?,
        drain_ms: args.drain_ms,
    };
    let ready = Ready::default();
    boot::serve_health(args.metrics_addr, metrics, ready.clone()).await?;
    let mirroring = tokio::spawn(mirrors.run(shutdown.clone()));
    let closing = shutdown.child_token();
    let door = listener.map(|listener| tokio::spawn(door(listener, &link, &keys, &store, closing.clone())));
    let outcome = insightforge_analyzer::run(config, Deps { link, keys, store }, || ready.set(true), shutdown).await;
    closing.cancel();
    if let Some(door) = door {
        door.await.context("the synchronous door")?;
    }
    outcome?;
    // Tasks that were drained may have loaded from their folders until here.
    drop(mirroring.await);
    logging.end().await;
    Ok(ExitCode::SUCCESS)
}

/// The synchronous door, with routes of its own: what an operator changes holds there within a second too.
fn door(
    listener: Listener,
    link: &Link,
    keys: &Keys,
    store: &Arc<Store>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    tracing::info!(addr = %listener.addr(), "listening for questions");
    let (sender, routes) = watch::channel(Arc::default());
    tokio::spawn(follow(Registry::new(link.clone(), keys.clone()), ROUTES_EVERY, sender));
    let deps = infer::Deps { store: store.clone(), routes, version: env!("CARGO_PKG_VERSION") };
    infer::serve(listener, deps, shutdown)
}

/// How the api reaches the door: an address that stands for all of this host's says nothing to others.
fn advertised(args: &AnalyzerArgs, addr: SocketAddr) -> anyhow::Result<String> {
    match &args.infer_advertise {
        Some(given) => Ok(given.clone()),
        None if addr.ip().is_unspecified() => Ok(format!("{}:{}", host_name()?, addr.port())),
        None => Ok(addr.to_string()),
    }
}

/// The models: those of the program and those in `folders`.
fn store(args: &AnalyzerArgs, folders: Vec<PathBuf>) -> anyhow::Result<Arc<Store>> {
    ensure!(args.models_memory_mb > 0, "INSIGHTFORGE_MODELS_MEMORY_MB is 0: no model could ever be loaded");
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let options = OpenOptions { onnxruntime: args.onnxruntime.clone(), secrets: Secrets::of(variables) };
    Ok(Store::new(StoreOptions {
        built_in: true,
        folders,
        open: Arc::new(Opener {
            options,
            host: Some(model_host::command()?),
            apart: match args.models_isolation {
                ModelsIsolation::Package => Apart::AsPackaged,
                ModelsIsolation::Process => Apart::Foreign,
            },
        }),
        memory_bytes: args.models_memory_mb.saturating_mul(1 << 20),
        compute: args.inference_threads.unwrap_or_else(boot::cores).get(),
    }))
}

fn patterns(text: &str) -> anyhow::Result<Vec<Pattern>> {
    let pattern = |part: &str| {
        Pattern::parse(part)
            .with_context(|| format!("INSIGHTFORGE_SERVE: {part:?} is no `<task type>` or `<task type>:<version>`"))
    };
    parts(text).map(pattern).collect()
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
