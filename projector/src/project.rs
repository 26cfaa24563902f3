//! The loop: read, fold, write, hand over. One transaction takes what every partition has ready.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use insightforge_archive::{Journal, ReadError};
use insightforge_schema::event::{Event, now_us};
use insightforge_schema::fail::{self, Step as FailStep};
use insightforge_schema::follow::Follower;
use insightforge_schema::id::Partition;
use insightforge_schema::journal::{last_number, range, read_entry};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::trace::{self, Told};
use sqlx::MySqlPool;

use crate::announce::announce;
use crate::checkpoint::{self, Advance};
use crate::fold::{Known, Rows, fold, missing};
use crate::lag::Lag;
use crate::retired::without_retired;
use crate::taken::taken_ids;
use crate::webhook::{Handoff, WebhookConfig};
use crate::write::{Tables, load};
use crate::{measure, outbox};

/// Tasks kept in memory; about 1 KiB each.
const KNOWN_TASKS: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");
/// Events of a partition that are taken from the archive at once; each may carry a large document.
const PAST: usize = 64;
/// How long a read waits for the first new event.
const BLOCK: Duration = Duration::from_secs(1);
/// How often the journal is compared with the checkpoints though nothing is new.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// MySQL's and MariaDB's error number of a duplicate key.
const DUPLICATE_KEY: u16 = 1062;

/// Folds the journal, step by step.
pub struct Projector {
    journal: Journal,
    reader: Option<Follower>,
    pool: MySqlPool,
    owner: String,
    batch_events: usize,
    webhook: Arc<WebhookConfig>,
    handoff: Handoff,
    tables: Tables,
    known: Known,
    /// Last folded event of every partition; empty until the checkpoints were read.
    folded: Vec<u64>,
    /// When the last folded event of a partition happened, in microseconds since 1970: so it is known again.
    moments: HashMap<Partition, i64>,
    /// When the journal was last compared with the checkpoints.
    checked: Option<Instant>,
    partitions: insightforge_schema::id::PartitionCount,
    lag: Lag,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many events were folded and committed.
    Folded(usize),
    /// There was nothing new.
    Idle,
    /// Another projector has folded these events; this one has read the checkpoints again.
    Fenced,
}

/// Why a step came to nothing. Everything is as it was before; the step is simply made again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("the journal could not be read: {0}")]
    Journal(#[from] LinkError),
    #[error("the journal could not be read: {0}")]
    Past(#[from] ReadError),
    #[error("the tables could not be written: {0}")]
    Tables(#[from] sqlx::Error),
    #[error(
        "the journal of partition {partition} begins at event {begins}, but the tables end at {folded}: \
             events between were lost or trimmed"
    )]
    Gap { partition: Partition, folded: u64, begins: u64 },
    #[error(
        "the journal of partition {partition} ends at event {ends} and has not event {folded} as the tables have it: Redis lost \
             its end, or is another server than before. Nothing is folded until Redis is restored or the tables are rebuilt \
             (`insightforge rebuild --accept-differences --to-end`)"
    )]
    MovedBack { partition: Partition, folded: u64, ends: u64 },
}

impl Projector {
    /// A projector that has read nothing yet.
    #[must_use]
    pub fn new(config: &crate::Config, deps: &crate::Deps, handoff: Handoff, lag: Lag) -> Self {
        Self {
            journal: deps.journal(),
            reader: None,
            pool: deps.pool.clone(),
            owner: config.owner.clone(),
            batch_events: config.batch_events,
            webhook: Arc::new(config.webhook.clone()),
            handoff,
            tables: Tables::new(""),
            known: Known::new(KNOWN_TASKS),
            folded: Vec::new(),
            moments: HashMap::new(),
            checked: None,
            partitions: config.partitions,
            lag,
        }
    }

    /// Reads what is new, waiting up to a second for it, and folds it in one transaction.
    ///
    /// # Errors
    /// [`StepError`]; nothing was changed, or the answer to the commit was lost: the next step finds out which.
    pub async fn step(&mut self) -> Result<Step, StepError> {
        let outcome = self.try_step().await;
        if !matches!(outcome, Ok(Step::Folded(_) | Step::Idle)) {
            self.known.clear();
            self.folded.clear();
            self.moments.clear();
            self.checked = None;
            self.reader = None;
        }
        outcome
    }

    async fn try_step(&mut self) -> Result<Step, StepError> {
        if self.folded.is_empty() {
            self.folded = checkpoint::read(&self.pool, self.partitions, &self.owner).await?;
            for (partition, folded) in self.partitions.iter().zip(&self.folded) {
                self.lag.folded(partition, *folded, 0);
            }
        }
        if self.checked.is_none_or(|at| at.elapsed() > CHECK_EVERY) {
            self.check_not_moved_back().await?;
            self.checked = Some(Instant::now());
        }
        let events = self.read().await?;
        self.check_it_goes_on(&events).await?;
        measure::read_now();
        let Some(last) = events.last() else { return Ok(Step::Idle) };
        let last_us = last.meta.at_us;
        let advances = self.advances(&events)?;
        fail::reached(FailStep::FoldRead);
        let (began, began_us) = (Instant::now(), now_us());
        if !self.write(&events, &advances).await? {
            measure::transaction("fenced", began.elapsed());
            return Ok(Step::Fenced);
        }
        measure::transaction("committed", began.elapsed());
        measure::folded(&events);
        if let Some((span, links)) = trace::across(events.iter().filter_map(|event| event.meta.trace.as_deref())) {
            let count = events.len().to_string();
            let about = [("events", count.as_str())];
            span.tell(Told {
                name: "fold",
                kind: "consumer",
                about: &about,
                links: &links,
                start_us: Some(began_us),
                ..Told::default()
            });
        }
        for advance in &advances {
            self.folded[usize::from(advance.part)] = advance.to;
            self.moments.insert(Partition(advance.part), advance.event_us);
            self.lag.folded(Partition(advance.part), advance.to, advance.event_us);
        }
        tracing::debug!(events = events.len(), behind_us = now_us() - last_us, "folded");
        Ok(Step::Folded(events.len()))
    }

    /// After a server lost its end, numbers are given out again: what stands under them is not what the tables have, and the
    /// journal may be longer than before. Whoever loses its connection comes by here.
    async fn check_not_moved_back(&mut self) -> Result<(), StepError> {
        let Journal { link, keys, .. } = &self.journal;
        // Numbers and moments as they are together: another projector may fold on meanwhile.
        for (partition, folded, at_us) in checkpoint::moments(&self.pool).await? {
            let (ends, moved_back) = has_moved_back(link, keys, partition, folded, at_us).await?;
            measure::moved_back(moved_back);
            if moved_back {
                return Err(StepError::MovedBack { partition, folded, ends });
            }
            if self.folded.get(usize::from(partition.0)) == Some(&folded) {
                self.moments.insert(partition, at_us);
            }
        }
        Ok(())
    }

    /// What was read follows upon what was folded: a server that was emptied under a connection that lives gives the same
    /// numbers to other events.
    async fn check_it_goes_on(&self, events: &[Event]) -> Result<(), StepError> {
        let Journal { link, keys, .. } = &self.journal;
        let ends: BTreeMap<Partition, u64> =
            events.iter().map(|event| (event.position.partition, event.position.n)).collect();
        let looks = ends.into_iter().map(|(partition, ends)| async move {
            let folded = self.folded[usize::from(partition.0)];
            let Some(at_us) = self.moments.get(&partition).copied().filter(|_| folded > 0) else { return Ok(()) };
            // What was read lies behind it, so the journal does not end before: one look is enough.
            let moved_back = is_another(link, keys, partition, folded, at_us).await?;
            measure::moved_back(moved_back);
            if moved_back { Err(StepError::MovedBack { partition, folded, ends }) } else { Ok(()) }
        });
        try_join_all(looks).await.map(|_: Vec<()>| ())
    }

    /// What is new, ordered by partition and number.
    async fn read(&mut self) -> Result<Vec<Event>, StepError> {
        let share = (self.batch_events / self.folded.len().max(1)).max(1);
        let Journal { link, keys, .. } = &self.journal;
        let follow = || Follower::new(link, keys, self.partitions).only_confirmed();
        let followed = self.reader.get_or_insert_with(follow).read(&self.folded, share, BLOCK).await?;
        if let Some((partition, ends)) = followed.moved_back.first() {
            measure::moved_back(true);
            let folded = self.folded[usize::from(partition.0)];
            return Err(StepError::MovedBack { partition: *partition, folded, ends: *ends });
        }
        let streams = followed.entries;
        let mut events = Vec::new();
        for partition in self.partitions.iter() {
            let entries = streams.iter().find(|(of, _)| *of == partition).map(|(_, entries)| entries);
            let folded = self.folded[usize::from(partition.0)];
            match entries.and_then(|entries| entries.0.first()?.n()) {
                // Tables that come from a backup are behind what the stream still has.
                Some(begins) if begins > folded + 1 => {
                    events.extend(self.journal.range(partition, folded + 1, Some(begins - 1), share.min(PAST)).await?);
                }
                _ => events.extend(entries.iter().flat_map(|it| &it.0).map(|entry| read_entry(partition, entry))),
            }
        }
        Ok(events)
    }

    /// The checkpoints' way; numbers have no gap, so a gap means that the journal lost its middle.
    fn advances(&self, events: &[Event]) -> Result<Vec<Advance>, StepError> {
        let mut advances: Vec<Advance> = Vec::new();
        for event in events {
            let (part, n) = (event.position.partition.0, event.position.n);
            let begun = advances.last().is_some_and(|advance| advance.part == part);
            if !begun {
                let from = self.folded[usize::from(part)];
                advances.push(Advance { part, from, to: from, event_us: 0 });
            }
            let advance = advances.last_mut().expect("one was pushed above");
            if n != advance.to + 1 {
                let partition = event.position.partition;
                return Err(StepError::Gap { partition, folded: advance.to, begins: n });
            }
            (advance.to, advance.event_us) = (n, event.meta.at_us);
        }
        Ok(advances)
    }

    /// One transaction; `false` when it was fenced. What is there already is found out only when the server says so: a
    /// task id with another row makes the second `submitted` a fault, an announcement with a row stays as it is.
    async fn write(&mut self, events: &[Event], advances: &[Advance]) -> Result<bool, StepError> {
        match self.try_write(events, advances, None).await {
            Err(sqlx::Error::Database(error)) if is_duplicate(&*error) => {
                self.known.clear();
                let refused = taken_ids(&mut *self.pool.acquire().await?, "", events).await?;
                tracing::warn!(refused = refused.len(), "rows are there already; writing only what is new");
                Ok(self.try_write(events, advances, Some(&refused)).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    async fn try_write(
        &mut self,
        events: &[Event],
        advances: &[Advance],
        refused: Option<&HashSet<u64>>,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        if !checkpoint::advance(&mut transaction, "", &self.owner, advances).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        fail::reached(FailStep::FoldFenced);
        let wanted = missing(events, &self.known);
        for task in load(&mut transaction, "", &wanted).await? {
            self.known.insert(task);
        }
        let events = &*without_retired(&mut transaction, "", events, &self.known).await?;
        let rows = fold(events, &mut self.known, refused.unwrap_or(&HashSet::new()));
        self.tables.write(&mut transaction, &rows).await?;
        let room = self.handoff.try_reserve();
        let announcements = announcements(&rows, &self.webhook);
        let any = !announcements.is_empty();
        let leased = room.is_ok() && refused.is_none();
        let deliveries = outbox::write(&mut transaction, &self.webhook, announcements, leased).await?;
        fail::reached(FailStep::FoldUncommitted);
        transaction.commit().await?;
        fail::reached(FailStep::FoldCommitted);
        if let (true, Ok(room)) = (any && leased, room) {
            room.send(deliveries);
        }
        measure::faults(rows.faults.len());
        for (event, illegal) in &rows.faults {
            tracing::error!(task.id = %event.task, trace_id = event.trace_id(), position = %event.position,
                "an event could not be folded: {illegal}");
        }
        Ok(true)
    }
}

fn announcements(rows: &Rows<'_>, config: &WebhookConfig) -> Vec<crate::announce::Announcement> {
    rows.ended.iter().flat_map(|(task, event)| announce(task, event, &config.endpoints)).collect()
}

fn is_duplicate(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().is_some_and(|error| error.number() == DUPLICATE_KEY)
}

/// The last number of a partition's journal, and whether the event `folded` of the moment `at_us` is not in it any more.
pub(crate) async fn has_moved_back(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    folded: u64,
    at_us: i64,
) -> Result<(u64, bool), LinkError> {
    let ends = last_number(link, keys, partition).await?;
    Ok((ends, ends < folded || is_another(link, keys, partition, folded, at_us).await?))
}

/// Whether the event `n` did not happen at `at_us`. What left the stream for the archive was there when it left.
async fn is_another(link: &Link, keys: &Keys, partition: Partition, n: u64, at_us: i64) -> Result<bool, LinkError> {
    let found = range(link, keys, partition, n, Some(n), 1).await?;
    Ok(found.first().is_some_and(|event| event.meta.at_us != at_us))
}
