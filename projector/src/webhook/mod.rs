//! Webhooks: what the outbox holds is sent, signed, until it is delivered or given up.
//!
//! One delivery's way through, in reading order:
//!
//! 1. The fold writes the outbox row, already leased, and hands it over ([`Handoff`]); or [`claim`] takes a row that is
//!    due again, or whose holder went silent.
//! 2. [`deliver`] – the loop: it waits for a place in its receiver's lane ([`lanes`], [`lane`]), and is sent.
//! 3. [`attempt`] – [`sign`] → [`send`]: the same bytes are signed and posted, to an address that was vetted.
//! 4. [`schedule`] – what the answer means: delivered, again at some time, or given up.
//! 5. [`record`] – the attempt and the row are written, together with others.
//!
//! [`orders`] is what people want of it: deliveries again, or a test message.
//!
//! Delivery is at least once: whoever holds the row's lease sends, and a crash between the answer and its record sends
//! again, with the same `webhook-id`. What is absent on purpose: nothing here creates outbox rows.

pub mod config;
pub mod orders;
pub mod schedule;
pub mod send;
pub mod sign;

mod attempt;
mod claim;
mod deliver;
mod lane;
mod lanes;
mod measure;
mod record;

use std::sync::Arc;

use bytes::Bytes;
use insightforge_schema::id::TaskId;
use insightforge_schema::seal::Sealer;
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use attempt::Courier;
use deliver::Deliverer;
use measure::Meters;
use record::Recorder;
use send::{Lookup, Sender};

pub use config::{ConfigError, Endpoint, Secret, WebhookConfig};
pub use insightforge_schema::id::webhook_id;
pub use measure::describe_metrics;

/// The name in `webhook_outbox.endpoint` of a task's own webhook; configured endpoints cannot have it.
pub const TASK_ENDPOINT: &str = "task";

/// `webhook_outbox.state`: due at `due_at`, for a claim to take.
pub(crate) const DUE: u8 = 0;
/// `webhook_outbox.state`: who knows the lease token may send it until `due_at`.
pub(crate) const LEASED: u8 = 1;
/// `webhook_outbox.state`: over, with success.
const DELIVERED: u8 = 2;
/// `webhook_outbox.state`: over, without.
const GIVEN_UP: u8 = 3;

/// How committed outbox rows reach the sender without being read back, a batch a message.
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
    /// W3C `traceparent` of the terminal event.
    pub trace: Option<String>,
    /// Attempts made before.
    pub attempts: u16,
    /// `webhook_outbox.created_at`, or when old ones were last ordered to be sent again, in microseconds since 1970-01-01 UTC.
    pub created_us: i64,
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
    /// Resolves callers' hosts; [`send::system_lookup`], except in tests.
    pub lookup: Lookup,
}

/// Why sending could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook settings cannot work: {0}")]
    Config(#[from] ConfigError),
    #[error("the webhook sender's HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    #[error("the webhook sender failed; its log says where")]
    Crashed,
}

/// Sends what is handed over and what falls due until `shutdown` is cancelled; then ends what is in flight, hands the
/// rest back to the table, and returns within `config.drain`. Dropped, it leaves all it holds to its leases.
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
    let WebhookDeps { pool, sealer, lookup } = deps;
    let config = Arc::new(config);
    let courier = Courier::new(config.clone(), Sender::new(&config, lookup)?, sealer);
    let (records, to_write) = mpsc::unbounded_channel();
    let (written, was_written) = mpsc::unbounded_channel();
    let mut watch = JoinSet::new();
    watch.spawn(measure::watch(pool.clone()));
    let mut recorder = JoinSet::new();
    recorder.spawn(Recorder { pool: pool.clone(), records: to_write, written, meters: Meters::new() }.run());

    let drain = config.drain;
    Deliverer::new(config, pool, courier, records, was_written).run(handed_over, shutdown).await;
    match tokio::time::timeout(drain / 4, recorder.join_next()).await {
        Ok(Some(Err(_))) => Err(WebhookError::Crashed),
        Ok(_) => Ok(()),
        Err(_) => {
            tracing::warn!("the last webhook results could not be recorded in time; what they say may be sent again");
            Ok(())
        }
    }
}
