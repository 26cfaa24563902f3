//! From a request to the one who answers it. No layers: what a caller of a small model waits for is mostly this.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use insightforge_inference::store::Store;
use insightforge_schema::registry::Routes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::shown::ShownModels;
use super::{MAX_BODY_BYTES, ask, oip};
use crate::body::{self, Budget, Held};
use crate::problem::Problem;
use crate::serve::Listener;

pub use super::figures::describe_metrics;

/// The longest an answer takes; a model's own time limit is usually shorter.
const PATIENCE: Duration = Duration::from_secs(30);

/// Up to here, a request is read by the thread that answers others meanwhile.
const SMALL_BYTES: usize = 64 << 10;

/// Of one request, beside its body: both together fit into the budget.
const CHARGE_MAX_BYTES: usize = 22 << 20;

/// What the door needs from outside.
pub struct Deps {
    pub store: Arc<Store>,
    /// Kept fresh by whoever holds the sender.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// This release, for callers who ask what they talk to.
    pub version: &'static str,
}

/// Serves `/api/infer` and `/v2/…` until `shutdown`; then ends what is in flight.
pub async fn serve(listener: Listener, deps: Deps, shutdown: CancellationToken) {
    let Deps { store, routes, version } = deps;
    let door = Door { store, routes, version, budget: Budget::for_questions(), shown: ShownModels::default() };
    listener.serve_by(Doorway(Arc::new(door)), shutdown).await;
}

/// What every request shares.
pub(super) struct Door {
    pub(super) store: Arc<Store>,
    pub(super) routes: watch::Receiver<Arc<Routes>>,
    pub(super) version: &'static str,
    pub(super) shown: ShownModels,
    budget: Budget,
}

impl Door {
    pub(super) fn routes(&self) -> Arc<Routes> {
        self.routes.borrow().clone()
    }

    /// When an answer that is asked for now is too late.
    pub(super) fn deadline() -> Instant {
        Instant::now() + PATIENCE
    }

    pub(super) async fn read(&self, headers: &HeaderMap, body: Incoming) -> Result<Held, Problem> {
        body::read(&self.budget, headers, Body::new(body), MAX_BODY_BYTES).await
    }

    /// Counts what a request becomes in memory: numbers take many times the room of their digits. Those that become the
    /// most are answered one at a time.
    pub(super) fn charge(&self, held: &mut Held, bytes: usize) -> Result<(), Problem> {
        self.budget.take(&mut held.share, bytes.min(CHARGE_MAX_BYTES))
    }

    /// Answers what was read. A large request keeps a core busy for as long as thousands of small ones, so it gets a thread
    /// beside those that serve connections.
    pub(super) async fn answer_held<A>(
        self: &Arc<Self>,
        held: Held,
        answer: impl FnOnce(Arc<Self>, Held) -> A + Send + 'static,
    ) -> Result<Response, Problem>
    where
        A: Future<Output = Result<Response, Problem>>,
    {
        let door = self.clone();
        if held.bytes.len() <= SMALL_BYTES {
            return answer(door, held).await;
        }
        let runtime = tokio::runtime::Handle::current();
        let answered = tokio::task::spawn_blocking(move || runtime.block_on(answer(door, held))).await;
        answered.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Problem::unavailable("this analyzer")),
        })
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response {
        let (parts, body) = request.into_parts();
        match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/api/infer") => ask::infer(self, &parts.headers, body).await.into_response(),
            (_, "/api/infer") => method_not_allowed("POST").into_response(),
            (method, path) => match path.strip_prefix("/v2") {
                Some(rest) => oip::answer(self, method, rest, &parts.headers, body).await,
                None => Problem::not_found("there is nothing at this path").into_response(),
            },
        }
    }
}

/// 200 with JSON.
pub(super) fn json(body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// 405.
pub(super) fn method_not_allowed(allowed: &'static str) -> impl IntoResponse {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        format!("this path takes {allowed}"),
    );
    ([(header::ALLOW, HeaderValue::from_static(allowed))], problem)
}

/// [`Door`] as hyper asks it.
#[derive(Clone)]
struct Doorway(Arc<Door>);

impl Service<Request<Incoming>> for Doorway {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let door = self.0.clone();
        Box::pin(async move {
            let answered = AssertUnwindSafe(door.answer(request)).catch_unwind().await;
            let mut response = answered.unwrap_or_else(|_| {
                let detail = "this request met a defect; it has been logged";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "defect", "Internal error", detail).into_response()
            });
            response
                .headers_mut()
                .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
            Ok(response)
        })
    }
}
