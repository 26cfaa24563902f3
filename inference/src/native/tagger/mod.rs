//! The native tagger finds names of persons, places and organisations: a linear model over hashed features of each token,
//! and the best sequence of labels over a sentence (a conditional random field).
//!
//! A text's way, in reading order:
//!
//! 1. [`model`] – the package's model: documents in, result documents out.
//! 2. [`stretch`] – which stretch of the text is read by which language's tagger, by script.
//! 3. [`token`], [`english`] – tokens; [`segment`], [`chinese`], [`lexicon`] – their features, as [`hash`]es.
//! 4. [`weights`] – what each feature weighs for each [`label`], a byte each.
//! 5. [`lattice`] – the best valid sequence of labels, and how likely each name in it is.
//!
//! [`language`] holds one language's file. Features are the file's other half: change one, and every file must be made anew.

pub(crate) mod bytes;
pub(crate) mod chinese;
pub(crate) mod english;
pub(crate) mod features;
pub(crate) mod hash;
pub(crate) mod label;
pub(crate) mod language;
pub(crate) mod lattice;
#[cfg(test)]
mod lattice_tests;
pub(crate) mod lexicon;
pub mod model;
pub(crate) mod segment;
pub(crate) mod stretch;
pub(crate) mod token;
pub(crate) mod weights;

pub use bytes::Broken;
pub use label::{Kind, Span};
pub use language::{Language, Tagger};
pub use model::TaggerModel;
pub use stretch::{Name, Taggers};

/// One form for characters that mean the same; marks stay what they are, since a comma is not a full stop to a tagger.
pub(crate) fn fold(c: char) -> char {
    match c {
        '。' | '、' | '…' | '“' | '”' => c,
        c => crate::text::fold(c),
    }
}
