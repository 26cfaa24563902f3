//! Tasks that have no row: deleted because they ended before the horizon, lost, or there never were.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use insightforge_archive::{Journal, ReadError};
use insightforge_schema::event::{Change, Event};
use insightforge_schema::task::{Task, apply};
use lru::LruCache;
use sqlx::mysql::MySqlConnection;

use super::{Report, VerifyError};
use crate::retired::{may_follow_an_end, present};
use crate::rows::{FAULTS, TASKS};

/// Ended tasks without a row that are remembered; of others the journal is asked.
const ENDED: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// What is known of tasks without a row.
pub(super) struct Retirement {
    /// `None`: no task was ever deleted, and each must be there.
    horizon: Option<i64>,
    /// Absent tasks whose end was not seen yet: at the end of the journal, those are missing.
    unended: HashMap<u64, Task>,
    /// Absent tasks that ended before the horizon.
    ended: LruCache<u64, ()>,
    /// Row ids of impossible events of absent tasks.
    impossible: Vec<u64>,
}

impl Retirement {
    pub(super) fn new(horizon: Option<i64>) -> Self {
        Self { horizon, unended: HashMap::new(), ended: LruCache::new(ENDED), impossible: Vec::new() }
    }

    /// The events without those of tasks that had a row. A `submitted` event that was refused makes none, and its task
    /// goes on to be looked at; and so does an event of a task that the journal does not have.
    ///
    /// # Errors
    /// What the servers say.
    pub(super) async fn without_absent<'e>(
        &mut self,
        connection: &mut MySqlConnection,
        journal: &Journal,
        events: &'e [Event],
        refused: &HashSet<u64>,
    ) -> Result<Cow<'e, [Event]>, VerifyError> {
        let Some(horizon) = self.horizon else { return Ok(Cow::Borrowed(events)) };
        let of_tasks = events.iter().filter(|event| !is_batch(event));
        let mut tasks: Vec<u64> = of_tasks.map(|event| event.first.row_id()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut rows = present(connection, "", TASKS.name, &tasks).await?;
        rows.extend(present(connection, "", FAULTS.name, &tasks).await?);
        rows.extend(refused);
        let absent: HashSet<u64> = tasks.into_iter().filter(|task| !rows.contains(task)).collect();
        if absent.is_empty() {
            return Ok(Cow::Borrowed(events));
        }
        let mut kept = Vec::with_capacity(events.len());
        for event in events {
            let is_absent = absent.contains(&event.first.row_id()) && !is_batch(event);
            if !is_absent || !self.had_a_row(journal, event).await? {
                kept.push(event.clone());
            } else if !self.follow(event, horizon) {
                self.impossible.push(event.position.row_id());
            }
        }
        Ok(Cow::Owned(kept))
    }

    /// Whether an absent task was ever submitted.
    async fn had_a_row(&mut self, journal: &Journal, event: &Event) -> Result<bool, ReadError> {
        let task = event.first.row_id();
        if event.first == event.position || self.unended.contains_key(&task) || self.ended.contains(&task) {
            return Ok(true);
        }
        if event.first.n >= event.position.n {
            return Ok(false);
        }
        let (partition, n) = (event.first.partition, event.first.n);
        let first = journal.range(partition, n, Some(n), 1).await?;
        Ok(first.first().is_some_and(|first| {
            first.position == event.first && first.task == event.task && matches!(first.change, Change::Submitted(_))
        }))
    }

    /// Follows an absent task to its end; `false` for what is impossible.
    fn follow(&mut self, event: &Event, horizon: i64) -> bool {
        let id = event.first.row_id();
        let before = self.unended.get(&id).cloned();
        if before.is_none() && event.first != event.position {
            return may_follow_an_end(&event.change);
        }
        let Ok(task) = apply(before, event) else { return false };
        if event.change.is_terminal() && event.meta.at_us < horizon {
            self.unended.remove(&id);
            self.ended.put(id, ());
        } else {
            self.unended.insert(id, task);
        }
        true
    }

    /// Row ids of the impossible events of absent tasks since the last call. Each has a row among the faults; what it says
    /// depends on whether its task's row was still there.
    pub(super) fn impossible(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.impossible)
    }

    /// Tells of tasks that are absent and should not be.
    pub(super) fn tell(&self, report: &mut Report) {
        let mut missing: Vec<u64> = self.unended.keys().copied().collect();
        missing.sort_unstable();
        for task in missing {
            report.add(&TASKS, Some(task), "the row is missing".to_owned());
        }
    }
}

fn is_batch(event: &Event) -> bool {
    matches!(event.change, Change::BatchReceived(_))
}
