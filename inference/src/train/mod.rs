//! Making models from labelled data.

pub mod tagger;
