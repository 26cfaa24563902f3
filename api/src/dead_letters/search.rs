//! The list of dead letters. It lives in Redis, one a partition, ordered by time; what is known of each letter comes from
//! the tables or, while it is not in them yet, from its record.
//!
//! Every call looks through a bounded part of the list.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use insightforge_schema::event::{Change, decode};
use insightforge_schema::id::{NotATaskId, Partition, TaskId};
use insightforge_schema::link::LinkError;
use insightforge_schema::script;
use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;

use super::filter::Filter;
use crate::app::App;
use crate::ask::ask;
use crate::problem::Problem;

/// Letters of one partition that are read at once: a step's and one more.
const READ: usize = 201;
/// Letters looked at in one step.
const STEP: usize = 200;
/// Letters that one call looks through.
const EXAMINED_MOST: usize = 5_000;
/// Records asked for at once.
const RECORDS: usize = 32;

/// A place in the list: latest first, and within a millisecond by id backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Letter {
    pub at_ms: i64,
    pub task: TaskId,
}

/// Written `1732540000000.018f4a3e-…`.
impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at_ms, self.task)
    }
}

impl FromStr for Letter {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (at_ms, task) = text.split_once('.').ok_or(())?;
        Ok(Self { at_ms: at_ms.parse().map_err(|_| ())?, task: task.parse().map_err(|_| ())? })
    }
}

/// A task that failed for good. Fields are absent while neither its record nor its row can be read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadLetter {
    #[schema(value_type = uuid::Uuid)]
    pub task_id: TaskId,
    /// When it was given up.
    pub failed_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    pub story: Option<Story>,
}

impl DeadLetter {
    /// Where it stands in the list.
    pub(super) fn place(&self) -> Option<Letter> {
        self.failed_at.map(|at| Letter { at_ms: at.timestamp_millis(), task: self.task_id })
    }
}

/// What is known of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Story {
    pub task_type: String,
    pub model_version: String,
    /// Attempts it took.
    pub attempts: u32,
    #[schema(example = "bad_input")]
    pub error_code: Option<String>,
    pub error_message: Option<String>,
}

/// What a search found.
pub struct Found {
    pub letters: Vec<DeadLetter>,
    /// Where to go on; `None` at the end of the list.
    pub next: Option<Letter>,
    /// Letters looked through of which nothing could be read.
    pub unreadable: u64,
}

/// The first `limit` letters behind `after` that fit.
///
/// # Errors
/// 503 when Redis does not answer, or the tables do not and the filter cannot be judged without them.
pub async fn search(app: &App, filter: &Filter, limit: usize, after: Option<Letter>) -> Result<Found, Problem> {
    let mut found = Found { letters: Vec::new(), next: after, unreadable: 0 };
    let mut examined = 0;
    while examined < EXAMINED_MOST {
        // Without a filter a step is a page.
        let step = if filter.needs_story() { STEP } else { STEP.min(limit - found.letters.len()) };
        let (letters, more) = letters(app, filter, found.next, step).await?;
        examined += letters.len();
        let mut stories = stories(app, &letters, filter.needs_story()).await?;
        let last = letters.last().copied();
        for letter in letters {
            found.next = Some(letter);
            let story = stories.remove(&letter.task);
            found.unreadable += u64::from(story.is_none());
            if filter.needs_story() && !story.as_ref().is_some_and(|story| filter.fits(story)) {
                continue;
            }
            let failed_at = DateTime::from_timestamp_millis(letter.at_ms);
            found.letters.push(DeadLetter { task_id: letter.task, failed_at, story });
            if found.letters.len() == limit {
                found.next = found.next.filter(|next| more || last != Some(*next));
                return Ok(found);
            }
        }
        if !more {
            found.next = None;
            return Ok(found);
        }
    }
    Ok(found)
}

/// The next letters of all partitions, merged, and whether there are more behind them.
async fn letters(
    app: &App,
    filter: &Filter,
    after: Option<Letter>,
    limit: usize,
) -> Result<(Vec<Letter>, bool), LinkError> {
    let lists = app.config.partitions.iter().map(|partition| list(app, partition, filter, after, limit));
    let mut letters: Vec<Letter> = try_join_all(lists).await?.into_iter().flatten().collect();
    letters.sort_unstable_by(|a, b| b.cmp(a));
    let more = letters.len() > limit;
    letters.truncate(limit);
    Ok((letters, more))
}

/// One partition's letters behind `after`, one more than fit at most. Redis orders equal times by member, as [`Letter`]
/// does: a letter's text orders like its id.
async fn list(
    app: &App,
    partition: Partition,
    filter: &Filter,
    after: Option<Letter>,
    limit: usize,
) -> Result<Vec<Letter>, LinkError> {
    let mut letters = Vec::new();
    let mut offset = 0;
    let newest = match (after, filter.to) {
        (Some(after), to) if to.is_none_or(|to| after.at_ms < to.timestamp_millis()) => after.at_ms.to_string(),
        (_, Some(to)) => format!("({}", to.timestamp_millis()),
        (_, None) => "+inf".to_owned(),
    };
    let oldest = filter.from.map_or_else(|| "-inf".to_owned(), |from| from.timestamp_millis().to_string());
    loop {
        let mut command = redis::cmd("ZRANGE");
        command.arg(app.keys.dead(partition)).arg(&newest).arg(&oldest).arg("BYSCORE").arg("REV");
        command.arg("LIMIT").arg(offset).arg(READ).arg("WITHSCORES");
        let some: Vec<(String, f64)> = app.link.query(&command).await?;
        offset += some.len();
        let end = some.len() < READ;
        let read =
            some.into_iter().filter_map(|(task, at_ms)| Some(Letter { at_ms: at_ms as i64, task: task.parse().ok()? }));
        letters.extend(read.filter(|letter| after.is_none_or(|after| *letter < after)));
        if end || letters.len() > limit {
            letters.truncate(limit + 1);
            return Ok(letters);
        }
    }
}

/// What is known of the letters. When the tables do not answer, those that only they know are left out, unless `needed`.
async fn stories(app: &App, letters: &[Letter], needed: bool) -> Result<HashMap<TaskId, Story>, Problem> {
    let rows = rows(app, letters).await;
    let away = rows.as_ref().err().cloned();
    let mut stories = rows.unwrap_or_default();
    let missing: Vec<TaskId> = letters.iter().map(|it| it.task).filter(|task| !stories.contains_key(task)).collect();
    for some in missing.chunks(RECORDS) {
        for (task, story) in try_join_all(some.iter().map(|task| record(app, *task))).await?.into_iter().flatten() {
            stories.insert(task, story);
        }
    }
    match away {
        Some(problem) if needed && letters.iter().any(|letter| !stories.contains_key(&letter.task)) => Err(problem),
        _ => Ok(stories),
    }
}

async fn rows(app: &App, letters: &[Letter]) -> Result<HashMap<TaskId, Story>, Problem> {
    if letters.is_empty() {
        return Ok(HashMap::new());
    }
    let mut question = sqlx::QueryBuilder::<sqlx::MySql>::new(
        "SELECT task_id, task_type, model_version, attempt, error_code, error_message FROM analysis_tasks
        WHERE status = 'failed' AND task_id IN (",
    );
    let mut ids = question.separated(", ");
    for letter in letters {
        ids.push_bind(letter.task.to_string());
    }
    question.push(")");
    let rows = ask(question.build().fetch_all(&app.pool)).await?;
    Ok(rows.iter().filter_map(|row| story(row).ok()).collect())
}

fn story(row: &sqlx::mysql::MySqlRow) -> Result<(TaskId, Story), sqlx::Error> {
    let task: String = row.try_get("task_id")?;
    let task = task.parse().map_err(|error: NotATaskId| sqlx::Error::Decode(error.into()))?;
    let story = Story {
        task_type: row.try_get("task_type")?,
        model_version: row.try_get("model_version")?,
        attempts: row.try_get::<u16, _>("attempt")?.into(),
        error_code: row.try_get("error_code")?,
        error_message: row.try_get("error_message")?,
    };
    Ok((task, story))
}

/// What the record knows, for a letter that is not in the tables yet.
async fn record(app: &App, task: TaskId) -> Result<Option<(TaskId, Story)>, LinkError> {
    let partition = app.config.partitions.of_task(task);
    let Some(view) = script::view(&app.link, &app.keys, partition, task).await? else { return Ok(None) };
    let failed = view.terminal.map(|(_, event)| decode("failed", &event).1);
    let Some(Change::Failed(failed)) = failed else { return Ok(None) };
    let story = Story {
        task_type: failed.task_type,
        model_version: failed.model_version,
        attempts: view.attempt,
        error_code: Some(failed.code),
        error_message: Some(failed.message),
    };
    Ok(Some((task, story)))
}
