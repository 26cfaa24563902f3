//! Packages on disk, and a way to open them that needs no trained model.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insightforge_inference::model::RunsOn;
use insightforge_inference::{
    InferError, Loaded, Model, Open, OpenError, Package, Payload, Prepared, Store, StoreOptions,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Answers `{"echo": <text>, "salt": <content of salt.txt>}`; some texts make it misbehave.
pub(crate) struct Echo {
    salt: String,
}

impl Model for Echo {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "echo".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        1_000
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let text = document["text"].as_str().unwrap_or_default().to_owned();
        Ok(Prepared { cost: text.chars().count().max(1) as u32, payload: Payload::Text(text) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        batch
            .iter()
            .map(|input| {
                let Payload::Text(text) = &input.payload else { panic!("a text was prepared") };
                assert!(!text.starts_with("panic"), "asked to");
                if let Some(ms) = text.strip_prefix("sleep ") {
                    std::thread::sleep(Duration::from_millis(ms.trim().parse().unwrap()));
                }
                Ok(json!({"echo": text, "salt": self.salt, "batch": batch.len()}).to_string())
            })
            .collect()
    }
}

/// Opens every package as an [`Echo`].
pub(crate) struct Echoes;

impl Open for Echoes {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        let salt = String::from_utf8(package.file("salt.txt")?.into_owned()).expect("the salt is text");
        let loaded = Loaded::new(package, Box::new(Echo { salt }))?;
        loaded.check()?;
        Ok(loaded)
    }
}

pub(crate) fn store(folders: Vec<PathBuf>, memory_bytes: u64) -> Arc<Store> {
    Store::new(StoreOptions { built_in: false, folders, open: Arc::new(Echoes), memory_bytes, compute: 2 })
}

/// Writes a package whose one file is `salt`; `more` is appended to the section `[runtime]`, then to the manifest.
pub(crate) fn write_package(root: &Path, task_type: &str, version: &str, salt: &str, more: (&str, &str)) -> PathBuf {
    let folder = root.join(task_type).join(version);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("salt.txt"), salt).unwrap();
    std::fs::write(folder.join("model.toml"), manifest(task_type, version, salt, more)).unwrap();
    folder
}

pub(crate) fn manifest(task_type: &str, version: &str, salt: &str, (runtime, more): (&str, &str)) -> String {
    let hash = hex::encode(Sha256::digest(salt));
    format!(
        r#"
        format = 1
        task_type = "{task_type}"
        version = "{version}"
        name = "echo"
        [runtime]
        backend = "linear"
        memory_mb = 64
        {runtime}
        [files]
        "salt.txt" = "{hash}"
        [input]
        schema = {{ type = "object", required = ["text"], properties = {{ text = {{ type = "string" }} }} }}
        text = "/text"
        [output]
        schema = {{ type = "object" }}
        {more}
        [[check]]
        input = '{{"text": "hello"}}'
        expect = {{ echo = "hello" }}
        "#
    )
}

pub(crate) fn document(text: &str) -> String {
    json!({ "text": text }).to_string()
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
