//! Spans, as an OpenTelemetry collector gets them: a real receiver of OTLP/HTTP that reads the messages with the types of
//! OpenTelemetry's own crate.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::caller::{TEXT, http};
use crate::eventually;
use crate::installation::{Database, Installation, ROLES};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector, and what it has got: the service and each of its spans.
#[derive(Clone, Default)]
struct Collector {
    token: String,
    got: Arc<Mutex<Vec<(String, Span)>>>,
}

impl Collector {
    async fn listen() -> (Self, String) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let collector = Self { token: Uuid::new_v4().simple().to_string(), ..Self::default() };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    fn spans(&self, name: &str, trace: &str) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        got.iter()
            .map(|(_, span)| span)
            .filter(|span| span.name == name && hex::encode(&span.trace_id) == trace)
            .cloned()
            .collect()
    }

    async fn span(&self, name: &str, trace: &str) -> Span {
        eventually(&format!("the collector has {name}"), async || self.spans(name, trace).into_iter().next()).await
    }

    /// A fold that links to a span.
    async fn fold_of(&self, trace: &str, span: &[u8]) -> Span {
        eventually("the collector has the fold", async || {
            let got = self.got.lock().unwrap();
            let links =
                |fold: &Span| fold.links.iter().any(|it| hex::encode(&it.trace_id) == trace && it.span_id == span);
            got.iter().map(|(_, span)| span).find(|span| span.name == "fold" && links(span)).cloned()
        })
        .await
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    if given != Some(&format!("Bearer {}", collector.token)) || headers["content-type"] != "application/x-protobuf" {
        return StatusCode::UNAUTHORIZED;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    for spans in request.resource_spans {
        let attributes = spans.resource.unwrap().attributes;
        let service = attributes.iter().find(|it| it.key == "service.name").and_then(|it| it.value.clone()?.value);
        let Some(Attribute::StringValue(service)) = service else { panic!("a resource without a name") };
        let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.got.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
    }
    StatusCode::OK
}

async fn watched() -> (Installation, Collector) {
    let (collector, url) = Collector::listen().await;
    let mut installation = Installation::migrated(Database::MariaDb).await;
    installation.settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT", url));
    installation.settings.push(("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer {}", collector.token)));
    installation.secrets.push(collector.token.clone());
    for role in ROLES {
        installation.start(role).await;
    }
    (installation, collector)
}

/// Uploads with a `traceparent` and waits for the announcement; the task, and the `traceparent` that was sent with it.
async fn upload(installation: &Installation, traceparent: Option<&str>) -> (String, String) {
    let data = json!({ "text": TEXT }).to_string();
    let body = json!({ "data": data, "task_type": "sentiment_analysis" });
    let mut request = http().post(format!("http://{}/api/data/upload", installation.http_addr)).json(&body);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let accepted: Value = request.send().await.unwrap().json().await.unwrap();
    let task = accepted["task_id"].as_str().unwrap().to_owned();
    let announced = installation.receiver.of_task(&task).await;
    (task, announced[0].headers["traceparent"].clone())
}

#[tokio::test]
async fn a_caller_s_trace_goes_on_through_every_role_to_the_receiver() {
    let (installation, collector) = watched().await;
    let (task, announced) = upload(&installation, Some(&format!("00-{TRACE}-{CALLER}-01"))).await;

    let upload_span = collector.span("upload", TRACE).await;
    assert_eq!(hex::encode(&upload_span.parent_span_id), CALLER);
    let attempt = collector.span("analyze", TRACE).await;
    assert_eq!(attempt.parent_span_id, upload_span.span_id);
    let sent = collector.span("webhook", TRACE).await;
    assert_eq!(sent.parent_span_id, upload_span.span_id);
    assert_eq!(
        announced,
        format!("00-{TRACE}-{}-01", hex::encode(&sent.span_id)),
        "the receiver's parent is the webhook's span"
    );
    let fold = collector.fold_of(TRACE, &upload_span.span_id).await;
    assert!(
        fold.parent_span_id.is_empty() && hex::encode(&fold.trace_id) != TRACE,
        "a fold takes many, and has its own trace"
    );
    for span in [&upload_span, &attempt, &sent, &fold] {
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0, "{span:?}");
        assert!(span.status.as_ref().is_none_or(|status| status.code != 2), "{span:?}");
    }
    let known = |key: &str| attempt.attributes.iter().find(|it| it.key == key).and_then(|it| it.value.clone()?.value);
    assert_eq!(known("task.id"), Some(Attribute::StringValue(task.clone())));
    assert_eq!(known("model_version"), Some(Attribute::StringValue("v1.0".to_owned())));
    let mut services: Vec<String> = collector.got.lock().unwrap().iter().map(|(service, _)| service.clone()).collect();
    services.sort_unstable();
    services.dedup();
    assert_eq!(services, ["insightforge-analyzer", "insightforge-api", "insightforge-projector"]);
    let events = installation.replay(&task).await;
    assert_eq!(events[0]["trace"], format!("00-{TRACE}-{}-01", hex::encode(&upload_span.span_id)));

    // Who reads the journal again tells nothing, and nothing joins the old trace.
    let before = collector.got.lock().unwrap().len();
    installation.run(&["rebuild"]).await;
    installation.run(&["verify"]).await;
    installation.run(&["replay"]).await;
    let (own, _) = upload(&installation, None).await;
    collector.span("webhook", &own.replace('-', "")).await;
    let after = collector.got.lock().unwrap().clone();
    let again = after[before..].iter().filter(|(_, span)| hex::encode(&span.trace_id) == TRACE).count();
    assert_eq!(again, 0, "a rebuild adds no span to an old trace");
    installation.end().await;
}

#[tokio::test]
async fn a_task_is_its_own_trace_and_a_caller_may_want_none() {
    let (installation, collector) = watched().await;
    let (task, announced) = upload(&installation, None).await;
    let trace = task.replace('-', "");
    let upload_span = collector.span("upload", &trace).await;
    assert!(upload_span.parent_span_id.is_empty());
    assert_eq!(collector.span("analyze", &trace).await.parent_span_id, upload_span.span_id);
    assert!(announced.starts_with(&format!("00-{trace}-")) && announced.ends_with("-01"), "{announced}");

    let (_, announced) = upload(&installation, Some(&format!("00-{TRACE}-{CALLER}-00"))).await;
    assert!(announced.starts_with(&format!("00-{TRACE}-")) && announced.ends_with("-00"), "{announced}");
    // What came later is there; what was not wanted would be too.
    let (later, _) = upload(&installation, None).await;
    collector.span("webhook", &later.replace('-', "")).await;
    for name in ["upload", "analyze", "webhook"] {
        assert!(collector.spans(name, TRACE).is_empty(), "{name}");
    }
    installation.end().await;
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    installation.settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9".to_owned()));
    for role in ROLES {
        installation.start(role).await;
    }
    upload(&installation, None).await;
    let api = installation.roles.iter().find(|role| role.name == "api").unwrap();
    eventually("the spans are counted as dropped", async || {
        api.metrics().await.contains("if_spans_total{outcome=\"dropped\"} 1").then_some(())
    })
    .await;
    assert!(api.log().contains("the collector takes no spans"), "{}", api.log());
    installation.end().await;
}
