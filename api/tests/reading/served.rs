//! A stage behind a real socket, and clients that follow the journal there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use insightforge_api::serve::Listener;
use insightforge_schema::id::{Partition, Position};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use crate::stage::Stage;

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A door that listens.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn new(stage: &Stage) -> Self {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (addr, shutdown) = (listener.addr(), CancellationToken::new());
        let serving = tokio::spawn(listener.serve(stage.router.clone(), shutdown.clone()));
        Self { addr, shutdown, serving }
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        timeout(LONG, self.serving).await.expect("the door closes").unwrap();
    }
}

/// A WebSocket client.
pub(crate) struct Client(tokio_tungstenite::WebSocketStream<TcpStream>);

/// What a client got.
#[derive(Debug, PartialEq)]
pub(crate) enum Got {
    Message(Value),
    Closed(u16, String),
    Broken,
}

impl Client {
    pub(crate) async fn new(served: &Served) -> Self {
        Self::with_origin(served, None).await.unwrap().0
    }

    /// One that has little room for what it has not read yet.
    pub(crate) async fn narrow(served: &Served) -> Self {
        let stream = narrow(served).await;
        Self(client_async(format!("ws://{}/api/ws", served.addr), stream).await.unwrap().0)
    }

    pub(crate) async fn with_origin(served: &Served, origin: Option<&str>) -> Result<(Self, Response), Error> {
        let mut request = format!("ws://{}/api/ws", served.addr).into_client_request()?;
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        let stream = TcpStream::connect(served.addr).await?;
        let (socket, response) = client_async(request, stream).await?;
        Ok((Self(socket), response))
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Subscribes and waits until that is in force; the events that came before.
    pub(crate) async fn follow(&mut self, topic: &Value, after: Option<&str>) -> (Vec<Value>, String) {
        self.say(&json!({ "subscribe": topic, "after": after })).await;
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Got::Message(message) if message["subscribed"] == *topic => {
                    return (before, message["cursor"].as_str().unwrap().to_owned());
                }
                Got::Message(event) if event["position"].is_string() => before.push(event),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn raw(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    pub(crate) async fn next(&mut self) -> Got {
        loop {
            match timeout(LONG, self.0.next()).await.expect("something comes") {
                Some(Ok(Message::Text(text))) => match serde_json::from_str(&text).unwrap() {
                    // A sign of life, as pings are.
                    Value::Object(alive) if alive.contains_key("alive") => {}
                    message => return Got::Message(message),
                },
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Got::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return Got::Broken,
            }
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        match self.next().await {
            Got::Message(event) if event["position"].is_string() => event,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }
}

/// A connection that has little room for what was not read from it yet.
pub(crate) async fn narrow(served: &Served) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(served.addr).await.unwrap()
}

fn position(event: &Value) -> Position {
    event["position"].as_str().unwrap().parse().unwrap()
}

/// Every partition's numbers follow one another.
pub(crate) fn assert_gapless(events: &[Value]) {
    let mut last: HashMap<Partition, u64> = HashMap::new();
    for event in events {
        let position = position(event);
        let before = last.insert(position.partition, position.n);
        assert!(before.is_none_or(|before| position.n == before + 1), "{before:?} {position}");
    }
}

/// A client of server-sent events.
pub(crate) struct Reader {
    response: reqwest::Response,
    text: String,
}

/// One server-sent event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sent {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Reader {
    pub(crate) async fn new(served: &Served, path: &str, last_event_id: Option<&str>) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut request =
            reqwest::Client::new().get(format!("http://{}{path}", served.addr)).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Sent> {
        loop {
            while let Some((frame, rest)) = self.text.split_once("\n\n") {
                let (frame, rest) = (frame.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(sent) = parse(&frame) {
                    return Some(sent);
                }
            }
            let chunk = timeout(LONG, self.response.chunk()).await.expect("something comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(sent) = self.next().await {
            all.push(sent);
        }
        all
    }
}

/// `None` for what is no event: comments, `retry`.
fn parse(frame: &str) -> Option<Sent> {
    let mut sent = Sent { name: "message".to_owned(), ..Sent::default() };
    let mut has_data = false;
    for line in frame.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => sent.id = Some(id.to_owned()),
            Some(("event", name)) => name.clone_into(&mut sent.name),
            Some(("data", data)) => {
                sent.data = serde_json::from_str(data).unwrap();
                has_data = true;
            }
            _ => {}
        }
    }
    has_data.then_some(sent)
}
