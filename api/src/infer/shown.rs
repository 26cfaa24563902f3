//! What the door keeps of each model version it has shown: everything that does not change from answer to answer.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use insightforge_inference::store::{Served, Store};
use serde_json::json;

use super::figures::Figures;
use super::oip::Shape;
use crate::document::InputSchema;

/// One package, by its digest.
pub(super) struct Shown {
    pub(super) figures: Figures,
    pub(super) shape: Shape,
    pub(super) input: InputSchema,
    /// Members that every answer has: JSON without the braces around it.
    pub(super) members: String,
    /// The same that concern the package, for the protocol's `parameters`.
    pub(super) parameters: String,
}

/// By digest; read without a lock.
#[derive(Default)]
pub(super) struct ShownModels(ArcSwap<HashMap<String, Arc<Shown>>>);

impl ShownModels {
    pub(super) fn of(&self, served: &Served, store: &Store) -> Arc<Shown> {
        if let Some(shown) = self.0.load().get(served.digest()) {
            return shown.clone();
        }
        let shown = Arc::new(Shown::of(served));
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            // Those that are gone are forgotten on the way.
            let served_now = store.served();
            known.retain(|digest, _| served_now.iter().any(|it| it.digest() == digest));
            known.insert(served.digest().to_owned(), shown.clone());
            known
        });
        shown
    }
}

impl Shown {
    fn of(served: &Served) -> Self {
        let manifest = served.manifest();
        let (task_type, version) = (&manifest.task_type, &manifest.version);
        let members = json!({ "task_type": task_type, "model_version": version }).to_string();
        let package = json!({ "model_digest": served.digest(), "backend": served.runs_on().engine }).to_string();
        let inside = |object: &str| object[1..object.len() - 1].to_owned();
        Self {
            figures: Figures::of(task_type, version),
            input: InputSchema::outline(served.input_schema()),
            shape: Shape::of(served.input_schema(), served.output_schema()),
            members: format!("{},{}", inside(&members), inside(&package)),
            parameters: inside(&package),
        }
    }
}
