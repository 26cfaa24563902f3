//! Packages made of fixtures, in folders of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use insightforge_inference::{Loaded, OpenError, OpenOptions, Package, open};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The backends that were built in.
pub(crate) const BACKENDS: &[&str] = &[
    #[cfg(feature = "onnx")]
    "onnx",
    #[cfg(feature = "ort")]
    "onnxruntime",
];

/// A package on its way.
pub(crate) struct Draft {
    files: Vec<(String, Vec<u8>)>,
    /// What stands in the manifest beside what every manifest has.
    manifest: String,
    runtime: String,
    labels: Vec<String>,
}

impl Draft {
    /// Of a fixture's files; `section` is the manifest from `[onnx]` on.
    pub(crate) fn new(fixture: &str, section: &str) -> Self {
        let mut draft =
            Self { files: Vec::new(), manifest: section.to_owned(), runtime: String::new(), labels: Vec::new() };
        for name in ["model.onnx", "tokenizer.json"] {
            if let Ok(content) = std::fs::read(fixture_file(fixture, name)) {
                draft.files.push((name.to_owned(), content));
            }
        }
        draft
    }

    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.retain(|(known, _)| known != name);
        self.files.push((name.to_owned(), content.to_vec()));
        self
    }

    pub(crate) fn labels(mut self, labels: &[&str]) -> Self {
        self.labels = labels.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn runtime(mut self, lines: &str) -> Self {
        self.runtime = lines.to_owned();
        self
    }

    pub(crate) fn open(&self, backend: &str) -> Result<Loaded, OpenError> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let write =
            |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("it can be written");
        for (name, content) in &self.files {
            write(name, content);
        }
        let hashes: String = self
            .files
            .iter()
            .map(|(name, content)| format!("\"{name}\" = \"{}\"\n", hex::encode(Sha256::digest(content))))
            .collect();
        let manifest = format!(
            "format = 1\ntask_type = \"fixture\"\nversion = \"v1\"\nname = \"Fixture\"\n\
             [runtime]\nbackend = \"{backend}\"\nisolation = \"none\"\nmemory_mb = 64\n{}\n[files]\n{hashes}\n\
             [input]\nschema = {{ type = \"object\" }}\nmax_chars = 5000\n[output]\nschema = {{ type = \"object\" }}\n\
             labels = {:?}\n[batch]\ncost = \"tokens\"\n{}",
            self.runtime, self.labels, self.manifest
        );
        write("model.toml", manifest.as_bytes());
        let package = Arc::new(Package::read(folder.path())?);
        open(package, &options())
    }

    /// Opens it, or says why it cannot be.
    pub(crate) fn loaded(&self, backend: &str) -> Loaded {
        self.open(backend).unwrap_or_else(|error| panic!("{backend}: {error}"))
    }

    /// Why it cannot be opened.
    pub(crate) fn refusal(&self, backend: &str) -> String {
        match self.open(backend) {
            Ok(_) => panic!("{backend}: it was opened"),
            Err(error) => error.to_string(),
        }
    }
}

/// The document's answer.
pub(crate) fn ask(loaded: &Loaded, document: &Value) -> Value {
    ask_all(loaded, std::slice::from_ref(document)).remove(0)
}

/// The answers of documents in one batch.
pub(crate) fn ask_all(loaded: &Loaded, documents: &[Value]) -> Vec<Value> {
    let prepared: Vec<_> =
        documents.iter().map(|document| loaded.prepare(document).unwrap_or_else(|error| panic!("{error}"))).collect();
    let answers = loaded.infer(&prepared);
    let read = |answer: String| serde_json::from_str(&answer).expect("an answer is JSON");
    answers.into_iter().map(|it| read(it.unwrap_or_else(|error| panic!("{error}")))).collect()
}

/// What ONNX Runtime said.
pub(crate) fn expected(fixture: &str) -> Value {
    let content = std::fs::read(fixture_file(fixture, "expected.json")).expect("the fixture is there");
    serde_json::from_slice(&content).expect("it is JSON")
}

pub(crate) fn cases(fixture: &str) -> Vec<Value> {
    expected(fixture)["cases"].as_array().expect("it has cases").clone()
}

/// All numbers in a value, in order.
pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(number) => vec![number.as_f64().expect("a number")],
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

pub(crate) fn assert_close(got: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (place, (got, expected)) in got.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!((got - expected).abs() <= allowed, "{what}: number {place} is {got}, expected {expected}");
    }
}

fn options() -> OpenOptions {
    OpenOptions { onnxruntime: library(), ..OpenOptions::default() }
}

/// The library to test with; only tests of the backend `onnxruntime` need one.
fn library() -> Option<PathBuf> {
    std::env::var_os("INSIGHTFORGE_TEST_ONNXRUNTIME").map(PathBuf::from)
}

fn fixture_file(fixture: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(fixture).join(name)
}
