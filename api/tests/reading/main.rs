//! The read side on real servers: the journal's live end.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod proxy;
mod stage;
mod tail;
