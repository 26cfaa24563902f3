//! The journal beyond Redis, and one reader across both.
//!
//! Read in this order:
//!
//! 1. [`segment`] – a stretch of one partition's journal as an object: frames, blocks, index, checksums.
//! 2. [`store`] – where segments lie, how they are named, found, written once and read in parts.
//! 3. [`place`] – what an operator writes to say where that is.
//! 4. [`journal`] – events by number, whether they are in the stream or in a segment; a gap is an error that names it.
//!
//! What is absent on purpose: nothing here decides what is archived or trimmed (the projector does), nothing deletes, and
//! nothing reads the environment.

pub mod journal;
pub mod place;
pub mod segment;
pub mod store;

pub use journal::{Journal, ReadError, Run};
pub use store::{Archive, ArchiveError};
