//! What every command needs before its work begins: a runtime, a TLS provider, logs, signals; and for the roles, the
//! listener for metrics and health.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use clap::{Args, ValueEnum};
use insightforge_schema::fail;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::Secret;
use crate::log;

/// Runs a command on a fresh runtime with so many threads; an error is printed once, here.
pub(crate) fn run(worker_threads: NonZeroUsize, command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    end_quietly_when_nobody_reads();
    rustls::crypto::ring::default_provider().install_default().expect("no other provider was installed before");
    if fail::COMPILED
        && let Ok(plan) = std::env::var("INSIGHTFORGE_FAIL_AT")
    {
        fail::arm(&plan).expect("INSIGHTFORGE_FAIL_AT");
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(worker_threads.get()).enable_all().build().expect("the runtime can start");
    let result = runtime.block_on(command);
    // A thread stuck in a model must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result.unwrap_or_else(|error| {
        eprintln!("insightforge: {error:#}");
        ExitCode::FAILURE
    })
}

/// The exit code of a program that a broken pipe has ended, as shells count it.
const NOBODY_READS: i32 = 128 + 13;

/// Who reads what a command prints may stop, as `head` does: then the command ends without a word, as other programs do. The
/// standard library makes a panic of it.
fn end_quietly_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload_as_str().unwrap_or_default();
        if said.starts_with("failed printing to stdout") && said.contains("Broken pipe") {
            std::process::exit(NOBODY_READS);
        }
        usual(panic);
    }));
}

/// Logging and the health listener of a role.
#[derive(Args, Clone, Debug)]
pub(crate) struct RoleArgs {
    /// Log filter, as `RUST_LOG` is written
    #[arg(long, env = "INSIGHTFORGE_LOG", default_value = "info")]
    log: String,
    /// `text` for people, `json` for collectors
    #[arg(long, env = "INSIGHTFORGE_LOG_FORMAT", value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Listen beyond loopback although callers need no key yet (a container's network, say)
    #[arg(long, env = "INSIGHTFORGE_ALLOW_NON_LOOPBACK", default_value_t = false)]
    pub(crate) allow_non_loopback: bool,
    /// Threads that serve requests, events and deliveries (models have their own); half the machine's cores unless given:
    /// a thread that is woken for every message costs more than it brings
    #[arg(long, env = "INSIGHTFORGE_WORKER_THREADS")]
    worker_threads: Option<NonZeroUsize>,
    /// Where spans go: an OpenTelemetry collector's OTLP/HTTP address, such as http://127.0.0.1:4318. None are told without
    /// one, or by a program that was built without the feature `otel`
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<Url>,
    /// Headers for the collector: `name=value,name=value`
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true)]
    otlp_headers: Option<Secret>,
    /// Share of traces that are kept, from 0 to 1, of those whose caller has not decided
    #[arg(long, env = "INSIGHTFORGE_TRACE_SHARE", default_value_t = 1.0, value_parser = share)]
    trace_share: f64,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "must be from 0 to 1".to_owned())
}

/// The machine's cores, as far as this process may use them.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl RoleArgs {
    pub(crate) fn worker_threads(&self) -> NonZeroUsize {
        self.worker_threads.unwrap_or(NonZeroUsize::new(cores().get() / 2).unwrap_or(NonZeroUsize::MIN))
    }

    /// Starts logging to standard output, and telling of spans where a collector is given. `service` is the role.
    pub(crate) fn start_logging(&self, service: &'static str) -> anyhow::Result<log::Started> {
        let collector = self.otlp_endpoint.as_ref().map(|endpoint| log::Collector {
            endpoint: endpoint.clone(),
            headers: self.otlp_headers.as_ref().map_or("", Secret::reveal).to_owned(),
            share: self.trace_share,
        });
        log::start(&self.log, self.log_format, service, collector)
    }

    /// Refuses an address that others can reach, unless that was asked for: nothing authenticates callers yet.
    pub(crate) fn check_listener(&self, name: &str, addr: SocketAddr) -> anyhow::Result<()> {
        anyhow::ensure!(
            addr.ip().is_loopback() || self.allow_non_loopback,
            "{name} is {addr}, which others can reach, and callers need no key yet: \
             set INSIGHTFORGE_ALLOW_NON_LOOPBACK=true if a proxy or a private network protects it"
        );
        Ok(())
    }
}

/// How long a process that was told to stop may take, whatever Redis, the database, a model or a receiver does; a little
/// more than the longest orderly end of a role.
const LAST_MOMENT: Duration = Duration::from_millis(9_800);

/// Cancelled by SIGTERM or SIGINT. A process that has not ended by then, because a start or a step waits for a server that
/// does not answer, is ended: it holds nothing that a crash could lose.
pub(crate) fn shutdown_on_signal() -> anyhow::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let cancel = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        cancel.cancel();
        // A thread, not a task: it must not depend on the runtime.
        std::thread::spawn(|| {
            std::thread::sleep(LAST_MOMENT);
            tracing::error!("not stopped in time: ending the process");
            std::process::exit(1);
        });
    });
    Ok(token)
}

/// Bucket bounds in seconds: HTTP and database steps, and whole lives of tasks.
const STEP_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const LIFE_SECONDS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];
/// Answers of small models are counted in microseconds.
const INFER_SECONDS: &[f64] =
    &[0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];
const RATIOS: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Installs the recorder; the role describes its metrics afterwards.
pub(crate) fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("if_end_to_end_seconds".to_owned()), LIFE_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("if_queue_wait_seconds".to_owned()), LIFE_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("if_infer_duration_seconds".to_owned()), INFER_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("if_model_infer_seconds".to_owned()), INFER_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("if_model_queue_seconds".to_owned()), INFER_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), STEP_SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_ratio".to_owned()), RATIOS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), SIZES)?
        .install_recorder()?;
    #[cfg(feature = "otel")]
    crate::otel::describe_metrics();
    metrics::describe_gauge!("if_build_info", "Always 1; the label says which release runs");
    metrics::gauge!("if_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(handle)
}

/// Whether the role is ready for work; [`serve_health`] answers with it.
#[derive(Clone, Default)]
pub(crate) struct Ready(Arc<AtomicBool>);

impl Ready {
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// Serves `/metrics`, `/livez` and `/readyz` until the process ends.
pub(crate) async fn serve_health(addr: SocketAddr, metrics: PrometheusHandle, ready: Ready) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(addr)
        .await
        .with_context(|| format!("INSIGHTFORGE_METRICS_ADDR: cannot listen on {addr}"))?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        // Without upkeep the samples of histograms pile up in memory.
        let mut every = tokio::time::interval(Duration::from_secs(5));
        loop {
            every.tick().await;
            upkeep.run_upkeep();
        }
    });
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((metrics, ready));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

async fn readyz(State((_, ready)): State<(PrometheusHandle, Ready)>) -> impl IntoResponse {
    if ready.0.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

async fn render(State((metrics, _)): State<(PrometheusHandle, Ready)>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}
