//! Which models exist, and which analyzers are alive: announcements that analyzers refresh and everybody may read.
//! Nothing depends on them for correctness; they answer "what can I ask for?" and "is anybody there?".

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::now_us;
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::script::NOTE;

/// An analyzer that has not been seen for this long counts as gone, in milliseconds.
pub const WORKER_GONE_MS: i64 = 30_000;

/// What callers may know of a model: its card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// SHA-256 of the package's manifest, in hex; it names the whole package.
    #[serde(default)]
    pub digest: String,
    /// As the manifest names it, such as `linear` or `onnx`.
    #[serde(default)]
    pub backend: String,
    /// What runs it, such as `linear` or `rten 0.27`.
    #[serde(default)]
    pub engine: String,
    /// Where it runs: `cpu`, `cuda:0`, `remote`.
    #[serde(default)]
    pub device: String,
    /// Of the model's files (SPDX).
    #[serde(default)]
    pub license: String,
    /// How a result is shown to people: `labels`, `entities`, `table`, `series`, `vector`, `document`.
    #[serde(default)]
    pub draw: String,
    #[serde(default)]
    pub labels: Vec<String>,
    /// The command that made it.
    #[serde(default)]
    pub training: String,
    /// What it was trained on.
    #[serde(default)]
    pub data: Vec<DataSource>,
    /// What was measured of it, with the command that prints each figure.
    #[serde(default)]
    pub quality: Vec<QualityFigure>,
    /// What it is bad at, one sentence each.
    #[serde(default)]
    pub weaknesses: Vec<String>,
    /// Inputs a second on one core, and what an input was.
    #[serde(default)]
    pub speed: String,
    #[serde(default)]
    pub batch: BatchLimits,
    /// One call of the model, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
    /// The most memory its manifest lets it have, in MiB.
    #[serde(default)]
    pub memory_mb: u64,
    /// Memory it keeps while it is loaded, in bytes, as its backend counts it.
    #[serde(default)]
    pub resident_bytes: u64,
    /// Bytes of the package's files.
    #[serde(default)]
    pub package_bytes: u64,
    /// Questions of the package itself that this model answered as expected when it was loaded.
    #[serde(default)]
    pub checks_passed: u32,
    /// Why other packages under this type and version were refused while this one stays.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// Data a model was trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSource {
    pub name: String,
    pub source: String,
    pub license: String,
    #[serde(default)]
    pub used_for: String,
}

/// A measured figure, beside the one others state for the same set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityFigure {
    pub set: String,
    pub metric: String,
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<f64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub published_source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
}

/// What a model takes at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    pub max_items: u64,
    /// In the unit of `cost`.
    pub max_cost: u64,
    /// Inputs that may wait for it in one process.
    pub max_queue: u64,
    /// `chars`, `tokens`, `rows`, `items`.
    pub cost: String,
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
    /// Where its synchronous door is, as others reach it: `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infer_addr: Option<String>,
    /// What it holds attempts to. Analyzers of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// An analyzer's limits, for people who ask how long something can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A holder silent for this long loses its tasks.
    pub lease_ms: u64,
    /// Attempts before a task is failed for good.
    pub max_attempts: u32,
    /// One call of a model.
    pub task_timeout_ms: u64,
}

/// Announces models. Cards of versions that no one announces any more stay known: their tasks wait for an analyzer.
///
/// # Errors
/// See [`LinkError`].
pub async fn announce_models(link: &Link, keys: &Keys, cards: &[ModelCard]) -> Result<(), LinkError> {
    let mut notes = Vec::with_capacity(2 * cards.len());
    for card in cards {
        let json = serde_json::to_vec(card).expect("a card is plain data");
        notes.extend([Cow::Owned(card.lane().to_string().into_bytes()), Cow::Owned(json)]);
    }
    if cards.is_empty() { Ok(()) } else { link.eval::<i64>(&NOTE, &[keys.models()], &notes).await.map(|_| ()) }
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
    let json = serde_json::to_vec(worker).expect("a worker is plain data");
    let note = [Cow::Borrowed(worker.name.as_bytes()), Cow::Owned(json)];
    link.eval::<i64>(&NOTE, &[keys.workers()], &note).await.map(|_| ())
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
