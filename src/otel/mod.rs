//! Spans for an OpenTelemetry collector, over OTLP/HTTP: what the roles tell of (`insightforge_schema::trace`) is gathered,
//! put into protobuf ([`wire`]) and sent, by one task that nobody waits for. A collector that is away or slow costs spans,
//! which are counted, and nothing else.

mod wire;

use std::time::Duration;

use anyhow::Context as _;
use insightforge_schema::trace::{self, SPANS};
use prost::Message;
use reqwest::Client;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use crate::log::Collector;
use wire::Span;

/// Spans that wait to be sent; beyond them they are dropped.
const QUEUE: usize = 16_384;
/// Spans of one request, and how long the first of them waits for others.
const BATCH: usize = 512;
const GATHER: Duration = Duration::from_secs(1);
/// What a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tries of a request, and the pause after the first; it doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// Between two words about a collector that does not take them.
const TELL: Duration = Duration::from_secs(60);
/// For what is left when the role ends.
const LAST: Duration = Duration::from_secs(2);

/// Sends until it is told to end.
pub(crate) struct Sending {
    stop: mpsc::Sender<Span>,
    task: JoinHandle<()>,
}

/// Tells the installed recorder what the figure means.
pub(crate) fn describe_metrics() {
    metrics::describe_counter!("if_spans_total", "Spans for the collector, by outcome: sent or dropped");
}

/// Begins to gather; the layer is to be put where events pass.
pub(crate) fn start<S>(
    collector: &Collector,
    service: &'static str,
) -> anyhow::Result<(impl Layer<S> + use<S>, Sending)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let sender = Sender::new(collector, service)?;
    let (queue, spans) = mpsc::channel(QUEUE);
    let sending = Sending { stop: queue.clone(), task: tokio::spawn(sender.run(spans)) };
    trace::start(collector.share);
    let only_spans = Targets::new().with_target(SPANS, LevelFilter::TRACE);
    Ok((Gather { queue }.with_filter(only_spans), sending))
}

impl Sending {
    /// What is gathered is still sent, within a moment.
    pub(crate) async fn end(self) {
        // An empty span stands for the end: the layer lives as long as the process and keeps the queue open.
        drop(tokio::time::timeout(LAST, self.stop.send(Span::default())).await);
        drop(tokio::time::timeout(LAST, self.task).await);
    }
}

struct Gather {
    queue: mpsc::Sender<Span>,
}

impl<S: Subscriber> Layer<S> for Gather {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(span) = wire::read(event) else { return };
        if self.queue.try_send(span).is_err() {
            metrics::counter!("if_spans_total", "outcome" => "dropped").increment(1);
        }
    }
}

struct Sender {
    http: Client,
    url: Url,
    headers: HeaderMap,
    service: &'static str,
    told: Option<Instant>,
}

impl Sender {
    fn new(collector: &Collector, service: &'static str) -> anyhow::Result<Self> {
        let mut url = collector.endpoint.clone();
        if !url.path().ends_with("/v1/traces") {
            let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        let mut http = Client::builder().timeout(PATIENCE);
        if url.scheme() == "http" {
            http = http.tls_certs_only([]).no_proxy();
        }
        Ok(Self { http: http.build()?, url, headers: headers(&collector.headers)?, service, told: None })
    }

    async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut is_over = false;
        while !is_over {
            let Some(first) = spans.recv().await else { return };
            let mut batch = vec![first];
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH && !batch.last().is_some_and(Span::is_end) {
                match tokio::time::timeout_at(until, spans.recv()).await {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                }
            }
            is_over = batch.last().is_some_and(Span::is_end);
            batch.retain(|span| !span.is_end());
            if !batch.is_empty() {
                self.send(batch).await;
            }
        }
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let count = batch.len() as u64;
        let body = wire::request(self.service, batch).encode_to_vec();
        let mut pause = PAUSE;
        for last in (0..TRIES).rev() {
            match self.post(body.clone()).await {
                Ok(()) => return metrics::counter!("if_spans_total", "outcome" => "sent").increment(count),
                Err(why) if last == 0 => self.tell(&why),
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause *= 2;
        }
        metrics::counter!("if_spans_total", "outcome" => "dropped").increment(count);
    }

    async fn post(&self, body: Vec<u8>) -> Result<(), String> {
        let request = self.http.post(self.url.clone()).headers(self.headers.clone());
        let answer = request.header(CONTENT_TYPE, "application/x-protobuf").body(body).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status())),
            // Without its URL, which may hold a password.
            Err(error) => Err(error.without_url().to_string()),
        }
    }

    fn tell(&mut self, why: &str) {
        if self.told.is_none_or(|at| at.elapsed() >= TELL) {
            tracing::warn!(why, "the collector takes no spans; they are dropped");
            self.told = Some(Instant::now());
        }
    }
}

fn headers(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (at, pair) in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
        let wrong = || format!("OTEL_EXPORTER_OTLP_HEADERS: part {} is no name=value", at + 1);
        let (name, value) = pair.split_once('=').with_context(wrong)?;
        let mut value = HeaderValue::try_from(value.trim()).with_context(wrong)?;
        value.set_sensitive(true);
        headers.insert(HeaderName::try_from(name.trim()).with_context(wrong)?, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_a_wrong_one_is_named_without_its_value() {
        let read = headers("authorization=Bearer x, x-tenant = a").unwrap();
        assert_eq!(
            (&read["authorization"], &read["x-tenant"]),
            (&"Bearer x".parse::<HeaderValue>().unwrap(), &"a".parse::<HeaderValue>().unwrap())
        );
        assert!(headers("").unwrap().is_empty());
        let error = headers("a=1,hunter2").unwrap_err();
        assert!(error.to_string().contains("part 2") && !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
