//! In the api's process: requests for the synchronous door go on to a live analyzer, over connections that are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use insightforge_schema::catalogue;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;

use super::MAX_BODY_BYTES;
use super::resolve::NOT_HERE;
use crate::app::App;
use crate::body;
use crate::problem::Problem;

/// How old the list of analyzers may be.
const REFRESH: Duration = Duration::from_secs(2);
/// For Redis to tell who is alive.
const LOOK: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(1);
/// From a request sent on to its answer's header; a little longer than the door's own patience.
const PATIENCE: Duration = Duration::from_secs(35);
/// The door closes what is silent for five seconds between two requests; none is used while it closes.
const IDLE: Duration = Duration::from_secs(3);

/// The longest answer that is looked through for [`NOT_HERE`].
const PROBLEM_MAX_BYTES: usize = 64 << 10;

/// What concerns one connection only (RFC 9110 §7.6.1), and what is said anew.
const NOT_PASSED_ON: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

/// What callers tell this door about themselves, which is nobody else's business.
const SECRETS: [HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// The way to the analyzers' doors.
pub(crate) struct Forwarder {
    client: Client<HttpConnector, Full<Bytes>>,
    link: Link,
    keys: Keys,
    known: tokio::sync::Mutex<Option<(Instant, Arc<Vec<String>>)>>,
    turn: AtomicUsize,
}

impl Forwarder {
    pub(crate) fn new(link: &Link, keys: &Keys) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Self { client, link: link.clone(), keys: keys.clone(), known: Default::default(), turn: AtomicUsize::new(0) }
    }

    /// Asks one analyzer after the other until one can be reached that has the model.
    async fn ask(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Result<Response, Problem> {
        let doors = self.doors().await?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut not_here = None;
        for at in 0..doors.len() {
            let door = &doors[(first + at) % doors.len()];
            let Some(request) = request(door, method, uri, headers, body) else { continue };
            match tokio::time::timeout(PATIENCE, self.client.request(request)).await {
                Ok(Ok(answer)) => match or_not_here(passed_back(answer.map(Body::new))).await? {
                    Answer::Given(answer) => return Ok(answer),
                    // It did not begin; another may have the model.
                    Answer::NotHere(answer) => not_here = Some(answer),
                },
                // It was never reached: another may be.
                Ok(Err(error)) if error.is_connect() => {
                    tracing::warn!(door, %error, "an analyzer's synchronous door cannot be reached");
                }
                Ok(Err(error)) => {
                    tracing::warn!(door, %error, "an analyzer's synchronous door broke off");
                    return Err(broken());
                }
                Err(_) => {
                    let detail = "the analyzer gave no answer in time";
                    return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "No answer", detail));
                }
            }
        }
        self.known.lock().await.take();
        if let Some(answer) = not_here {
            return Ok(answer);
        }
        let detail = "no analyzer serves the synchronous door at the moment; uploads are accepted, or try again";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-analyzer", "Not available", detail).retry_after(2))
    }

    /// Where the live analyzers' doors are. While Redis does not answer, the last list counts.
    async fn doors(&self) -> Result<Arc<Vec<String>>, Problem> {
        // Who comes while another asks waits for that answer.
        let mut known = self.known.lock().await;
        let last = known.as_ref().map(|(_, doors)| doors.clone());
        if let Some((at, doors)) = known.as_ref()
            && at.elapsed() < REFRESH
        {
            return Ok(doors.clone());
        }
        let asked = tokio::time::timeout(LOOK, catalogue::workers(&self.link, &self.keys)).await;
        let doors = match (asked, last) {
            (Ok(Ok(workers)), _) => Arc::new(workers.into_iter().filter_map(|worker| worker.infer_addr).collect()),
            (_, Some(last)) => last,
            (Ok(Err(error)), None) => return Err(error.into()),
            (Err(_), None) => return Err(Problem::unavailable("the list of analyzers")),
        };
        *known = Some((Instant::now(), doors.clone()));
        Ok(doors)
    }
}

/// The request as `door` gets it; `None` when what the analyzer announced is no address.
fn request(
    door: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Option<hyper::Request<Full<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder().scheme("http").authority(door).path_and_query(path).build().ok()?;
    let mut request = hyper::Request::new(Full::new(body.clone()));
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    let named = named_by_connection(headers);
    let passed_on = headers
        .iter()
        .filter(|(name, _)| !NOT_PASSED_ON.contains(name) && !SECRETS.contains(name) && !named.contains(name));
    request.headers_mut().extend(passed_on.map(|(name, value)| (name.clone(), value.clone())));
    Some(request)
}

/// Further headers that concern one connection only.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

fn passed_back(mut answer: Response) -> Response {
    *answer.version_mut() = Version::default();
    for name in named_by_connection(answer.headers()) {
        answer.headers_mut().remove(name);
    }
    for name in NOT_PASSED_ON.iter().filter(|name| **name != header::CONTENT_LENGTH) {
        answer.headers_mut().remove(name);
    }
    answer
}

enum Answer {
    Given(Response),
    /// The analyzer has not the model.
    NotHere(Response),
}

async fn or_not_here(answer: Response) -> Result<Answer, Problem> {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        r#type: &'a str,
    }
    if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
        return Ok(Answer::Given(answer));
    }
    let (head, body) = answer.into_parts();
    let bytes = axum::body::to_bytes(body, PROBLEM_MAX_BYTES).await.map_err(|_| broken())?;
    let kind = serde_json::from_slice::<Kind<'_>>(&bytes).ok();
    let not_here = kind.is_some_and(|kind| kind.r#type.strip_prefix("urn:insightforge:problem:") == Some(NOT_HERE));
    let answer = Response::from_parts(head, Body::from(bytes));
    Ok(if not_here { Answer::NotHere(answer) } else { Answer::Given(answer) })
}

fn broken() -> Problem {
    let detail = "the analyzer broke off; whether it computed an answer is not known, asking again is safe";
    Problem::new(StatusCode::BAD_GATEWAY, "broken-answer", "No answer", detail)
}

/// Passes a request on.
pub(super) async fn pass_on(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let held = body::read(&app.question_budget, &parts.headers, body, MAX_BODY_BYTES).await?;
    app.forwarder.ask(&parts.method, &parts.uri, &parts.headers, &held.bytes).await
}
