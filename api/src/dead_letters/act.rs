//! Dead letters are repeated or purged, one or all that fit, each with an event that says who did it and why.

use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{Change, Meta, Purged, encode, now_us};
use insightforge_schema::id::{Position, TaskId};
use insightforge_schema::script::{self, Purge};
use metrics::counter;
use serde::Serialize;
use utoipa::ToSchema;

use super::filter::Filter;
use super::search::{Letter, search};
use crate::app::App;
use crate::find;
use crate::problem::Problem;
use crate::redrive::redrive_one;
use crate::upload::Stored;

/// Letters of one request, unless it says otherwise, and the most it can ask for.
pub const DEFAULT_LIMIT: usize = 100;
pub const MAX_LIMIT: usize = 1_000;
/// Searches that one request makes; each looks through a bounded part of the list.
const SEARCHES_MOST: usize = 4;
/// Letters of one search.
const PAGE: usize = 200;
/// Letters that could not be dealt with and are named.
const NAMED: usize = 50;

/// Who does it, and why.
#[derive(Debug, Clone)]
pub struct By {
    /// Such as `api` or `cli/<login>`.
    pub actor: String,
    pub reason: Option<String>,
    /// W3C `traceparent` of the request.
    pub trace: Option<String>,
}

/// What is done with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Redrive,
    Purge,
}

/// Many letters to deal with.
#[derive(Debug, Clone)]
pub struct Bulk {
    pub filter: Filter,
    /// Only what comes behind it on the list.
    pub after: Option<Letter>,
    /// Letters dealt with at most.
    pub limit: usize,
    /// Only count.
    pub dry_run: bool,
}

/// What was counted or done.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Acted {
    pub dry_run: bool,
    /// Letters or tasks that fit, as far as this request looked.
    pub matched: u64,
    /// `true` when there may be more that fit: the same request with `next` goes on behind these.
    pub more: bool,
    /// Where to go on; `null` at the end. Without it the same request begins anew, and meets what was left again.
    pub next: Option<String>,
    /// Repeated, purged or cancelled now.
    pub done: u64,
    /// Repeated or cancelled before: the tables that are searched can be a moment behind.
    pub already: u64,
    /// Left as they are.
    pub left: u64,
    /// Why they were left: the first 50 of them.
    pub refused: Vec<Refused>,
}

/// A letter or task that was left as it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Refused {
    #[schema(value_type = uuid::Uuid)]
    pub task_id: TaskId,
    pub detail: String,
}

/// Repeats or purges one letter; says as which task it is repeated.
///
/// # Errors
/// See [`redrive_one`] and [`purge_one`].
pub async fn on_one(app: &App, act: Act, task: TaskId, by: &By) -> Result<Option<TaskId>, Problem> {
    match act {
        Act::Redrive => redrive_one(app, task, by).await.map(|repeated| Some(repeated.task)),
        Act::Purge => purge_one(app, task, by).await.map(|()| None),
    }
}

/// Counts the letters that fit, or deals with as many as are asked for, latest first.
///
/// # Errors
/// 503 when a server that is needed does not answer, 429 when no more tasks may wait; what was done before stays done, and is
/// told as `acted`.
pub async fn on_all(app: &App, act: Act, bulk: &Bulk, by: &By) -> Result<Acted, Problem> {
    let mut acted = Acted { dry_run: bulk.dry_run, ..Acted::default() };
    let mut after = bulk.after;
    for _ in 0..searches(bulk) {
        let left = if bulk.dry_run { PAGE } else { PAGE.min(bulk.limit - acted.matched as usize) };
        let found = match search(app, &bulk.filter, left, after).await {
            Ok(found) => found,
            Err(problem) => return Err(acted.told_with(problem, after)),
        };
        for letter in found.letters {
            if !bulk.dry_run {
                let outcome = deal(app, act, letter.task_id, by).await;
                if let Err(problem) = acted.count(letter.task_id, outcome) {
                    return Err(acted.told_with(problem, after));
                }
            }
            acted.matched += 1;
            after = letter.place().or(after);
        }
        after = found.next;
        if after.is_none() || (!bulk.dry_run && acted.matched as usize >= bulk.limit) {
            break;
        }
    }
    acted.go_on_at(after);
    Ok(acted)
}

async fn deal(app: &App, act: Act, task: TaskId, by: &By) -> Result<Deed, Problem> {
    match act {
        Act::Redrive => redrive_one(app, task, by).await.map(|stored| Deed::of(&stored)),
        Act::Purge => purge_one(app, task, by).await.map(|()| Deed::Now),
    }
}

/// A count goes through more of the list than a deed.
fn searches(bulk: &Bulk) -> usize {
    if bulk.dry_run { 50 } else { SEARCHES_MOST.max(bulk.limit.div_ceil(PAGE)) }
}

/// When it was done what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Now,
    Before,
}

impl Deed {
    pub(crate) fn of(stored: &Stored) -> Self {
        if stored.replayed { Self::Before } else { Self::Now }
    }
}

impl Acted {
    /// A letter or task that cannot be dealt with is named and left.
    ///
    /// # Errors
    /// What ends it all: a server does not answer, or no more tasks may wait.
    pub(crate) fn count(&mut self, task_id: TaskId, outcome: Result<Deed, Problem>) -> Result<(), Problem> {
        match outcome {
            Ok(Deed::Now) => self.done += 1,
            Ok(Deed::Before) => self.already += 1,
            Err(problem) if matches!(problem.status, 429 | 503) => return Err(problem),
            Err(problem) => {
                self.left += 1;
                if self.refused.len() < NAMED {
                    self.refused.push(Refused { task_id, detail: problem.detail });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn go_on_at(&mut self, next: Option<impl ToString>) {
        self.more = next.is_some();
        self.next = next.map(|next| next.to_string());
    }

    /// What ended it all, with what was done before and where to go on.
    pub(crate) fn told_with(mut self, problem: Problem, next: Option<impl ToString>) -> Problem {
        if self.matched == 0 {
            return problem;
        }
        self.go_on_at(next);
        self.more = true;
        problem.with("acted", serde_json::to_value(self).expect("counts and texts are JSON"))
    }
}

/// Takes a letter off the list for good.
///
/// # Errors
/// 404 when it is not on the list, 503 when a server that is needed does not answer.
pub async fn purge_one(app: &App, task: TaskId, by: &By) -> Result<(), Problem> {
    let partition = app.config.partitions.of_task(task);
    let none = || Problem::not_found(format!("task {task} is no dead letter"));
    let listed: Option<f64> =
        app.link.query(redis::cmd("ZSCORE").arg(app.keys.dead(partition)).arg(task.to_string())).await?;
    if listed.is_none() {
        return Err(none());
    }
    let first = match script::view(&app.link, &app.keys, partition, task).await? {
        Some(view) => view.first,
        None => find::row(app, task).await?.map(|row| row.first).unwrap_or(Position { partition, n: 0 }).n,
    };
    if first == 0 {
        let detail = "the letter is not in the tables yet and has left Redis: ask again when they have caught up";
        return Err(Problem::unavailable("the projection").with("reason", detail.into()));
    }
    let meta = Meta {
        at_us: now_us(),
        tenant: DEFAULT_TENANT.to_owned(),
        actor: by.actor.clone(),
        attempt: 0,
        trace: by.trace.clone(),
    };
    let reason = by.reason.clone().unwrap_or_default();
    let event = encode(&meta, &Change::Purged(Purged { reason }));
    let purged = script::purge(&app.link, &app.keys, partition, &[Purge { task, first, event }]).await?;
    if purged != [true] {
        return Err(none());
    }
    counter!("if_events_appended_total", "type" => "purged").increment(1);
    Ok(())
}
