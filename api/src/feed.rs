//! The journal as a feed: events of all partitions after a cursor, now or as soon as there are some.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use insightforge_schema::event::{Change, EVENT_TYPES, Event};
use insightforge_schema::id::{Cursor, Partition, TaskId};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::describe::{Invalid, Trimmed, Unavailable};
use crate::event_view::EventView;
use crate::live::stream;
use crate::live::topic::Topic;
use crate::merge::{Merged, check_not_beyond_end, ends};
use crate::params::{self, Params};
use crate::problem::{Fields, Problem};
use crate::tail::Heard;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MOST: u32 = 1_000;
/// How many events one request looks through for those it was asked for.
const LOOK_MOST: usize = 20_000;
/// Beyond so many bytes of documents an answer takes no more events.
const ANSWER_BYTES: usize = 4 << 20;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// Which events.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// `next` of the answer before; `0` (the default) for the beginning, `end` for nothing but what is to come.
    #[param(value_type = Option<String>, example = "1284.1300.1275.1290")]
    after: Option<After>,
    /// Only events of this task (or batch).
    #[param(value_type = Option<uuid::Uuid>)]
    task: Option<TaskId>,
    /// Only events of this type, such as `completed`.
    #[param(rename = "type")]
    event_type: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: u32,
    /// When there are none, wait up to so many seconds for the first; the server has a limit of its own.
    #[param(value_type = Option<u32>, default = 0)]
    wait: Duration,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum After {
    At(Cursor),
    End,
}

/// Events, in the order they happened within each partition.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Feed {
    events: Vec<EventView>,
    /// `after` of the next request; moves on also when nothing matched.
    #[schema(example = "1284.1300.1275.1290")]
    next: String,
    /// Whether there is more to be had at once.
    more: bool,
}

/// The journal as a feed
///
/// Every event is given once to a reader that passes on `next`. Nothing is lost between two requests; with `wait` the answer
/// is held back until there is something. A filter may give empty answers that move on: go on with `next`.
///
/// Asked for as `text/event-stream`, events come as they happen (server-sent events): without `after` those from now on. The
/// `id` of each is the cursor behind it, which `Last-Event-ID` or `after` takes. A reader that takes nothing is cut off, which
/// the last event, `cut`, says with the cursor to go on from.
#[utoipa::path(
    get, path = "/api/events", operation_id = "readJournal", tag = "journal",
    params(Wanted, ("last-event-id" = Option<String>, Header, description = "Of streams: goes before `after`")),
    responses(
        (status = 200, description = "Events after the cursor", content((Feed = "application/json"), (String = "text/event-stream"))),
        Invalid, Trimmed, Unavailable
    )
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut wanted = Wanted::parse(query.as_deref(), &app)?;
    if stream::is_wanted(&headers) {
        if let Some(id) = stream::last_event_id(&headers) {
            let wrong = |_| Problem::invalid(Fields::one("last-event-id", "must be the id of an event of this stream"));
            wanted.after = Some(After::At(Cursor::parse(id, app.config.partitions).map_err(wrong)?));
        }
        return follow(&app, wanted).await;
    }
    let mut reader = Reader::new(&app, wanted).await?;
    reader.look().await?;
    if reader.found.is_empty() && !reader.more && !reader.wanted.wait.is_zero() {
        reader.wait().await?;
    }
    Ok(Json(reader.answer()).into_response())
}

/// The same as a stream.
async fn follow(app: &Arc<App>, wanted: Wanted) -> Result<Response, Problem> {
    let after = match wanted.after {
        Some(After::At(cursor)) => Some(cursor),
        Some(After::End) | None => None,
    };
    if let Some(after) = &after {
        check_not_beyond_end(app, after).await?;
    }
    let topic = match (wanted.task, wanted.event_type) {
        (None, None) => Topic::All,
        (Some(task), None) => Topic::Task(task),
        (None, Some(event_type)) => Topic::EventType(event_type),
        (Some(task), Some(event_type)) => {
            Topic::Both(Box::new(Topic::Task(task)), Box::new(Topic::EventType(event_type)))
        }
    };
    stream::journal(app, topic, after)
}

impl Wanted {
    fn parse(query: Option<&str>, app: &App) -> Result<Self, Problem> {
        let partitions = app.config.partitions;
        let mut params = Params::parse(query);
        let after = params.take("after", |text| match text {
            "end" => Ok(After::End),
            text => Cursor::parse(text, partitions)
                .map(After::At)
                .map_err(|_| "must be `next` of an earlier answer, 0 or end"),
        });
        let wanted = Self {
            after,
            task: params.take("task", params::uuid).map(TaskId),
            event_type: params.take("type", |text| {
                let known = EVENT_TYPES.contains(&text);
                if known { Ok(text.to_owned()) } else { Err("is not a type of event") }
            }),
            limit: params.limit("limit", LIMIT_DEFAULT, LIMIT_MOST),
            wait: Duration::from_secs(params.take("wait", params::whole).unwrap_or(0).min(app.config.wait_limit_s)),
        };
        params.finish()?;
        Ok(wanted)
    }

    fn matches(&self, event: &Event) -> bool {
        self.task.is_none_or(|task| event.task == task)
            && self.event_type.as_ref().is_none_or(|wanted| event.change.event_type() == wanted)
    }
}

/// One request's way through the journal.
struct Reader<'a> {
    app: &'a App,
    wanted: Wanted,
    cursor: Cursor,
    found: Vec<EventView>,
    found_bytes: usize,
    more: bool,
}

impl<'a> Reader<'a> {
    async fn new(app: &'a App, wanted: Wanted) -> Result<Self, Problem> {
        let cursor = match &wanted.after {
            Some(After::At(cursor)) => cursor.clone(),
            Some(After::End) => ends(app).await?,
            None => Cursor::start(app.config.partitions),
        };
        Ok(Self { app, wanted, cursor, found: Vec::new(), found_bytes: 0, more: false })
    }

    /// Takes events in the order of their times until the answer is full, the journal ends, or one request has looked at
    /// enough.
    async fn look(&mut self) -> Result<(), Problem> {
        let mut merged = Merged::new(self.partitions(), &self.cursor);
        let mut looked = 0;
        while merged.has_next(self.app).await? {
            if self.is_full() || looked == LOOK_MOST {
                self.more = true;
                return Ok(());
            }
            if let Some(event) = merged.take() {
                looked += 1;
                self.take(&event);
            }
        }
        self.more = false;
        if looked == 0 { check_not_beyond_end(self.app, &self.cursor).await } else { Ok(()) }
    }

    fn take(&mut self, event: &Event) {
        self.cursor.advance(event.position);
        if self.wanted.matches(event) {
            self.found_bytes += document_bytes(event);
            self.found.push(EventView::from(event));
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() == self.wanted.limit as usize || self.found_bytes > ANSWER_BYTES
    }

    /// A task lives in one partition.
    fn partitions(&self) -> impl Iterator<Item = Partition> {
        let one = self.wanted.task.map(|task| self.app.config.partitions.of_task(task));
        self.app.config.partitions.iter().filter(move |partition| one.is_none_or(|one| one == *partition))
    }

    /// Waits for an event that matches, and takes it.
    async fn wait(&mut self) -> Result<(), Problem> {
        let deadline = Instant::now() + self.wanted.wait;
        let mut listener = self.app.tail.subscribe().await?;
        // What came between the first look and the subscription.
        self.look().await?;
        while self.found.is_empty() && Instant::now() < deadline {
            let heard = match tokio::time::timeout_at(deadline, listener.next()).await {
                Ok(Heard::Batch(batch)) => batch.iter().any(|event| self.wanted.matches(event)),
                Ok(Heard::Missed) => true,
                Ok(Heard::Over) | Err(_) => break,
            };
            if heard {
                self.look().await?;
            }
        }
        // What did not match is not looked at again.
        if self.found.is_empty() { self.look().await } else { Ok(()) }
    }

    fn answer(self) -> Feed {
        Feed { events: self.found, next: self.cursor.to_string(), more: self.more }
    }
}

/// Nearly all of an event that is large.
fn document_bytes(event: &Event) -> usize {
    match &event.change {
        Change::Submitted(submitted) => submitted.data.len(),
        Change::Completed(completed) => completed.result.len(),
        Change::Shadowed(shadowed) => shadowed.result.as_ref().map_or(0, String::len),
        _ => 0,
    }
}
