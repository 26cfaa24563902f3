//! Which model version answers: the registry, a stream of its own beside the journal.
//!
//! 1. [`event`] – what can happen to a model version, and the bytes it is stored as.
//! 2. [`routes`] – the fold: what the events make of each task type.
//! 3. [`resolve`] – from what a caller asked for to one version, with the reason.
//! 4. [`decide`] – from an operator's command to events, or why not.
//! 5. [`staffed`] – whether somebody would still answer then.
//! 6. [`stream`] – reading and writing the stream in Redis.
//!
//! The stream is the truth about routes as the journal is about tasks: it is never trimmed, its entries are numbered
//! without gaps, and every reader that has read up to the same number sees the same [`Routes`].

pub mod decide;
pub mod event;
pub mod resolve;
pub mod routes;
pub mod staffed;
pub mod stream;

pub use decide::{Command, Refusal, Undoes, decide};
pub use event::{Change, Entry, Meta};
pub use resolve::{Reason, Resolved, Unresolved, bucket, sticky_key, user_key};
pub use routes::{Canary, NotUnderstood, Note, RegisteredVersion, Routes, TaskRoutes};
pub use stream::{Conditions, Registry, WriteError, Written, follow, history};

/// Words that stand for versions.
pub const STABLE: &str = "stable";
pub const CANDIDATE: &str = "candidate";
pub const LATEST: &str = "latest";
/// All of them.
pub const ALIASES: [&str; 3] = [STABLE, CANDIDATE, LATEST];

/// A whole, in the unit of a canary's share: shares count in 1/10000.
pub const WHOLE: u16 = 10_000;
