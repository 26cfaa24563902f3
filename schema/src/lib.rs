//! What two processes must agree on, and nothing else.
//!
//! Read in this order:
//!
//! 1. [`id`] – who is who: tasks, partitions, positions in the journal.
//! 2. [`event`] – what can happen to a task, and the bytes it is stored as.
//! 3. [`task`] – the state machine: what the events make of a task.
//! 4. [`keys`] – every Redis key, with its type and its life.
//! 5. [`script`] – every state change, as one atomic step in Redis.
//!    [`deadline`] – the step that ends waiting tasks that are out of time; [`restore`] – the one that gives back what
//!    Redis has lost of a task.
//! 6. [`journal`] – reading the stream back as events; [`follow`] – as it grows; [`standing`] – where one task and its
//!    lane stand now.
//! 7. [`link`] – the connection that repeats an ambiguous write instead of guessing.
//! 8. [`catalogue`] – which models exist and which analyzers are alive.
//! 9. [`registry`] – which model version answers: aliases, canaries, shadows.
//! 10. [`tables`] – the MySQL side: migrations and row identity.
//! 11. [`seal`] – how a secret travels inside an event.
//! 12. [`address`] – where a webhook may go.
//! 13. [`trim`] – what the journal may lose, and the mark that it never passes.
//! 14. [`fail`] – named steps at which tests make a process die; empty in a release.
//!
//! What is absent on purpose: no HTTP, no model, no SQL beyond the table definitions. Nothing here reads the
//! environment.

pub mod address;
pub mod catalogue;
pub mod deadline;
pub mod event;
pub mod fail;
pub mod follow;
pub mod id;
pub mod journal;
pub mod keys;
pub mod link;
pub mod orders;
pub mod registry;
pub mod restore;
pub mod script;
pub mod seal;
pub mod standing;
pub mod tables;
pub mod task;
pub mod trace;
pub mod trim;

mod envelope;

/// How long a finished task's status and result stay readable from Redis, in seconds (the wire contract's cache).
pub const RESULT_TTL_S: u64 = 100;

/// How long a task whose id or idempotency key came from the caller is remembered after its end, in seconds: within
/// this time the same request is the same task.
pub const DEDUPE_TTL_S: u64 = 86_400;

/// The tenant of every event until callers carry API keys.
pub const DEFAULT_TENANT: &str = "default";
