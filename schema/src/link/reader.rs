//! Blocking reads: a connection of their own, to the server that has the key at the time.

use std::io;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};

use super::call::{Confirmation, confirm};
use super::slot::slot_of;
use super::{Link, RESPONSE_TIMEOUT};

/// One reader of one key, or of keys of the same slot. Its reads are never cut off by anybody but itself.
pub struct BlockingReader {
    link: Link,
    slot: u16,
    connection: Option<MultiplexedConnection>,
    /// The version of the cluster's map that the connection was made by.
    seen: u64,
}

impl BlockingReader {
    /// Not connected yet.
    #[must_use]
    pub fn new(link: &Link, key: &str) -> Self {
        Self { link: link.clone(), slot: slot_of(key.as_bytes()), connection: None, seen: 0 }
    }

    /// Whether the next read is the first on its connection: perhaps to another server than the one before.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.connection.is_none()
    }

    /// Sends a command and waits `within` for its answer: beyond that the server is gone without a word. After an error
    /// the connection goes too, and what the error says of the key's owner is remembered; only an answer that has nothing
    /// to do with it (`NOGROUP`) leaves it.
    ///
    /// # Errors
    /// What the server says, or why it does not.
    pub async fn read(&mut self, command: &Cmd, within: Duration) -> Result<Value, RedisError> {
        let until = Instant::now() + within;
        let servers = &self.link.shared.servers;
        // A connection with an answer on its way is never used again: a read that is dropped takes it along.
        let (kept, seen) = (self.connection.take(), &mut self.seen);
        let outcome = tokio::time::timeout_at(until.into(), async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => {
                    *seen = servers.version();
                    servers.owner(Some(self.slot)).await?.blocking().await?
                }
            };
            let outcome = command.query_async::<Value>(&mut connection).await;
            if outcome.as_ref().map_or_else(|error| error.code() == Some("NOGROUP"), |_| true) {
                self.connection = Some(connection);
            }
            outcome
        });
        let outcome = outcome.await.unwrap_or_else(|_| Err(silent()));
        if let Err(error) = &outcome {
            // A blocked read does not follow a slot that moves: the next one asks who has it.
            let _next = tokio::time::timeout(within, servers.learn(error, self.seen)).await;
        }
        outcome
    }

    /// Returns when as many replicas as the link asks for have all that the server of the last read has: the loss of that
    /// server cannot take back what was read. At once where none is asked for.
    ///
    /// # Errors
    /// What the server says, or that too few confirm; the connection is gone then.
    pub async fn confirm(&mut self, key: &str) -> Result<(), RedisError> {
        let Some(confirmation) = Confirmation::of(Some(key.as_bytes()), self.link.shared.replicas) else {
            return Ok(());
        };
        // Another server's replicas would say nothing of what this one had.
        let mut connection = self.connection.take().ok_or_else(silent)?;
        let confirmed = confirm(Some(&confirmation), &mut connection, false);
        tokio::time::timeout(RESPONSE_TIMEOUT, confirmed).await.unwrap_or_else(|_| Err(silent()))?;
        self.connection = Some(connection);
        Ok(())
    }
}

fn silent() -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::TimedOut, "no answer from the server that was read"))
}
