//! A client's WebSocket: what it says is read, also while it waits for its turn, and what is told to it is written
//! patiently.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{FutureExt, SinkExt, StreamExt};
use insightforge_schema::id::Cursor;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::follow::{Gone, Out};
use super::pulse::{Pulse, reached};
use super::told::Told;

/// What a client says while it waits for its turn is kept for later, up to so many messages.
const UNREAD_MOST: usize = 4;

/// A client's socket. One task reads and writes it, so it needs no lock.
pub(crate) struct Line {
    socket: WebSocket,
    /// What the client said while it waited.
    unread: VecDeque<Message>,
    pulse: Pulse,
}

impl Line {
    pub(crate) fn new(socket: WebSocket) -> Self {
        Self { socket, unread: VecDeque::new(), pulse: Pulse::new(Instant::now()) }
    }

    /// What the client says next; `None` when it has left. Nothing is lost when the waiting is given up.
    pub(crate) async fn hear(&mut self) -> Option<Message> {
        match self.unread.pop_front() {
            Some(message) => Some(message),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Option<Message> {
        let message = self.socket.next().await?.ok()?;
        self.pulse.answered();
        Some(message)
    }

    pub(crate) async fn show_life(&mut self, told: &Cursor) -> Result<(), Gone> {
        // Where no more is read now, no answer is either.
        let is_deaf = self.unread.len() == UNREAD_MOST;
        if !self.pulse.ask(Instant::now()) && !is_deaf {
            return Err(Gone::Left);
        }
        self.put(Message::Ping(axum::body::Bytes::new())).await?;
        self.say(&json!({ "alive": chrono::Utc::now(), "cursor": told.to_string() })).await
    }

    pub(crate) async fn say(&mut self, message: &Value) -> Result<(), Gone> {
        self.put(Message::Text(message.to_string().into())).await?;
        self.flush().await
    }

    pub(crate) async fn close(&mut self, last: CloseFrame) -> Result<(), axum::Error> {
        self.socket.send(Message::Close(Some(last))).await
    }

    async fn put(&mut self, message: Message) -> Result<(), Gone> {
        self.patiently(|socket, context| socket.poll_ready_unpin(context)).await?;
        self.socket.start_send_unpin(message).map_err(|_| Gone::Left)
    }

    /// What is done at once, as nearly always, needs no timer.
    async fn patiently(
        &mut self,
        mut step: impl FnMut(&mut WebSocket, &mut Context<'_>) -> Poll<Result<(), axum::Error>>,
    ) -> Result<(), Gone> {
        let mut step = poll_fn(|context| step(&mut self.socket, context));
        let done = match (&mut step).now_or_never() {
            Some(done) => done,
            None => timeout(PATIENCE, step).await.map_err(|_| Gone::Slow)?,
        };
        done.map_err(|_| Gone::Left)
    }
}

impl Out for Line {
    async fn tell(&mut self, told: &Told) -> Result<(), Gone> {
        self.put(Message::Text(told.text())).await
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.patiently(|socket, context| socket.poll_flush_unpin(context)).await
    }

    async fn drain(&mut self) -> Result<(), Gone> {
        self.flush().await
    }

    async fn stays(&mut self, told: &Cursor) -> Gone {
        loop {
            let has_room = self.unread.len() < UNREAD_MOST;
            let due = self.pulse.due();
            tokio::select! {
                biased;
                message = self.read(), if has_room => match message {
                    Some(message @ (Message::Text(_) | Message::Binary(_))) => self.unread.push_back(message),
                    Some(Message::Ping(_) | Message::Pong(_)) => {}
                    Some(Message::Close(_)) | None => return Gone::Left,
                },
                () = reached(due) => if let Err(gone) = self.show_life(told).await {
                    return gone;
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::Router;
    use axum::extract::ws::WebSocketUpgrade;
    use axum::routing::any;
    use insightforge_schema::id::PartitionCount;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio_tungstenite::tungstenite::Message as Said;
    use tokio_tungstenite::{WebSocketStream, client_async};

    use super::*;
    use crate::live::ALIVE;

    type Client = WebSocketStream<TcpStream>;

    /// Both ends of a connection.
    async fn connected() -> (Line, Client) {
        let (give, given) = oneshot::channel();
        let give = Arc::new(Mutex::new(Some(give)));
        let upgrade = any(move |upgrade: WebSocketUpgrade| {
            let give = give.clone();
            async move {
                upgrade.on_upgrade(async move |socket| {
                    let give = give.lock().unwrap().take().unwrap();
                    drop(give.send(Line::new(socket)));
                })
            }
        });
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/", upgrade)).await });
        let stream = TcpStream::connect(addr).await.unwrap();
        let client = client_async(format!("ws://{addr}/"), stream).await.unwrap().0;
        (given.await.unwrap(), client)
    }

    fn nowhere() -> Cursor {
        Cursor::start(PartitionCount::new(1).unwrap())
    }

    async fn soon<T>(doing: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(10), doing).await.expect("it comes soon")
    }

    #[tokio::test]
    async fn what_is_said_during_a_wait_is_heard_after_it_and_who_leaves_is_noticed() {
        let (mut line, mut client) = connected().await;
        client.send(Said::text("a")).await.unwrap();
        client.send(Said::text("b")).await.unwrap();
        client.close(None).await.unwrap();
        let told = nowhere();
        assert!(matches!(soon(line.stays(&told)).await, Gone::Left));
        for said in ["a", "b"] {
            assert_eq!(soon(line.hear()).await, Some(Message::text(said)));
        }
    }

    #[tokio::test]
    async fn who_says_more_than_is_kept_is_heard_in_full_when_it_is_its_turn() {
        let (mut line, mut client) = connected().await;
        let count = UNREAD_MOST * 3;
        for n in 0..count {
            client.send(Said::text(n.to_string())).await.unwrap();
        }
        let told = nowhere();
        let wait = timeout(Duration::from_millis(200), line.stays(&told)).await;
        assert!(wait.is_err() && line.unread.len() <= UNREAD_MOST);
        for n in 0..count {
            assert_eq!(soon(line.hear()).await, Some(Message::text(n.to_string())));
        }
    }

    #[tokio::test]
    async fn who_waits_hears_that_we_are_alive_and_where_to_go_on_from() {
        let (mut line, mut client) = connected().await;
        line.pulse = Pulse::new(Instant::now() - ALIVE);
        let told = nowhere();
        assert!(line.stays(&told).now_or_never().is_none(), "it is there");
        assert!(matches!(soon(client.next()).await, Some(Ok(Said::Ping(_)))));
        let Some(Ok(Said::Text(text))) = soon(client.next()).await else { panic!("it is told") };
        let alive: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(alive["cursor"], told.to_string());
    }
}
