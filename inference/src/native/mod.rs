//! Models that run in this program's own code: small, trained here, microseconds a text.

pub mod linear;
pub mod tagger;
pub(crate) mod trees;
