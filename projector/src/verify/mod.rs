//! Folds the journal again, in memory, and compares every row with what it should be. Writes nothing.
//!
//! 1. [`window`](crate::window) – the journal is read in windows; at no time is more than one in memory.
//! 2. [`fold`](crate::fold) – what the window makes of the rows, by the code that made them.
//! 3. [`expect`] – those rows, column by column, against the rows of one snapshot of the tables.
//! 4. [`recall`] – a task that was forgotten meanwhile is folded again from its own events.
//! 5. [`retirement`] – a task that is absent because it ended long ago is no difference.
//!
//! [`stretch`] looks at a part only: every event of it must have left its trace in the tables.
//!
//! The snapshot holds the tables as they were at one checkpoint, so a projector may go on meanwhile.

mod expect;
mod recall;
mod retirement;
mod stretch;

use std::num::NonZeroUsize;

use insightforge_archive::{Journal, ReadError};
use insightforge_schema::event::Event;
use insightforge_schema::id::{Cursor, PartitionCount, Position, position_of_row};
use sqlx::{AssertSqlSafe, MySqlPool};

use crate::fold::{Known, Rows, fold, missing};
use crate::retired;
use crate::rows::{self, BATCHES, FAULTS, LOGS, RESULTS, SHADOWS, TASKS, Table};
use crate::snapshot::Snapshot;
use crate::taken::taken_ids;
use crate::window::Reader;
use expect::{Expected, Within};
use retirement::Retirement;

pub use crate::window::WindowError;
pub use stretch::verify_stretch;

/// Unended tasks kept in memory; about half a KiB each.
const KNOWN_TASKS: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
/// Differences told in full.
const EXAMPLES: usize = 20;
/// Tasks of a sample that are looked at together.
const SAMPLE_STEP: u64 = 500;

/// What a verification needs.
#[derive(Clone)]
pub struct Deps {
    pub journal: Journal,
    pub pool: MySqlPool,
    pub partitions: PartitionCount,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Where the tables were when they were looked at.
    pub at: Cursor,
    pub events: u64,
    pub tasks: u64,
    /// Rows that are not what they should be, that are missing, or that nothing in the journal accounts for.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
}

/// A row that is not what the journal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub table: &'static str,
    /// The event that the row comes from; none for what concerns the table.
    pub origin: Option<Position>,
    pub what: String,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("the journal could not be read: {0}")]
    Journal(#[from] ReadError),
    #[error("the database: {0}")]
    Tables(#[from] sqlx::Error),
}

/// Compares all rows with the journal.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify(deps: &Deps) -> Result<Report, VerifyError> {
    verify_telling(deps, |_, _| {}).await
}

/// [`verify`], which tells how many events are compared, and of how many.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify_telling(deps: &Deps, mut tell: impl FnMut(u64, u64)) -> Result<Report, VerifyError> {
    let mut verification = Verification::begin(deps).await?;
    let target = verification.snapshot.checkpoint.clone();
    let events = target.iter().sum();
    let mut after = vec![0; target.len()];
    tell(0, events);
    while let Some(window) = verification.reader.window(&after, &target).await? {
        let within = Within { after: &after, upto: &window.upto };
        verification.look_at(&window.events, &within).await?;
        after = window.upto;
        tell(after.iter().sum(), events);
    }
    verification.retirement.tell(&mut verification.report);
    verification.count_rows().await?;
    verification.end().await
}

/// Compares about `tasks` tasks, chosen at random, with their events; those are found through the tasks' own history, so a
/// sample shows wrong rows and no missing ones.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify_sample(deps: &Deps, tasks: u64) -> Result<Report, VerifyError> {
    let mut verification = Verification::begin(deps).await?;
    let mut left = tasks;
    while left > 0 {
        let some = left.min(SAMPLE_STEP);
        left -= some;
        let ids = verification.draw(some).await?;
        let events = recall::events_of(&verification.reader, &mut verification.snapshot, &ids, None).await?;
        let rows = fold(&events, &mut Known::new(KNOWN_TASKS), &Default::default());
        verification.report.events += events.len() as u64;
        verification.compare(&rows, None).await?;
    }
    verification.end().await
}

struct Verification {
    snapshot: Snapshot,
    reader: Reader,
    known: Known,
    report: Report,
    retirement: Retirement,
    /// Rows that the journal makes, a table.
    made: [(&'static Table, u64); 6],
}

impl Verification {
    async fn begin(deps: &Deps) -> Result<Self, VerifyError> {
        let mut snapshot = Snapshot::take(&deps.pool, deps.partitions).await?;
        let retirement = Retirement::new(retired::horizon(&mut snapshot.connection).await?);
        let at = Cursor(snapshot.checkpoint.clone());
        Ok(Self {
            snapshot,
            retirement,
            reader: Reader { journal: deps.journal.clone(), partitions: deps.partitions },
            known: Known::new(KNOWN_TASKS),
            report: Report { at, events: 0, tasks: 0, differences: 0, examples: Vec::new() },
            made: [(&TASKS, 0), (&RESULTS, 0), (&SHADOWS, 0), (&LOGS, 0), (&BATCHES, 0), (&FAULTS, 0)],
        })
    }

    async fn look_at(&mut self, events: &[Event], within: &Within<'_>) -> Result<(), VerifyError> {
        let refused = taken_ids(&mut self.snapshot.connection, "", events).await?;
        let forgotten = missing(events, &self.known);
        if !forgotten.is_empty() {
            let earlier = recall::events_of(&self.reader, &mut self.snapshot, &forgotten, Some(within.after)).await?;
            recall::fold_into(&mut self.known, &earlier);
        }
        self.report.events += events.len() as u64;
        let (connection, journal) = (&mut self.snapshot.connection, &self.reader.journal);
        let retirement = &mut self.retirement;
        let events = &*retirement.without_absent(connection, journal, events, &refused).await?;
        let rows = fold(events, &mut self.known, &refused);
        self.compare(&rows, Some(within)).await
    }

    /// Compares the rows, and with `within` also that there are no others there.
    async fn compare(&mut self, rows: &Rows<'_>, within: Option<&Within<'_>>) -> Result<(), VerifyError> {
        let connection = &mut self.snapshot.connection;
        let mut tasks = Expected::new(&TASKS);
        for (task, submitted) in &rows.new_tasks {
            tasks.add(rows::new(task, submitted));
        }
        for task in &rows.changed_tasks {
            tasks.add(rows::changed(task));
        }
        let mut results = Expected::new(&RESULTS);
        for (event, completed) in &rows.results {
            results.add(rows::result(event, completed));
        }
        let mut shadows = Expected::new(&SHADOWS);
        for (event, shadowed) in &rows.shadows {
            shadows.add(rows::shadow(event, shadowed));
        }
        let mut logs = Expected::new(&LOGS);
        rows.logs.iter().for_each(|event| logs.add(rows::log(event)));
        let mut batches = Expected::new(&BATCHES);
        rows.batches.iter().filter_map(|event| rows::batch(event)).for_each(|row| batches.add(row));
        let mut faults = Expected::new(&FAULTS);
        rows.faults.iter().for_each(|(event, illegal)| faults.add(rows::fault(event, illegal)));
        self.retirement.impossible().into_iter().for_each(|id| faults.add((id,)));
        let new_tasks = rows.new_tasks.len() as u64;
        let made = [new_tasks, results.len(), shadows.len(), logs.len(), batches.len(), faults.len()];
        self.made.iter_mut().zip(made).for_each(|((_, total), made)| *total += made);
        self.report.tasks += new_tasks;
        expect::tasks(connection, &tasks, within, &mut self.report).await?;
        for expected in [&results, &shadows, &logs, &batches, &faults] {
            expected.compare(connection, within, &mut self.report).await?;
        }
        Ok(())
    }

    /// Whatever rows there are beyond those compared.
    async fn count_rows(&mut self) -> Result<(), VerifyError> {
        for (table, made) in self.made {
            let statement = format!("SELECT COUNT(*) FROM {}", table.name);
            let rows: i64 =
                sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut self.snapshot.connection).await?;
            if rows.unsigned_abs() != made {
                self.report.add(table, None, format!("there are {rows} rows, the journal makes {made}"));
            }
        }
        Ok(())
    }

    /// Row ids of tasks near random places.
    async fn draw(&mut self, some: u64) -> Result<Vec<u64>, VerifyError> {
        let last: Option<u64> =
            sqlx::query_scalar("SELECT MAX(id) FROM analysis_tasks").fetch_one(&mut self.snapshot.connection).await?;
        let Some(last) = last else { return Ok(Vec::new()) };
        let places: Vec<u64> = (0..some).map(|_| rand::random_range(0..=last)).collect();
        let mut ids: Vec<u64> = sqlx::query_scalar(
            "SELECT (SELECT MIN(t.id) FROM analysis_tasks t WHERE t.id >= place.id)
            FROM JSON_TABLE(?, '$[*]' COLUMNS (id BIGINT UNSIGNED PATH '$')) place",
        )
        .bind(serde_json::json!(places).to_string())
        .fetch_all(&mut self.snapshot.connection)
        .await?;
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    async fn end(self) -> Result<Report, VerifyError> {
        self.snapshot.release().await?;
        Ok(self.report)
    }
}

impl Report {
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.differences == 0
    }

    fn add(&mut self, table: &Table, id: Option<u64>, what: String) {
        self.differences += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(Difference { table: table.name, origin: id.map(position_of_row), what });
        }
    }
}
