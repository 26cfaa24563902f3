//! One server and the connection to it that everybody shares.

use std::time::Instant;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, RedisError};
use tokio::sync::Mutex;

use super::address::name_of;
use super::{CONNECT_TIMEOUT, LinkError, RESPONSE_TIMEOUT};

pub(super) struct Node {
    client: Client,
    /// `host:port`.
    pub(super) name: String,
    slot: Mutex<Slot>,
}

/// The current connection and how many there were before it, so that one failure is not counted against its successor.
#[derive(Default)]
struct Slot {
    generation: u64,
    connection: Option<MultiplexedConnection>,
    /// When the last try to connect failed, and how.
    failed: Option<(Instant, RedisError)>,
}

impl Node {
    /// Not connected yet.
    pub(super) fn new(info: ConnectionInfo) -> Result<Self, LinkError> {
        let name = name_of(info.addr());
        let client = Client::open(info).map_err(|_| LinkError::Refused("the Redis URL cannot be read".to_owned()))?;
        Ok(Self { client, name, slot: Mutex::default() })
    }

    /// The same server, with a connection of its own.
    pub(super) fn sibling(&self) -> Self {
        Self { client: self.client.clone(), name: self.name.clone(), slot: Mutex::default() }
    }

    /// One connects at a time. Who waited for another's try that failed shares its failure, instead of trying for as long
    /// once more.
    pub(super) async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((slot.generation, connection.clone()));
        }
        if let Some((at, error)) = &slot.failed
            && *at > asked
        {
            return Err(error.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        match self.client.get_multiplexed_async_connection_with_config(&config).await {
            Ok(connection) => {
                slot.generation += 1;
                slot.connection = Some(connection.clone());
                Ok((slot.generation, connection))
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(super) async fn drop_connection(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.generation == generation {
            slot.connection = None;
        }
    }

    /// A connection that nobody shares and that waits for an answer for as long as it takes.
    pub(super) async fn blocking(&self) -> Result<MultiplexedConnection, RedisError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}
