//! A receiver of webhooks that answers as a test tells it, and remembers everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::stage::eventually;

#[derive(Clone, Copy)]
pub(crate) enum Reply {
    Status(u16),
    /// With a `Retry-After`.
    Later(u16, &'static str),
    /// With a `Location`.
    Elsewhere(SocketAddr),
    /// Only after [`Receiver::release`].
    Held(u16),
    /// With a body.
    Says(u16, &'static str),
    /// A body that never ends.
    Endless(u16),
}

/// One request, as it came.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _serving: AbortOnDropHandle<()>,
}

struct Seen {
    reply: Box<dyn Fn(usize) -> Reply + Send + Sync>,
    requests: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
    gate: Semaphore,
}

impl Receiver {
    /// Answers request number `n`, from 0, with `reply(n)`.
    pub(crate) async fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            reply: Box::new(reply),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let router = Router::new().fallback(answer).with_state(seen.clone());
        let counted = Counted { listener, seen: seen.clone() };
        let serving = tokio::spawn(async move { axum::serve(counted, router).await.unwrap() });
        Self { address, seen, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    /// Waits until `count` requests have come.
    pub(crate) async fn received(&self, count: usize) {
        eventually(&format!("{count} requests"), async || self.count() >= count).await;
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The most requests that were being answered at once.
    pub(crate) fn most_open(&self) -> usize {
        self.seen.most_open.load(Ordering::SeqCst)
    }

    /// Lets `count` held requests go.
    pub(crate) fn release(&self, count: usize) {
        self.seen.gate.add_permits(count);
    }
}

async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    let number = {
        let mut requests = seen.requests.lock().unwrap();
        requests.push(Received { headers, body });
        requests.len() - 1
    };
    let open = Open::new(seen.clone());
    let response = match (seen.reply)(number) {
        Reply::Status(code) => status(code).into_response(),
        Reply::Later(code, asked) => (status(code), [(header::RETRY_AFTER, asked)]).into_response(),
        Reply::Elsewhere(address) => {
            (StatusCode::FOUND, [(header::LOCATION, format!("http://{address}/"))]).into_response()
        }
        Reply::Held(code) => {
            seen.gate.acquire().await.unwrap().forget();
            status(code).into_response()
        }
        Reply::Says(code, body) => (status(code), body).into_response(),
        Reply::Endless(code) => {
            let drops = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 4096])), ()))
            });
            (status(code), Body::from_stream(drops)).into_response()
        }
    };
    drop(open);
    response
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap()
}

/// A request being answered; also when its connection is dropped meanwhile.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: Arc<Seen>) -> Self {
        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most_open.fetch_max(open, Ordering::SeqCst);
        Self(seen)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts what it accepts, whether or not a request follows.
struct Counted {
    listener: TcpListener,
    seen: Arc<Seen>,
}

impl Listener for Counted {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let accepted = Listener::accept(&mut self.listener).await;
        self.seen.connections.fetch_add(1, Ordering::SeqCst);
        accepted
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
