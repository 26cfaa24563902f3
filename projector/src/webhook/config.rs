//! The sender's settings.

use std::fmt;
use std::time::Duration;

use insightforge_schema::address::{AddressPolicy, Refusal, parse_url};

use super::TASK_ENDPOINT;
use super::schedule::Schedule;

/// How webhooks are sent. [`Default`] has no endpoints: only tasks' own webhooks are sent.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Told of every ended task.
    pub endpoints: Vec<Endpoint>,
    /// Whether tasks' own webhooks carry `X-Webhook-Signature`, too.
    pub legacy_header: bool,
    /// Deliveries in flight, in total.
    pub concurrency: usize,
    /// Deliveries in flight to one endpoint while it answers well; fewer after failures.
    pub per_endpoint: usize,
    /// Deliveries that may wait in memory, in total; what finds no room goes back to the table for a while.
    pub queue: usize,
    /// Between two looks at the table for what fell due.
    pub poll: Duration,
    /// Until the connection stands, TLS included.
    pub connect_timeout: Duration,
    /// From the first byte of DNS to the last byte of the answer that is read.
    pub total_timeout: Duration,
    /// How long a row belongs to the process that took it.
    pub lease: Duration,
    /// How long deliveries in flight may take to end at shutdown.
    pub drain: Duration,
    pub schedule: Schedule,
    /// What is older than this is given up unsent once its receiver is down: as a rule the length of the schedule, which a
    /// receiver that answers nothing would otherwise stretch, since what waits for it uses up no attempts.
    pub give_up_after: Duration,
    /// But only once it has been failing for this long before this process's eyes: after an outage of our own, a receiver that
    /// happens to be down gets this time first.
    pub patience: Duration,
    /// Where tasks' own webhooks may go; configured endpoints are the operator's own choice and are not asked about.
    pub addresses: AddressPolicy,
}

/// A receiver that the operator configured.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// 1 to 32 of `A-Z a-z 0-9 - _`; part of the `webhook-id`.
    pub name: String,
    pub url: String,
    pub secret: Secret,
    /// Send `X-Webhook-Signature`, too. It covers no time: whoever sees one can repeat it.
    pub legacy_header: bool,
}

/// A signing secret: `whsec_` and base64, or any other text. Shows nothing in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to key a MAC with.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Settings that cannot work. No text repeats a URL or a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("webhook endpoint name {0:?}: 1 to 32 of A-Z a-z 0-9 - _, and not `{TASK_ENDPOINT}`")]
    Name(String),
    #[error("two webhook endpoints are named {0:?}")]
    NameTwice(String),
    #[error("the URL of webhook endpoint {name:?}: {refusal}")]
    Url { name: String, refusal: Refusal },
    #[error("the secret of webhook endpoint {0:?} is empty, or not base64 behind `whsec_`")]
    Secret(String),
    #[error("concurrency, per endpoint and queue are at least 1")]
    NoPlace,
    #[error("the time between two looks at the table is above zero")]
    Poll,
    #[error("the connect timeout is above zero and at most the total timeout")]
    Timeouts,
    #[error("the webhook lease is at least twice the total timeout, or deliveries in flight would be taken over")]
    Lease,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            legacy_header: true,
            concurrency: 256,
            per_endpoint: 64,
            queue: 16_384,
            poll: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(15),
            lease: Duration::from_secs(60),
            drain: Duration::from_secs(8),
            give_up_after: Schedule::default().longest(),
            patience: Duration::from_hours(1),
            schedule: Schedule::default(),
            addresses: AddressPolicy::default(),
        }
    }
}

impl WebhookConfig {
    /// Refuses settings that contradict each other.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            endpoint.check()?;
            if self.endpoints[..index].iter().any(|other| other.name == endpoint.name) {
                return Err(ConfigError::NameTwice(endpoint.name.clone()));
            }
        }
        if self.concurrency == 0 || self.per_endpoint == 0 || self.queue == 0 {
            return Err(ConfigError::NoPlace);
        }
        if self.poll.is_zero() {
            return Err(ConfigError::Poll);
        }
        if self.connect_timeout.is_zero() || self.connect_timeout > self.total_timeout {
            return Err(ConfigError::Timeouts);
        }
        if self.lease < self.total_timeout * 2 {
            return Err(ConfigError::Lease);
        }
        Ok(())
    }

    /// Microseconds since 1970-01-01 UTC at which a lease taken at `now_us` ends: what a row written as leased has in
    /// `due_at`.
    #[must_use]
    pub fn lease_ends_us(&self, now_us: i64) -> i64 {
        now_us.saturating_add(i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Endpoint {
    fn check(&self) -> Result<(), ConfigError> {
        let plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !plain || !(1..=32).contains(&self.name.len()) || self.name == TASK_ENDPOINT {
            return Err(ConfigError::Name(self.name.clone()));
        }
        if let Err(refusal) = parse_url(&self.url) {
            // The parser's own words repeat no part of the URL.
            return Err(ConfigError::Url { name: self.name.clone(), refusal });
        }
        if super::sign::Signer::new(self.secret.expose().as_bytes(), self.legacy_header).is_none() {
            return Err(ConfigError::Secret(self.name.clone()));
        }
        Ok(())
    }
}
