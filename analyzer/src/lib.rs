//! Analyzers: consumer groups that run models. `processing`, then `completed` or `failed`.
//!
//! One task's way through, in reading order:
//!
//! 1. [`take`] – its reference is read off a lane, together with others.
//! 2. [`process`] – the pipe: `begin` (a `processing` event) → [`infer`] → [`judge`] → `end` (the outcome's event).
//! 3. [`model`] – what is asked.

pub mod config;
pub mod end;
pub mod infer;
pub mod judge;
pub mod model;
pub mod process;
pub mod take;
pub mod worker;

mod begin;
mod measure;
mod persist;
mod unroutable;

use std::time::Duration;

use insightforge_schema::link::LinkError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};
pub use measure::describe_metrics;
pub use worker::{Deps, Worker};

/// Why an analyzer ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the analyzer's settings contradict each other: {0}")]
    Config(#[from] ConfigError),
    #[error("the analyzer could not start: {0}")]
    Link(#[from] LinkError),
    #[error("a part of the analyzer ended by itself")]
    PartEnded,
}

/// Serves the registry's models until `shutdown` is cancelled.
///
/// # Errors
/// [`RunError`]; an outage of Redis is none once it runs.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), RunError> {
    let versions = deps.registry.lanes().len();
    config.check(versions)?;
    let worker = Worker::new(config, deps, shutdown.clone());
    take::create_groups(&worker, worker.lanes()).await?;
    let mut takers = JoinSet::new();
    for lanes in worker.shifts().into_values() {
        takers.spawn(take::Taker::new(worker.clone(), lanes).run());
    }
    tracing::info!(worker = worker.name(), lanes = worker.lanes().len(), "analyzing");
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = takers.join_next() => return Err(RunError::PartEnded),
    }
    worker.batches.close();
    let _ = tokio::time::timeout(Duration::from_millis(worker.config.drain_ms), worker.batches.wait()).await;
    Ok(())
}
