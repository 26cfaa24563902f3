//! Making models from labelled data: the same for the same data and seed.
//!
//! 1. [`examples`] – labelled texts of CSV, TSV and JSON lines; [`sets`] – the open collections the defaults are made of.
//! 2. [`holdout`] – what training must not see.
//! 3. [`linear`] – hashed n-grams, fitted and calibrated, written as a package; [`recipes`] – how the defaults are.
//! 4. [`tagger`] – names in sentences.

pub mod examples;
pub mod holdout;
pub mod linear;
pub mod random;
pub mod recipes;
mod renew;
pub mod sets;
pub mod tagger;
