//! One attempt: where it goes, its headers, what came of it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use insightforge_schema::address::parse_url;
use insightforge_schema::event::now_us;
use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::webhook_id;
use insightforge_schema::seal::Sealer;
use insightforge_schema::trace::{Open, Told, Traceparent, below, outgoing};
use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio_util::sync::CancellationToken;

use super::config::WebhookConfig;
use super::lane::Health;
use super::lanes::Weigh;
use super::schedule::{Schedule, Verdict};
use super::send::{Answer, Failure, Posted, Said, Sender, Trust, range_of};
use super::sign::Signer;
use super::{Delivery, TASK_ENDPOINT};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const LEGACY_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("InsightForge/", env!("CARGO_PKG_VERSION")));
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A delivery that knows its receiver.
pub(super) struct Job {
    pub(super) delivery: Delivery,
    /// What its receiver's lane is called.
    pub(super) lane: Arc<str>,
    url: Url,
    trust: Trust,
}

impl Job {
    /// Whether the operator configured the receiver.
    pub(super) fn is_configured(&self) -> bool {
        self.trust == Trust::Operator
    }
}

impl Weigh for Job {
    fn bytes(&self) -> usize {
        self.delivery.body.len()
    }
}

/// An attempt that was made, or could not be. Its delivery no longer has the body.
pub(super) struct Attempted {
    pub(super) delivery: Delivery,
    /// The receiver's lane; `None` when it never came to one.
    pub(super) lane: Option<Arc<str>>,
    pub(super) verdict: Verdict,
    pub(super) health: Health,
    pub(super) status_code: Option<u16>,
    pub(super) error: Option<String>,
    /// `None` when nothing left this machine.
    pub(super) sent: Option<AsSent>,
    pub(super) said: Option<Said>,
    pub(super) took: Duration,
    /// When it ended, in microseconds since 1970-01-01 UTC.
    pub(super) at_us: i64,
}

/// The headers of an attempt that no other attempt has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AsSent {
    pub(super) at_s: i64,
    pub(super) signature: Option<String>,
    pub(super) legacy: Option<String>,
    pub(super) trace: Option<String>,
}

/// What passed between this machine and a receiver.
struct Exchange {
    answer: Answer,
    sent: Option<AsSent>,
    said: Option<Said>,
}

/// Makes attempts.
pub(super) struct Courier {
    sender: Sender,
    sealer: Sealer,
    schedule: Schedule,
    config: Arc<WebhookConfig>,
    endpoints: HashMap<String, Configured>,
}

struct Configured {
    lane: Arc<str>,
    url: Url,
    signer: Signer,
}

impl Courier {
    /// `config` has been checked.
    pub(super) fn new(config: Arc<WebhookConfig>, sender: Sender, sealer: Sealer) -> Self {
        let endpoints = config.endpoints.iter().filter_map(|endpoint| {
            let url = parse_url(&endpoint.url).ok()?;
            let signer = Signer::new(endpoint.secret.expose().as_bytes(), endpoint.legacy_header)?;
            Some((endpoint.name.clone(), Configured { lane: Arc::from(endpoint.name.as_str()), url, signer }))
        });
        Self { endpoints: endpoints.collect(), schedule: config.schedule.clone(), sender, sealer, config }
    }

    /// Finds the receiver. A delivery that has none is an attempt that failed.
    pub(super) fn route(&self, delivery: Delivery) -> Result<Job, Box<Attempted>> {
        let found = match (&*delivery.endpoint, &delivery.url) {
            (TASK_ENDPOINT, Some(url)) => self.vet(url),
            (TASK_ENDPOINT, None) => Err(Failure::BadUrl),
            (name, _) => match self.endpoints.get(name) {
                Some(it) => Ok((it.lane.clone(), it.url.clone(), Trust::Operator)),
                None => Err(Failure::NotConfigured),
            },
        };
        match found {
            Ok((lane, url, trust)) => Ok(Job { delivery, lane, url, trust }),
            Err(failure) => Err(self.judged(delivery, None, Exchange::none(failure), Duration::ZERO)),
        }
    }

    /// Whether a lane is that of a receiver that the operator configured, and not that of a caller's host.
    pub(super) fn is_configured(&self, lane: &str) -> bool {
        self.endpoints.contains_key(lane)
    }

    /// Gives up what has waited for too long for a receiver that is down.
    pub(super) fn too_late(&self, delivery: Delivery) -> Box<Attempted> {
        self.judged(delivery, None, Exchange::none(Failure::TooLate), Duration::ZERO)
    }

    /// Checks a caller's URL again: the policy may be another since it was accepted, and no resolver sees an address
    /// that is written in it. One lane a host.
    fn vet(&self, url: &str) -> Result<(Arc<str>, Url, Trust), Failure> {
        let url = self.config.addresses.check_url(url).map_err(|refusal| Failure::Blocked(range_of(&refusal)))?;
        let origin = Arc::from(&url[..url::Position::BeforePath]);
        Ok((origin, url, Trust::Caller))
    }

    /// Sends a delivery once; `Err` when `hurry` was cancelled before there was an answer.
    pub(super) async fn attempt(&self, job: Job, hurry: &CancellationToken) -> Result<Box<Attempted>, Delivery> {
        let Job { delivery, lane, url, trust } = job;
        let began = Instant::now();
        let span = below(delivery.trace.as_deref());
        let own = span.as_ref().map(|span| span.own.clone());
        let own = own.unwrap_or_else(|| outgoing(delivery.task, delivery.trace.as_deref()));
        // A delivery that makes the sender panic fails like any other, or it would end every process that takes it.
        let exchange = AssertUnwindSafe(self.exchange(&delivery, url, trust, &own)).catch_unwind();
        match hurry.run_until_cancelled(exchange).await {
            Some(exchange) => {
                let exchange = exchange.unwrap_or(Exchange::none(Failure::Crashed));
                let attempted = self.judged(delivery, Some(lane), exchange, began.elapsed());
                tell(&attempted, &own, span);
                Ok(attempted)
            }
            None => Err(delivery),
        }
    }

    async fn exchange(&self, delivery: &Delivery, url: Url, trust: Trust, trace: &Traceparent) -> Exchange {
        match self.headers(delivery) {
            Ok(mut headers) => {
                headers.insert(TRACEPARENT, ascii(trace.to_string()));
                let sent = AsSent::of(&headers);
                fail::reached(Step::SendUnsent);
                let posted = self.sender.post(trust, url, headers, delivery.body.clone()).await;
                fail::reached(Step::SendAnswered);
                let Posted { answer, said, may_have_left } = posted;
                Exchange { answer, sent: sent.filter(|_| may_have_left), said }
            }
            Err(failure) => Exchange::none(failure),
        }
    }

    fn headers(&self, delivery: &Delivery) -> Result<HeaderMap, Failure> {
        let id = webhook_id(delivery.task, &delivery.endpoint);
        let at_s = chrono::Utc::now().timestamp();
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(ACCEPT_ENCODING, IDENTITY);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(at_s));
        let tasks_own;
        let signer = match self.endpoints.get(&*delivery.endpoint) {
            Some(endpoint) => Some(&endpoint.signer),
            None => {
                tasks_own = self.own_signer(delivery)?;
                tasks_own.as_ref()
            }
        };
        if let Some(signer) = signer {
            headers.insert(WEBHOOK_SIGNATURE, ascii(signer.standard(&id, at_s, &delivery.body)));
            if let Some(legacy) = signer.legacy(&delivery.body) {
                headers.insert(LEGACY_SIGNATURE, ascii(legacy));
            }
        }
        headers.insert(WEBHOOK_ID, ascii(id));
        Ok(headers)
    }

    /// The signer of a task's own webhook; `None` when it was registered without a secret.
    fn own_signer(&self, delivery: &Delivery) -> Result<Option<Signer>, Failure> {
        let Some(sealed) = &delivery.sealed_secret else { return Ok(None) };
        let secret = self.sealer.open(sealed, delivery.task.0.as_bytes()).map_err(|_| Failure::SealedSecret)?;
        Signer::new(&secret, self.config.legacy_header).map(Some).ok_or(Failure::BadSecret)
    }

    fn judged(
        &self,
        mut delivery: Delivery,
        lane: Option<Arc<str>>,
        exchange: Exchange,
        took: Duration,
    ) -> Box<Attempted> {
        let Exchange { answer, sent, said } = exchange;
        let attempt = delivery.attempts.saturating_add(1);
        let verdict = self.schedule.judge(&answer, attempt, rand::random());
        let health = health_of(&answer, delivery.url.is_none());
        let (status_code, error) = match answer {
            Answer::Status { code, .. } => (Some(code), explain(code)),
            Answer::Failed(failure) => (None, Some(failure.to_string())),
        };
        delivery.body = bytes::Bytes::new();
        let at_us = now_us();
        Box::new(Attempted { delivery, lane, verdict, health, status_code, error, sent, said, took, at_us })
    }
}

impl AsSent {
    /// `None` without a timestamp, which every request has.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name)?.to_str().ok();
        Some(Self {
            at_s: text(WEBHOOK_TIMESTAMP)?.parse().ok()?,
            signature: text(WEBHOOK_SIGNATURE).map(str::to_owned),
            legacy: text(LEGACY_SIGNATURE).map(str::to_owned),
            trace: text(TRACEPARENT).map(str::to_owned),
        })
    }
}

impl Exchange {
    fn none(failure: Failure) -> Self {
        Self { answer: Answer::Failed(failure), sent: None, said: None }
    }
}

/// What an answer says about the receiver's strength. Only a configured endpoint can ask for silence: behind a caller's
/// URL others may share the host.
fn health_of(answer: &Answer, configured: bool) -> Health {
    match answer {
        Answer::Status { code: 429 | 503, retry_after: Some(asked) } if configured => Health::Pause(*asked),
        Answer::Status { code: 200..=299, .. } => Health::Good,
        Answer::Status { code: 408 | 429 | 500..=599, .. } => Health::Bad,
        Answer::Status { .. } => Health::Neutral,
        Answer::Failed(failure) if failure.is_the_receivers() => Health::Bad,
        Answer::Failed(_) => Health::Neutral,
    }
}

/// A status that surprises people, in words.
fn explain(code: u16) -> Option<String> {
    match code {
        300..=399 => Some("redirects are not followed".to_owned()),
        410 => Some("the receiver wants no more deliveries".to_owned()),
        _ => None,
    }
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).expect("ids and signatures are printable ASCII")
}
/// A line in the log, and the attempt's span, where spans are collected. What is given up is worth a look.
fn tell(attempted: &Attempted, trace: &Traceparent, span: Option<Open>) {
    let Attempted { delivery, verdict, status_code, error, .. } = attempted;
    let (task, endpoint, attempt) = (delivery.task, &*delivery.endpoint, delivery.attempts.saturating_add(1));
    let (trace_id, status, error) = (trace.trace.as_str(), status_code.unwrap_or(0), error.as_deref());
    match verdict {
        Verdict::GaveUp | Verdict::Blocked => {
            tracing::warn!(task.id = %task, trace_id, endpoint, attempt, status, error, "a webhook was given up");
        }
        _ => {
            tracing::debug!(task.id = %task, trace_id, endpoint, attempt, status, error, outcome = verdict.as_str(), "a webhook was sent")
        }
    }
    let Some(span) = span else { return };
    let (task, attempt, status) = (task.to_string(), attempt.to_string(), status.to_string());
    let about = [
        ("task.id", task.as_str()),
        ("endpoint", endpoint),
        ("attempt", &attempt),
        ("http.response.status_code", &status),
        ("outcome", verdict.as_str()),
    ];
    let error = matches!(verdict, Verdict::Delivered).then_some(()).map_or(Some(verdict.as_str()), |()| None);
    span.tell(Told { name: "webhook", kind: "client", error, about: &about, ..Told::default() });
}
