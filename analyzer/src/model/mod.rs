//! Models made of word lists and rules: they answer where no package of the same name is part of the program.

pub mod text;

mod entities;
mod fold;
mod sentiment;
mod words;

use std::sync::Arc;

use insightforge_inference::model::RunsOn;
use insightforge_inference::{Loaded, OpenError, Package, Payload, Prepared, Store};
use insightforge_schema::catalogue::ModelCard;
use sha2::{Digest, Sha256};

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

/// Serves those models of word lists that no package replaces.
///
/// # Errors
/// [`OpenError`] when the system has no thread for one.
pub fn serve(store: &Store) -> Result<(), OpenError> {
    for model in remaining() {
        let package = Arc::new(package(model.card())?);
        store.serve(Loaded::new(package, Box::new(Lists(model)))?)?;
    }
    Ok(())
}

/// The cards of those models.
#[must_use]
pub fn cards() -> Vec<ModelCard> {
    remaining().iter().map(|model| model.card().clone()).collect()
}

fn remaining() -> Vec<Box<dyn Model>> {
    let packages: Vec<_> = insightforge_inference::store::built_in().into_iter().flatten().collect();
    let replaced = |card: &ModelCard| {
        packages.iter().any(|it| it.manifest.task_type == card.task_type && it.manifest.version == card.version)
    };
    let all: [Box<dyn Model>; 2] = [Box::new(sentiment::Sentiment::new()), Box::new(entities::Entities::new())];
    all.into_iter().filter(|model| !replaced(model.card())).collect()
}

fn package(card: &ModelCard) -> Result<Package, OpenError> {
    let schemas = [("input.json", card.input_schema.to_string()), ("output.json", card.output_schema.to_string())];
    let files: toml::Table =
        schemas.iter().map(|(name, text)| ((*name).to_owned(), hex::encode(Sha256::digest(text)).into())).collect();
    let manifest = toml::toml! {
        format = 1
        [runtime]
        backend = "linear"
        memory_mb = 16
        [input]
        schema = "input.json"
        text = "/text"
        [output]
        schema = "output.json"
    };
    let mut manifest = manifest;
    for (name, value) in [
        ("task_type", &card.task_type),
        ("version", &card.version),
        ("name", &card.name),
        ("description", &card.description),
        ("limits", &card.limits),
    ] {
        manifest.insert(name.to_owned(), value.clone().into());
    }
    manifest.insert("languages".to_owned(), card.languages.clone().into());
    manifest.insert("files".to_owned(), files.into());
    let [input, output] = schemas.map(|(name, text)| (name, leak(text)));
    let files = [("model.toml", leak(manifest.to_string())), input, output];
    Ok(Package::built_in(Box::leak(Box::new(files)))?)
}

/// Made once a process.
fn leak(text: String) -> &'static [u8] {
    text.leak().as_bytes()
}

struct Lists(Box<dyn Model>);

impl insightforge_inference::Model for Lists {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "word lists".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        1 << 20
    }

    fn prepare(&self, document: &serde_json::Value) -> Result<Prepared, insightforge_inference::InferError> {
        Ok(Prepared { cost: 1, payload: Payload::Document(document.clone()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, insightforge_inference::InferError>> {
        let document = |input: &Prepared| match &input.payload {
            Payload::Document(document) => document.to_string(),
            _ => String::new(),
        };
        let documents: Vec<String> = batch.iter().map(document).collect();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let error = |InferError { code, message, permanent }| insightforge_inference::InferError {
            code: code.into(),
            message,
            permanent,
        };
        self.0.infer(&documents).into_iter().map(|answer| answer.map_err(error)).collect()
    }
}
