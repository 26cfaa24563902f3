//! Server-sent events: the journal (`GET /api/events`, asked for as `text/event-stream`), and one task
//! (`GET /api/tasks/{id}/stream`). Browsers go on by themselves where they broke off, by `Last-Event-ID`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::Response;
use insightforge_schema::id::Cursor;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ALIVE;
use super::follow::{Follower, Gone, Out};
use super::frames::{Frames, named, open};
use super::told::Told;
use super::topic::Topic;
use crate::app::App;
use crate::describe::{Absent, Invalid, Unavailable};
use crate::event_view::EventView;
use crate::history::{Begin, Part, locate};
use crate::params::{self, Params, task_id};
use crate::path::Path;
use crate::problem::Problem;

/// How soon a browser comes back, in milliseconds.
const RETRY_MS: u32 = 2_000;
/// Events of a task's past in one look at it.
const PAGE: u32 = 500;
/// Where a browser says how far it had come.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(task))
}

/// Whether a stream is asked for, rather than a page.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| {
        accepted.split(',').any(|kind| kind.split(';').next().unwrap_or("").trim() == "text/event-stream")
    })
}

/// Where a browser had come to, when it comes back.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(LAST_EVENT_ID)?.to_str().ok().filter(|id| !id.is_empty())
}

/// The journal, or what `topic` has of it, behind `after`; without that, what is to come.
pub(crate) fn journal(app: &Arc<App>, topic: Topic, after: Option<Cursor>) -> Result<Response, Problem> {
    let (out, response) = open(app.live.place()?);
    let app = app.clone();
    tokio::spawn(async move {
        let stream = Streamed { follower: Follower::new(&app), out, app };
        stream.run(async |follower, out| follower.add(topic, after, out).await).await;
    });
    Ok(response)
}

/// Follow a task
///
/// Server-sent events: `state` with where it stands, then each of its events, those of the past first. Their `id` is the
/// event's number, the `after` of `/api/tasks/{task_id}/events`. After the terminal event comes `end`, and the stream ends.
#[utoipa::path(
    get, path = "/api/tasks/{task_id}/stream", operation_id = "followTask", tag = "tasks",
    params(
        ("task_id" = uuid::Uuid, Path, description = "The task"),
        ("after" = Option<u64>, Query, description = "Number of the last event that is known already"),
        ("last-event-id" = Option<u64>, Header, description = "The same, as browsers send it; it goes before `after`"),
    ),
    responses(
        (status = 200, description = "Events as they happen", body = String, content_type = "text/event-stream"),
        Absent, Invalid, Unavailable
    )
)]
pub(crate) async fn task(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let task = task_id(&text)?;
    let mut params = Params::parse(query.as_deref());
    let after: Option<u64> = params.take("after", params::whole);
    params.finish()?;
    let after = last_event_id(&headers).and_then(|id| id.parse().ok()).or(after).unwrap_or(0);
    let begin = locate(&app, task).await?.ok_or_else(|| Problem::not_found(format!("there is no task {task}")))?;
    let (out, response) = open(app.live.place()?);
    tokio::spawn(async move {
        let out = TaskFrames { frames: out, after };
        let stream = Streamed { follower: Follower::new(&app), out, app: app.clone() };
        stream.run(async |follower, out| tell_task(&app, &begin, follower, out).await).await;
    });
    Ok(response)
}

/// Listens first, then tells what the task has behind it.
async fn tell_task(app: &Arc<App>, begin: &Begin, follower: &mut Follower, out: &mut TaskFrames) -> Result<(), Gone> {
    follower.begin(Topic::Task(begin.task)).await?;
    let status = crate::find::find(app, begin.task).await.ok().flatten().map(|found| found.status);
    out.frames.send(named("state", &json!({ "task_id": begin.task, "status": status }))).await?;
    loop {
        let part = Part { after: out.after, limit: PAGE };
        let history = part.read(app, begin).await.map_err(|problem| Gone::Unreadable(Box::new(problem)))?;
        for event in &history.events {
            out.tell_view(event).await?;
        }
        match history.next {
            Some(_) => {}
            // The tables are far behind: the journal is read on from what was told.
            None if !history.complete => return follower.reread(begin.first, out.after, out).await,
            None => return Ok(()),
        }
    }
}

/// A stream under way.
struct Streamed<O> {
    app: Arc<App>,
    follower: Follower,
    out: O,
}

/// Frames for one task: events are named by their numbers, and the terminal one is the last.
struct TaskFrames {
    frames: Frames,
    /// The last number that was told.
    after: u64,
}

impl<O: Out + Framed> Streamed<O> {
    async fn run(mut self, begin: impl AsyncFnOnce(&mut Follower, &mut O) -> Result<(), Gone>) {
        let retry = Bytes::from(format!("retry: {RETRY_MS}\n\n"));
        let mut done = self.out.frames().send(retry).await;
        if done.is_ok() {
            done = begin(&mut self.follower, &mut self.out).await;
        }
        let mut alive = interval(ALIVE);
        alive.reset();
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while done.is_ok() {
            let closed = self.out.frames().closed();
            done = tokio::select! {
                heard = self.follower.next() => self.follower.pass_on(heard, &mut self.out).await,
                _ = alive.tick() => self.out.frames().show_life().await,
                () = closed => Err(Gone::Left),
                () = self.app.shutdown.cancelled() => Err(Gone::Stopping),
            };
        }
        if let Err(gone) = done {
            if matches!(gone, Gone::Slow) {
                self.app.live.count_cut();
            }
            let cursor = self.follower.told().to_string();
            self.out.frames().end(&gone, &cursor);
        }
    }
}

/// Something that has [`Frames`] in it.
trait Framed {
    fn frames(&mut self) -> &mut Frames;
}

impl Framed for Frames {
    fn frames(&mut self) -> &mut Frames {
        self
    }
}

impl Framed for TaskFrames {
    fn frames(&mut self) -> &mut Frames {
        &mut self.frames
    }
}

impl TaskFrames {
    async fn tell_view(&mut self, event: &EventView) -> Result<(), Gone> {
        let n = event.position.split(':').nth(1).and_then(|n| n.parse().ok()).unwrap_or(self.after);
        let text = serde_json::to_string(event).expect("an event is plain data");
        self.tell_text(n, &text, &event.event_type).await
    }

    async fn tell_text(&mut self, n: u64, text: &str, event_type: &str) -> Result<(), Gone> {
        if n <= self.after {
            return Ok(());
        }
        self.frames.send(format!("id: {n}\ndata: {text}\n\n").into()).await?;
        self.after = n;
        if ["completed", "failed", "cancelled"].contains(&event_type) {
            self.frames.say_last(named("end", &json!({ "status": event_type })));
            return Err(Gone::Done);
        }
        Ok(())
    }
}

impl Out for TaskFrames {
    async fn tell(&mut self, told: &Told) -> Result<(), Gone> {
        self.tell_text(told.position.n, &told.text(), told.change.event_type()).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.frames.flush().await
    }

    async fn drain(&mut self) -> Result<(), Gone> {
        self.frames.drain().await
    }

    async fn stays(&mut self, told: &Cursor) -> Gone {
        self.frames.stays(told).await
    }
}
