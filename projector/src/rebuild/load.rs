//! Folds the journal into the fresh tables, as a pipeline: while the servers write one window, the next is folded and put
//! into words, and the one after that is read.
//!
//! Two connections write, one the history, the other everything else: every table's rows then arrive in the order of their
//! keys. They need not agree at every moment: nobody reads the fresh tables before both have finished.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use insightforge_schema::id::MAX_PARTITIONS;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::{AssertSqlSafe, MySqlPool};
use tokio::sync::mpsc;

use super::RebuildError;
use super::fresh::FRESH;
use super::lane::{Batch, Lane};
use crate::checkpoint::{self, Advance};
use crate::fold::{Known, Rows, fold, missing};
use crate::literal::inserts;
use crate::retired::{retire_as_live, without_retired};
use crate::rows::{self, BATCHES, FAULTS, LOGS, RESULTS, SHADOWS, TASKS};
use crate::taken::taken_ids;
use crate::window::{Reader, Window, WindowError};
use crate::write::{Tables, load};

/// Unended tasks kept in memory; about half a KiB each.
const KNOWN_TASKS: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");
/// MySQL's and MariaDB's error number of a duplicate key.
const DUPLICATE_KEY: u16 = 1062;

/// Row ids that a fold has written since somebody began to watch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) events: BTreeSet<u64>,
    pub(super) tasks: BTreeSet<u64>,
}

/// Loads the fresh tables.
pub(super) struct Loader {
    pool: MySqlPool,
    reader: Reader,
    owner: String,
    tables: Tables,
    known: Known,
    /// Last event of every partition in the fresh tables.
    folded: Vec<u64>,
    touched: Option<Touched>,
    /// A task id was submitted twice: from then on every window's ids are looked up before it is folded.
    careful: bool,
    /// Events handed to the connections.
    handed: Arc<AtomicU64>,
}

/// The connections that write.
struct Lanes {
    state: Lane,
    history: Lane,
}

impl Loader {
    /// A loader of tables that are empty.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn new(pool: MySqlPool, reader: Reader, owner: String) -> Result<Self, sqlx::Error> {
        for partition in reader.partitions.iter() {
            checkpoint::begin(&pool, FRESH, partition, &owner).await?;
        }
        let folded = vec![0; usize::from(reader.partitions.get())];
        let (tables, known) = (Tables::new(FRESH), Known::new(KNOWN_TASKS));
        Ok(Self { pool, reader, owner, tables, known, folded, touched: None, careful: false, handed: Arc::default() })
    }

    /// Folds up to `target`, exactly; the number of events.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub(super) async fn load_to(&mut self, target: &[u64]) -> Result<u64, RebuildError> {
        let events = self.behind(target);
        while self.behind(target) > 0 {
            match self.try_load(target).await {
                Err(RebuildError::Tables(error)) if !self.careful && is_duplicate(&error) => {
                    tracing::info!("a task id was submitted twice; going on with care");
                    self.careful = true;
                    self.step_back().await?;
                }
                outcome => outcome?,
            }
        }
        Ok(events)
    }

    /// Takes out what the live tables lack because it ended before their horizon; how many tasks.
    ///
    /// # Errors
    /// What the server says.
    pub(super) async fn retire(&mut self) -> Result<u64, sqlx::Error> {
        let retired = retire_as_live(&mut *self.pool.acquire().await?, FRESH).await?;
        if retired > 0 {
            // What is remembered of them has no row any more.
            self.known.clear();
        }
        Ok(retired)
    }

    /// Counts the events that were handed to the connections.
    pub(super) fn handed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.handed)
    }

    /// Events in the fresh tables.
    pub(super) fn events(&self) -> u64 {
        self.folded.iter().sum()
    }

    /// How many events `target` lies ahead.
    pub(super) fn behind(&self, target: &[u64]) -> u64 {
        self.folded.iter().zip(target).map(|(folded, target)| target.saturating_sub(*folded)).sum()
    }

    /// Gives what was touched since the last call; the first call begins to watch.
    pub(super) fn take_touched(&mut self) -> Touched {
        self.touched.replace(Touched::default()).unwrap_or_default()
    }

    async fn try_load(&mut self, target: &[u64]) -> Result<(), RebuildError> {
        let mut windows = read_ahead(self.reader.clone(), self.folded.clone(), target.to_vec());
        let mut lanes = self.open().await?;
        while let Some(window) = windows.recv().await {
            let window = window?;
            let wanted = missing(&window.events, &self.known);
            let (mut refused, mut events) = (HashSet::new(), Cow::Borrowed(&window.events[..]));
            if self.careful || !wanted.is_empty() {
                // What is asked for may still be on its way.
                lanes.finish().await?;
                let mut connection = self.pool.acquire().await?;
                for task in load(&mut connection, FRESH, &wanted).await? {
                    self.known.insert(task);
                }
                events = without_retired(&mut connection, FRESH, &window.events, &self.known).await?;
                if self.careful {
                    refused = taken_ids(&mut connection, FRESH, &window.events).await?;
                }
                lanes = self.open().await?;
            }
            let rows = fold(&events, &mut self.known, &refused);
            let state = state(&rows, &self.tables, self.advances(&window));
            let history =
                Batch { inserts: inserts(&LOGS, FRESH, rows.logs.iter().map(|it| rows::log(it))), ..Batch::default() };
            drop(rows);
            self.folded.clone_from(&window.upto);
            self.touch(&window);
            self.handed.fetch_add(window.events.len() as u64, Ordering::Relaxed);
            if !(lanes.state.hand(state).await && lanes.history.hand(history).await) {
                break;
            }
        }
        lanes.finish().await?;
        Ok(())
    }

    async fn open(&self) -> Result<Lanes, sqlx::Error> {
        Ok(Lanes {
            state: Lane::open(&self.pool, &self.owner).await?,
            history: Lane::open(&self.pool, &self.owner).await?,
        })
    }

    fn touch(&mut self, window: &Window) {
        if let Some(touched) = &mut self.touched {
            touched.events.extend(window.events.iter().map(|event| event.position.row_id()));
            touched.tasks.extend(window.events.iter().map(|event| event.first.row_id()));
        }
    }

    fn advances(&self, window: &Window) -> Vec<Advance> {
        let moved = self.reader.partitions.iter().zip(self.folded.iter().zip(&window.upto));
        moved
            .filter(|(_, (from, to))| from != to)
            .map(|(partition, (&from, &to))| {
                let last = window.events.iter().rfind(|event| event.position.partition == partition);
                Advance { part: partition.0, from, to, event_us: last.map_or(0, |event| event.meta.at_us) }
            })
            .collect()
    }

    /// Back to the last window that both connections have written: the history may be ahead.
    async fn step_back(&mut self) -> Result<(), RebuildError> {
        self.known.clear();
        let mut connection = self.pool.acquire().await?;
        self.folded = checkpoint::seen_by(&mut connection, FRESH, self.reader.partitions).await?;
        for (partition, folded) in self.reader.partitions.iter().zip(&self.folded) {
            let statement = format!("DELETE FROM {}{FRESH} WHERE id >= ? AND id % {MAX_PARTITIONS} = ?", LOGS.name);
            sqlx::query(AssertSqlSafe(statement))
                .bind((folded + 1) * u64::from(MAX_PARTITIONS))
                .bind(partition.0)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}

impl Lanes {
    /// Both are waited for, whatever the first one says.
    async fn finish(self) -> Result<(), sqlx::Error> {
        let (state, history) = tokio::join!(self.state.finish(), self.history.finish());
        state.and(history)
    }
}

/// Reads the windows before they are asked for.
fn read_ahead(reader: Reader, mut after: Vec<u64>, target: Vec<u64>) -> mpsc::Receiver<Result<Window, WindowError>> {
    let (windows, read) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(window) = reader.window(&after, &target).await.transpose() {
            if let Ok(window) = &window {
                after.clone_from(&window.upto);
            }
            let failed = window.is_err();
            if windows.send(window).await.is_err() || failed {
                return;
            }
        }
    });
    read
}

/// All rows but the history.
fn state(rows: &Rows<'_>, tables: &Tables, advances: Vec<Advance>) -> Batch {
    let tasks = rows.new_tasks.iter().map(|(task, submitted)| rows::new(task, submitted));
    let results = rows.results.iter().map(|(event, completed)| rows::result(event, completed));
    let shadows = rows.shadows.iter().map(|(event, shadowed)| rows::shadow(event, shadowed));
    let batches = rows.batches.iter().filter_map(|event| rows::batch(event));
    let faults = rows.faults.iter().map(|(event, illegal)| rows::fault(event, illegal));
    let mut all = inserts(&TASKS, FRESH, tasks);
    all.extend(inserts(&RESULTS, FRESH, results));
    all.extend(inserts(&SHADOWS, FRESH, shadows));
    all.extend(inserts(&BATCHES, FRESH, batches));
    all.extend(inserts(&FAULTS, FRESH, faults));
    Batch { inserts: all, updates: tables.updates(rows), advances }
}

fn is_duplicate(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error)
        if error.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|error| error.number() == DUPLICATE_KEY))
}
