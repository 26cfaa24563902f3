//! Tasks that have no row: deleted because they ended before the horizon, or lost.

use std::borrow::Cow;
use std::collections::HashSet;

use insightforge_schema::event::{Change, Event};
use sqlx::mysql::MySqlConnection;

use super::Report;
use crate::retired::present;
use crate::rows::TASKS;

/// What is known of tasks without a row.
pub(super) struct Retirement {
    /// `None`: no task was ever deleted, and each must be there.
    horizon: Option<i64>,
    /// Absent tasks whose end was not seen yet: at the end of the journal, those are missing.
    unended: HashSet<u64>,
}

impl Retirement {
    pub(super) fn new(horizon: Option<i64>) -> Self {
        Self { horizon, unended: HashSet::new() }
    }

    /// The events without those of tasks that have no row. A `submitted` event that was refused makes none, and its task
    /// goes on to be looked at.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn without_absent<'e>(
        &mut self,
        connection: &mut MySqlConnection,
        events: &'e [Event],
        refused: &HashSet<u64>,
    ) -> Result<Cow<'e, [Event]>, sqlx::Error> {
        let Some(horizon) = self.horizon else { return Ok(Cow::Borrowed(events)) };
        let of_tasks = events.iter().filter(|event| !matches!(event.change, Change::BatchReceived(_)));
        let mut tasks: Vec<u64> = of_tasks.map(|event| event.first.row_id()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut rows = present(connection, "", TASKS.name, &tasks).await?;
        rows.extend(present(connection, "", "projection_faults", &tasks).await?);
        rows.extend(refused);
        let absent: HashSet<u64> = tasks.into_iter().filter(|task| !rows.contains(task)).collect();
        if absent.is_empty() {
            return Ok(Cow::Borrowed(events));
        }
        let (absent, kept): (Vec<&Event>, Vec<&Event>) =
            events.iter().partition(|event| absent.contains(&event.first.row_id()) && !is_batch(event));
        for event in absent {
            let task = event.first.row_id();
            if event.first == event.position {
                self.unended.insert(task);
            } else if event.change.is_terminal() && event.meta.at_us < horizon {
                self.unended.remove(&task);
            }
        }
        Ok(kept.into_iter().cloned().collect())
    }

    /// Tells of tasks that are absent and should not be.
    pub(super) fn tell(&self, report: &mut Report) {
        let mut missing: Vec<u64> = self.unended.iter().copied().collect();
        missing.sort_unstable();
        for task in missing {
            report.add(&TASKS, Some(task), "the row is missing".to_owned());
        }
    }
}

fn is_batch(event: &Event) -> bool {
    matches!(event.change, Change::BatchReceived(_))
}
