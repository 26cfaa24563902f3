//! The connection that repeats an ambiguous write instead of guessing.
//!
//! A timeout or a broken connection says nothing about whether Redis ran the script. Every script of [`crate::script`]
//! is idempotent, so the answer is always the same: connect again and send it again, until a deadline. Nothing here may
//! carry a plain `XADD`.
//!
//! With a cluster each call goes to the master that owns its keys' slot ([`cluster`]); a call that meets a failover or a
//! slot on its way to another node is repeated as well, at the new place.
//!
//! Blocking reads never share a connection with anything: a [`BlockingReader`] has its own.

mod address;
mod call;
mod cluster;
mod judge;
mod node;
mod owners;
mod reader;
mod servers;
mod slot;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError};

use crate::script::{Arg, Script};
use call::{Call, Confirmation};
use judge::{Verdict, judge};
use node::Node;
pub use reader::BlockingReader;
use servers::{Next, Servers};
use slot::{key_of, slot_of};

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
/// Redirections that are followed at once; nodes that disagree send a call in circles.
const REDIRECTS_AT_ONCE: u32 = 3;

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

/// A shared, self-healing connection to a server, or one to each master of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    servers: Servers,
    deadline: Duration,
    /// How many replicas must have a write before it counts.
    replicas: u32,
}

impl std::fmt::Debug for Link {
    /// Without the address: a Redis URL can hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("deadline", &self.shared.deadline).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to `url`, not yet connected: `redis://` or `rediss://` for one server, `redis+cluster://` or
    /// `rediss+cluster://` with some nodes for a cluster. A call gives up after `deadline`.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the URL cannot be read; the text does not repeat it.
    pub fn new(url: &str, deadline: Duration) -> Result<Self, LinkError> {
        Ok(Self::of(Servers::new(url)?, deadline, 0))
    }

    fn of(servers: Servers, deadline: Duration, replicas: u32) -> Self {
        Self { shared: Arc::new(Shared { servers, deadline, replicas }) }
    }

    /// The same servers, with writing scripts answered only when `replicas` replicas have what they wrote (`WAIT`). A write
    /// that too few confirm is repeated until the deadline and then unavailable: it stands, and may be lost with the
    /// server. Confirmed is not safe for ever: a failover to a replica that was not among those can lose it still.
    #[must_use]
    pub fn confirmed_by(&self, replicas: u32) -> Self {
        Self::of(self.shared.servers.sibling(), self.shared.deadline, replicas)
    }

    /// A link to the same servers with connections of its own. Redis takes from every connection that has something for it
    /// before it flushes its log once for all of them: steps that are to share a flush come over several connections, or
    /// together in one call.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::of(self.shared.servers.sibling(), self.shared.deadline, self.shared.replicas)
    }

    /// How long a call is tried before it is given up.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// Whether the keys are spread over the slots of a cluster, so that no command may touch two partitions.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared.servers, Servers::Cluster(_))
    }

    /// A link to each server that takes writes, with the server's address: for commands without a key (`INFO`, `CONFIG`,
    /// `TIME`) that tell of one server.
    ///
    /// # Errors
    /// [`LinkError::Unavailable`] when nobody says which there are.
    pub async fn servers(&self) -> Result<Vec<(String, Self)>, LinkError> {
        let masters = tokio::time::timeout(self.shared.deadline, self.shared.servers.masters()).await;
        let masters = masters.map_err(|_| LinkError::Unavailable("no answer in time".to_owned()))?;
        let masters = masters.map_err(|error| LinkError::Unavailable(error.to_string()))?;
        let link = |node: Arc<Node>| (node.name.clone(), Self::of(Servers::One(node), self.shared.deadline, 0));
        Ok(masters.into_iter().map(link).collect())
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
        // One server would take anything; so that every test is a test of this, too.
        debug_assert!(
            keys.iter().all(|key| slot_of(key.as_bytes()) == slot_of(keys[0].as_bytes())),
            "the keys of a script are in different slots: {keys:?}"
        );
        let replicas = if script.writes() { self.shared.replicas } else { 0 };
        self.repeat(Call::Script { script, keys, args }, keys.first().map(String::as_bytes), replicas).await
    }

    /// Runs one command that may safely run twice: a read, or a write that sets what it sets.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        self.repeat(Call::Command(command), key_of(command), 0).await
    }

    /// The same for a write that somebody relies on: answered only when as many replicas have it as [`Link::confirmed_by`]
    /// asks for.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn write<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LinkError> {
        self.repeat(Call::Command(command), key_of(command), self.shared.replicas).await
    }

    /// A connection of its own to the server that has `key`. It has no response timeout, and nobody notices when the key is
    /// another server's: [`BlockingReader`] does.
    ///
    /// # Errors
    /// [`LinkError::Unavailable`] when no connection can be made now; the caller waits and asks again.
    pub async fn blocking(&self, key: &str) -> Result<MultiplexedConnection, LinkError> {
        let connection = async { self.shared.servers.owner(Some(slot_of(key.as_bytes()))).await?.blocking().await };
        connection.await.map_err(|error: RedisError| LinkError::Unavailable(error.to_string()))
    }

    async fn repeat<T: FromRedisValue>(
        &self,
        call: Call<'_>,
        key: Option<&[u8]>,
        replicas: u32,
    ) -> Result<T, LinkError> {
        let servers = &self.shared.servers;
        let give_up = Instant::now() + self.shared.deadline;
        let slot = key.map(slot_of);
        let confirmation = Confirmation::of(key, replicas);
        let (mut wait, mut redirects, mut asked) = (RETRY_FIRST, 0, None);
        loop {
            let seen = servers.version();
            // One connects at a time: behind a server that takes no connection, who waits for a turn gives up in time too.
            let way = tokio::time::timeout_at(give_up.into(), servers.way(slot, asked.take())).await;
            let error = match way {
                Ok(Ok(mut way)) => match way.take(&call, confirmation.as_ref()).await {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                },
                Ok(Err(error)) => error,
                Err(_) => return Err(LinkError::Unavailable("no connection in time".to_owned())),
            };
            let next = tokio::time::timeout_at(give_up.into(), servers.learn(&error, seen)).await;
            match next.unwrap_or(Next::Judge) {
                Next::Never(refusal) => return Err(refusal),
                Next::Elsewhere(node) if redirects < REDIRECTS_AT_ONCE => {
                    (asked, redirects) = (node, redirects + 1);
                    continue;
                }
                Next::Elsewhere(_) | Next::Judge => {}
            }
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
}
