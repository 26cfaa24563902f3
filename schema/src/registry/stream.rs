//! The registry's stream in Redis: read with a cursor, written by compare-and-set.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::sync::watch;

use super::decide::{Command, Refusal, decide};
use super::event::{Entry, Meta, decode, encode};
use super::routes::{NotUnderstood, Routes};
use super::staffed;
use crate::catalogue::Worker;
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
    /// The event that `routes` end with.
    last: Option<Entry>,
}

/// What must hold for a command to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// The registry is still at this number. What is so already is so, wherever it stands.
    pub at: Option<u64>,
    /// One of these analyzers answers what they answer before (see [`staffed`]).
    pub staffed_by: Option<&'a [Worker]>,
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
        Self { link, keys, routes: Arc::default(), last: None }
    }

    /// The routes as they were last read.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.clone()
    }

    /// Reads what was written since; says how many events changed what was known. The routes stay as they were when it
    /// fails.
    ///
    /// The last event known is read again each time. When it is not there any more, or another one stands in its place,
    /// Redis came back with less than it had (a failover, an older file), and all is read from the start.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn refresh(&mut self) -> Result<usize, LinkError> {
        let mut read = 0;
        loop {
            let page = history(&self.link, &self.keys, self.routes.position.max(1), PAGE).await?;
            let new = match (&self.last, page.split_first()) {
                (None, _) => &page[..],
                (Some(last), Some((first, rest))) if first == last => rest,
                (Some(last), _) => {
                    tracing::error!(n = last.n, "the registry's last known event is gone; reading it from the start");
                    self.routes = Arc::default();
                    self.last = None;
                    read += 1;
                    continue;
                }
            };
            let Some(last) = new.last() else { return Ok(read) };
            read += new.len();
            self.last = Some(last.clone());
            let known = self.routes.not_understood.is_some();
            let routes = Arc::make_mut(&mut self.routes);
            new.iter().for_each(|entry| routes.apply(entry));
            if let Some(newer) = routes.not_understood.as_ref().filter(|_| !known) {
                let NotUnderstood { n, event_type } = newer;
                tracing::error!(n, event_type, "the registry holds an event of a newer release; update this one");
            }
        }
    }

    /// Decides on the newest routes and writes; decides anew when somebody else wrote in between.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing was written then, except that after [`LinkError::Unavailable`] it is unknown.
    pub async fn write(&mut self, command: &Command, actor: &str, reason: Option<&str>) -> Result<Written, WriteError> {
        self.write_if(Conditions::default(), command, actor, reason).await
    }

    /// Writes as long as `conditions` hold; else nothing.
    ///
    /// # Errors
    /// [`WriteError::Moved`], [`Refusal::Unstaffed`], and as [`Registry::write`].
    pub async fn write_if(
        &mut self,
        conditions: Conditions<'_>,
        command: &Command,
        actor: &str,
        reason: Option<&str>,
    ) -> Result<Written, WriteError> {
        let mut settled = None;
        for _ in 0..TRIES {
            self.refresh().await?;
            let command = &*settled.get_or_insert_with(|| command.clone().settled(&self.routes));
            let changes = decide(&self.routes, command);
            if let Some(at) = conditions.at
                && at != self.routes.position
                && !changes.as_ref().is_ok_and(Vec::is_empty)
            {
                return Err(WriteError::Moved { at, now: self.routes.position });
            }
            let changes = changes?;
            if changes.is_empty() {
                return Ok(Written::Unchanged);
            }
            if let Some(workers) = conditions.staffed_by {
                staffed::check(&self.routes, &changes, workers)?;
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
                self.last = entries.last().cloned();
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
