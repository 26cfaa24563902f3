//! What came in and ended in each minute of the last hour. Every row of `task_logs` is looked at once: keys follow the
//! journal, so that what is new lies behind what was counted, and no index by time is needed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insightforge_schema::id::{Position, row_id};
use serde::Serialize;
use sqlx::QueryBuilder;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::app::App;
use crate::ask::ask;
use crate::folded;
use crate::problem::Problem;

/// Minutes that are shown.
const SHOWN: i64 = 60;
/// Events counted at most when nobody has asked for long: the newest.
const COUNTED_MOST: u64 = 500_000;
/// Events of one statement, about.
const STATEMENT: u64 = 50_000;
/// Row keys of one event number.
const KEYS: u64 = 1_024;

/// One minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Minute {
    /// Its beginning.
    pub(crate) minute: DateTime<Utc>,
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

/// What was counted so far.
#[derive(Default)]
pub(crate) struct Minutes(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// The last row counted of each partition; empty before the first count.
    to: Vec<u64>,
    minutes: BTreeMap<i64, [u64; 4]>,
    /// The first minute that was counted whole.
    whole_from: i64,
}

/// Partition, type of event, minute, how many.
type Group = (u64, String, i64, i64);

impl Minutes {
    /// The last hour, oldest first, and whether all of it was counted.
    pub(super) async fn refreshed(&self, app: &App) -> Result<(Vec<Minute>, bool), Problem> {
        let mut counted = self.0.lock().await;
        let now_minute = Utc::now().timestamp().div_euclid(60);
        counted.refresh(app, now_minute).await?;
        Ok((counted.shown(now_minute), counted.whole_from <= now_minute - SHOWN + 1))
    }
}

impl Counted {
    async fn refresh(&mut self, app: &App, now_minute: i64) -> Result<(), Problem> {
        // The checkpoint first: what it covers is in the tables.
        let folded = folded(app).await?;
        let behind: u64 = self.to.iter().zip(&folded).map(|(to, folded)| folded.saturating_sub(*to) / KEYS).sum();
        // A rebuilt or another database has less than was counted.
        let moved_back = self.to.iter().zip(&folded).any(|(to, folded)| to > folded);
        if self.to.len() != folded.len() || behind > COUNTED_MOST || moved_back {
            self.begin(app, &folded, now_minute).await?;
        }
        while let Some((low, high)) = self.stretch(&folded) {
            for (part, event_type, minute, count) in count(app, &self.to, &folded, low, high).await? {
                let kind = ["submitted", "completed", "failed", "cancelled"].iter().position(|it| **it == event_type);
                if let Some(kind) = kind.filter(|_| usize::try_from(part).is_ok_and(|part| part < folded.len())) {
                    self.minutes.entry(minute).or_default()[kind] += u64::try_from(count).unwrap_or(0);
                }
            }
            for (to, folded) in self.to.iter_mut().zip(&folded) {
                *to = (*to).max((*folded).min(high));
            }
        }
        self.minutes = self.minutes.split_off(&(now_minute - SHOWN));
        Ok(())
    }

    /// Starts at the first row of the hour, or so near that not too many are counted.
    async fn begin(&mut self, app: &App, folded: &[u64], now_minute: i64) -> Result<(), Problem> {
        let newest = folded.iter().copied().max().unwrap_or(0) / KEYS;
        let fewest = newest.saturating_sub(COUNTED_MOST / folded.len().max(1) as u64);
        let begins = DateTime::from_timestamp((now_minute - SHOWN) * 60, 0).unwrap_or_default();
        // Partitions differ in length, more the longer they are: what one has at a number, another has later.
        let margin = 1_000 + 8 * newest.isqrt();
        let first = first_at(app, begins, newest).await?.saturating_sub(margin).max(fewest);
        *self = Self {
            to: folded.iter().map(|folded| (*folded).min(first * KEYS)).collect(),
            minutes: BTreeMap::new(),
            whole_from: if first > fewest || fewest == 0 { 0 } else { i64::MAX },
        };
        if self.whole_from == i64::MAX {
            self.whole_from = minute_of(app, first).await?.map_or(0, |minute| minute + 1);
        }
        Ok(())
    }

    /// The next row keys to count in one statement: above the first, up to the second.
    fn stretch(&self, folded: &[u64]) -> Option<(u64, u64)> {
        let open = self.to.iter().zip(folded).filter(|(to, folded)| to < folded);
        let low = open.clone().map(|(to, _)| *to).min()?;
        let high = open.map(|(_, folded)| *folded).max()?;
        Some((low, high.min(low + STATEMENT / self.to.len() as u64 * KEYS + KEYS)))
    }

    fn shown(&self, now_minute: i64) -> Vec<Minute> {
        let minutes = (now_minute - SHOWN + 1)..=now_minute;
        let shown = minutes.filter_map(|minute| {
            let [submitted, completed, failed, cancelled] = self.minutes.get(&minute).copied().unwrap_or_default();
            let minute = DateTime::from_timestamp(minute * 60, 0)?;
            Some(Minute { minute, submitted, completed, failed, cancelled })
        });
        shown.collect()
    }
}

/// The key of the last row of every partition that is in the tables.
async fn folded(app: &App) -> Result<Vec<u64>, Problem> {
    let folded = ask(folded::everywhere(app)).await?;
    Ok(app.config.partitions.iter().zip(folded).map(|(partition, n)| row_id(Position { partition, n })).collect())
}

/// Counts rows that are in the stretch and, of their partition, behind what was counted and up to what is folded.
async fn count(app: &App, to: &[u64], folded: &[u64], low: u64, high: u64) -> Result<Vec<Group>, Problem> {
    let mut question = QueryBuilder::new(
        "SELECT CAST(id % 1024 AS UNSIGNED) part, event_type, \
         CAST(FLOOR(UNIX_TIMESTAMP(created_at) / 60) AS SIGNED) minute, COUNT(*) FROM task_logs WHERE id > ",
    );
    question.push_bind(low).push(" AND id <= ").push_bind(high);
    for (sign, bounds) in [(">", to), ("<=", folded)] {
        question.push(format!(" AND id {sign} CASE id % 1024"));
        for (part, bound) in bounds.iter().enumerate() {
            // Numbers of our own.
            question.push(format!(" WHEN {part} THEN {bound}"));
        }
        question.push(" ELSE 0 END");
    }
    question.push(" GROUP BY part, event_type, minute");
    ask(question.build_query_as().fetch_all(&app.pool)).await
}

/// The number of the first event at or after `at`, about: a search by halves, as keys are nearly in the order of times.
async fn first_at(app: &App, at: DateTime<Utc>, newest: u64) -> Result<u64, Problem> {
    let (mut before, mut after) = (0, newest);
    while before < after {
        let middle = before + (after - before) / 2;
        match time_of(app, middle).await? {
            Some(time) if time < at => before = middle + 1,
            _ => after = middle,
        }
    }
    Ok(before)
}

async fn minute_of(app: &App, n: u64) -> Result<Option<i64>, Problem> {
    Ok(time_of(app, n).await?.map(|time| time.timestamp().div_euclid(60)))
}

/// When the first event with this number or a later one happened.
async fn time_of(app: &App, n: u64) -> Result<Option<DateTime<Utc>>, Problem> {
    let time: Option<(chrono::NaiveDateTime,)> =
        ask(sqlx::query_as("SELECT created_at FROM task_logs WHERE id >= ? ORDER BY id LIMIT 1")
            .bind(n * KEYS)
            .fetch_optional(&app.pool))
        .await?;
    Ok(time.map(|(time,)| time.and_utc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_covers_what_is_open_and_no_more_than_a_statement_takes() {
        let counted = |to: &[u64]| Counted { to: to.to_vec(), ..Counted::default() };
        assert_eq!(counted(&[5, 7]).stretch(&[5, 7]), None);
        assert_eq!(counted(&[5_120, 7_169]).stretch(&[9_216, 7_169]), Some((5_120, 9_216)));
        let far = 10 * STATEMENT * KEYS;
        assert_eq!(counted(&[0, 1]).stretch(&[far, far + 1]), Some((0, STATEMENT / 2 * KEYS + KEYS)));
    }

    #[test]
    fn an_hour_is_shown_with_the_minutes_in_which_nothing_happened() {
        let counted = Counted { minutes: [(1_000, [4, 3, 2, 1])].into(), ..Counted::default() };
        let shown = counted.shown(1_001);
        assert_eq!(shown.len(), 60);
        assert_eq!((shown[58].submitted, shown[58].cancelled, shown[59].submitted), (4, 1, 0));
    }
}
