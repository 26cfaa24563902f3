//! The sections `[onnx]` and `[trees]` of `model.toml`: what goes into the graph and what is made of what comes out.
//!
//! ```toml
//! [onnx]
//! file = "model.onnx"
//! data = ["model.onnx.data"]              # weights the graph keeps in files beside it
//! output = "logits"                       # which output is the answer; needed when there are several
//!
//! # A text model: anything BERT-like with a tokenizer.json (WordPiece, BPE, Unigram).
//! tokenizer = "tokenizer.json"
//! max_tokens = 128                        # of one window, special tokens included
//! overflow = "truncate"                   # a longer text: truncate | windows
//! stride = 32                             # tokens that neighbouring windows share
//! bind = { ids = "input_ids", mask = "attention_mask", type_ids = "token_type_ids" }   # where the names are unusual
//!
//! # Or a model of numbers: tables, series, images.
//! [[onnx.input]]
//! name = "x"                              # of the graph's input
//! from = "/features"                      # JSON pointer: nested arrays, or one flat array in row-major order
//! shape = ["batch", 3, "time"]            # see [`Dim`]; by default what the graph says, its first dimension the batch
//! scale = 0.00392156862745098             # a number x becomes x * scale + offset
//! offset = 0.0
//! missing = nan                           # what stands for null; without it null is refused
//!
//! [[onnx.input]]                          # or one column a field
//! name = "table"
//! columns = ["/age", "/income"]           # JSON pointers, in the document or in each element of `from`
//! missing = 0.0
//!
//! [onnx.postprocess]
//! kind = "classification"                 # multi_label | entities | embedding | regression | tensors
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::open::OpenError;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    pub(crate) file: String,
    #[serde(default)]
    pub(crate) data: Vec<String>,
    #[serde(default)]
    pub(crate) output: Option<String>,
    #[serde(default)]
    pub(crate) tokenizer: Option<String>,
    #[serde(default = "five_hundred_and_twelve")]
    pub(crate) max_tokens: usize,
    #[serde(default)]
    pub(crate) overflow: Overflow,
    #[serde(default)]
    pub(crate) stride: usize,
    #[serde(default)]
    pub(crate) bind: Bind,
    #[serde(default, rename = "input")]
    pub(crate) inputs: Vec<Input>,
    pub(crate) postprocess: Postprocess,
}

/// What becomes of a text that is longer than a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overflow {
    /// Its end is not read; the result says `truncated`.
    #[default]
    Truncate,
    /// It is read in several windows, which share `stride` tokens.
    Windows,
}

/// Names of a text model's inputs; what is absent is found by its usual names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bind {
    #[serde(default)]
    pub(crate) ids: Option<String>,
    #[serde(default)]
    pub(crate) mask: Option<String>,
    #[serde(default)]
    pub(crate) type_ids: Option<String>,
}

/// Where one of the graph's inputs comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Input {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) from: Option<String>,
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    #[serde(default)]
    pub(crate) shape: Vec<Dim>,
    #[serde(default)]
    pub(crate) missing: Option<f64>,
    #[serde(default = "unit")]
    pub(crate) scale: f64,
    #[serde(default)]
    pub(crate) offset: f64,
}

/// One dimension of an input.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Dim {
    Fixed(usize),
    /// `batch`: one document is one element, and documents go through together. `rows`: a document has any number of
    /// elements, each an answer of its own. Any other name: of any length. `batch` and `rows` can only come first;
    /// without either, documents go through one by one.
    Named(String),
}

/// What is made of the graph's output.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Postprocess {
    /// One of the labels.
    Classification(Classification),
    /// Any of the labels, each for itself.
    MultiLabel(MultiLabel),
    /// A label a token, in BIO or BIOES, and stretches of the text from those.
    Entities(Entities),
    /// A vector.
    Embedding(Embedding),
    /// A number, or several with the labels as their names.
    Regression(Regression),
    /// The outputs as they are.
    Tensors(Tensors),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Classification {
    #[serde(default)]
    pub(crate) scores: Scores,
    /// Logits are divided by it before the softmax.
    #[serde(default = "unit")]
    pub(crate) temperature: f64,
    /// For two labels: when the likelier has less than 0.5 + `neutral_band`, the answer is `neutral`.
    #[serde(default)]
    pub(crate) neutral_band: f64,
    #[serde(default = "neutral")]
    pub(crate) neutral: String,
    /// When the likeliest label has less than `below`, the answer is `label`.
    #[serde(default)]
    pub(crate) out_of_scope: Option<OutOfScope>,
    /// How many labels the result lists at most.
    #[serde(default = "ten")]
    pub(crate) top: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutOfScope {
    pub(crate) below: f64,
    #[serde(default = "out_of_scope")]
    pub(crate) label: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MultiLabel {
    #[serde(default)]
    pub(crate) scores: Scores,
    /// A label from this probability on is in the result.
    #[serde(default = "half")]
    pub(crate) threshold: f64,
}

/// What the output's numbers are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scores {
    #[default]
    Logits,
    Probabilities,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entities {
    #[serde(default)]
    pub(crate) words: Words,
    /// Other names for types; PER, LOC and ORG have theirs anyway.
    #[serde(default)]
    pub(crate) types: BTreeMap<String, String>,
}

/// Which tokens share the label of the first of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Words {
    /// Those of one word of the tokenizer, Chinese, Japanese and Korean characters each for itself.
    #[default]
    Tokenizer,
    /// Those between two spaces.
    Spaces,
    /// None: each token speaks for itself.
    Tokens,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Embedding {
    /// How an output a token becomes one; an output that has no token dimension is taken as it is.
    #[serde(default)]
    pub(crate) pooling: Pooling,
    /// To length 1.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pooling {
    /// The mean over all tokens.
    #[default]
    Mean,
    /// The first token's.
    Cls,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Regression {
    /// The result's digits after the point.
    #[serde(default = "six")]
    pub(crate) digits: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tensors {
    /// The outputs wanted; all by default.
    #[serde(default)]
    pub(crate) outputs: Vec<String>,
}

impl Section {
    /// What no graph is needed for to see that it cannot be.
    pub(crate) fn judge(&self, section: &str) -> Result<(), OpenError> {
        let wrong = |reason: String| Err(OpenError::Broken(format!("model.toml: [{section}]: {reason}")));
        if self.tokenizer.is_some() != self.inputs.is_empty() {
            return wrong("needs either tokenizer or [[input]]".to_owned());
        }
        if self.max_tokens < 3 || self.max_tokens > 100_000 {
            return wrong("max_tokens must be 3 to 100000".to_owned());
        }
        if self.stride >= self.max_tokens {
            return wrong("stride must be less than max_tokens".to_owned());
        }
        for input in &self.inputs {
            input.judge().or_else(|reason| wrong(format!("input {:?}: {reason}", input.name)))?;
        }
        self.postprocess.judge().or_else(|reason| wrong(format!("postprocess: {reason}")))
    }
}

impl Input {
    fn judge(&self) -> Result<(), String> {
        let pointers = self.from.iter().chain(&self.columns);
        if let Some(pointer) = pointers.into_iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            return Err(format!("{pointer:?} is no JSON pointer"));
        }
        if self.from.is_none() && self.columns.is_empty() {
            return Err("needs from or columns".to_owned());
        }
        if !self.columns.is_empty() && !self.shape.is_empty() {
            return Err("columns give the shape themselves".to_owned());
        }
        if !self.scale.is_finite() || !self.offset.is_finite() {
            return Err("scale and offset must be numbers".to_owned());
        }
        let later = self.shape.iter().skip(1);
        if later.into_iter().any(|dim| matches!(dim, Dim::Named(name) if name == "batch" || name == "rows")) {
            return Err("batch and rows can only be the first dimension".to_owned());
        }
        if self.shape.contains(&Dim::Fixed(0)) {
            return Err("a dimension must be at least 1".to_owned());
        }
        Ok(())
    }
}

impl Postprocess {
    fn judge(&self) -> Result<(), &'static str> {
        match self {
            Self::Classification(it) if !(it.temperature > 0.0 && it.temperature.is_finite()) => {
                Err("temperature must be greater than 0")
            }
            Self::Classification(it) if !(0.0..=0.5).contains(&it.neutral_band) => Err("neutral_band must be 0 to 0.5"),
            Self::Classification(it) if it.top == 0 => Err("top must be at least 1"),
            Self::Classification(it) if it.out_of_scope.as_ref().is_some_and(|it| !(0.0..=1.0).contains(&it.below)) => {
                Err("out_of_scope.below must be 0 to 1")
            }
            Self::MultiLabel(it) if !(0.0..=1.0).contains(&it.threshold) => Err("threshold must be 0 to 1"),
            Self::Regression(it) if it.digits > 15 => Err("digits must be 0 to 15"),
            _ => Ok(()),
        }
    }
}

fn five_hundred_and_twelve() -> usize {
    512
}

fn unit() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

fn ten() -> usize {
    10
}

fn six() -> u32 {
    6
}

fn yes() -> bool {
    true
}

fn neutral() -> String {
    "Neutral".to_owned()
}

fn out_of_scope() -> String {
    "out_of_scope".to_owned()
}
