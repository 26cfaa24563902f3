//! Folds the whole journal into fresh tables while the live ones stay in service, proves them equal, and swaps them in.
//!
//! 1. [`guard`] – alone, and on ground that a rebuild understands.
//! 2. [`fresh`] – the fresh tables, defined as the live ones are.
//! 3. [`load`] – the journal from its beginning, up to where the live projector has come.
//! 4. [`compare`] – counts and checksums, fresh against live, at one position: everything once, then what changed since,
//!    until so little is left that the rest can be done behind the fence.
//! 5. [`swap`] – the fence, the last bit, and the one statement that exchanges all tables.
//!
//! [`record`] tells in the tables how it goes.
//!
//! Two absences. A rebuild cannot announce anything: none of the modules it can reach knows the outbox or the sender (a
//! test follows the paths). And it does not fold beyond the live checkpoint unless it is told to: what comes after was not
//! announced yet, and a projector that found it folded would never announce it.

mod compare;
mod fresh;
mod guard;
mod lane;
mod load;
mod record;
mod swap;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use insightforge_archive::{Journal, ReadError};
use insightforge_schema::id::{Cursor, Partition, PartitionCount};
use insightforge_schema::link::LinkError;
use serde_json::{Value, json};
use sqlx::MySqlPool;

use crate::checkpoint;
use crate::snapshot::Snapshot;
use crate::window::{Reader, WindowError};
use compare::{Checksums, Scope, Side, compare};
use fresh::{FRESH, OLD};
use load::{Loader, Touched};
use record::Record;
use swap::{Attempt, Fence};

pub use compare::{Compared, Sum};
pub(crate) use guard::{connect, release, take};

/// So few events are left for behind the fence; a live projector folds them in a fraction of a second.
const FEW_EVENTS: u64 = 2_000;
/// Rounds of catching up before the fence is raised all the same.
const ROUNDS: usize = 20;
/// Attempts to swap while other statements hold the tables, and the pause between them.
const SWAPS: usize = 30;
const BETWEEN_SWAPS: Duration = Duration::from_secs(1);
/// How often a long load is told of.
const TELL: Duration = Duration::from_millis(500);

/// Settings of a rebuild. Plain data; the binary reads flags and environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub partitions: PartitionCount,
    /// Stands in the checkpoint until the projector moves it, for people.
    pub owner: String,
    /// Leave the replaced tables in place, their names ending in `_old`, until the next rebuild.
    pub keep_old: bool,
    /// Swap even when the fresh tables differ from the live ones.
    pub accept_differences: bool,
    /// Fold to the journal's end, not to the live checkpoint: for tables that were lost together with it. What lies
    /// between will never be announced.
    pub to_end: bool,
}

/// What a rebuild needs beside its settings. No sealer, no endpoint: it sends nothing.
#[derive(Clone)]
pub struct Deps {
    pub journal: Journal,
    pub pool: MySqlPool,
}

/// What a rebuild tells while it works.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// So many events are folded and on their way to the tables.
    Loading { events: u64 },
    /// The journal is folded up to the live checkpoint as it was at the beginning, in so many seconds.
    Loaded { events: u64, seconds: f64 },
    /// Secondary indexes and foreign keys stand.
    Indexed { seconds: f64 },
    /// Both sets of tables were compared at one position.
    Compared { at: Cursor, seconds: f64 },
    /// Other statements hold the tables; the swap is tried again.
    TablesInUse,
}

/// What a rebuild did.
#[derive(Debug, Clone)]
pub struct Report {
    pub events: u64,
    pub seconds: f64,
    /// Counts and checksums of all rows at `compared_at`, and the differences found there and since.
    pub tables: Vec<Compared>,
    pub compared_at: Cursor,
    /// Events since then whose rows were compared again, up to `swapped_at`.
    pub compared_since: u64,
    pub swapped_at: Cursor,
    /// How long the live projector was kept waiting.
    pub fenced: Duration,
    /// `false`: there were differences, and the live tables stay.
    pub swapped: bool,
}

/// Why a rebuild ended early; the live tables are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(
        "another rebuild of this database is running, or old rows are being deleted and the database does not answer: {holder} \
         has the lock"
    )]
    AnotherIsRunning { holder: String },
    #[error(
        "the journal of partition {partition} begins at event {begins}, in Redis and in the archive: tables built from that \
         would lack what stood before"
    )]
    Trimmed { partition: Partition, begins: u64 },
    #[error(
        "the journal of partition {partition} ends at event {ends}, but the tables contain event {folded}: \
         this is not the journal they were made from, or it lost its end. To have the tables follow what is left, rebuild with \
         --accept-differences --to-end"
    )]
    Short { partition: Partition, folded: u64, ends: u64 },
    #[error("trigger {trigger} of {table} would be lost with the old table: drop it, and create it again afterwards")]
    Trigger { trigger: String, table: String },
    #[error("a foreign key of {by} refers to {table} and would go on referring to the old table: drop it first")]
    Referenced { table: String, by: String },
    #[error("the definition of {table} cannot be read; is it a view?")]
    Definition { table: &'static str },
    #[error("other statements held the tables during every attempt to swap them; the live tables stay as they are")]
    TablesInUse,
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("the journal could not be read: {0}")]
    Journal(#[from] LinkError),
    #[error("the journal could not be read: {0}")]
    Past(#[from] ReadError),
    #[error("the database: {0}")]
    Tables(#[from] sqlx::Error),
}

impl RebuildError {
    /// What anybody may know of it: no server's own words, which can name hosts and users.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AnotherIsRunning { .. } => "another rebuild of this database was running, or rows were being deleted",
            Self::Trimmed { .. } => "the journal's beginning is neither in Redis nor in the archive",
            Self::Short { .. } => "the journal ends before what the tables contain",
            Self::Trigger { .. } => "a trigger would have been lost with an old table",
            Self::Referenced { .. } => "a foreign key of another table refers to one of these",
            Self::Definition { .. } => "a table's definition could not be read",
            Self::TablesInUse => "other statements held the tables during every attempt to exchange them",
            Self::Window(_) => "the events could not be put in order",
            Self::Journal(_) | Self::Past(_) => "the journal could not be read",
            Self::Tables(_) => "the database did not do what was asked of it",
        }
    }
}

/// Rebuilds the tables. `tell` hears how it goes.
///
/// # Errors
/// [`RebuildError`]; fresh tables that were begun are dropped, by the next rebuild if this one cannot.
pub async fn rebuild(config: &Config, deps: &Deps, tell: impl Fn(Progress) + Sync) -> Result<Report, RebuildError> {
    let alone = guard::be_alone(&deps.pool).await?;
    let record = Record::begin(config, deps).await;
    let told = |progress| {
        record.hear(&progress);
        tell(progress);
    };
    let outcome = tokio::select! {
        outcome = rebuild_alone(config, deps, &told) => outcome,
        never = record.keep() => match never {},
    };
    record.end(&outcome).await;
    guard::let_others(alone).await;
    outcome
}

async fn rebuild_alone(
    config: &Config,
    deps: &Deps,
    tell: &(impl Fn(Progress) + Sync),
) -> Result<Report, RebuildError> {
    guard::check_tables(&deps.pool).await?;
    let checkpoint = checkpoint::read(&deps.pool, config.partitions, &config.owner).await?;
    guard::check_journal(&deps.journal, config.partitions, &checkpoint, config.to_end).await?;
    for leftover in [FRESH, OLD] {
        fresh::drop_all(&deps.pool, leftover).await?;
    }
    let outcome = fill_and_swap(config, deps, &checkpoint, tell).await;
    if !matches!(&outcome, Ok(report) if report.swapped)
        && let Err(error) = fresh::drop_all(&deps.pool, FRESH).await
    {
        tracing::warn!(%error, "the fresh tables could not be dropped; the next rebuild does it");
    }
    if !config.keep_old
        && let Err(error) = fresh::drop_all(&deps.pool, OLD).await
    {
        tracing::warn!(%error, "the old tables could not be dropped; the next rebuild does it");
    }
    outcome
}

async fn fill_and_swap(
    config: &Config,
    deps: &Deps,
    checkpoint: &[u64],
    tell: &(impl Fn(Progress) + Sync),
) -> Result<Report, RebuildError> {
    let began = Instant::now();
    let later = fresh::create(&deps.pool).await?;
    let reader = Reader { journal: deps.journal.clone(), partitions: config.partitions };
    let mut loader = Loader::new(deps.pool.clone(), reader, config.owner.clone()).await?;
    let target = target(config, deps, checkpoint).await?;
    let handed = loader.handed();
    let events = tokio::select! {
        events = loader.load_to(&target) => events?,
        never = tell_now_and_then(&handed, tell) => match never {},
    };
    tell(Progress::Loaded { events, seconds: began.elapsed().as_secs_f64() });

    let indexing = Instant::now();
    fresh::complete(&mut *deps.pool.acquire().await?, &later).await?;
    tell(Progress::Indexed { seconds: indexing.elapsed().as_secs_f64() });

    let mut rebuild = Rebuild { config, deps, loader, checksums: Checksums::of_live_tables(&deps.pool).await? };
    let comparing = Instant::now();
    let (compared_at, tables) = rebuild.compare_all().await?;
    tell(Progress::Compared { at: compared_at.clone(), seconds: comparing.elapsed().as_secs_f64() });
    let mut report = Report {
        events,
        seconds: 0.0,
        tables,
        swapped_at: compared_at.clone(),
        compared_at,
        compared_since: 0,
        fenced: Duration::ZERO,
        swapped: false,
    };
    if rebuild.may_swap(&report) {
        rebuild.catch_up_and_swap(&mut report, tell).await?;
    }
    report.events = rebuild.loader.events();
    report.seconds = began.elapsed().as_secs_f64();
    Ok(report)
}

/// Where the fold ends, when the live tables are at `checkpoint`.
async fn target(config: &Config, deps: &Deps, checkpoint: &[u64]) -> Result<Vec<u64>, LinkError> {
    let mut target = checkpoint.to_vec();
    if config.to_end {
        for (partition, target) in config.partitions.iter().zip(&mut target) {
            // Also when that is before what the tables contain: Redis lost the rest.
            *target = deps.journal.last_number(partition).await?;
        }
    }
    Ok(target)
}

async fn tell_now_and_then(handed: &AtomicU64, tell: &(impl Fn(Progress) + Sync)) -> Infallible {
    loop {
        tokio::time::sleep(TELL).await;
        tell(Progress::Loading { events: handed.load(Ordering::Relaxed) });
    }
}

impl Report {
    /// Whether no row differed.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(Compared::is_equal)
    }

    /// As the command prints it and as it stands in the tables.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let side = |sum: &Sum| json!({ "rows": sum.rows, "checksum": format!("{:016x}", sum.checksum) });
        let tables = self.tables.iter().map(|table| {
            let examples: Vec<String> = table.examples.iter().map(ToString::to_string).collect();
            json!({
                "table": table.table, "equal": table.is_equal(), "live": side(&table.live), "fresh": side(&table.fresh),
                "only_live": table.only_live, "only_fresh": table.only_fresh, "different": table.different,
                "examples": examples,
            })
        });
        json!({
            "swapped": self.swapped, "equal": self.is_equal(), "events": self.events, "seconds": self.seconds,
            "projector_held_ms": self.fenced.as_secs_f64() * 1e3, "compared_at": self.compared_at.to_string(),
            "compared_since": self.compared_since, "swapped_at": self.swapped_at.to_string(),
            "tables": tables.collect::<Vec<_>>(),
        })
    }

    fn add(&mut self, found: &[Compared], events: u64) {
        for (table, found) in self.tables.iter_mut().zip(found) {
            table.add_differences(found);
        }
        self.compared_since += events;
    }
}

/// A rebuild whose fresh tables are whole.
struct Rebuild<'a> {
    config: &'a Config,
    deps: &'a Deps,
    loader: Loader,
    checksums: Checksums,
}

impl Rebuild<'_> {
    /// Compares all rows, at the position that the live tables have now.
    async fn compare_all(&mut self) -> Result<(Cursor, Vec<Compared>), RebuildError> {
        // What happens to the fresh tables from here on is compared again later.
        let mut live = Snapshot::take(&self.deps.pool, self.config.partitions).await?;
        self.loader.load_to(&target(self.config, self.deps, &live.checkpoint).await?).await?;
        // Nothing retires meanwhile: who deletes needs the lock that this rebuild holds.
        self.loader.retire().await?;
        self.loader.take_touched();
        let tables = self.compare(&mut live, &Scope::All).await?;
        let at = Cursor(live.checkpoint.clone());
        live.release().await?;
        Ok((at, tables))
    }

    async fn compare(&self, live: &mut Snapshot, scope: &Scope<'_>) -> Result<Vec<Compared>, sqlx::Error> {
        let mut fresh = self.deps.pool.acquire().await?;
        let mut live = Side { connection: &mut live.connection, suffix: "" };
        let mut fresh = Side { connection: &mut fresh, suffix: FRESH };
        compare(&self.checksums, &mut live, &mut fresh, scope).await
    }

    async fn catch_up_and_swap(
        &mut self,
        report: &mut Report,
        tell: &(impl Fn(Progress) + Sync),
    ) -> Result<(), RebuildError> {
        for _ in 0..ROUNDS {
            let mut live = Snapshot::take(&self.deps.pool, self.config.partitions).await?;
            let target = target(self.config, self.deps, &live.checkpoint).await?;
            if self.loader.behind(&target) <= FEW_EVENTS {
                live.release().await?;
                break;
            }
            self.compare_touched(&mut live, report).await?;
            live.release().await?;
        }
        for _ in 0..SWAPS {
            match self.swap(report).await? {
                Attempt::Swapped => {
                    report.swapped = true;
                    return Ok(());
                }
                Attempt::Refused => return Ok(()),
                Attempt::TablesInUse => {
                    tell(Progress::TablesInUse);
                    tokio::time::sleep(BETWEEN_SWAPS).await;
                }
            }
        }
        Err(RebuildError::TablesInUse)
    }

    /// Folds up to the snapshot and compares the rows that this touched.
    async fn compare_touched(&mut self, live: &mut Snapshot, report: &mut Report) -> Result<(), RebuildError> {
        let target = target(self.config, self.deps, &live.checkpoint).await?;
        let events = self.loader.load_to(&target).await?;
        let Touched { events: keys, tasks } = self.loader.take_touched();
        let (tasks, keys): (Vec<u64>, Vec<u64>) = (tasks.into_iter().collect(), keys.into_iter().collect());
        let found = self.compare(live, &Scope::Keys { tasks: &tasks, events: &keys }).await?;
        report.add(&found, events);
        report.swapped_at = Cursor(target);
        Ok(())
    }

    /// Raises the fence, does what is left, and swaps.
    async fn swap(&mut self, report: &mut Report) -> Result<Attempt, RebuildError> {
        let Some(fence) = Fence::raise(&self.deps.pool, self.config.partitions).await? else {
            return Ok(Attempt::TablesInUse);
        };
        let raised = Instant::now();
        let mut live = Snapshot::take(&self.deps.pool, self.config.partitions).await?;
        debug_assert_eq!(live.checkpoint, fence.checkpoint, "nobody passes the fence");
        self.compare_touched(&mut live, report).await?;
        live.release().await?;
        let attempt = if self.may_swap(report) {
            fence.swap(&self.deps.pool).await?
        } else {
            fence.lower().await?;
            Attempt::Refused
        };
        report.fenced = raised.elapsed();
        Ok(attempt)
    }

    fn may_swap(&self, report: &Report) -> bool {
        self.config.accept_differences || report.is_equal()
    }
}
