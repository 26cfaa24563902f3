//! The connection that repeats an ambiguous write instead of guessing.
//!
//! A timeout or a broken connection says nothing about whether Redis ran the script. Every script of [`crate::script`]
//! is idempotent, so the answer is always the same: connect again and send it again, until a deadline. Nothing here may
//! carry a plain `XADD`.
//!
//! Blocking reads never share a connection with anything: [`Link::blocking`] gives each reader its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError, ServerErrorKind,
};
use tokio::sync::Mutex;

use crate::script::{Arg, CONFIRM, Script};

/// One command's time on the wire before it counts as ambiguous.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Unacknowledged bytes for this long mean a dead peer (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// Until enough replicas have a write: shorter than [`RESPONSE_TIMEOUT`], since `WAIT` holds up what comes behind it.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two tries: doubling from the first to the last.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_LAST: Duration = Duration::from_millis(500);

/// Why Redis did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// `maxmemory` is reached and the script adds data.
    #[error("Redis is out of memory")]
    OutOfMemory,
    /// Not reachable, loading, or not the master until the deadline. Whether the last call ran is unknown; calling
    /// again with the same arguments is safe.
    #[error("Redis is not available: {0}")]
    Unavailable(String),
    /// Redis answered with an error that repeating does not mend.
    #[error("Redis refused: {0}")]
    Refused(String),
}

/// A shared, self-healing connection. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    deadline: Duration,
    confirmation: Option<Confirmation>,
    slot: Mutex<Slot>,
}

/// How many replicas must have a write before it counts.
#[derive(Clone, Debug)]
struct Confirmation {
    replicas: u32,
    /// See [`crate::keys::Keys::confirmation`].
    key: String,
}

/// The current connection and how many there were before it, so that one failure is not counted against its successor.
struct Slot {
    generation: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Link {
    /// Without the address: a Redis URL can hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("deadline", &self.shared.deadline).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to `url` (`redis://` or `rediss://`), not yet connected. A call gives up after `deadline`.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the URL cannot be read; the text does not repeat it.
    pub fn new(url: &str, deadline: Duration) -> Result<Self, LinkError> {
        let info = url
            .into_connection_info()
            .map_err(|_| LinkError::Refused("the Redis URL cannot be read".to_owned()))?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT));
        let client = Client::open(info).map_err(|_| LinkError::Refused("the Redis URL cannot be read".to_owned()))?;
        let slot = Mutex::new(Slot { generation: 0, connection: None });
        Ok(Self { shared: Arc::new(Shared { client, deadline, confirmation: None, slot }) })
    }

    /// The same server, with writing scripts answered only when `replicas` replicas have what they wrote (`WAIT`). A write
    /// that too few confirm is repeated until the deadline and then unavailable: it stands, and may be lost with the
    /// server. Confirmed is not safe for ever: a failover to a replica that was not among those can lose it still.
    #[must_use]
    pub fn confirmed_by(&self, replicas: u32, key: String) -> Self {
        let confirmation = (replicas > 0).then_some(Confirmation { replicas, key });
        self.with(confirmation)
    }

    /// A link to the same server with a connection of its own. Redis takes from every connection that has something for it
    /// before it flushes its log once for all of them: steps that are to share a flush come over several connections, or
    /// together in one call.
    #[must_use]
    pub fn sibling(&self) -> Self {
        self.with(self.shared.confirmation.clone())
    }

    fn with(&self, confirmation: Option<Confirmation>) -> Self {
        let slot = Mutex::new(Slot { generation: 0, connection: None });
        let shared = Shared { client: self.shared.client.clone(), deadline: self.shared.deadline, confirmation, slot };
        Self { shared: Arc::new(shared) }
    }

    /// How long a call is tried before it is given up.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// Runs a script over `keys` (all of one hash slot). Sent again after an ambiguous failure until the deadline.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn eval<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<T, LinkError> {
        let confirmation = self.shared.confirmation.as_ref().filter(|_| script.writes());
        self.repeat(Call::Script { script, keys, args }, confirmation).await
    }

    /// Runs one command that may safely run twice: a read, or a write that sets what it sets.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        self.repeat(Call::Command(command), None).await
    }

    /// A connection of its own for one reader's blocking reads. It has no response timeout: the caller's `BLOCK` is the
    /// bound, and the caller drops the connection after any error.
    ///
    /// # Errors
    /// [`LinkError::Unavailable`] when no connection can be made now; the caller waits and asks again.
    pub async fn blocking(&self) -> Result<MultiplexedConnection, LinkError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        self.shared
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|error| LinkError::Unavailable(error.to_string()))
    }

    async fn repeat<T: FromRedisValue>(
        &self,
        call: Call<'_>,
        confirmation: Option<&Confirmation>,
    ) -> Result<T, LinkError> {
        let give_up = Instant::now() + self.shared.deadline;
        let mut wait = RETRY_FIRST;
        loop {
            // One connects at a time: behind a server that takes no connection, who waits for a turn gives up in time too.
            let Ok(connection) = tokio::time::timeout_at(give_up.into(), self.connection()).await else {
                return Err(LinkError::Unavailable("no connection in time".to_owned()));
            };
            let error = match connection {
                Ok((generation, mut connection)) => match call.make(connection.clone()).await {
                    Ok(value) => match confirm(confirmation, &mut connection).await {
                        Ok(()) => return Ok(value),
                        Err(error) => error,
                    },
                    Err(error) => {
                        if breaks_connection(&error) {
                            self.drop_connection(generation).await;
                        }
                        error
                    }
                },
                Err(error) => error,
            };
            match judge(&error) {
                Verdict::OutOfMemory => return Err(LinkError::OutOfMemory),
                Verdict::Refused => return Err(LinkError::Refused(error.to_string())),
                Verdict::Again if Instant::now() + wait >= give_up => {
                    return Err(LinkError::Unavailable(error.to_string()));
                }
                Verdict::Again => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let mut slot = self.shared.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((slot.generation, connection.clone()));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = self.shared.client.get_multiplexed_async_connection_with_config(&config).await?;
        slot.generation += 1;
        slot.connection = Some(connection.clone());
        Ok((slot.generation, connection))
    }

    async fn drop_connection(&self, generation: u64) {
        let mut slot = self.shared.slot.lock().await;
        if slot.generation == generation {
            slot.connection = None;
        }
    }
}

/// What is sent, as often as it takes.
enum Call<'a> {
    Script { script: &'a Script, keys: &'a [String], args: &'a [Arg<'a>] },
    Command(&'a Cmd),
}

impl Call<'_> {
    async fn make<T: FromRedisValue>(&self, mut connection: MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Command(command) => command.query_async(&mut connection).await,
            Self::Script { script, keys, args } => {
                match script.by_hash(keys, args).query_async(&mut connection).await {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                        script.by_body(keys, args).query_async(&mut connection).await
                    }
                    result => result,
                }
            }
        }
    }
}

/// `WAIT` covers what its own connection wrote; a repeated script may have written on an earlier one. So something is
/// written first: replicas that have that have everything before it.
async fn confirm(
    confirmation: Option<&Confirmation>,
    connection: &mut MultiplexedConnection,
) -> Result<(), RedisError> {
    let Some(Confirmation { replicas, key }) = confirmation else { return Ok(()) };
    let mut wait = redis::cmd("WAIT");
    wait.arg(*replicas).arg(CONFIRM_TIMEOUT.as_millis() as u64);
    let mut both = redis::pipe();
    both.add_command(CONFIRM.by_body(std::slice::from_ref(key), &[])).ignore().add_command(wait);
    let (confirmed,): (u32,) = both.query_async(connection).await?;
    if confirmed >= *replicas {
        return Ok(());
    }
    let text = format!("{confirmed} of {replicas} replicas have the write");
    Err(RedisError::from((ErrorKind::Server(ServerErrorKind::TryAgain), "too few replicas", text)))
}

enum Verdict {
    Again,
    OutOfMemory,
    Refused,
}

/// Whether the connection behind an error is of no further use.
fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly))
}

fn judge(error: &RedisError) -> Verdict {
    match error.kind() {
        _ if breaks_connection(error) => Verdict::Again,
        // A password being rotated, a server still loading, a failover under way: all pass.
        ErrorKind::AuthenticationFailed
        | ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Verdict::Again,
        _ => match error.code() {
            Some("OOM") => Verdict::OutOfMemory,
            Some("MISCONF" | "NOREPLICAS" | "BUSY" | "LOADING") => Verdict::Again,
            // A script's own error text hides the code behind a prefix.
            _ if error.to_string().contains("OOM command not allowed") => Verdict::OutOfMemory,
            _ => Verdict::Refused,
        },
    }
}
