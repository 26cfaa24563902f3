//! One language's tagger: what its file holds, and how a sentence's names are found.

use super::bytes::{Broken, Reader};
use super::features::Features;
use super::label::{LABELS, Span, labels_of, spans_of};
use super::lattice::{Scores, Steps, Sums, best};
use super::lexicon::Lexicon;
use super::token::Token;
use super::weights::{Pressed, Weights};
use super::{chinese, english};

/// Which features a file's weights belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    Chinese,
    English,
}

/// A file begins with this; the number goes up whenever features or hashes change, since old weights mean nothing then.
const MAGIC: &[u8] = b"IFTAGGER\x01";

pub struct Tagger {
    pub(crate) language: Language,
    pub(crate) lexicon: Lexicon,
    weights: Weights,
    steps: Steps,
}

/// A text as a tagger reads it: one folded character for each.
pub(crate) struct Text<'a> {
    pub(crate) chars: &'a [char],
    pub(crate) folded: &'a [char],
}

impl Tagger {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Broken`] when it is not one, or was made for other features.
    pub fn read(bytes: &[u8]) -> Result<Self, Broken> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(Broken("it does not begin as one of this release does"));
        }
        let language = match reader.byte()? {
            0 => Language::Chinese,
            1 => Language::English,
            _ => return Err(Broken("its language is unknown")),
        };
        let mut steps = [[0.0; LABELS]; LABELS];
        for weight in steps.iter_mut().flatten() {
            *weight = reader.f32()?;
        }
        let lexicon = Lexicon::read(&mut reader)?;
        let weights = Weights::read(&mut reader)?;
        if reader.0.is_empty() {
            Ok(Self { language, lexicon, weights, steps: Steps::new(&steps) })
        } else {
            Err(Broken("something follows its end"))
        }
    }

    pub fn language(&self) -> Language {
        self.language
    }

    /// Bytes in memory.
    pub fn resident(&self) -> usize {
        self.lexicon.resident() + self.weights.resident()
    }

    /// How many features have weights, and how many words the lexicon has.
    pub fn size(&self) -> (usize, usize) {
        (self.weights.len(), self.lexicon.len())
    }

    /// The names of a sentence, each with how likely it is, between 0 and 1.
    pub(crate) fn tag(&self, tokens: &[Token], text: &Text<'_>, features: &mut Features) -> Vec<(Span, f32)> {
        features.clear();
        extract(self.language, tokens, text, &self.lexicon, features);
        let unit = self.weights.unit();
        let scores: Vec<Scores> = features
            .tokens()
            .map(|token| {
                let tally = self.weights.tally(token);
                std::array::from_fn(|l| tally[l] as f32 * unit)
            })
            .collect();
        let spans = spans_of(&best(&scores, &self.steps));
        if spans.is_empty() {
            return Vec::new();
        }
        let sums = Sums::new(&scores, &self.steps);
        spans
            .into_iter()
            .map(|span| {
                let labels = labels_of(span.to - span.from, &[Span { from: 0, to: span.to - span.from, ..span }]);
                (span, sums.likely_run(span.from, &labels))
            })
            .collect()
    }
}

pub(crate) fn extract(
    language: Language,
    tokens: &[Token],
    text: &Text<'_>,
    lexicon: &Lexicon,
    features: &mut Features,
) {
    match language {
        Language::Chinese => chinese::features(tokens, lexicon, features),
        Language::English => english::features(tokens, text.folded, text.chars, lexicon, features),
    }
}

/// A tagger's file. What begins outside is weighed down by `shy` against the rest: less than 0 finds more names.
pub(crate) fn write(language: Language, steps: &[Scores; LABELS], lexicon: &Lexicon, weights: &Pressed) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(language as u8);
    for weight in steps.iter().flatten() {
        out.extend(weight.to_le_bytes());
    }
    lexicon.write(&mut out);
    weights.write(&mut out);
    out
}
