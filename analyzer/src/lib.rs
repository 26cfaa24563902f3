//! Analyzers: consumer groups that run models. `processing`, then `completed` or `failed`.
//!
//! One task's way through, in reading order:
//!
//! 1. [`take`] – its reference is read off a lane, together with others.
//! 2. [`process`] – the pipe: `begin` (a `processing` event) → [`ask`] (which model, and its answer) → [`judge`] → [`end`]
//!    (the outcome's event).
//! 3. [`shadow`] – what was answered is put to the shadow versions too, beside.
//!
//! What is taken from follows the models and the routes: [`packages`] looks for model packages, [`follow`] reads the
//! registry, [`serve`] decides which lanes that makes.
//!
//! Beside it, one janitor a file: [`lease`] renews what runs for long, [`reap`] takes over from the silent,
//! [`move_due`] brings retries back, [`presence`] says who is there, [`waiting`] how much lies on the lanes; [`drain`] is the
//! orderly end.
//!
//! What is absent on purpose: nothing here reads or writes MySQL, and nothing appends an event but through a script that
//! checks that the attempt is still this process's.

pub mod agree;
pub mod ask;
pub mod card;
pub mod config;
pub mod drain;
pub mod end;
pub mod follow;
pub mod judge;
pub mod lease;
pub mod move_due;
pub mod packages;
pub mod presence;
pub mod process;
pub mod reap;
pub mod serve;
pub mod shadow;
pub mod take;
pub mod waiting;
pub mod worker;

mod begin;
mod duty;
mod measure;
mod told;
mod unroutable;
mod wait;

use std::collections::HashSet;
use std::sync::Arc;

use insightforge_schema::id::Partition;
use insightforge_schema::link::LinkError;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError, Pattern};
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

/// Serves the store's models until `shutdown` is cancelled, then drains; returns within ten seconds of that. `serving` is
/// told once others know what it has.
///
/// # Errors
/// [`RunError`]. An outage of Redis is none once it runs: it waits.
pub async fn run(
    config: Config,
    deps: Deps,
    serving: impl FnOnce(),
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    config.check(0)?;
    let worker = Worker::new(config, deps, &shutdown);
    packages::keep_to_settings(&worker).await;
    packages::look_within(&worker, packages::PATIENCE).await?;
    worker.config.check(most_lanes(&worker))?;
    presence::report(&worker).await?;
    serving();

    let (mut takers, mut shifts) = (JoinSet::new(), HashSet::new());
    let mut views = worker.views();
    spawn_takers(&worker, &mut shifts, &mut takers);
    let mut janitors = JoinSet::new();
    janitors.spawn(named("packages", packages::run(worker.clone())));
    janitors.spawn(named("follow", follow::run(worker.clone())));
    janitors.spawn(named("shadow", shadow::run(worker.clone())));
    janitors.spawn(named("lease", lease::run(worker.clone())));
    for partition in worker.config.partitions.iter() {
        janitors.spawn(named("reap", reap::run(worker.clone(), partition)));
        janitors.spawn(named("move_due", move_due::run(worker.clone(), partition)));
        janitors.spawn(named("waiting", waiting::run(worker.clone(), partition)));
    }
    janitors.spawn(presence::run(worker.clone()));
    let lanes = worker.view().lanes().count();
    tracing::info!(worker = worker.name(), lanes, models = worker.served().len(), takers = takers.len(), "analyzing");

    let outcome = loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break Ok(()),
            Some(ended) = takers.join_next() => break Err(RunError::PartEnded(format!("a taker: {ended:?}"))),
            Some(ended) = janitors.join_next() => {
                break Err(RunError::PartEnded(ended.unwrap_or_else(|panic| format!("a janitor: {panic}"))));
            }
            // The sender lives as long as the worker.
            _ = views.changed() => spawn_takers(&worker, &mut shifts, &mut takers),
        }
    };
    drain::drain(&worker, takers).await;
    outcome
}

/// A taker for each partition of each task type that has none yet. One whose task type has gone waits for its return.
fn spawn_takers(worker: &Arc<Worker>, shifts: &mut HashSet<(Partition, String)>, takers: &mut JoinSet<()>) {
    for (partition, task_type) in worker.shifts() {
        if shifts.insert((partition, task_type.clone())) {
            takers.spawn(take::Taker::new(worker.clone(), partition, &task_type).run());
        }
    }
}

async fn named(name: &'static str, janitor: impl Future<Output = ()>) -> String {
    janitor.await;
    name.to_owned()
}

/// The greatest number of lanes of one task type.
fn most_lanes(worker: &Worker) -> usize {
    worker.view().offers.values().map(Vec::len).max().unwrap_or(0)
}
