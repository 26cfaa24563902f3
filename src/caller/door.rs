//! The api, asked over HTTP.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use url::{Host, Url};

use super::plain;

/// An answer is given up when the api is silent for this long beyond what it was asked to wait.
const PATIENCE: Duration = Duration::from_secs(20);
/// No answer is longer: a batch's account lists 100,000 tasks in 9 MB.
const LONGEST_ANSWER: usize = 64 << 20;
/// Between two tries, unless the api names another time; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Tries of a request that must come through, the first included.
const TRIES: u32 = 6;

/// Where the api is.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DoorArgs {
    /// Where the api is: `http://host:port`, or `https://host/path` when a proxy serves it below a path
    #[arg(
        long,
        env = "INSIGHTFORGE_URL",
        default_value = "http://127.0.0.1:8080",
        hide_env_values = true,
        value_parser = base
    )]
    url: Url,
}

/// The api, as a caller reaches it.
pub(crate) struct Door {
    base: Url,
    http: Client,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody answered, or who did asks for another try.
    Away { why: String, after: Option<Duration> },
    /// The api has said no.
    Refused { status: StatusCode, why: String },
}

impl Door {
    pub(crate) fn open(args: &DoorArgs) -> anyhow::Result<Self> {
        let mut http = Client::builder().connect_timeout(Duration::from_secs(5));
        if args.url.scheme() == "http" {
            // Loading the system's certificates takes longer than asking.
            http = http.tls_certs_only([]);
        }
        if is_this_machine(&args.url) {
            http = http.no_proxy();
        }
        Ok(Self { base: args.url.clone(), http: http.build()? })
    }

    /// For people: where it is, without a password.
    pub(crate) fn address(&self) -> String {
        let mut shown = self.base.clone();
        let hidden = shown.set_username("").and_then(|()| shown.set_password(None));
        hidden.map_or_else(|()| "…".to_owned(), |()| shown.as_str().trim_end_matches('/').to_owned())
    }

    /// A request; `path` has no slash before it. The api is asked to answer within `wait`.
    pub(crate) fn request(&self, method: Method, path: &str, query: &[(&str, &str)], wait: Duration) -> RequestBuilder {
        let mut url = self.base.join(path).expect("paths are written in this program, ids are parsed");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.request(method, url).timeout(wait + PATIENCE)
    }

    /// What a path answers.
    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)], wait: Duration) -> Result<Value, Failure> {
        self.answer(self.request(Method::GET, path, query, wait)).await.map(|(_, body)| body)
    }

    /// A document that must come, whatever happens on the way: asked for again while nobody answers.
    pub(crate) async fn get_patiently(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let request = async || Ok(self.request(Method::GET, path, query, Duration::ZERO));
        self.insist(request).await.map(|(_, body)| body)
    }

    /// Sends a request again and again while nobody answers it. Only for requests that may be repeated: reads, and writes
    /// under an idempotency key.
    pub(crate) async fn insist(
        &self,
        mut request: impl AsyncFnMut() -> Result<RequestBuilder, Failure>,
    ) -> Result<(StatusCode, Value), Failure> {
        let mut pauses = Pauses::default();
        let mut tried = 0;
        loop {
            match self.answer(request().await?).await {
                Err(Failure::Away { why, after }) if tried + 1 < TRIES => {
                    tried += 1;
                    let pause = pauses.next(after);
                    eprintln!("{why}; trying again in {:.1} s", pause.as_secs_f64());
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What a path answers, also with a status that says that something is wrong.
    pub(crate) async fn answer_whatever_the_status(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = request.send().await.map_err(|error| self.away(&error))?;
        let status = response.status();
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|_| Failure::Refused { status, why: explain(status, &body) })
    }

    /// Sends it once.
    async fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let response = request.send().await.map_err(|error| self.away(&error))?;
        let status = response.status();
        let after = retry_after(&response);
        let body = self.body(response).await?;
        if status.is_success() {
            let value = serde_json::from_slice(&body).map_err(|_| Failure::Refused {
                status,
                why: format!("{} answered something that is not JSON: is it InsightForge's api?", self.address()),
            })?;
            return Ok((status, value));
        }
        let why = explain(status, &body);
        let again = matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504);
        Err(if again { Failure::Away { why, after } } else { Failure::Refused { status, why } })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.away(&error))? {
            if body.len() + piece.len() > LONGEST_ANSWER {
                let why = format!("the answer is longer than {} MiB", LONGEST_ANSWER >> 20);
                return Err(Failure::Refused { status: response.status(), why });
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn away(&self, error: &reqwest::Error) -> Failure {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let what = if error.is_timeout() {
            "did not answer in time".to_owned()
        } else {
            format!("cannot be reached: {cause}")
        };
        Failure::Away { why: plain::line(&format!("{} {what}", self.address()), 300), after: None }
    }
}

/// How long to wait before the next try.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pauses {
    /// What the api asks for comes first, if it is not too much.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let own = self.0;
        self.0 = (own * 2).min(LONGEST_PAUSE);
        asked.map_or(own, |asked| asked.clamp(Duration::from_millis(100), Duration::from_secs(60)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Away { why, .. } | Self::Refused { why, .. }) = self;
        f.write_str(why)
    }
}

impl std::error::Error for Failure {}

/// Every path goes below the address.
fn base(text: &str) -> Result<Url, String> {
    let mut url: Url = text.parse().map_err(|error| format!("no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err("must begin with http:// or https:// and name a host".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must be an address without ? and #".to_owned());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A refusal in the api's own words, which name every wrong field.
fn explain(status: StatusCode, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Value>(body).ok();
    let detail = said.as_ref().and_then(|it| it.get("detail").or_else(|| it.get("message"))).and_then(Value::as_str);
    match detail {
        Some(detail) => format!("{}: {}", status.as_u16(), plain::line(detail, 2_000)),
        None => format!("{status}: {}", plain::line(&String::from_utf8_lossy(body), 200)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_go_below_the_address() {
        for (address, path) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/api/health"),
            ("https://shop.example/forge", "https://shop.example/forge/api/health"),
            ("https://shop.example/forge/", "https://shop.example/forge/api/health"),
        ] {
            assert_eq!(base(address).unwrap().join("api/health").unwrap().as_str(), path);
        }
        for wrong in ["127.0.0.1:8080", "ftp://a/", "http://", "http://a/?x=1", "http://a/#b"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_api() {
        let body = br#"{"detail":"task_type: is missing","errors":{}}"#;
        assert_eq!(explain(StatusCode::UNPROCESSABLE_ENTITY, body), "422: task_type: is missing");
        assert_eq!(explain(StatusCode::BAD_GATEWAY, b"<html>\x1b[0m"), "502 Bad Gateway: <html>�[0m");
    }

    #[test]
    fn the_pauses_grow_and_the_api_may_name_its_own() {
        let mut pauses = Pauses::default();
        let own: Vec<u128> = (0..5).map(|_| pauses.next(None).as_millis()).collect();
        assert_eq!(own, [500, 1_000, 2_000, 4_000, 5_000]);
        assert_eq!(pauses.next(Some(Duration::from_secs(2))).as_secs(), 2);
        assert_eq!(pauses.next(Some(Duration::from_secs(86_400))).as_secs(), 60);
    }
}
