//! Hashed n-grams and one linear layer: [`features`] makes places in a table of a text, [`table`] adds up what stands
//! there, [`file`] is how that is kept, [`sentiment`] and [`labels`] make an answer of the sums.

pub mod features;
pub mod file;
pub mod labels;
pub mod sentiment;
pub mod table;

use serde::Deserialize;
use serde_json::Value;

use self::features::{Extractor, Scratch};
use self::file::LinearFile;
use crate::manifest::Cost;
use crate::model::{InferError, Model, Payload, Prepared, RunsOn};
use crate::open::OpenError;
use crate::package::Package;

/// The `[linear]` section of `model.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// The file with the weights, see [`file`].
    pub weights: String,
    /// How many labels an answer lists, the likeliest first; a sentiment lists all three.
    #[serde(default = "five")]
    pub top: usize,
}

/// A linear model with the words of its answers.
pub struct Linear {
    file: LinearFile,
    extractor: Extractor,
    /// JSON pointer to the text.
    text: String,
    cost: Cost,
    top: usize,
    /// `model_info` of its results.
    name: String,
}

impl Linear {
    /// Opens a package whose backend is `linear`.
    ///
    /// # Errors
    /// [`OpenError`] names what does not fit.
    pub fn open(package: &Package) -> Result<Self, OpenError> {
        let manifest = &package.manifest;
        let section: Section = manifest.section()?;
        let text = manifest.input.text.clone().unwrap_or_else(|| "/text".to_owned());
        let bytes = package.file(&section.weights)?;
        let file =
            LinearFile::read(&bytes).map_err(|error| OpenError::Broken(format!("{}: {error}", section.weights)))?;
        let labels = &file.header.labels;
        if !manifest.output.labels.is_empty() && manifest.output.labels != *labels {
            return Err(OpenError::Broken(format!(
                "output.labels names {} labels, {} has {}, or in another order",
                manifest.output.labels.len(),
                section.weights,
                labels.len()
            )));
        }
        Ok(Self {
            extractor: Extractor::new(file.header.features.clone()),
            file,
            text,
            cost: manifest.batch.cost,
            top: section.top.max(1),
            name: manifest.name.clone(),
        })
    }

    fn answer(&self, text: &str, scratch: &mut Scratch, sums: &mut Vec<f32>) -> Result<String, InferError> {
        let features = self.extractor.extract(text, scratch);
        self.file.table.sums(features, sums);
        let answer = match &self.file.header.head {
            file::Head::Sentiment(head) => sentiment::answer(head, text, sums, &self.name),
            file::Head::Labels(head) => labels::answer(head, &self.file.header.labels, sums, self.top, &self.name),
        };
        answer.ok_or_else(|| InferError::bad_output("the model's weights give no number for this text"))
    }
}

impl Model for Linear {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "linear".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        self.file.table.bytes()
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let text = document
            .pointer(&self.text)
            .and_then(Value::as_str)
            .ok_or_else(|| InferError::bad_input(format!("{} must be a string", self.text)))?;
        let cost = match self.cost {
            Cost::Chars => u32::try_from(text.chars().count()).unwrap_or(u32::MAX).max(1),
            _ => 1,
        };
        Ok(Prepared { cost, payload: Payload::Text(text.to_owned()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        let (mut scratch, mut sums) = (Scratch::default(), Vec::new());
        batch
            .iter()
            .map(|prepared| match &prepared.payload {
                Payload::Text(text) => self.answer(text, &mut scratch, &mut sums),
                _ => Err(InferError::bad_input("a linear model takes a text")),
            })
            .collect()
    }
}

fn five() -> usize {
    5
}
