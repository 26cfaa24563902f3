//! Tasks that are not over and that Redis has lost a part of: somebody deleted a key, or the server was allowed to evict
//! some. Nobody would ever touch them again; here they are found by their rows, and put back as the journal has them.
//!
//! A record may be gone because the task ended long ago and the tables are late. So a task that something is missing of is
//! put back only when the tables have all that the journal held *after* it was found missing, and still say that it is not
//! over: without a record no step can end it meanwhile.

use std::time::Duration;

use chrono::NaiveDateTime;
use futures_util::future::try_join_all;
use insightforge_archive::ReadError;
use insightforge_schema::catalogue;
use insightforge_schema::event::{Change, Event, now_us};
use insightforge_schema::id::{PartitionCount, Position, TaskId, position_of_row};
use insightforge_schema::journal;
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::restore::{Restored, look, restore};
use insightforge_schema::tables::datetime;
use insightforge_schema::task::Status;
use sqlx::{MySqlPool, QueryBuilder};
use tokio_util::sync::CancellationToken;

use crate::{Deps, checkpoint, measure};

/// Tasks looked at by one step, and the pause until the next one.
const PAGE: usize = 500;
const BETWEEN: Duration = Duration::from_secs(5);
/// Until all of them are looked at again, and after a failure.
const AFTER_ALL: Duration = Duration::from_secs(30);
/// With so many in doubt, no more are looked at: the tables are late, or Redis is not itself.
const SUSPECTS: usize = 4 * PAGE;
/// Younger tasks are left alone.
const AGE_US: i64 = 30_000_000;
/// One event is read at a time, whatever its size.
const BYTES: usize = 1;

/// Looks for such tasks, step by step.
pub struct Restorer {
    deps: Deps,
    partitions: PartitionCount,
    /// Where the next page begins.
    after: (Status, NaiveDateTime, u64),
    suspects: Vec<Suspect>,
}

/// A task that something was missing of.
struct Suspect {
    open: Open,
    /// The last event of its partition by then.
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
    /// Something seems to be missing of so many; the next steps tell.
    pub suspects: usize,
    pub restored: usize,
    /// There are no more tasks to look at.
    pub all: bool,
}

/// Why a step came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("tasks that are not over: {0}")]
    Link(#[from] LinkError),
    #[error("the journal: {0}")]
    Journal(#[from] ReadError),
    #[error("the rows of tasks that are not over: {0}")]
    Tables(#[from] sqlx::Error),
}

impl Restorer {
    #[must_use]
    pub fn new(deps: Deps, partitions: PartitionCount) -> Self {
        Self { deps, partitions, after: begin(Status::Pending), suspects: Vec::new() }
    }

    /// Puts back what it found missing before, and looks at some more of the tasks that were accepted half a minute before `now_us`.
    ///
    /// # Errors
    /// See [`RestoreError`]; the step is simply made again.
    pub async fn step(&mut self, now_us: i64) -> Result<Looked, RestoreError> {
        let folded = checkpoint::lowest(&self.deps.pool, self.partitions).await?;
        let restored = self.confirm(&folded).await?;
        if self.suspects.len() >= SUSPECTS {
            return Ok(Looked { tasks: 0, suspects: self.suspects.len(), restored, all: false });
        }
        let page = self.page(datetime(now_us - AGE_US)).await?;
        let mut lost = Vec::new();
        for (open, is_lost) in page.iter().zip(try_join_all(page.iter().map(|open| self.has_lost(open))).await?) {
            if is_lost && self.suspects.iter().all(|suspect| suspect.open.task != open.task) {
                lost.push(open.clone());
            }
        }
        // After the looks: whatever ended one of these tasks is among the events up to here.
        let ends = self.ends().await?;
        if ends.iter().zip(&folded).any(|(end, folded)| folded.is_some_and(|folded| *end < folded)) {
            // The journal itself lost its end, which the projector tells; what the rows say is not to be had from it.
            self.suspects.clear();
            return Ok(Looked { tasks: page.len(), suspects: 0, restored, all: true });
        }
        self.suspects.extend(
            lost.into_iter().filter_map(|open| {
                ends.get(usize::from(open.first.partition.0)).map(|end| Suspect { open, end: *end })
            }),
        );
        let (status, ..) = self.after;
        let all = page.len() < PAGE && status == Status::Processing;
        self.after = match page.last() {
            Some(last) if page.len() == PAGE => (status, last.created_at, last.first.row_id()),
            _ if all => begin(Status::Pending),
            _ => begin(Status::Processing),
        };
        Ok(Looked { tasks: page.len(), suspects: self.suspects.len(), restored, all })
    }

    /// A key of another kind is one task's fault alone.
    async fn has_lost(&self, open: &Open) -> Result<bool, LinkError> {
        match look(&self.deps.link, &self.deps.keys, open.first.partition, open.task).await {
            Ok(lost) => Ok(lost.is_some()),
            Err(LinkError::Refused(refusal)) => {
                tracing::error!(task.id = %open.task, refusal, "what Redis has of a task cannot be read");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The last event of every partition.
    async fn ends(&self) -> Result<Vec<u64>, LinkError> {
        let Deps { link, keys, .. } = &self.deps;
        try_join_all(self.partitions.iter().map(|partition| journal::last_number(link, keys, partition))).await
    }

    /// The next tasks that are not over and were accepted before `before`, the oldest first.
    async fn page(&self, before: NaiveDateTime) -> Result<Vec<Open>, sqlx::Error> {
        let (status, created_at, id) = self.after;
        let rows: Vec<(u64, String, u64, NaiveDateTime)> = sqlx::query_as(
            "SELECT id, task_id, last_n, created_at FROM analysis_tasks
            WHERE status = ? AND created_at >= ? AND created_at < ? AND (created_at > ? OR id > ?)
            ORDER BY created_at, id LIMIT ?",
        )
        .bind(status.as_str())
        .bind(created_at)
        .bind(before)
        .bind(created_at)
        .bind(id)
        .bind(PAGE as u64)
        .fetch_all(&self.deps.pool)
        .await?;
        Ok(rows.into_iter().filter_map(open).collect())
    }

    /// Puts back the suspects about which the tables say all that the journal does.
    async fn confirm(&mut self, folded: &[Option<u64>]) -> Result<usize, RestoreError> {
        let is_told = |suspect: &Suspect| {
            folded.get(usize::from(suspect.open.first.partition.0)).copied().flatten() >= Some(suspect.end)
        };
        let (told, later) = std::mem::take(&mut self.suspects).into_iter().partition(is_told);
        self.suspects = later;
        let mut restored = 0;
        for open in still_open(&self.deps.pool, told).await? {
            if self.give_back(&open).await? {
                restored += 1;
            }
        }
        measure::restored(restored);
        Ok(restored)
    }

    async fn give_back(&self, open: &Open) -> Result<bool, RestoreError> {
        let Deps { link, keys, .. } = &self.deps;
        let (partition, task) = (open.first.partition, open.task);
        let Some(lost) = look(link, keys, partition, task).await? else { return Ok(false) };
        let (submitted, latest) = (self.event(open, open.first.n).await?, self.event(open, open.last_n).await?);
        let (Some(submitted), Some(latest)) = (submitted, latest) else {
            tracing::error!(task.id = %task, what = lost.what, "Redis lost a part of a task whose events the journal does not have");
            return Ok(false);
        };
        let lane = match lost.lane.clone() {
            Some(lane) => lane,
            None => self.lane_of(&submitted).await?,
        };
        let restored = restore(link, keys, &lane, &lost, &submitted, &latest).await?;
        if restored == Restored::Done {
            tracing::warn!(task.id = %task, trace_id = submitted.trace_id(), %lane, what = lost.what,
                "Redis had lost a part of a task; it is put back as the journal has it");
        }
        Ok(restored == Restored::Done)
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

    /// Where it waits by what was asked for: with nobody who knows that, where tasks wait that nobody can serve.
    async fn lane_of(&self, submitted: &Event) -> Result<Lane, LinkError> {
        let Change::Submitted(asked) = &submitted.change else { return Ok(Lane::unroutable()) };
        let Deps { link, keys, .. } = &self.deps;
        let lane = Lane::new(&asked.task_type, &asked.model_version);
        let known =
            redis::cmd("SISMEMBER").arg(keys.lanes(submitted.position.partition)).arg(lane.to_string()).to_owned();
        let is_known = link.query::<bool>(&known).await?
            || catalogue::workers(link, keys).await?.iter().any(|worker| worker.lanes.contains(&lane.to_string()));
        Ok(if is_known { lane } else { Lane::unroutable() })
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

fn begin(status: Status) -> (Status, NaiveDateTime, u64) {
    (status, datetime(0), 0)
}

fn open((id, task, last_n, created_at): (u64, String, u64, NaiveDateTime)) -> Option<Open> {
    Some(Open { first: position_of_row(id), task: task.parse().ok()?, last_n, created_at })
}

/// Those whose rows have not changed.
async fn still_open(pool: &MySqlPool, suspects: Vec<Suspect>) -> Result<Vec<Open>, sqlx::Error> {
    if suspects.is_empty() {
        return Ok(Vec::new());
    }
    let mut select = QueryBuilder::new(
        "SELECT id, task_id, last_n, created_at FROM analysis_tasks WHERE status IN ('pending', 'processing') AND id IN (",
    );
    let mut ids = select.separated(", ");
    for suspect in &suspects {
        ids.push_bind(suspect.open.first.row_id());
    }
    select.push(")");
    let rows: Vec<(u64, String, u64, NaiveDateTime)> = select.build_query_as().fetch_all(pool).await?;
    Ok(rows.into_iter().filter_map(open).filter(|open| suspects.iter().any(|suspect| suspect.open == *open)).collect())
}
