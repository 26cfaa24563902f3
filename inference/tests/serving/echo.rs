//! A model that needs no training, and a way to open it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insightforge_inference::model::RunsOn;
use insightforge_inference::{
    InferError, Loaded, Model, Open, OpenError, Package, Payload, Prepared, Store, StoreOptions,
};
use serde_json::{Value, json};

/// What an [`Echo`] keeps in memory: as much as its manifest says it needs.
pub(crate) const BYTES: u64 = 64 << 20;

/// Answers `{"echo": <text>, "salt": <content of salt.txt>}`; some texts make it misbehave.
pub(crate) struct Echo {
    salt: String,
}

impl Model for Echo {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "echo".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        BYTES
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

/// Opens every package as an [`Echo`]; one whose salt is `hang` is never open.
pub(crate) struct Echoes;

impl Open for Echoes {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        let salt = String::from_utf8(package.file("salt.txt")?.into_owned()).expect("the salt is text");
        if salt == "hang" {
            loop {
                std::thread::park();
            }
        }
        let loaded = Loaded::new(package, Box::new(Echo { salt }))?;
        loaded.check()?;
        Ok(loaded)
    }
}

pub(crate) fn store(folders: Vec<PathBuf>, memory_bytes: u64) -> Arc<Store> {
    store_with(folders, memory_bytes, Arc::new(Echoes))
}

pub(crate) fn store_with(folders: Vec<PathBuf>, memory_bytes: u64, open: Arc<dyn Open>) -> Arc<Store> {
    Store::new(StoreOptions { built_in: false, folders, open, memory_bytes, compute: 2 })
}

/// Later than any test takes.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}
