//! The projector: folds the journal into MySQL and announces outcomes.
//!
//! An event's way through, in reading order:
//!
//! 1. [`project`] – it is read from its partition's stream, together with others.
//! 2. [`fold`] – what the run makes of the rows (pure).
//! 3. [`checkpoint`], [`write`] – one transaction: the fence first, then the rows.
//! 4. [`announce`] – an ended task's announcements enter the outbox in the same transaction.
//! 5. [`webhook`] – after the commit they are signed and sent.
//!
//! What is folded may leave Redis: [`archive`]. What ended long ago may leave the tables: [`retain`]. What nobody has dealt with
//! may leave the list of dead letters: [`letters`]. What Redis has lost of tasks that are not over comes back: [`restore`].
//! Whether the tables still say what the journal says: [`check`].
//!
//! Beside it: [`rebuild`] folds everything again into fresh tables, [`verify`] into memory; neither can announce.

pub mod announce;
pub mod archive;
pub mod check;
pub mod checkpoint;
pub mod fold;
pub mod lag;
pub mod letters;
pub mod project;
pub mod rebuild;
pub mod restore;
pub mod retain;
pub mod verify;
pub mod webhook;
pub mod write;

mod document;
mod literal;
mod measure;
mod outbox;
mod retired;
mod rows;
mod snapshot;
mod taken;
mod window;

use std::time::Duration;

use archive::{Archivist, Retention};
use check::{CheckPlan, Checker};
use insightforge_archive::{Archive, Journal};
use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use letters::LetterKeeper;
use retain::{Janitor, RowsKeep};
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use measure::describe_metrics;
use project::{Projector, Step};
use restore::Restorer;
use webhook::orders::Clerk;
use webhook::{WebhookConfig, WebhookDeps, WebhookError};

/// Transactions whose announcements may wait for the sender; beyond that they go the way of the table.
const HANDOFF: usize = 16;
/// What the last step may take beyond the sender's drain. One that a server does not answer is given up: whether it was
/// committed is found out at the next start, and leases cover what it would have handed over.
const LAST_STEP: Duration = Duration::from_secs(1);
/// How long a fenced projector leaves the work to the other one.
const STAND_BY: Duration = Duration::from_secs(5);
/// Pauses after a failed step; each failure doubles the pause up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Settings of a projector. Plain data; the binary reads flags and environment.
#[derive(Debug, Clone)]
pub struct Config {
    pub partitions: PartitionCount,
    /// Who moves the checkpoint, for people.
    pub owner: String,
    /// Events of one transaction at most, shared by the partitions.
    pub batch_events: usize,
    pub webhook: WebhookConfig,
    pub upkeep: Upkeep,
}

/// What keeps the installation from growing for ever, and honest.
#[derive(Debug, Clone, Default)]
pub struct Upkeep {
    /// How much of the journal stays in Redis.
    pub journal: Retention,
    /// How long rows stay.
    pub rows: RowsKeep,
    /// How long dead letters stay on their list; `None`: for ever.
    pub letters: Option<Duration>,
    /// How often the tables are compared with the journal.
    pub check: CheckPlan,
}

/// What a projector needs beside its settings.
#[derive(Clone)]
pub struct Deps {
    pub link: Link,
    pub keys: Keys,
    pub pool: MySqlPool,
    pub sealer: Sealer,
    /// Where the journal goes beyond Redis; without it nothing is trimmed.
    pub archive: Option<Archive>,
}

impl Deps {
    /// The journal with all of its past.
    #[must_use]
    pub fn journal(&self) -> Journal {
        Journal { link: self.link.clone(), keys: self.keys.clone(), archive: self.archive.clone() }
    }
}

/// Folds and announces until `shutdown` is cancelled. Outages of Redis and of the database are waited out.
///
/// # Errors
/// [`WebhookError`] when the webhook settings cannot work, or the sender ended by itself.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), WebhookError> {
    config.webhook.check()?;
    let (handoff, handed_over) = mpsc::channel(HANDOFF);
    let lag = lag::Lag::new(config.partitions);
    let (link, keys, has_archive) = (deps.link.clone(), deps.keys.clone(), deps.archive.is_some());
    let watch = tokio::spawn(lag.clone().watch(link, keys, has_archive, shutdown.clone()));
    let sender_deps =
        WebhookDeps { pool: deps.pool.clone(), sealer: deps.sealer.clone(), lookup: webhook::send::system_lookup() };
    let clerk = Clerk::new(
        &config.webhook,
        (deps.link.clone(), deps.keys.clone()),
        deps.pool.clone(),
        deps.sealer.clone(),
        webhook::send::system_lookup(),
    )?;
    let ordered = tokio::spawn(clerk.run(shutdown.clone()));
    let mut sender = tokio::spawn(webhook::run(config.webhook.clone(), sender_deps, handed_over, shutdown.clone()));
    let archiving = Archivist::new(&config, &deps).map(|archivist| tokio::spawn(archivist.run(shutdown.clone())));
    let janitor = Janitor::new(deps.pool.clone(), config.upkeep.rows);
    let tidying = tokio::spawn(janitor.run(shutdown.clone()));
    let letters = LetterKeeper::new(deps.clone(), config.partitions, config.upkeep.letters);
    let purging = tokio::spawn(letters.run(shutdown.clone()));
    let restoring = tokio::spawn(Restorer::new(deps.clone(), config.partitions).run(shutdown.clone()));
    let compared = verify::Deps { journal: deps.journal(), pool: deps.pool.clone(), partitions: config.partitions };
    let checker = Checker::new(compared, config.upkeep.check, config.owner.clone());
    let checking = tokio::spawn(checker.run(shutdown.clone()));
    let mut folding = std::pin::pin!(project(Projector::new(&config, &deps, handoff, lag), &shutdown));
    let sent = tokio::select! {
        () = &mut folding => sender.await,
        sent = &mut sender => {
            // Without a sender there is no point in folding on; but no step that can end is cut off by a shutdown.
            if shutdown.is_cancelled() && tokio::time::timeout(LAST_STEP, folding).await.is_err() {
                tracing::warn!("the last step did not end in time and was given up");
            }
            sent
        }
    };
    watch.abort();
    tidying.abort();
    purging.abort();
    ordered.abort();
    checking.abort();
    restoring.abort();
    if let Some(archiving) = archiving {
        archiving.abort();
    }
    sent.unwrap_or(Err(WebhookError::Crashed))
}

async fn project(mut projector: Projector, shutdown: &CancellationToken) {
    let mut pause = FIRST_PAUSE;
    // A step is never cut off between its transaction and its hand-over: shutdown is looked at between steps, and
    // within one only while it waits for events.
    while !shutdown.is_cancelled() {
        let wait = match projector.step().await {
            Ok(Step::Folded(_) | Step::Idle) => {
                pause = FIRST_PAUSE;
                continue;
            }
            Ok(Step::Fenced) => {
                tracing::info!("another projector is folding; standing by");
                STAND_BY
            }
            Err(error) => {
                tracing::warn!(%error, "folding failed; trying again");
                pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        };
        shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}
