//! The write side through its own door: a real listener, real HTTP, a real Redis.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod after;
mod analyze;
mod batch;
mod dead_letters;
mod door;
mod expiry;
mod idempotency;
mod outage;
mod refusal;
mod slow;
mod upload;
mod work;
