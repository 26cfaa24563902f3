//! Folds windows of the journal into the fresh tables.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use sqlx::MySqlPool;

use super::RebuildError;
use super::fresh::FRESH;
use crate::checkpoint::{self, Advance};
use crate::fold::{Known, fold, missing};
use crate::taken::taken_ids;
use crate::window::{Reader, Window};
use crate::write::{Tables, load};

/// Unended tasks kept in memory; about 1 KiB each.
const KNOWN_TASKS: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");

/// Row ids that a fold has written since somebody began to watch.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) events: Vec<u64>,
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
        Ok(Self {
            pool,
            reader,
            owner,
            tables: Tables::new(FRESH),
            known: Known::new(KNOWN_TASKS),
            folded,
            touched: None,
        })
    }

    /// Folds up to `target`, exactly; the number of events.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub(super) async fn load_to(&mut self, target: &[u64]) -> Result<u64, RebuildError> {
        let mut events = 0;
        while let Some(window) = self.reader.window(&self.folded, target).await? {
            self.write(&window).await?;
            events += window.events.len() as u64;
        }
        Ok(events)
    }

    /// How many events `target` lies ahead.
    pub(super) fn behind(&self, target: &[u64]) -> u64 {
        self.folded.iter().zip(target).map(|(folded, target)| target.saturating_sub(*folded)).sum()
    }

    /// Gives what was touched since the last call; the first call begins to watch.
    pub(super) fn take_touched(&mut self) -> Touched {
        self.touched.replace(Touched::default()).unwrap_or_default()
    }

    async fn write(&mut self, window: &Window) -> Result<(), RebuildError> {
        let mut transaction = self.pool.begin().await?;
        let advances = self.advances(window);
        if !checkpoint::advance(&mut transaction, FRESH, &self.owner, &advances).await? {
            return Err(RebuildError::Disturbed);
        }
        let refused = taken_ids(&mut transaction, FRESH, &window.events).await?;
        for task in load(&mut transaction, FRESH, &missing(&window.events, &self.known)).await? {
            self.known.insert(task);
        }
        let rows = fold(&window.events, &mut self.known, &refused);
        self.tables.write(&mut transaction, &rows).await?;
        transaction.commit().await?;
        if let Some(touched) = &mut self.touched {
            touched.events.extend(window.events.iter().map(|event| event.position.row_id()));
            touched.tasks.extend(window.events.iter().map(|event| event.first.row_id()));
        }
        self.folded.clone_from(&window.upto);
        Ok(())
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
}
