//! Models: what answers an input document with a result document.
//!
//! The pipeline knows [`Model`] and [`Registry`] only. Every task type and version is one value behind the trait, so a
//! trained model takes the same place as the built-in word lists and rules.

pub mod text;

mod entities;
mod fold;
mod sentiment;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

use insightforge_schema::catalogue::ModelCard;
use insightforge_schema::keys::Lane;

/// One model version. Synchronous and batch-first; called off the async executor.
pub trait Model: Send + Sync + 'static {
    /// What callers may know of this version. It is the same for the life of the value.
    fn card(&self) -> &ModelCard;

    /// Answers each input, in order: exactly one answer an input. `inputs` are the callers' documents (JSON text);
    /// an `Ok` answer is the result document as JSON text.
    fn infer(&self, inputs: &[&str]) -> Vec<Result<String, InferError>>;
}

/// Why an input has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct InferError {
    /// For programs, such as `bad_input`.
    pub code: &'static str,
    /// For people: what is wrong, and where (a JSON pointer). Never the text itself.
    pub message: String,
    /// Another try with the same input would end the same way.
    pub permanent: bool,
}

/// The model versions this process serves, by lane. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    models: Arc<BTreeMap<Lane, Arc<dyn Model>>>,
}

impl Registry {
    /// A registry of `models`; of two with the same lane the later one counts.
    #[must_use]
    pub fn new(models: Vec<Arc<dyn Model>>) -> Self {
        Self { models: Arc::new(models.into_iter().map(|model| (model.card().lane(), model)).collect()) }
    }

    /// The models that come with the program.
    #[must_use]
    pub fn built_in() -> Self {
        Self::new(vec![Arc::new(sentiment::Sentiment::new()), Arc::new(entities::Entities::new())])
    }

    /// What it serves, in order of task type and version.
    #[must_use]
    pub fn lanes(&self) -> Vec<Lane> {
        self.models.keys().cloned().collect()
    }

    #[must_use]
    pub fn get(&self, lane: &Lane) -> Option<Arc<dyn Model>> {
        self.models.get(lane).cloned()
    }

    /// The cards of all models, in order of task type and version.
    #[must_use]
    pub fn cards(&self) -> Vec<ModelCard> {
        self.models.values().map(|model| model.card().clone()).collect()
    }
}
