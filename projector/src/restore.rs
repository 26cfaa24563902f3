//! Tasks that are not over and that Redis has lost a part of: somebody deleted a key, or the server was allowed to evict
//! some. Nobody would ever touch them again; here they are found by their rows, and put back.
//!
//! While there is a record, it says where the task belongs, and one step puts it there. Without a record the journal says so.
//! But then the task may have ended long ago, and the tables be late: so it is put back only when the tables have all that the
//! journal held *after* the record was found missing, have folded all of this task's events, and still say that it is not over.
//! Without a record no step can end it meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use chrono::NaiveDateTime;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, stream};
use insightforge_archive::ReadError;
use insightforge_schema::catalogue;
use insightforge_schema::event::{Change, Event, now_us};
use insightforge_schema::id::{Partition, PartitionCount, Position, TaskId, position_of_row};
use insightforge_schema::journal;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::registry::ALIASES;
use insightforge_schema::restore::{Found, Misplaced, Restored, announce, look, replace, restore};
use insightforge_schema::tables::datetime;
use insightforge_schema::task::Status;
use sqlx::{MySqlPool, QueryBuilder};
use tokio_util::sync::CancellationToken;

use crate::project::has_moved_back;
use crate::{Deps, checkpoint, measure};

/// Tasks looked at by one step, and the pause until the next one.
const PAGE: usize = 500;
const BETWEEN: Duration = Duration::from_secs(1);
/// Until all of them are looked at again, and after a failure.
const AFTER_ALL: Duration = Duration::from_secs(30);
/// Younger tasks are left alone.
const AGE_US: i64 = 30_000_000;
/// With so many in doubt, no more are looked at: the tables are late, or Redis is not itself.
const SUSPECTS: usize = 4 * PAGE;
/// Put back at once.
const AT_ONCE: usize = 16;
/// An attempt whose lane entry is lost is left to an analyzer that lives for so long: it needs the record alone to end it.
const LEFT_TO_THE_LIVING: Duration = Duration::from_secs(600);
/// One event is read at a time, whatever its size.
const BYTES: usize = 1;

/// Looks for such tasks, step by step.
pub struct Restorer {
    deps: Deps,
    partitions: PartitionCount,
    /// Waiting tasks and those at work in turns, so that many of the one do not keep those of the other.
    turns: [Turn; 2],
    /// Tasks without a record.
    suspects: Vec<Suspect>,
    /// Attempts without a lane entry that living analyzers run, by the task's and the attempt's id.
    left: HashMap<(TaskId, String), Instant>,
}

/// How far the tasks of one status have been looked at.
struct Turn {
    status: Status,
    /// Where the next page begins.
    after: (NaiveDateTime, u64),
    /// All have been, since both began.
    done: bool,
}

/// A task that had no record.
struct Suspect {
    open: Open,
    /// The last event of its partition after that was seen.
    end: u64,
}

/// A task that is not over, by its row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    first: Position,
    task: TaskId,
    last_n: u64,
    created_at: NaiveDateTime,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    pub tasks: usize,
    /// So many have no record; the next steps tell.
    pub suspects: usize,
    pub restored: usize,
    /// There are no more tasks to look at.
    pub all: bool,
}

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("Redis: {0}")]
    Link(#[from] LinkError),
    #[error("the journal: {0}")]
    Journal(#[from] ReadError),
    #[error("the tables: {0}")]
    Tables(#[from] sqlx::Error),
}

impl Restorer {
    #[must_use]
    pub fn new(deps: Deps, partitions: PartitionCount) -> Self {
        let turn = |status| Turn { status, after: (datetime(0), 0), done: false };
        let turns = [turn(Status::Pending), turn(Status::Processing)];
        Self { deps, partitions, turns, suspects: Vec::new(), left: HashMap::new() }
    }

    /// Puts back those of which it is certain by now that they had a record, and looks at some more of the tasks that were accepted
    /// half a minute before `now_us`. What cannot be done for one task, or in one partition, does not keep the others.
    ///
    /// # Errors
    /// [`RestoreError::Tables`]; the step is simply made again.
    pub async fn step(&mut self, now_us: i64) -> Result<Looked, RestoreError> {
        let mut restored = self.confirm().await?;
        if self.suspects.len() >= SUSPECTS {
            return Ok(Looked { tasks: 0, suspects: self.suspects.len(), restored, all: false });
        }
        let page = self.page(datetime(now_us - AGE_US)).await?;
        for partition in self.partitions.iter() {
            let of_it: Vec<&Open> = page.iter().filter(|open| open.first.partition == partition).collect();
            match self.look_at(partition, &of_it).await {
                Ok(replaced) => restored += replaced,
                Err(error) => tracing::warn!(%partition, %error, "tasks could not be looked at; they are, next time"),
            }
        }
        let all = self.turns.iter().all(|turn| turn.done);
        if all {
            self.turns.iter_mut().for_each(|turn| turn.done = false);
            self.left.retain(|_, since| since.elapsed() < 2 * LEFT_TO_THE_LIVING);
        }
        Ok(Looked { tasks: page.len(), suspects: self.suspects.len(), restored, all })
    }

    /// The next tasks of a status that are not over and were accepted before `before`, the oldest first.
    async fn page(&mut self, before: NaiveDateTime) -> Result<Vec<Open>, sqlx::Error> {
        let turn = &mut self.turns[0];
        let (created_at, id) = turn.after;
        let rows: Vec<(u64, String, u64, NaiveDateTime)> = sqlx::query_as(
            "SELECT id, task_id, last_n, created_at FROM analysis_tasks
            WHERE status = ? AND created_at >= ? AND created_at < ? AND (created_at > ? OR id > ?)
            ORDER BY created_at, id LIMIT ?",
        )
        .bind(turn.status.as_str())
        .bind(created_at)
        .bind(before)
        .bind(created_at)
        .bind(id)
        .bind(PAGE as u64)
        .fetch_all(&self.deps.pool)
        .await?;
        match rows.last() {
            Some((id, .., created_at)) if rows.len() == PAGE => turn.after = (*created_at, *id),
            _ => (turn.after, turn.done) = ((datetime(0), 0), true),
        }
        self.turns.rotate_left(1);
        Ok(rows.into_iter().filter_map(open).collect())
    }

    /// Looks at tasks of one partition; how many were put back at once.
    async fn look_at(&mut self, partition: Partition, page: &[&Open]) -> Result<usize, LinkError> {
        if page.is_empty() {
            return Ok(0);
        }
        let found = try_join_all(page.iter().map(|open| self.found(open))).await?;
        let lanes: BTreeSet<&Lane> = found
            .iter()
            .filter_map(|found| match found {
                Some(Found::Fine { lane }) => lane.as_ref(),
                Some(Found::Misplaced(misplaced)) => Some(&misplaced.lane),
                Some(Found::Gone) | None => None,
            })
            .collect();
        let lanes: Vec<&Lane> = lanes.into_iter().collect();
        if announce(&self.deps.link, &self.deps.keys, partition, &lanes).await? > 0 {
            tracing::warn!(%partition, "Redis had lost names of lanes on which tasks wait");
        }
        let (mut replaced, mut gone) = (0, Vec::new());
        for (open, found) in page.iter().zip(&found) {
            match found {
                Some(Found::Misplaced(misplaced)) => replaced += usize::from(self.replace(open, misplaced).await?),
                Some(Found::Gone) => gone.push((*open).clone()),
                Some(Found::Fine { .. }) | None => {}
            }
        }
        gone.retain(|open| self.suspects.iter().all(|suspect| suspect.open.task != open.task));
        if !gone.is_empty() {
            // After the looks: whatever ended one of these tasks is among the events up to here.
            let end = journal::last_number(&self.deps.link, &self.deps.keys, partition).await?;
            self.suspects.extend(gone.into_iter().map(|open| Suspect { open, end }));
        }
        Ok(replaced)
    }

    /// `None` when what Redis has of the task cannot be read: a key of another kind is one task's fault alone.
    async fn found(&self, open: &Open) -> Result<Option<Found>, LinkError> {
        match look(&self.deps.link, &self.deps.keys, open.first, open.task).await {
            Ok(found) => Ok(Some(found)),
            Err(LinkError::Refused(refusal)) => {
                tracing::error!(task.id = %open.task, refusal, "what Redis has of a task cannot be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a task back where its record says it is, unless a living analyzer may still end its attempt.
    async fn replace(&mut self, open: &Open, misplaced: &Misplaced) -> Result<bool, LinkError> {
        let Deps { link, keys, .. } = &self.deps;
        if let Some(worker) = &misplaced.worker {
            let since = self.left.entry((open.task, misplaced.token.clone())).or_insert_with(Instant::now);
            if since.elapsed() < LEFT_TO_THE_LIVING
                && catalogue::workers(link, keys).await?.iter().any(|living| living.name == *worker)
            {
                return Ok(false);
            }
        }
        match replace(link, keys, open.first.partition, open.task, misplaced, now_us() / 1_000).await {
            Ok(restored) => Ok(tell(open, &misplaced.lane, misplaced.what, restored)),
            Err(error) => one_tasks_fault(open, error).map(|()| false),
        }
    }

    /// Puts back those suspects about which the tables say all that the journal does.
    async fn confirm(&mut self) -> Result<usize, RestoreError> {
        if self.suspects.is_empty() {
            return Ok(0);
        }
        let rows = rows_of(&self.deps.pool, &self.suspects).await?;
        let faulty = faulty(&self.deps.pool, &self.suspects).await?;
        let standing = self.standing(&rows).await;
        let (mut certain, mut later) = (Vec::new(), Vec::new());
        for suspect in std::mem::take(&mut self.suspects) {
            // A row that has changed is looked at anew with the next page.
            let Some((open, folded)) = rows.iter().find(|(open, _)| *open == suspect.open) else { continue };
            match standing.get(&open.first.partition) {
                // An event that could not be folded may be its end.
                Some(_) if faulty.contains(&open.task) => {
                    tracing::debug!(task.id = %open.task, "a task has no record, and events that could not be folded: left alone");
                }
                Some(_) if *folded >= suspect.end => certain.push(suspect.open),
                Some(end) if suspect.end <= *end => later.push(suspect),
                // The journal lost its end since, or does now: what the rows say is not to be had from it.
                Some(_) | None => {}
            }
        }
        self.suspects = later;
        let this = &*self;
        let given = stream::iter(certain).map(|open| async move {
            match this.give_back(&open).await {
                Ok(given) => given,
                Err(error) => {
                    tracing::warn!(task.id = %open.task, %error, "a task could not be put back; it is tried again");
                    false
                }
            }
        });
        Ok(given.buffer_unordered(AT_ONCE).filter(|given| std::future::ready(*given)).count().await)
    }

    /// The last event of the rows' partitions; none of a partition that does not answer, or whose journal lost its end.
    async fn standing(&self, rows: &[(Open, u64)]) -> HashMap<Partition, u64> {
        let partitions: HashSet<Partition> = rows.iter().map(|(open, _)| open.first.partition).collect();
        let mut standing = HashMap::new();
        let moments = checkpoint::moments(&self.deps.pool).await.unwrap_or_default();
        for (partition, folded, at_us) in moments.into_iter().filter(|(of, ..)| partitions.contains(of)) {
            let Deps { link, keys, .. } = &self.deps;
            match has_moved_back(link, keys, partition, folded, at_us).await {
                Ok((end, false)) => drop(standing.insert(partition, end)),
                Ok((_, true)) => {}
                Err(error) => tracing::warn!(%partition, %error, "the journal's end could not be read"),
            }
        }
        standing
    }

    /// Makes the record of a task anew.
    async fn give_back(&self, open: &Open) -> Result<bool, RestoreError> {
        let Deps { link, keys, .. } = &self.deps;
        if look(link, keys, open.first, open.task).await? != Found::Gone {
            return Ok(false);
        }
        let (submitted, latest) = (self.event(open, open.first.n).await?, self.event(open, open.last_n).await?);
        let (Some(submitted), Some(latest)) = (submitted, latest) else {
            tracing::error!(task.id = %open.task, "a task has no record, and the journal does not have its events");
            return Ok(false);
        };
        let lane = self.lane_of(&submitted).await?;
        let restored = restore(link, keys, &lane, &submitted, &latest).await?;
        Ok(tell(open, &lane, "its record", restored))
    }

    /// An event of the task by its number; `None` when another task's stands there, or none.
    async fn event(&self, open: &Open, n: u64) -> Result<Option<Event>, ReadError> {
        let run = self.deps.journal().run(open.first.partition, n, 1, BYTES).await;
        let found = match run {
            Ok(run) => run.events.into_iter().next(),
            Err(ReadError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(found.filter(|event| event.position.n == n && event.task == open.task))
    }

    /// Where it waits: where it was asked for, unless models are announced and none of them is asked for by that name.
    async fn lane_of(&self, submitted: &Event) -> Result<Lane, LinkError> {
        let Change::Submitted(asked) = &submitted.change else { return Ok(Lane::unroutable()) };
        let cards = catalogue::models(&self.deps.link, &self.deps.keys).await?;
        let is_alias = ALIASES.contains(&asked.model_version.as_str());
        let is_known = cards
            .iter()
            .any(|card| card.task_type == asked.task_type && (is_alias || card.version == asked.model_version));
        if cards.is_empty() || is_known {
            Ok(Lane::new(&asked.task_type, &asked.model_version))
        } else {
            Ok(Lane::unroutable())
        }
    }

    /// Steps until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let Some(looked) = shutdown.run_until_cancelled(self.step(now_us())).await else { return };
            let pause = match looked {
                Ok(Looked { all: true, suspects: 0, .. }) => AFTER_ALL,
                Ok(_) => BETWEEN,
                Err(error) => {
                    tracing::warn!(%error, "tasks could not be looked for that Redis has lost a part of; trying again");
                    AFTER_ALL
                }
            };
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }
}

/// Whether it was put back now; if so, it is told and counted.
fn tell(open: &Open, lane: &Lane, what: &str, restored: Restored) -> bool {
    if restored != Restored::Done {
        return false;
    }
    measure::restored(1);
    tracing::warn!(task.id = %open.task, %lane, what, "Redis had lost a part of a task that is not over; it was put back");
    true
}

/// Says so, and goes on; any other error is not about this task.
fn one_tasks_fault(open: &Open, error: LinkError) -> Result<(), LinkError> {
    match error {
        LinkError::Refused(refusal) => {
            tracing::error!(task.id = %open.task, refusal, "a task cannot be put back; the others are");
            Ok(())
        }
        error => Err(error),
    }
}

fn open((id, task, last_n, created_at): (u64, String, u64, NaiveDateTime)) -> Option<Open> {
    Some(Open { first: position_of_row(id), task: task.parse().ok()?, last_n, created_at })
}

/// The rows of suspects that are still not over, each with the last event folded into the same tables: by one statement, since a
/// rebuild may exchange them at any moment.
async fn rows_of(pool: &MySqlPool, suspects: &[Suspect]) -> Result<Vec<(Open, u64)>, sqlx::Error> {
    let mut select = QueryBuilder::new(
        "SELECT t.id, t.task_id, t.last_n, t.created_at, c.last_n FROM analysis_tasks t
        JOIN projection_checkpoint c ON c.part = t.id % 1024 AND c.projection = ",
    );
    select.push_bind(checkpoint::LIVE).push(" WHERE t.status IN ('pending', 'processing') AND t.id IN (");
    let mut ids = select.separated(", ");
    for suspect in suspects {
        ids.push_bind(suspect.open.first.row_id());
    }
    select.push(")");
    let rows: Vec<(u64, String, u64, NaiveDateTime, u64)> = select.build_query_as().fetch_all(pool).await?;
    let row = |(id, task, last_n, created_at, folded)| Some((open((id, task, last_n, created_at))?, folded));
    Ok(rows.into_iter().filter_map(row).collect())
}

/// Those of the suspects that have events which could not be folded.
async fn faulty(pool: &MySqlPool, suspects: &[Suspect]) -> Result<HashSet<TaskId>, sqlx::Error> {
    let mut select = QueryBuilder::new("SELECT DISTINCT task_id FROM projection_faults WHERE task_id IN (");
    let mut ids = select.separated(", ");
    for suspect in suspects {
        ids.push_bind(suspect.open.task.to_string());
    }
    select.push(")");
    let found: Vec<String> = select.build_query_scalar().fetch_all(pool).await?;
    Ok(found.iter().filter_map(|task| task.parse().ok()).collect())
}
