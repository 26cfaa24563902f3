//! What every handler shares.

use std::sync::Arc;

use insightforge_archive::Journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::seal::Sealer;
use sqlx::MySqlPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::backlog::Backlog;
use crate::body::Budget;
use crate::health::Health;
use crate::infer::forward::Forwarder;
use crate::known::KnownModels;
use crate::live::Live;
use crate::submit::Submitter;
use crate::tail::Tail;
use crate::used::UsedIds;
use crate::{Config, Deps};
use crate::{expire, export, overview, system};

/// The state behind the handlers; they get it as `State<Arc<App>>`.
pub struct App {
    pub config: Config,
    pub link: Link,
    pub keys: Keys,
    pub pool: MySqlPool,
    pub sealer: Sealer,
    /// The journal with all of its past.
    pub(crate) journal: Journal,
    /// What may be asked for.
    pub(crate) models: KnownModels,
    /// The way into the journal.
    pub(crate) submitter: Submitter,
    /// Who knows ids that were used long ago.
    pub(crate) used: UsedIds,
    /// Memory for bodies, and for lines on their way.
    pub(crate) budget: Budget,
    /// Memory for questions that wait for an analyzer's answer.
    pub(crate) question_budget: Budget,
    /// Memory for what batches hold of their files as long as they come in, so that slow ones take nothing from uploads.
    pub(crate) batch_budget: Budget,
    /// The journal's live end.
    pub tail: Tail,
    /// Who follows it.
    pub(crate) live: Live,
    /// Places for exports.
    pub(crate) exports: Arc<Semaphore>,
    pub(crate) health: Health,
    pub(crate) overview: overview::Kept,
    pub(crate) inspection: system::Inspection,
    pub(crate) system: system::Kept,
    /// The way to the analyzers' synchronous doors.
    pub(crate) forwarder: Forwarder,
    /// Cancelled when the process is told to stop: long waits end early.
    pub shutdown: CancellationToken,
}

impl App {
    /// Reads what analyzers have announced and keeps it fresh until `shutdown`.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn new(config: Config, deps: Deps, shutdown: &CancellationToken) -> Result<Arc<Self>, LinkError> {
        let Deps { link, keys, pool, sealer, archive, models, inspection } = deps;
        let journal = Journal { link: link.clone(), keys: keys.clone(), archive };
        let models = KnownModels::load(&link, &keys, models, shutdown.clone()).await?;
        let tail = Tail::start(&link, &keys, config.partitions, shutdown);
        let backlog = Backlog::start(&link, &keys, config.partitions, config.max_backlog, shutdown);
        let submitter = Submitter::start(&link, &keys, config.partitions, backlog);
        let forwarder = Forwarder::new(&link, &keys);
        tokio::spawn(expire::run(link.sibling(), keys.clone(), config.partitions, shutdown.clone()));
        Ok(Arc::new(Self {
            config,
            link,
            keys,
            pool,
            sealer,
            journal,
            models,
            submitter,
            used: UsedIds::default(),
            budget: Budget::new(),
            question_budget: Budget::for_questions(),
            batch_budget: Budget::new(),
            tail,
            live: Live::new(),
            exports: Arc::new(Semaphore::new(export::AT_ONCE)),
            health: Health::default(),
            overview: overview::Kept::default(),
            inspection,
            system: system::Kept::default(),
            forwarder,
            shutdown: shutdown.clone(),
        }))
    }

    /// Connections that follow the journal now.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.live.followers()
    }

    /// Those that were cut off so far because they were too slow.
    #[must_use]
    pub fn followers_cut(&self) -> u64 {
        self.live.cut()
    }
}
