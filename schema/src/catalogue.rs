//! Which models exist, and which analyzers are alive: announcements that analyzers refresh and everybody may read.
//! Nothing depends on them for correctness; they answer "what can I ask for?" and "is anybody there?".

use serde::{Deserialize, Serialize};

use crate::event::now_us;
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};

/// An analyzer that has not been seen for this long counts as gone, in milliseconds.
pub const WORKER_GONE_MS: i64 = 30_000;

/// What callers may know of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    pub task_type: String,
    pub version: String,
    /// The name that results carry as `model_info`.
    pub name: String,
    pub description: String,
    /// BCP 47 language tags.
    pub languages: Vec<String>,
    /// What is known to go wrong with it.
    pub limits: String,
    /// JSON Schema (2020-12) of the input document and of the result.
    pub input_schema: serde_json::Value,
    pub output_schema: serde_json::Value,
}

impl ModelCard {
    /// The lane that carries its tasks.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::new(&self.task_type, &self.version)
    }
}

/// An analyzer process as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// `<host>-<pid>-<random>`; a new one at every start.
    pub name: String,
    /// Lanes it serves, written `<task type>:<version>`.
    pub lanes: Vec<String>,
    pub in_flight: u32,
    /// Milliseconds since 1970-01-01 UTC: when it started, when it last took a task, when it last reported.
    pub started_ms: i64,
    pub last_read_ms: i64,
    pub seen_ms: i64,
}

/// Announces models. Cards of versions that no one announces any more stay known: their tasks wait for an analyzer.
///
/// # Errors
/// See [`LinkError`].
pub async fn announce_models(link: &Link, keys: &Keys, cards: &[ModelCard]) -> Result<(), LinkError> {
    let mut command = redis::cmd("HSET");
    command.arg(keys.models());
    for card in cards {
        let json = serde_json::to_string(card).expect("a card is plain data");
        command.arg(card.lane().to_string()).arg(json);
    }
    if cards.is_empty() { Ok(()) } else { link.query(&command).await }
}

/// All announced models, by type and version.
///
/// # Errors
/// See [`LinkError`].
pub async fn models(link: &Link, keys: &Keys) -> Result<Vec<ModelCard>, LinkError> {
    let cards: Vec<String> = link.query(redis::cmd("HVALS").arg(keys.models())).await?;
    let mut cards: Vec<ModelCard> = cards.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
    cards.sort_by(|a, b| (&a.task_type, &a.version).cmp(&(&b.task_type, &b.version)));
    Ok(cards)
}

/// Reports an analyzer as alive.
///
/// # Errors
/// See [`LinkError`].
pub async fn report(link: &Link, keys: &Keys, worker: &Worker) -> Result<(), LinkError> {
    let json = serde_json::to_string(worker).expect("a worker is plain data");
    link.query(redis::cmd("HSET").arg(keys.workers()).arg(&worker.name).arg(json)).await
}

/// Takes an analyzer off the list, at its orderly end.
///
/// # Errors
/// See [`LinkError`].
pub async fn sign_off(link: &Link, keys: &Keys, worker_name: &str) -> Result<(), LinkError> {
    link.query(redis::cmd("HDEL").arg(keys.workers()).arg(worker_name)).await
}

/// The analyzers seen lately. Those gone for a day are taken off the list on the way.
///
/// # Errors
/// See [`LinkError`].
pub async fn workers(link: &Link, keys: &Keys) -> Result<Vec<Worker>, LinkError> {
    let listed: Vec<String> = link.query(redis::cmd("HVALS").arg(keys.workers())).await?;
    let now_ms = now_us() / 1_000;
    let (alive, gone): (Vec<Worker>, Vec<Worker>) = listed
        .iter()
        .filter_map(|json| serde_json::from_str::<Worker>(json).ok())
        .partition(|worker| now_ms - worker.seen_ms < WORKER_GONE_MS);
    for worker in gone.iter().filter(|worker| now_ms - worker.seen_ms > 86_400_000) {
        sign_off(link, keys, &worker.name).await?;
    }
    Ok(alive)
}
