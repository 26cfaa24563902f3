//! The synchronous door: a real listener, real HTTP, a model that computes.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod ask;
mod forward;
mod hostile;
mod oip;
mod oip_binary;
mod rig;
