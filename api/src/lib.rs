//! The door: uploads become `submitted` events; queries read the live record, the journal and the tables.
//!
//! One upload's way through, in reading order:
//!
//! 1. [`serve`] – a connection that may not dawdle.
//! 2. [`router`] – which handler answers which path.
//! 3. `upload` – the whole way of one task, from `body` (what is held of it) over `sent` (its fields), `asked` and
//!    `document` (what is wrong with them) and `idempotency` to
//! 4. `submit` – into the journal, together with whatever else arrives, as long as `backlog` has room.
//!
//! And the questions about it:
//!
//! 1. `find` – one task, wherever it is known; `result` and `show` answer with it, `history` with its events; [`why`] says
//!    what it waits for.
//! 2. `list`, `facets`, `export`, `batches`, `webhooks` – many of something, from the tables, which `ask` asks with bounded patience.
//! 3. `feed` – the journal itself, of whose partitions `merge` makes one sequence. `query` is the grammar in which tasks are
//!    asked for.
//! 4. `models`, `health`, `overview`, `rebuilds`, [`system`] – what can be asked for, and how the system is; `figures`, `past_rollouts` –
//!    how versions do and what became of them.
//! 5. `docs` – the description of all this, put together from what the handlers say of themselves.
//!
//! `ui` serves the dashboard, whose sources are in `api/ui`.
//!
//! `act` does to all tasks of a query what `cancel` and `redrive` do to one.
//!
//! [`infer`] answers who needs no task; `rollout` changes which version answers.
//!
//! `visitors` tells what browsers send for pages of others.
//!
//! One janitor: `expire` ends waiting tasks that are out of time, also where no analyzer is left to meet them.
//!
//! Whoever waits for something to happen hears it from [`tail`]; [`live`] pushes it to whoever follows.
//!
//! Everything that goes wrong is answered by one type, [`problem::Problem`].
//!
//! What is absent on purpose: nothing here waits for MySQL to accept work, nothing here writes a table, and no model runs
//! in the api's process: [`infer::serve`] is the analyzer's.

pub mod app;
pub mod dead_letters;
pub mod infer;
pub mod live;
pub mod problem;
pub mod router;
pub mod serve;
pub mod system;
pub mod tail;
pub mod why;

mod act;
mod analyze;
mod ask;
mod asked;
mod backlog;
mod batch;
mod batches;
mod body;
mod cancel;
mod deadline;
mod describe;
mod docs;
mod document;
mod event_view;
mod expire;
mod export;
mod facets;
mod feed;
mod figures;
mod find;
mod folded;
mod health;
mod history;
mod idempotency;
mod impatient;
mod insight;
mod known;
mod list;
mod measure;
mod members;
mod merge;
mod models;
mod overview;
mod params;
mod past;
mod past_rollouts;
mod path;
mod prefer;
mod query;
mod rebuilds;
mod redrive;
mod request_id;
mod result;
mod rollout;
mod sent;
mod shape;
mod show;
mod submit;
mod trace;
mod ui;
mod unserved;
mod upload;
mod used;
mod visitors;
mod wait;
mod webhooks;

use std::net::SocketAddr;

use insightforge_archive::Archive;
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::catalogue::ModelCard;
use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::seal::Sealer;
use sqlx::MySqlPool;
use tokio_util::sync::CancellationToken;

pub use measure::describe_metrics;

/// Settings of the door. Plain data; the binary reads flags and environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub http_addr: SocketAddr,
    /// The former model server's callers have an address of their own; `None` serves them on `http_addr` while that is
    /// loopback, else not at all.
    pub internal_addr: Option<SocketAddr>,
    pub partitions: PartitionCount,
    /// Waiting tasks of the whole installation beyond which uploads are answered 429.
    pub max_backlog: u64,
    /// Largest body of one upload, in bytes.
    pub max_body_bytes: usize,
    /// Largest body of one batch upload, in bytes; it is streamed, not held.
    pub max_batch_bytes: u64,
    /// Longest wait a caller may ask for, in seconds.
    pub wait_limit_s: u64,
    /// Where callers' webhooks may go.
    pub addresses: AddressPolicy,
    /// This release, for `/api/health` and the API description.
    pub version: &'static str,
}

/// What the door needs from outside.
#[derive(Clone)]
pub struct Deps {
    pub link: Link,
    pub keys: Keys,
    pub pool: MySqlPool,
    pub sealer: Sealer,
    /// Where the journal's past is.
    pub archive: Option<Archive>,
    /// Models known from the start; what analyzers announce is added.
    pub models: Vec<ModelCard>,
    /// What the binary knows of itself.
    pub inspection: system::Inspection,
}

/// Why the door closed other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {addr}: {error}")]
    Bind { addr: SocketAddr, error: std::io::Error },
    #[error("the list of models cannot be read: {0}")]
    Models(#[from] LinkError),
}

/// Serves until `shutdown` is cancelled, then ends what is in flight; returns within ten seconds of that. `listening` is
/// told the address callers reach, once it is open.
///
/// # Errors
/// [`RunError`]. Outages of Redis and MySQL are none once it runs: requests are answered 503.
pub async fn run(
    config: Config,
    deps: Deps,
    listening: impl FnOnce(SocketAddr),
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let app = app::App::new(config, deps, &shutdown).await?;
    let config = &app.config;
    let public = serve::Listener::bind(config.http_addr).await?;
    let internal = match config.internal_addr {
        Some(addr) => Some(serve::Listener::bind(addr).await?),
        None => None,
    };
    listening(public.addr());
    tokio::spawn(unserved::watch(app.clone(), shutdown.clone()));
    let serve_public = public.serve(router::public(&app), shutdown.clone());
    match internal {
        Some(internal) => {
            tokio::join!(serve_public, internal.serve(router::internal(&app), shutdown));
        }
        None => serve_public.await,
    }
    app.live.ended().await;
    Ok(())
}
