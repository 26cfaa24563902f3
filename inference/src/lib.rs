//! Model packages and what runs them. Knows nothing of tasks, Redis or HTTP doors: the analyzer and the synchronous door
//! ask the same models through it.
//!
//! One package's way, in reading order:
//!
//! 1. [`package`] – a folder is read, its files verified against [`manifest`] (`model.toml`).
//! 2. [`open`] – the backend it names makes a [`model::Model`] of it.
//! 3. [`loaded`] – the model with its input schema, ready to be asked: a document becomes [`model::Prepared`], a batch of
//!    those becomes result documents.
//! 4. [`batch`] – inputs of many callers wait, and are answered together.
//! 5. [`store`] – all versions a process serves, loaded and unloaded while it runs: what callers use.
//!
//! [`train`] makes the files of native models, and [`evaluate`] measures them.
//!
//! Models that are not of this process: [`host`] keeps one in a child, [`remote`] asks a server.
//!
//! What is absent on purpose: nothing here reads the environment or opens a listener.

pub mod batch;
pub mod evaluate;
pub mod host;
pub mod loaded;
pub mod manifest;
pub mod model;
pub mod native;
mod onnx;
pub mod open;
pub mod package;
pub mod remote;
mod schema_cost;
pub mod store;
pub mod text;
pub mod train;

pub use loaded::Loaded;
pub use manifest::Manifest;
pub use model::{InferError, Model, Payload, Prepared};
pub use open::{OpenError, OpenOptions, open};
pub use package::{Package, PackageError};
pub use store::{Change, Open, Opener, Served, State, Store, StoreOptions};
