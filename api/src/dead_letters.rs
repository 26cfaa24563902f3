//! `GET /api/dead-letters`: tasks that failed for good and were not repeated. The list lives in Redis, one a partition,
//! ordered by time; what is known of each letter comes from its record or, once that is gone, from the tables.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use insightforge_schema::event::{Change, decode};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::link::LinkError;
use insightforge_schema::script;
use serde::Serialize;
use sqlx::Row;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::ask::ask;
use crate::describe::{Invalid, Unavailable};
use crate::params::Params;
use crate::problem::Problem;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;
/// Letters of one partition that are read at once: a page's and one more.
const READ: usize = 201;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(dead_letters))
}

/// One page, latest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetters {
    dead_letters: Vec<DeadLetter>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A task that failed for good. Fields are absent while neither its record nor its row can be read.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeadLetter {
    #[schema(value_type = uuid::Uuid)]
    task_id: TaskId,
    /// When it was given up.
    failed_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    story: Option<Story>,
}

/// What is known of it.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Story {
    task_type: String,
    model_version: String,
    /// Attempts it took.
    attempts: u32,
    #[schema(example = "bad_input")]
    error_code: Option<String>,
    error_message: Option<String>,
}

/// List dead letters
///
/// Tasks that failed for good, latest first. Each can be repeated by `POST /api/tasks/{task_id}/retry`.
#[utoipa::path(
    get,
    path = "/api/dead-letters",
    tag = "dead letters",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 200, 50 unless given"),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "One page", body = DeadLetters),
        Invalid, Unavailable,
    ),
)]
pub(crate) async fn dead_letters(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Json<DeadLetters>, Problem> {
    let page = Page::read(query.as_deref())?;
    let (letters, next) = letters(&app, &page).await?;
    let mut stories = rows(&app, &letters).await;
    for letter in &letters {
        if !stories.contains_key(&letter.task)
            && let Some(story) = record(&app, letter.task).await?
        {
            stories.insert(letter.task, story);
        }
    }
    let dead_letters = letters.iter().map(|letter| DeadLetter {
        task_id: letter.task,
        failed_at: DateTime::from_timestamp_millis(letter.at_ms),
        story: stories.remove(&letter.task),
    });
    Ok(Json(DeadLetters { dead_letters: dead_letters.collect(), next: next.map(|next| next.to_string()) }))
}

/// A place in the list: latest first, and within a millisecond by id backwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    at_ms: i64,
    task: TaskId,
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

#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    after: Option<Letter>,
}

impl Page {
    fn read(query: Option<&str>) -> Result<Self, Problem> {
        let mut params = Params::parse(query);
        let limit = params.limit("limit", DEFAULT_LIMIT, MAX_LIMIT) as usize;
        let after = params.take("after", |text| text.parse().map_err(|()| "must be the `next` of another page"));
        params.finish()?;
        Ok(Self { limit, after })
    }
}

/// The page's letters of all partitions, merged, and where the next page begins.
async fn letters(app: &App, page: &Page) -> Result<(Vec<Letter>, Option<Letter>), LinkError> {
    let lists = app.config.partitions.iter().map(|partition| list(app, partition, page));
    let mut letters: Vec<Letter> = try_join_all(lists).await?.into_iter().flatten().collect();
    letters.sort_unstable_by(|a, b| b.cmp(a));
    let more = letters.len() > page.limit;
    letters.truncate(page.limit);
    let next = letters.last().copied().filter(|_| more);
    Ok((letters, next))
}

/// One partition's letters behind `page.after`, one more than fit at most. Redis orders equal times by member, as
/// [`Letter`] does: a letter's text orders like its id.
async fn list(app: &App, partition: Partition, page: &Page) -> Result<Vec<Letter>, LinkError> {
    let mut letters = Vec::new();
    let mut offset = 0;
    let from = page.after.map_or_else(|| "+inf".to_owned(), |after| after.at_ms.to_string());
    loop {
        let mut command = redis::cmd("ZRANGE");
        command.arg(app.keys.dead(partition)).arg(&from).arg("-inf").arg("BYSCORE").arg("REV");
        command.arg("LIMIT").arg(offset).arg(READ).arg("WITHSCORES");
        let some: Vec<(String, f64)> = app.link.query(&command).await?;
        offset += some.len();
        let end = some.len() < READ;
        let read =
            some.into_iter().filter_map(|(task, at_ms)| Some(Letter { at_ms: at_ms as i64, task: task.parse().ok()? }));
        letters.extend(read.filter(|letter| page.after.is_none_or(|after| *letter < after)));
        if end || letters.len() > page.limit {
            letters.truncate(page.limit + 1);
            return Ok(letters);
        }
    }
}

/// What the tables know. Nothing when they do not answer: the list is worth having without.
async fn rows(app: &App, letters: &[Letter]) -> HashMap<TaskId, Story> {
    if letters.is_empty() {
        return HashMap::new();
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
    let rows = ask(question.build().fetch_all(&app.pool)).await.unwrap_or_default();
    rows.iter().filter_map(|row| story(row).ok()).collect()
}

fn story(row: &sqlx::mysql::MySqlRow) -> Result<(TaskId, Story), sqlx::Error> {
    let task: String = row.try_get("task_id")?;
    let task = task.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?;
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
async fn record(app: &App, task: TaskId) -> Result<Option<Story>, LinkError> {
    let partition = app.config.partitions.of_task(task);
    let Some(view) = script::view(&app.link, &app.keys, partition, task).await? else { return Ok(None) };
    let failed = view.terminal.map(|(_, event)| decode("failed", &event).1);
    let Some(Change::Failed(failed)) = failed else { return Ok(None) };
    Ok(Some(Story {
        task_type: failed.task_type,
        model_version: failed.model_version,
        attempts: view.attempt,
        error_code: Some(failed.code),
        error_message: Some(failed.message),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_from_its_parameters() {
        let letter = Letter { at_ms: 1_732_540_000_000, task: "018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b".parse().unwrap() };
        assert_eq!(Page::read(None).unwrap(), Page { limit: 50, after: None });
        assert_eq!(
            Page::read(Some(&format!("limit=7&after={letter}"))).unwrap(),
            Page { limit: 7, after: Some(letter) }
        );
        for (query, part) in [
            ("limit=0", "limit: must be"),
            ("limit=201", "limit: must be"),
            ("limit=x&after=5", "after: must be the `next`"),
            ("offset=3", "offset: is not a parameter"),
        ] {
            let problem = Page::read(Some(query)).unwrap_err();
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
    }
}
