//! The synchronous door: an answer for who needs one now and no task. It leaves nothing in the journal.
//!
//! In the analyzer's process, on a listener of its own, as short a way as there is:
//!
//! 1. [`door`] – from a request to the one who answers it.
//! 2. `ask` – `POST /api/infer`.
//! 3. `oip` – the Open Inference Protocol v2, under `/v2`.
//! 4. `resolve` – which version answers, and what is known of it (`shown`).
//! 5. `outcome` – how a model's failures are answered.
//!
//! In the api's process, `forward` passes these `paths` on to a live analyzer.

mod ask;
mod door;
mod figures;
pub(crate) mod forward;
mod oip;
mod outcome;
pub(crate) mod paths;
pub(crate) mod resolve;
mod shown;

pub use door::{Deps, describe_metrics, serve};

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = 8 << 20;
