//! A package's model: the languages' taggers behind one door.
//!
//! ```toml
//! [tagger]
//! chinese = "zh.bin"      # either may be absent
//! english = "en.bin"
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{InferError, Model, Payload, Prepared, RunsOn};
use crate::open::OpenError;
use crate::package::Package;

use super::language::{Language, Tagger};
use super::stretch::{Name, Taggers};

pub struct TaggerModel {
    taggers: Taggers,
    name: String,
    /// Where the text is in a document (JSON pointer).
    pointer: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    chinese: Option<String>,
    english: Option<String>,
}

impl TaggerModel {
    /// Reads the files its package names.
    ///
    /// # Errors
    /// [`OpenError`] when there is none, or one is not a tagger's of that language.
    pub fn open(package: &Package) -> Result<Self, OpenError> {
        let section: Section = package.manifest.section()?;
        let read = |name: &Option<String>, language: Language| -> Result<Option<Tagger>, OpenError> {
            let Some(name) = name else { return Ok(None) };
            let broken = |error: String| OpenError::Broken(format!("{name}: {error}"));
            let tagger = Tagger::read(&package.file(name)?).map_err(|error| broken(error.to_string()))?;
            if tagger.language() == language {
                Ok(Some(tagger))
            } else {
                Err(broken(format!("it is not for {language:?}")))
            }
        };
        let taggers = Taggers {
            chinese: read(&section.chinese, Language::Chinese)?,
            english: read(&section.english, Language::English)?,
        };
        if taggers.chinese.is_none() && taggers.english.is_none() {
            return Err(OpenError::Broken("[tagger] names no file".to_owned()));
        }
        let pointer = package.manifest.input.text.clone().unwrap_or_else(|| "/text".to_owned());
        Ok(Self { taggers, name: package.manifest.name.clone(), pointer })
    }

    /// The names in a text.
    pub fn names(&self, text: &str) -> Vec<Name> {
        self.taggers.names(text)
    }
}

impl Model for TaggerModel {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "tagger".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        let each = [&self.taggers.chinese, &self.taggers.english];
        each.iter().filter_map(|tagger| tagger.as_ref()).map(|tagger| tagger.resident() as u64).sum()
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let text = document.pointer(&self.pointer).and_then(Value::as_str);
        let text = text.ok_or_else(|| InferError::bad_input(format!("{}: a text is expected here", self.pointer)))?;
        let cost = u32::try_from(text.chars().count()).unwrap_or(u32::MAX).max(1);
        Ok(Prepared { cost, payload: Payload::Text(text.to_owned()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        batch
            .iter()
            .map(|one| match &one.payload {
                Payload::Text(text) => self.answer(text),
                _ => Err(InferError::bad_input("a text is expected")),
            })
            .collect()
    }
}

/// What a text holds. Places are characters (Unicode scalar values), from the first to the one after the last.
#[derive(Serialize)]
struct Answer<'a> {
    entities: Vec<Entity<'a>>,
    language: &'static str,
    model_info: &'a str,
}

#[derive(Serialize)]
struct Entity<'a> {
    text: &'a str,
    r#type: &'static str,
    start: usize,
    end: usize,
    score: f64,
}

impl TaggerModel {
    fn answer(&self, text: &str) -> Result<String, InferError> {
        let names = self.taggers.names(text);
        let starts: Vec<usize> = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).collect();
        let entities = names
            .iter()
            .map(|name| Entity {
                text: &text[starts[name.from]..starts[name.to]],
                r#type: name.kind.name(),
                start: name.from,
                end: name.to,
                score: (f64::from(name.score) * 1e4).round() / 1e4,
            })
            .collect();
        let answer = Answer { entities, language: crate::text::language(text), model_info: &self.name };
        serde_json::to_string(&answer).map_err(|error| InferError::bad_output(error.to_string()))
    }
}
