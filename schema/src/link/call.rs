//! One call on one connection, with what replicas must confirm of it.

use std::sync::Arc;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, Value};

use super::CONFIRM_TIMEOUT;
use super::judge::breaks_connection;
use super::node::Node;
use crate::keys::Keys;
use crate::script::{Arg, CONFIRM, Script};

/// Where a call is sent.
pub(super) struct Way {
    pub(super) node: Arc<Node>,
    pub(super) generation: u64,
    pub(super) connection: MultiplexedConnection,
    /// The node has the slot only for those who say that they were sent (`ASKING`).
    pub(super) asking: bool,
}

impl Way {
    pub(super) async fn take<T: FromRedisValue>(
        &mut self,
        call: &Call<'_>,
        confirmation: Option<&Confirmation>,
    ) -> Result<T, RedisError> {
        let outcome = match call.make(&mut self.connection, self.asking).await {
            Ok(value) => confirm(confirmation, &mut self.connection, self.asking).await.map(|()| value),
            Err(error) => Err(error),
        };
        if let Err(error) = &outcome
            && breaks_connection(error)
        {
            self.node.drop_connection(self.generation).await;
        }
        outcome
    }
}

/// What is sent, as often as it takes.
pub(super) enum Call<'a> {
    Script { script: &'a Script, keys: &'a [String], args: &'a [Arg<'a>] },
    Command(&'a Cmd),
}

impl Call<'_> {
    async fn make<T: FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        asking: bool,
    ) -> Result<T, RedisError> {
        match self {
            Self::Command(command) => send(command, connection, asking).await,
            Self::Script { script, keys, args } => match send(&script.by_hash(keys, args), connection, asking).await {
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    send(&script.by_body(keys, args), connection, asking).await
                }
                result => result,
            },
        }
    }
}

async fn send<T: FromRedisValue>(
    command: &Cmd,
    connection: &mut MultiplexedConnection,
    asking: bool,
) -> Result<T, RedisError> {
    if !asking {
        return command.query_async(connection).await;
    }
    // Nothing of others may come between the two.
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let reply = connection.req_packed_commands(&both, 1, 1).await?.pop().unwrap_or(Value::Nil);
    Ok(redis::from_redis_value(reply.extract_error()?)?)
}

/// How many replicas must have a write before it counts.
pub(super) struct Confirmation {
    replicas: u32,
    /// Beside what was written; see [`Keys::confirmation`].
    key: String,
}

impl Confirmation {
    pub(super) fn of(key: Option<&[u8]>, replicas: u32) -> Option<Self> {
        let key = Keys::confirmation(&String::from_utf8_lossy(key?));
        (replicas > 0).then_some(Self { replicas, key })
    }
}

/// `WAIT` covers what its own connection wrote; a repeated script may have written on an earlier one. So something is
/// written first: replicas that have that have everything before it.
pub(super) async fn confirm(
    confirmation: Option<&Confirmation>,
    connection: &mut MultiplexedConnection,
    asking: bool,
) -> Result<(), RedisError> {
    let Some(Confirmation { replicas, key }) = confirmation else { return Ok(()) };
    let mut wait = redis::cmd("WAIT");
    wait.arg(*replicas).arg(CONFIRM_TIMEOUT.as_millis() as u64);
    let mut all = redis::pipe();
    if asking {
        all.cmd("ASKING").ignore();
    }
    all.add_command(CONFIRM.by_body(std::slice::from_ref(key), &[])).ignore().add_command(wait);
    let (confirmed,): (u32,) = all.query_async(connection).await?;
    if confirmed >= *replicas {
        return Ok(());
    }
    let text = format!("{confirmed} of {replicas} replicas have the write");
    Err(RedisError::from((ErrorKind::Server(ServerErrorKind::TryAgain), "too few replicas", text)))
}
