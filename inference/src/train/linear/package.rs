//! A trained model as a package: a folder that serves as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::manifest::{Backend, Batch, Card, Cost, Device, Draw, FORMAT, Input, Manifest, Output, Runtime, Schema};
use crate::native::linear::file::{Head, LinearFile};
use crate::native::linear::sentiment::LABELS;
use crate::package::MANIFEST;
use crate::train::renew::{put, without_claims};

/// The file with the weights.
pub const WEIGHTS: &str = "linear.bin";
/// Characters a text may have.
const MAX_CHARS: usize = 20_000;

/// What a package is called, and what is known of how it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Naming {
    pub task_type: String,
    pub version: String,
    pub name: String,
    pub description: String,
    pub languages: Vec<String>,
    pub card: Card,
}

/// Why a package was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("{}: {error}", path.display())]
    Unwritable { path: PathBuf, error: std::io::Error },
    #[error("the manifest: {0}")]
    Manifest(String),
}

/// Writes `linear.bin` and, unless there is one that a person may have worked on, `model.toml`; in one that is there, the
/// file's hash is renewed, and what was said of other weights goes.
///
/// # Errors
/// [`WriteError`] names the file.
pub fn write(folder: &Path, naming: Naming, file: &LinearFile) -> Result<(), WriteError> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        |error| WriteError::Unwritable { path, error }
    };
    std::fs::create_dir_all(folder).map_err(unwritable(folder))?;
    let weights = file.write();
    let hash = hex::encode(Sha256::digest(&weights));
    let path = folder.join(WEIGHTS);
    put(&path, &weights).map_err(unwritable(&path))?;
    let path = folder.join(MANIFEST);
    let manifest = match std::fs::read_to_string(&path) {
        Ok(present) if present.contains(&hash) => present,
        Ok(present) => without_claims(&renewed(&present, &hash)?, Some(&naming.card.training)),
        Err(_) => {
            toml::to_string(&manifest(naming, file, hash)).map_err(|error| WriteError::Manifest(error.to_string()))?
        }
    };
    Manifest::parse(&manifest).map_err(|error| WriteError::Manifest(error.to_string()))?;
    put(&path, manifest.as_bytes()).map_err(unwritable(&path))
}

/// The manifest with another hash of the weights.
fn renewed(manifest: &str, hash: &str) -> Result<String, WriteError> {
    let start = format!("\"{WEIGHTS}\" = \"");
    let bare = format!("{WEIGHTS} = \"");
    let place =
        manifest.find(&start).map(|at| at + start.len()).or_else(|| manifest.find(&bare).map(|at| at + bare.len()));
    let place =
        place.filter(|place| manifest.is_char_boundary(place + hash.len()) && place + hash.len() <= manifest.len());
    let Some(place) = place else {
        return Err(WriteError::Manifest(format!("the model.toml that is there names no {WEIGHTS}")));
    };
    Ok([&manifest[..place], hash, &manifest[place + hash.len()..]].concat())
}

fn manifest(naming: Naming, file: &LinearFile, hash: String) -> Manifest {
    let output = match file.header.head {
        Head::Sentiment(_) => sentiment_schema(),
        Head::Labels(_) => labels_schema(&file.header.labels),
    };
    Manifest {
        format: FORMAT,
        task_type: naming.task_type,
        version: naming.version,
        name: naming.name,
        description: naming.description,
        languages: naming.languages,
        limits: String::new(),
        runtime: Runtime {
            backend: Backend::Linear,
            device: Device::Cpu,
            isolation: None,
            instances: 2,
            memory_mb: file.table.bytes().div_ceil(1 << 20) + 8,
            timeout_ms: 2_000,
        },
        files: BTreeMap::from([(WEIGHTS.to_owned(), hash)]),
        input: Input { schema: Schema::Here(input_schema()), text: Some("/text".to_owned()), max_chars: MAX_CHARS },
        output: Output { schema: Schema::Here(output), labels: file.header.labels.clone(), draw: Draw::Labels },
        batch: Batch { cost: Cost::Chars, ..Batch::default() },
        checks: Vec::new(),
        card: naming.card,
        linear: Some(toml::Table::from_iter([("weights".to_owned(), toml::Value::String(WEIGHTS.to_owned()))])),
        tagger: None,
        trees: None,
        onnx: None,
        oip: None,
        json_http: None,
    }
}

fn input_schema() -> Value {
    json!({
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_CHARS,
                "pattern": "\\S",
                "description": "What to analyse. Not blank."
            }
        },
        "additionalProperties": true,
        "description": "Members other than \"text\" are accepted and ignored."
    })
}

fn sentiment_schema() -> Value {
    json!({
        "type": "object",
        "required": ["sentiment", "score", "model_info"],
        "properties": {
            "sentiment": { "enum": LABELS },
            "score": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "How likely the label is: its entry in \"probabilities\"."
            },
            "probabilities": {
                "type": "object",
                "required": LABELS,
                "properties": { "Positive": share(), "Negative": share(), "Neutral": share() }
            },
            "language": {
                "enum": ["zh-Hant", "zh-Hans", "zh", "en", "und"],
                "description": "A BCP 47 tag, judged by the characters: Chinese in Traditional, Simplified or either script, English or another language of the Latin alphabet, or none of these."
            },
            "model_info": { "type": "string" }
        }
    })
}

fn labels_schema(labels: &[String]) -> Value {
    json!({
        "type": "object",
        "required": ["label", "score", "labels", "in_scope", "model_info"],
        "properties": {
            "label": { "enum": labels, "description": "The likeliest label." },
            "score": { "type": "number", "minimum": 0, "maximum": 1, "description": "How likely it is." },
            "labels": {
                "type": "array",
                "description": "The likeliest labels, in order.",
                "items": {
                    "type": "object",
                    "required": ["label", "score"],
                    "properties": { "label": { "type": "string" }, "score": share() }
                }
            },
            "in_scope": { "type": "boolean", "description": "Whether the text belongs to any of the labels." },
            "model_info": { "type": "string" }
        }
    })
}

fn share() -> Value {
    json!({ "type": "number", "minimum": 0, "maximum": 1 })
}
