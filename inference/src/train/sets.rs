//! The open collections that the default models are made of, as their publishers give them. A folder has them under
//! `sentiment-zh/`, `sentiment-en/`, `ner-zh/`, `ner-en/` and `intent/`; the cards of the models say where each comes from and its licence.
//!
//! Every collection has a part to train on, one to choose by and one to measure with. Where its makers did not part it, the
//! hash of a text does.

mod archive;
mod english;
pub mod intents;
pub mod sentiment;
mod words;

use std::path::{Path, PathBuf};

use super::examples::{Example, ReadError};

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Train,
    Choose,
    Measure,
}

/// A collection's texts of one part.
#[derive(Debug, Clone)]
pub struct Set {
    pub name: &'static str,
    pub part: Part,
    pub examples: Vec<Example>,
}

/// Of a hundred texts, how many are to choose by and how many to measure with.
const CHOOSE: u64 = 5;
const MEASURE: u64 = 15;

/// The part of what has this key: texts of one review have one key.
fn part_of(set: &str, key: &str) -> Part {
    let bytes = set.bytes().chain([0]).chain(key.bytes());
    // FNV-1a, with the high bits brought down.
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    match (hash ^ (hash >> 31)) % 100 {
        low if low < MEASURE => Part::Measure,
        low if low < MEASURE + CHOOSE => Part::Choose,
        _ => Part::Train,
    }
}

/// A collection in its parts, by the key of each example.
fn parted(name: &'static str, examples: impl Iterator<Item = (String, Example)>) -> Vec<Set> {
    let mut sets = [Part::Train, Part::Choose, Part::Measure].map(|part| Set { name, part, examples: Vec::new() });
    for (key, example) in examples {
        let part = part_of(name, &key);
        if let Some(set) = sets.iter_mut().find(|set| set.part == part) {
            set.examples.push(example);
        }
    }
    sets.into()
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> ReadError + use<'_> {
    |error| ReadError::Unreadable { path: path.to_owned(), error }
}

fn malformed(path: &Path, record: usize, reason: impl Into<String>) -> ReadError {
    ReadError::Malformed { path: PathBuf::from(path), record, reason: reason.into() }
}

/// UTF-8, or ISO 8859-1 where it is not.
fn text_of(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}

fn read(path: &Path) -> Result<String, ReadError> {
    std::fs::read(path).map(|bytes| text_of(&bytes)).map_err(unreadable(path))
}
