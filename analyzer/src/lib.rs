//! Analyzers: consumer groups that run models. `processing`, then `completed` or `failed`.
//!
//! One task's way through, in reading order:
//!
//! 1. [`take`] – its reference is read off a lane, together with others.
//! 2. [`process`] – the pipe: `begin` (a `processing` event) → [`infer`] → [`judge`] → [`end`] (the outcome's event).
//! 3. [`model`] – what is asked.
//!
//! Beside it, one janitor a file: [`lease`] renews what runs for long, [`reap`] takes over from the silent,
//! [`move_due`] brings retries back, [`presence`] says who is there, [`waiting`] how much lies on the lanes; [`drain`] is the
//! orderly end.
//!
//! What is absent on purpose: nothing here reads or writes MySQL, and nothing appends an event but through a script that
//! checks that the attempt is still this process's.

pub mod config;
pub mod drain;
pub mod end;
pub mod infer;
pub mod judge;
pub mod lease;
pub mod model;
pub mod move_due;
pub mod presence;
pub mod process;
pub mod reap;
pub mod take;
pub mod waiting;
pub mod worker;

mod begin;
mod duty;
mod measure;
mod unroutable;
mod wait;

use std::collections::HashMap;

use insightforge_schema::link::LinkError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};
pub use measure::describe_metrics;
pub use worker::{Deps, Worker};

/// Why an analyzer ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the analyzer's settings cannot work: {0}")]
    Config(#[from] ConfigError),
    #[error("the analyzer could not start: {0}")]
    Link(#[from] LinkError),
    #[error("a part of the analyzer ended: {0}")]
    PartEnded(String),
}

/// Serves the registry's models until `shutdown` is cancelled, then drains; returns within ten seconds of that.
///
/// # Errors
/// [`RunError`]. An outage of Redis is none once it runs: it waits.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), RunError> {
    config.check(most_versions(&deps))?;
    let worker = Worker::new(config, deps, &shutdown);
    take::create_groups(&worker, worker.lanes()).await?;
    presence::report(&worker).await?;

    let mut takers = JoinSet::new();
    for lanes in worker.shifts().into_values() {
        takers.spawn(take::Taker::new(worker.clone(), lanes).run());
    }
    let mut janitors = JoinSet::new();
    janitors.spawn(named("lease", lease::run(worker.clone())));
    for partition in worker.config.partitions.iter() {
        janitors.spawn(named("reap", reap::run(worker.clone(), partition)));
        janitors.spawn(named("move_due", move_due::run(worker.clone(), partition)));
        janitors.spawn(named("waiting", waiting::run(worker.clone(), partition)));
    }
    janitors.spawn(presence::run(worker.clone()));
    tracing::info!(worker = worker.name(), lanes = worker.lanes().len(), takers = takers.len(), "analyzing");

    let outcome = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        Some(ended) = takers.join_next() => Err(RunError::PartEnded(format!("a taker: {ended:?}"))),
        Some(ended) = janitors.join_next() => {
            Err(RunError::PartEnded(ended.unwrap_or_else(|panic| format!("a janitor: {panic}"))))
        }
    };
    drain::drain(&worker, takers).await;
    outcome
}

async fn named(name: &'static str, janitor: impl Future<Output = ()>) -> String {
    janitor.await;
    name.to_owned()
}

/// The greatest number of versions one task type is served at.
fn most_versions(deps: &Deps) -> usize {
    let mut versions: HashMap<String, usize> = HashMap::new();
    for lane in deps.registry.lanes() {
        *versions.entry(lane.task_type).or_default() += 1;
    }
    versions.into_values().max().unwrap_or(0)
}
