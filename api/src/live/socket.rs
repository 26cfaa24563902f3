//! `GET /api/ws`: clients say what they follow, and each event comes as one JSON message.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use insightforge_schema::id::Cursor;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval, timeout};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::follow::{Follower, Gone};
use super::line::Line;
use super::topic::{Topic, TopicError};
use super::{ALIVE, Place};
use crate::app::App;
use crate::describe::Unavailable;
use crate::problem::Problem;
use crate::visitors;

/// The largest message of a client, in bytes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Topics of one connection.
const TOPICS_MOST: usize = 32;
/// Messages that made no sense, before a client is sent away.
const FAULTS_MOST: u32 = 20;
/// For a client that was cut off to hear why.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// A reason has room for this many bytes.
const REASON_BYTES: usize = 120;
/// Bytes that are gathered before they are written, and read at once. Each connection holds that much all the time, and there
/// are thousands.
const WRITE_BYTES: usize = 8 * 1024;
const READ_BYTES: usize = 2 * 1024;

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    // Pages of others may not listen in: unlike an answer, what comes over a socket is theirs to read.
    OpenApiRouter::new().routes(routes!(socket)).route_layer(middleware::from_fn(visitors::of_this_origin))
}

/// Follow the journal over a WebSocket
///
/// A client sends JSON messages: `{"subscribe": "all"}`, `{"subscribe": {"task": "<id>"}}`, `{"subscribe": {"type": "<task
/// type>"}}` or `{"subscribe": {"query": "status:failed type:…"}}`, each with an optional `after`, a cursor from which what
/// has happened since comes first; and `{"unsubscribe": …}` with the same value.
///
/// Each event comes as one message, as `GET /api/events` has it and with `cursor`: the `after` to go on from. What has no
/// `position` is no event: `subscribed`, `unsubscribed`, `alive` (every 15 s, with the cursor), `error` (which field of
/// what was sent is wrong). A client that takes nothing is closed with 1013 and the cursor; 1001 means that this process
/// stops.
#[utoipa::path(
    get, path = "/api/ws", operation_id = "followJournal", tag = "journal",
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "This is no WebSocket handshake", body = Problem, content_type = "application/problem+json"),
        Unavailable
    )
)]
pub(crate) async fn socket(
    State(app): State<Arc<App>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|refusal| {
        let detail = format!("this path is for WebSockets: {}", refusal.body_text());
        Problem::new(StatusCode::BAD_REQUEST, "no-websocket", "No WebSocket handshake", detail)
    })?;
    let place = app.live.place()?;
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES);
    let upgrade = upgrade.write_buffer_size(WRITE_BYTES).read_buffer_size(READ_BYTES);
    Ok(upgrade
        .on_upgrade(async move |socket| {
            let conversation = converse(app.clone(), socket, place);
            app.live.conversations.track_future(conversation).await;
        })
        .into_response())
}

/// What a client asked for.
enum Wish {
    Subscribe(Topic, Option<Cursor>),
    Unsubscribe(Topic),
}

async fn converse(app: Arc<App>, socket: WebSocket, _place: Place) {
    let mut conversation = Conversation { follower: Follower::new(&app), line: Line::new(socket), app, faults: 0 };
    let gone = conversation.run().await;
    conversation.close(gone).await;
}

struct Conversation {
    app: Arc<App>,
    follower: Follower,
    line: Line,
    faults: u32,
}

impl Conversation {
    async fn run(&mut self) -> Gone {
        let mut alive = interval(ALIVE);
        alive.reset();
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Made once: thousands that asked anew at every event would queue for the same lock.
        let shutdown = self.app.shutdown.clone();
        let mut stopping = pin!(shutdown.cancelled());
        loop {
            let done = tokio::select! {
                biased;
                () = &mut stopping => Err(Gone::Stopping),
                // Before it is judged silent.
                message = self.line.hear() => self.answer(message).await,
                _ = alive.tick() => {
                    let cursor = self.follower.cursor().clone();
                    self.line.show_life(&cursor).await
                }
                heard = self.follower.next() => self.follower.pass_on(heard, &mut self.line).await,
            };
            if let Err(gone) = done {
                return gone;
            }
        }
    }

    async fn answer(&mut self, message: Option<Message>) -> Result<(), Gone> {
        match message {
            Some(Message::Text(text)) => match self.read(&text) {
                Ok(wish) => self.grant(wish).await,
                Err(error) => self.complain(&error).await,
            },
            Some(Message::Binary(_)) => self.complain(&wrong("", "a message is JSON text, not bytes")).await,
            // Pings are answered by the socket itself.
            Some(Message::Ping(_) | Message::Pong(_)) => Ok(()),
            Some(Message::Close(_)) | None => Err(Gone::Left),
        }
    }

    /// Reads `{"subscribe": …, "after": …}` or `{"unsubscribe": …}`.
    fn read(&self, text: &str) -> Result<Wish, TopicError> {
        let mut members: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| wrong("", &format!("a message is one JSON object: {error}")))?;
        let (subscribe, unsubscribe) = (members.remove("subscribe"), members.remove("unsubscribe"));
        let after = members.remove("after").filter(|after| !after.is_null());
        if let Some(name) = members.keys().next() {
            let name: String = name.chars().take(64).collect();
            return Err(wrong(&format!("/{name}"), "is not known; known: subscribe, unsubscribe, after"));
        }
        match (subscribe, unsubscribe) {
            (Some(topic), None) => {
                let topic = Topic::read(&topic, "/subscribe")?;
                let full = self.follower.topics().len() >= TOPICS_MOST && !self.follower.topics().contains(&topic);
                if full {
                    return Err(wrong("/subscribe", &format!("one connection follows {TOPICS_MOST} topics at most")));
                }
                let after = after.map(|after| {
                    let text = after.as_str().ok_or(()).map(str::to_owned);
                    text.and_then(|text| Cursor::parse(&text, self.app.config.partitions).map_err(|_| ()))
                });
                let after =
                    after.transpose().map_err(|()| wrong("/after", "must be the `cursor` of a message, or \"0\""))?;
                Ok(Wish::Subscribe(topic, after))
            }
            (None, Some(topic)) if after.is_none() => Topic::read(&topic, "/unsubscribe").map(Wish::Unsubscribe),
            (None, Some(_)) => Err(wrong("/after", "belongs to subscribe")),
            (Some(_), Some(_)) => Err(wrong("/unsubscribe", "is not sent together with subscribe")),
            (None, None) => Err(wrong("/subscribe", "is missing")),
        }
    }

    async fn grant(&mut self, wish: Wish) -> Result<(), Gone> {
        match wish {
            Wish::Subscribe(topic, after) => {
                let (shown, known) = (topic.shown(), self.follower.topics().contains(&topic));
                match self.follower.add(topic.clone(), after, &mut self.line).await {
                    Ok(()) => {}
                    // A cursor that is beyond the end, or before the beginning, is the client's; so is what to do now.
                    Err(Gone::Unreadable(problem)) => {
                        if !known {
                            self.follower.remove(&topic);
                        }
                        let field = if problem.status < 500 { "/after" } else { "/subscribe" };
                        return self.complain(&wrong(field, &problem.detail)).await;
                    }
                    Err(gone) => return Err(gone),
                }
                let cursor = self.follower.cursor().to_string();
                self.line.say(&json!({ "subscribed": shown, "cursor": cursor })).await
            }
            Wish::Unsubscribe(topic) if self.follower.remove(&topic) => {
                self.line.say(&json!({ "unsubscribed": topic.shown() })).await
            }
            Wish::Unsubscribe(_) => self.complain(&wrong("/unsubscribe", "was not subscribed")).await,
        }
    }

    async fn complain(&mut self, error: &TopicError) -> Result<(), Gone> {
        self.faults += 1;
        self.line.say(&json!({ "error": { "field": error.field, "detail": error.detail } })).await?;
        if self.faults > FAULTS_MOST { Err(Gone::Done) } else { Ok(()) }
    }

    /// Says why, to one who is still there.
    async fn close(&mut self, gone: Gone) {
        let resume = |cursor: &Cursor| {
            let reason = format!("resume after {cursor}");
            if reason.len() <= REASON_BYTES { reason } else { "resume after the last event's cursor".to_owned() }
        };
        let (code, reason): (u16, Cow<'static, str>) = match gone {
            Gone::Left => return,
            Gone::Slow => {
                self.app.live.count_cut();
                // What was heard and not told is behind the cursor.
                (close_code::AGAIN, resume(self.follower.told()).into())
            }
            Gone::Done => (close_code::POLICY, "too many messages made no sense".into()),
            Gone::Stopping => (close_code::AWAY, "this process stops; connect again".into()),
            Gone::MovedBack => (close_code::AGAIN, "the journal has moved back: load anew".into()),
            Gone::Unreadable(_) => (close_code::AGAIN, resume(self.follower.told()).into()),
        };
        let last = CloseFrame { code, reason: Utf8Bytes::from(reason.as_ref()) };
        // One that takes nothing takes no reason either, and is let go of.
        let _ = timeout(LAST_WORDS, self.line.close(last)).await;
    }
}

fn wrong(field: &str, detail: &str) -> TopicError {
    TopicError { field: field.to_owned(), detail: detail.to_owned() }
}
