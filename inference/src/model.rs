//! What every backend puts behind its models.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One opened model. Synchronous and batch-first; it is called on threads that may compute, never on an async executor's.
/// A call may come on several threads at once.
pub trait Model: Send + Sync + 'static {
    /// What runs it, for results, events and people.
    fn runs_on(&self) -> RunsOn;

    /// Memory it keeps while it is loaded, in bytes: what a memory budget counts.
    fn resident_bytes(&self) -> u64;

    /// Reads a document that satisfies the package's input schema: what inference needs of it, and what it costs.
    ///
    /// # Errors
    /// [`InferError`] when the document cannot be an input all the same; its message names the place by JSON pointer.
    fn prepare(&self, document: &Value) -> Result<Prepared, InferError>;

    /// Answers each prepared input, in order: exactly one answer an input. An `Ok` answer is the result document as JSON
    /// text.
    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>>;
}

/// The engine and the device that answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsOn {
    /// Such as `linear`, `rten 0.27`, `onnxruntime 1.32`, `oip-v2`.
    pub engine: String,
    /// `cpu`, `cuda:0`, `remote`.
    pub device: String,
}

/// An input as a model wants it. It can be sent to another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// What it counts against a batch's budget, in the unit the manifest names (tokens, characters, rows); at least 1.
    pub cost: u32,
    pub payload: Payload,
}

/// What is left of an input document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Payload {
    /// A text, as it was sent.
    Text(String),
    /// A tokenised text: one window or, when it was longer than a window and the manifest asks for it, several.
    Tokens { text: String, windows: Vec<Window> },
    /// Named tensors of one item, without the batch dimension.
    Tensors(Vec<Tensor>),
    /// The document itself, for a remote model.
    Document(Value),
}

/// Token ids of a stretch of text, special tokens included; not padded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    pub ids: Vec<u32>,
    pub type_ids: Vec<u32>,
    /// Where each token stands in the text, in bytes; `(0, 0)` for special tokens.
    pub offsets: Vec<(u32, u32)>,
    /// Which word of the tokenizer's each token is of; `None` for special tokens.
    pub words: Vec<Option<u32>>,
}

/// A tensor of one item, row-major.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub data: TensorData,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum TensorData {
    F32(Vec<f32>),
    I64(Vec<i64>),
    Text(Vec<String>),
}

/// Why an input has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{code}: {message}")]
pub struct InferError {
    /// For programs, such as `bad_input`.
    pub code: Cow<'static, str>,
    /// For people: what is wrong, and where (a JSON pointer). Never the text itself.
    pub message: String,
    /// Another try with the same input would end the same way.
    pub permanent: bool,
}

impl InferError {
    /// The document cannot be this model's input.
    #[must_use]
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed("bad_input"), message: message.into(), permanent: true }
    }

    /// The model answered what is no answer: a number that is none, a wrong shape, a label beyond its list.
    #[must_use]
    pub fn bad_output(message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed("bad_output"), message: message.into(), permanent: true }
    }

    /// The model could not be asked now; another try may end otherwise.
    #[must_use]
    pub fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Cow::Borrowed(code), message: message.into(), permanent: false }
    }
}
