//! The registry's stream in Redis: read with a cursor, written by compare-and-set.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::watch;

use super::decide::{Command, Refusal, decide};
use super::event::{Entry, Meta, decode, encode};
use super::routes::Routes;
use crate::event::now_us;
use crate::id::{number_of, stream_id};
use crate::journal::Entries;
use crate::keys::Keys;
use crate::link::{Link, LinkError};
use crate::script;

/// Entries read by one call.
const PAGE: usize = 500;
/// Writers that get in between before a command is given up; each made a change of its own.
const TRIES: u32 = 20;

/// A reader and writer of the registry: the routes as of the last [`Registry::refresh`].
pub struct Registry {
    link: Link,
    keys: Keys,
    routes: Arc<Routes>,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// These events, the first of them with the lowest number.
    Events(Vec<Entry>),
    /// Things were so already.
    Unchanged,
}

/// Why a command was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Things are no longer as they were when the decision was made.
    #[error("the registry is at number {now}, and the decision rests on number {at}")]
    Moved { at: u64, now: u64 },
    #[error("others changed the registry {TRIES} times in between; try again")]
    Contended,
}

impl Registry {
    /// A reader that has read nothing yet.
    #[must_use]
    pub fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys, routes: Arc::default() }
    }

    /// The routes as they were last read.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    /// Reads what was written since; says how many events. The routes stay as they were when it fails.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn refresh(&mut self) -> Result<usize, LinkError> {
        let mut read = 0;
        loop {
            let page = history(&self.link, &self.keys, self.routes.position + 1, PAGE).await?;
            if page.is_empty() {
                return Ok(read);
            }
            let routes = Arc::make_mut(&mut self.routes);
            page.iter().for_each(|entry| routes.apply(entry));
            read += page.len();
        }
    }

    /// Decides on the newest routes and writes; decides anew when somebody else wrote in between.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was written then, except that after [`LinkError::Unavailable`] it is unknown.
    pub async fn write(&mut self, command: &Command, actor: &str, reason: Option<&str>) -> Result<Written, WriteError> {
        self.write_if(None, command, actor, reason).await
    }

    /// Writes while the registry is still at number `at`; else nothing. What is so already is so, wherever it stands.
    ///
    /// # Errors
    /// [`WriteError::Moved`], and as [`Registry::write`].
    pub async fn write_at(
        &mut self,
        at: u64,
        command: &Command,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Written, WriteError> {
        self.write_if(Some(at), command, actor, reason).await
    }

    async fn write_if(
        &mut self,
        at: Option<u64>,
        command: &Command,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Written, WriteError> {
        for _ in 0..TRIES {
            self.refresh().await?;
            let changes = decide(&self.routes, command);
            if let Some(at) = at
                && at != self.routes.position
                && !changes.as_ref().is_ok_and(Vec::is_empty)
            {
                return Err(WriteError::Moved { at, now: self.routes.position });
            }
            let changes = changes?;
            if changes.is_empty() {
                return Ok(Written::Unchanged);
            }
            let meta = Meta { at_us: now_us(), actor: actor.to_owned(), reason: reason.map(str::to_owned) };
            let position = self.routes.position;
            let encoded: Vec<(&str, Vec<u8>)> =
                changes.iter().map(|change| (change.event_type(), encode(&meta, change))).collect();
            if append(&self.link, &self.keys, position, &encoded).await? {
                let entries = changes.into_iter().zip(position + 1..);
                let entries: Vec<Entry> = entries.map(|(change, n)| Entry { n, meta: meta.clone(), change }).collect();
                let routes = Arc::make_mut(&mut self.routes);
                entries.iter().for_each(|entry| routes.apply(entry));
                return Ok(Written::Events(entries));
            }
        }
        Err(WriteError::Contended)
    }
}

/// Appends events behind number `position`; `false` when there are others already.
async fn append(link: &Link, keys: &Keys, position: u64, events: &[(&str, Vec<u8>)]) -> Result<bool, LinkError> {
    let mut args: Vec<script::Arg<'_>> = vec![
        Cow::Owned(position.to_string().into_bytes()),
        Cow::Owned(uuid::Uuid::new_v4().simple().to_string().into_bytes()),
    ];
    for (event_type, event) in events {
        args.extend([Cow::Borrowed(event_type.as_bytes()), Cow::Borrowed(&event[..])]);
    }
    let written: i64 = link.eval(&script::REGISTER, &[keys.registry()], &args).await?;
    Ok(written == 1)
}

/// Entries from number `from` on, in order, `limit` at most.
///
/// # Errors
/// See [`LinkError`].
pub async fn history(link: &Link, keys: &Keys, from: u64, limit: usize) -> Result<Vec<Entry>, LinkError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(keys.registry()).arg(stream_id(from)).arg("+").arg("COUNT").arg(limit);
    let reply: Value = link.query(&command).await?;
    let entries: Entries =
        redis::from_redis_value(reply).map_err(|error| LinkError::Refused(format!("the registry: {error}")))?;
    let read = entries.0.into_iter().map(|entry| {
        let (meta, change) = decode(&entry.event_type, &entry.bytes);
        Entry { n: number_of(&entry.id).unwrap_or(0), meta, change }
    });
    Ok(read.collect())
}

/// Reads on every `interval` and tells `routes` of every change, until nobody listens any more. An outage of Redis leaves
/// the routes as they were.
pub async fn follow(mut registry: Registry, interval: Duration, routes: watch::Sender<Arc<Routes>>) {
    let mut away = false;
    while !routes.is_closed() {
        match registry.refresh().await {
            Ok(read) => {
                away = false;
                if read > 0 || routes.borrow().position != registry.routes.position {
                    routes.send_replace(registry.routes());
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(%error, "the model routes could not be read; those read before stay");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = routes.closed() => {}
        }
    }
}
