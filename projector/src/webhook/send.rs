//! One POST over HTTP/1.1, on connections that are kept.
//!
//! Tasks' own webhooks go out through a client whose every connection asks the address policy; a host written as an
//! address never reaches a resolver and is checked before, in [`super::attempt`]. Names are resolved by the system, as
//! everything else on this machine is (its hosts file, a container network's names), and only for a new connection. No
//! redirect is followed, no proxy is
//! taken from the environment (it would resolve names by itself), and of the answer's body at most [`MAX_READ`] is read, to
//! keep the connection. Its beginning is kept for people, of operators' receivers alone: what a caller's URL answers could
//! tell that caller of hosts that only this machine reaches.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use insightforge_schema::address::{AddressPolicy, Refusal};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Request, Response, Url};

use super::config::WebhookConfig;
use super::schedule;

/// What is read of an answer's body, in bytes.
pub const MAX_READ: u64 = 16 * 1024;
/// What is kept of it.
pub const MAX_KEPT: usize = 2_048;
/// What is kept of its type, in characters.
const MAX_TYPE: usize = 128;

/// How long a connection without work is kept.
const IDLE: Duration = Duration::from_secs(30);
/// A body is waited for so long: what it says changes nothing.
const BODY: Duration = Duration::from_secs(1);
/// A connection that breaks sooner than this was dead before.
const DEAD_BEFORE: Duration = Duration::from_secs(1);

/// What came of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Status { code: u16, retry_after: Option<Duration> },
    Failed(Failure),
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    pub answer: Answer,
    pub said: Option<Said>,
    /// Whether some of the request may have left this machine.
    pub may_have_left: bool,
}

/// What an answer said beside its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub content_type: Option<String>,
    /// The beginning of its body, as text.
    pub text: String,
    /// There was more.
    pub cut: bool,
}

/// Why there was no answer. The texts end up in `webhook_attempts.error`: they name no URL and no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the host's address is {0}, and the operator has not allowed webhooks there")]
    Blocked(&'static str),
    #[error("the host's name leads to {0}, and the operator has not allowed webhooks there")]
    Misled(&'static str),
    #[error("the host's name could not be resolved")]
    Unresolved,
    #[error("the connection could not be made: {0}")]
    Connect(io::ErrorKind),
    #[error("no secure connection could be made: the TLS handshake failed")]
    Tls,
    #[error("no answer in time")]
    TimedOut,
    #[error("the connection ended before the answer")]
    Broken,
    #[error("no endpoint of this name is configured")]
    NotConfigured,
    #[error("the secret cannot be opened with this installation's key")]
    SealedSecret,
    #[error("the secret is no key")]
    BadSecret,
    #[error("the URL cannot be used")]
    BadUrl,
    #[error("not sent: its receiver has been down for longer than announcements are repeated")]
    TooLate,
    #[error("the sender itself failed; its log says where")]
    Crashed,
}

impl Failure {
    /// Whether it lies with the receiver or the way to it, and not with what was to be sent.
    #[must_use]
    pub fn is_the_receivers(&self) -> bool {
        matches!(self, Self::Unresolved | Self::Connect(_) | Self::Tls | Self::TimedOut | Self::Broken)
    }

    /// Whether some of the request may have left this machine.
    #[must_use]
    pub fn may_have_sent(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken | Self::Crashed)
    }
}

/// Whether a target's addresses are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The operator configured it.
    Operator,
    /// A caller named it.
    Caller,
}

/// The clients and their connections. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    to_operators: Clients,
    to_callers: Clients,
    total_timeout: Duration,
}

#[derive(Clone)]
struct Clients {
    keeping: Client,
    /// Makes a connection for every request.
    fresh: Client,
}

/// Resolves a name to addresses; the ports do not matter.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) }))
}

impl Sender {
    /// `lookup` resolves callers' hosts.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: &WebhookConfig, lookup: Lookup) -> Result<Self, reqwest::Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may be first; either way one is installed.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let builder = |kept| {
            Client::builder()
                .http1_only()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(config.connect_timeout)
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(kept)
        };
        let vetting = Arc::new(Vetting { addresses: config.addresses.clone(), lookup });
        let vetted = |kept| builder(kept).dns_resolver(vetting.clone());
        let kept = config.per_endpoint;
        Ok(Self {
            to_operators: Clients { keeping: builder(kept).build()?, fresh: builder(0).build()? },
            to_callers: Clients { keeping: vetted(kept).build()?, fresh: vetted(0).build()? },
            total_timeout: config.total_timeout,
        })
    }

    /// Posts `body` and waits for the answer, no longer than the total timeout. An operator's receiver is listened to as well.
    pub async fn post(&self, trust: Trust, url: Url, headers: HeaderMap, body: Bytes) -> Posted {
        let mut request = Request::new(Method::POST, url);
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let clients = match trust {
            Trust::Operator => &self.to_operators,
            Trust::Caller => &self.to_callers,
        };
        let mut heard = Heard { keeps: trust == Trust::Operator, ..Heard::default() };
        let outcome = tokio::time::timeout(self.total_timeout, clients.exchange(request, &mut heard)).await;
        let (said, sent_before) = (heard.said(), heard.sent_before);
        // Once there is a status, what happens to the body changes nothing.
        let answer = match (heard.status, outcome) {
            (Some(answer), _) => answer,
            (None, Ok(Err(error))) => Answer::Failed(failure_of(&error)),
            (None, Ok(Ok(())) | Err(_)) => Answer::Failed(Failure::TimedOut),
        };
        let may_have_left = sent_before || !matches!(&answer, Answer::Failed(failure) if !failure.may_have_sent());
        Posted { answer, said, may_have_left }
    }
}

impl Clients {
    /// Sends the request; what is heard is noted as soon as it is known. A kept connection may have died unnoticed (the receiver
    /// was restarted, a balancer forgot it): that says nothing about the receiver, so the request goes out once more.
    async fn exchange(&self, request: Request, heard: &mut Heard) -> Result<(), reqwest::Error> {
        let again = request.try_clone();
        let began = Instant::now();
        let response = match (self.keeping.execute(request).await, again) {
            (Err(error), Some(again)) if began.elapsed() < DEAD_BEFORE && failure_of(&error) == Failure::Broken => {
                heard.sent_before = true;
                self.fresh.execute(again).await?
            }
            (response, _) => response?,
        };
        heard.status = Some(answer_of(&response));
        heard.content_type =
            response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        heard.finish(response).await;
        Ok(())
    }
}

fn answer_of(response: &Response) -> Answer {
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Answer::Status {
        code: response.status().as_u16(),
        retry_after: asked.and_then(|value| schedule::retry_after(value, SystemTime::now())),
    }
}

/// What was heard of an answer so far.
#[derive(Default)]
struct Heard {
    /// Whether the body is of interest.
    keeps: bool,
    status: Option<Answer>,
    content_type: Option<String>,
    body: Vec<u8>,
    /// All of the body is kept.
    whole: bool,
    /// The request went out once before, over a connection that had died.
    sent_before: bool,
}

impl Heard {
    /// Reads a short body to its end so that the connection can be used again; a longer one costs the connection, and so does one
    /// that does not come.
    async fn finish(&mut self, response: Response) {
        let is_long = response.content_length().is_some_and(|length| length > MAX_READ);
        if is_long && !self.keeps {
            return;
        }
        let enough = if is_long { MAX_KEPT } else { usize::try_from(MAX_READ).unwrap_or(usize::MAX) };
        let _ = tokio::time::timeout(BODY, self.read(response, enough)).await;
    }

    async fn read(&mut self, mut response: Response, enough: usize) {
        let mut read = 0;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    read += chunk.len();
                    if self.keeps {
                        let room = MAX_KEPT - self.body.len();
                        self.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    }
                    if read > enough {
                        return;
                    }
                }
                Ok(None) => {
                    self.whole = read <= MAX_KEPT;
                    return;
                }
                Err(_) => return,
            }
        }
    }

    fn said(&mut self) -> Option<Said> {
        if !self.keeps || self.status.is_none() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.body);
        // A character that the cut went through is not the receiver's mistake.
        let text = if !self.whole { text.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { &text };
        let content_type = self.content_type.take().map(|text| text.chars().take(MAX_TYPE).collect());
        Some(Said { content_type, text: text.to_owned(), cut: !self.whole })
    }
}

/// Says in our own words what went wrong: the libraries' texts carry the URL.
fn failure_of(error: &reqwest::Error) -> Failure {
    let mut connect = None;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(vetted) = error.downcast_ref::<Unusable>() {
            return match vetted {
                Unusable::Forbidden(range) => Failure::Misled(range),
                Unusable::Unresolved => Failure::Unresolved,
            };
        }
        if error.is::<rustls::Error>() {
            return Failure::Tls;
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                return Failure::Tls;
            }
            connect = Some(io.kind());
        }
        cause = error.source();
    }
    if error.is_connect() {
        // First: a connection that is not made in time is a time-out too, and nothing was sent over it.
        let connect = connect.or(error.is_timeout().then_some(io::ErrorKind::TimedOut));
        connect.map_or(Failure::Unresolved, Failure::Connect)
    } else if error.is_timeout() {
        Failure::TimedOut
    } else if error.is_builder() {
        Failure::BadUrl
    } else {
        Failure::Broken
    }
}

/// The resolver of the client for callers' hosts: the addresses it gives are the ones that were vetted.
struct Vetting {
    addresses: AddressPolicy,
    lookup: Lookup,
}

/// Why a name yields no address to connect to.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("an address of the host is {0}")]
    Forbidden(&'static str),
    #[error("the host's name could not be resolved")]
    Unresolved,
}

impl Resolve for Vetting {
    fn resolve(&self, name: Name) -> Resolving {
        let found = (self.lookup)(name.as_str().to_owned());
        let addresses = self.addresses.clone();
        Box::pin(async move {
            let found = found.await.map_err(|_| Unusable::Unresolved)?;
            // One bad address condemns the answer: a mixed one is no honest mistake.
            for address in &found {
                if let Err(refusal) = addresses.check(address.ip()) {
                    return Err(Unusable::Forbidden(range_of(&refusal)).into());
                }
            }
            if found.is_empty() {
                return Err(Unusable::Unresolved.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The range a refusal names, without the address in it.
pub(super) fn range_of(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Address { range, .. } => range,
        Refusal::LocalName(_) => "this machine itself",
        _ => "not one for webhooks",
    }
}
