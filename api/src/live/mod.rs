//! The journal as it grows, pushed to whoever follows: over a WebSocket or as server-sent events.
//!
//! 1. [`told`] – an event that is told to many and encoded once.
//! 2. [`topic`] – which events somebody follows; [`kinds`] – of what kind a task is, where its event does not say.
//! 3. [`follow`] – one follower's way: the past from its cursor on, then what is new, without a gap; cut off when it takes
//!    nothing.
//! 4. [`past`] – the first part of that way, in turn with others.
//! 5. [`socket`] – `/api/ws`, by [`line`]; [`stream`] – server-sent events, by [`frames`]; [`pulse`] – who is still
//!    there.
//!
//! All of them share the process's one reader of the journal, [`crate::tail`].

pub(crate) mod follow;
pub(crate) mod frames;
pub(crate) mod kinds;
pub(crate) mod line;
pub(crate) mod past;
pub(crate) mod pulse;
pub(crate) mod socket;
pub(crate) mod stream;
pub mod told;
pub(crate) mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Gauge, counter, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::problem::Problem;
use kinds::Kinds;

/// Followers at once: more than this process is made for are refused at their door.
const MAX_FOLLOWERS: usize = 8_000;
/// Those among them that read the past at the same time, each with a page of every partition in memory; others wait for
/// their turn.
const MAX_READING: usize = 32;
/// After this long a follower lets those read that wait, and goes on when it is its turn again.
pub(crate) const TURN: Duration = Duration::from_secs(1);
/// How often one whose connection takes nothing looks whether others wait.
pub(crate) const AGAIN: Duration = Duration::from_millis(100);
/// A follower whose connection takes nothing for this long is cut off.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Between two signs of life to a follower that hears nothing else.
pub(crate) const ALIVE: Duration = Duration::from_secs(15);
/// When one who was refused should come back, in seconds.
const RETRY_AFTER_S: u32 = 5;
/// For the last words to followers when the process stops.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What followers share.
pub(crate) struct Live {
    places: Arc<Semaphore>,
    pub(crate) reading: Semaphore,
    pub(crate) kinds: Kinds,
    /// Followers that were cut off.
    cut: AtomicU64,
    /// Conversations that have left their HTTP connection.
    pub(crate) conversations: TaskTracker,
}

/// A follower's place; given back when dropped.
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    followers: Gauge,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            reading: Semaphore::new(MAX_READING),
            kinds: Kinds::default(),
            cut: AtomicU64::new(0),
            conversations: TaskTracker::new(),
        }
    }

    /// A place for one more follower.
    ///
    /// # Errors
    /// 503 when all are taken.
    pub(crate) fn place(&self) -> Result<Place, Problem> {
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            let detail = format!("{MAX_FOLLOWERS} follow already, as many as this process takes");
            let problem =
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-followers", "Too many follow", detail);
            return Err(problem.retry_after(RETRY_AFTER_S));
        };
        let followers = gauge!("if_live_followers");
        followers.increment(1);
        Ok(Place { _permit: permit, followers })
    }

    /// Counts a follower that was cut off because it was too slow.
    pub(crate) fn count_cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
        counter!("if_live_cut_total").increment(1);
    }

    /// Those that were cut off so far.
    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Places that are taken.
    pub(crate) fn followers(&self) -> usize {
        MAX_FOLLOWERS - self.places.available_permits()
    }

    /// Waits until conversations have ended, which they do by themselves once the process is told to stop.
    pub(crate) async fn ended(&self) {
        self.conversations.close();
        if tokio::time::timeout(LAST_WORDS, self.conversations.wait()).await.is_err() {
            tracing::warn!("followers that took nothing were left without a last word");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.followers.decrement(1);
    }
}
