//! People, places and organisations in Chinese and English texts.
//!
//! Chinese text is [`cut`] into words of a [`dictionary`] and into [`names`], and [`chinese`] puts together what belongs
//! together. [`english`] goes by capitals, lists and the words around them.

mod capitals;
mod chinese;
mod cut;
mod dictionary;
mod english;
mod names;
mod rule;

use insightforge_schema::catalogue::ModelCard;
use serde::Serialize;
use serde_json::json;

use self::rule::Rule;
use super::fold::Folded;
use super::text::{Text, input_schema, language_schema};
use super::{InferError, Model};

pub(super) struct Entities {
    card: ModelCard,
}

/// A name in a text, from character to character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entity {
    start: usize,
    end: usize,
    kind: Type,
    rule: Rule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Type {
    #[serde(rename = "PERSON")]
    Person,
    #[serde(rename = "LOCATION")]
    Location,
    #[serde(rename = "ORGANIZATION")]
    Organisation,
}

#[derive(Serialize)]
struct Answer<'a> {
    entities: Vec<Found<'a>>,
    language: &'static str,
    model_info: &'a str,
}

#[derive(Serialize)]
struct Found<'a> {
    text: &'a str,
    #[serde(rename = "type")]
    kind: Type,
    start: usize,
    end: usize,
    score: f64,
}

impl Entities {
    pub(super) fn new() -> Self {
        Self { card: card() }
    }

    fn answer(&self, document: &str) -> Result<String, InferError> {
        let text = Text::parse(document)?;
        let folded = Folded::new(text.as_str());
        let entities = find(&folded).into_iter().map(|entity| Found {
            text: folded.original(entity.start..entity.end),
            kind: entity.kind,
            start: entity.start,
            end: entity.end,
            score: f64::from(entity.rule.score()) / 100.0,
        });
        let answer = Answer { entities: entities.collect(), language: folded.language(), model_info: &self.card.name };
        Ok(serde_json::to_string(&answer).expect("an answer is plain data"))
    }
}

impl Model for Entities {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    fn infer(&self, inputs: &[&str]) -> Vec<Result<String, InferError>> {
        inputs.iter().map(|document| self.answer(document)).collect()
    }
}

/// The names in a text, in order, none within another.
fn find(folded: &Folded<'_>) -> Vec<Entity> {
    let mut found = chinese::find(&folded.chars);
    // A Chinese name may hold a Latin one, never the other way round.
    let apart = |english: &Entity| {
        let next = found.partition_point(|chinese| chinese.end <= english.start);
        found.get(next).is_none_or(|chinese| english.end <= chinese.start)
    };
    let english: Vec<Entity> = english::find(folded).into_iter().filter(apart).collect();
    found.extend(english);
    found.sort_by_key(|entity| entity.start);
    found
}

fn card() -> ModelCard {
    ModelCard {
        task_type: "named_entity_recognition".to_owned(),
        version: "v1.0".to_owned(),
        name: "insightforge-entities-rules-zh-en v1.0".to_owned(),
        description: "Finds persons, locations and organisations in Chinese (Traditional and Simplified) and English \
                      texts by lists of names, by how names begin and end, and by the words around them. No trained \
                      weights; the same text always gets the same answer."
            .to_owned(),
        languages: vec!["zh-Hant".to_owned(), "zh-Hans".to_owned(), "en".to_owned()],
        limits: "Exact type and boundaries, on test sets it was not adjusted to (precision, recall, F1): encyclopedia \
                 sentences in Chinese, UNER Chinese-GSD, 0.57, 0.43, 0.49; Weibo posts 0.65, 0.46, 0.54; English \
                 web texts, UNER English-EWT, 0.76, 0.54, 0.63; tweets, Broad Twitter Corpus part f, 0.67, 0.15, 0.24. Organisations are the weakest type. \
                 A score says how often names found by the same rule overlapped a right one on development sets; it does \
                 not know the text. English names need their capitals; Chinese names outside the lists need a common \
                 family name; foreign names in Chinese need a dot or a title beside them. Other languages: names in \
                 Latin letters at best."
            .to_owned(),
        input_schema: input_schema(),
        output_schema: output_schema(),
        ..ModelCard::default()
    }
}

fn output_schema() -> serde_json::Value {
    let offset = |description: &str| json!({ "type": "integer", "minimum": 0, "description": description });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["entities", "model_info"],
        "properties": {
            "entities": {
                "type": "array",
                "description": "In the order of the text; none within another.",
                "items": {
                    "type": "object",
                    "required": ["text", "type", "start", "end", "score"],
                    "properties": {
                        "text": { "type": "string", "description": "As it stands in the input." },
                        "type": { "enum": ["PERSON", "LOCATION", "ORGANIZATION"] },
                        "start": offset("The first character, counted from 0 in Unicode scalar values."),
                        "end": offset("The character after the last, counted likewise."),
                        "score": {
                            "type": "number",
                            "minimum": 0,
                            "maximum": 1,
                            "description": "How often names found by the same rule were right when measured."
                        }
                    }
                }
            },
            "language": language_schema(),
            "model_info": { "type": "string" }
        }
    })
}
