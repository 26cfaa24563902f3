//! The read side on real servers.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod batches;
mod description;
mod feed;
mod health;
mod history;
mod list;
mod models;
mod proxy;
mod result;
mod stage;
mod tail;
mod why;
