//! The read side on real servers.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod batches;
mod description;
mod feed;
mod health;
mod history;
mod list;
mod live;
mod models;
mod overview;
mod patience;
mod proxy;
mod result;
mod search;
mod served;
mod stage;
mod system;
mod tail;
mod webhooks;
mod why;
