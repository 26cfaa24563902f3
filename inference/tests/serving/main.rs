//! Models at work: queued, batched, loaded and unloaded.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod echo;
mod remote;
mod store;
