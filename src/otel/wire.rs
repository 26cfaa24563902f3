//! OTLP's protobuf messages, as far as spans need them (opentelemetry-proto, `trace/v1/trace.proto` and
//! `collector/trace/v1/trace_service.proto`, whose field numbers stand here), and how a told span becomes one.

use std::fmt;

use prost::{Enumeration, Message, Oneof};
use tracing::Event;
use tracing::field::{Field, Visit};

#[derive(Message)]
pub(super) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(enumeration = "Kind", tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    /// 2: an error.
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Message)]
struct AnyValue {
    #[prost(oneof = "Text", tags = "1")]
    value: Option<Text>,
}

#[derive(Oneof)]
enum Text {
    #[prost(string, tag = "1")]
    StringValue(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
enum Kind {
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl Span {
    /// Whether it stands for the end of what is sent.
    pub(super) fn is_end(&self) -> bool {
        self.trace_id.is_empty()
    }
}

/// A request with these spans of one process.
pub(super) fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = [
        ("service.name", format!("insightforge-{service}")),
        ("service.version", version.to_owned()),
        ("service.instance.id", std::process::id().to_string()),
    ];
    let scope = Scope { name: "insightforge".to_owned(), version: version.to_owned() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
            }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

/// The span that an event tells of; `None` for one that tells of none.
pub(super) fn read(event: &Event<'_>) -> Option<Span> {
    let mut told = Told::default();
    event.record(&mut told);
    let id = |text: &str, bytes: usize| hex::decode(text).ok().filter(|id| id.len() == bytes);
    let nanos = |us: i64| u64::try_from(us).unwrap_or(0).saturating_mul(1_000);
    let links = told.links.split(',').filter_map(|link| {
        let mut parts = link.split('-').skip(1);
        Some(Link { trace_id: id(parts.next()?, 16)?, span_id: id(parts.next()?, 8)? })
    });
    let about = told.about.lines().filter_map(|line| line.split_once('='));
    Some(Span {
        trace_id: id(&told.trace, 16)?,
        span_id: id(&told.span, 8)?,
        parent_span_id: id(&told.parent, 8).unwrap_or_default(),
        kind: match told.kind.as_str() {
            "server" => Kind::Server,
            "client" => Kind::Client,
            "consumer" => Kind::Consumer,
            _ => Kind::Internal,
        } as i32,
        start_time_unix_nano: nanos(told.start_us),
        end_time_unix_nano: nanos(told.end_us.max(told.start_us)),
        attributes: about.map(|(key, value)| attribute(key, value.to_owned())).collect(),
        links: links.collect(),
        status: (!told.error.is_empty()).then(|| Status { message: told.error.clone(), code: 2 }),
        name: told.name,
    })
}

fn attribute(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Text::StringValue(value)) }) }
}

/// The fields that `insightforge_schema::trace` writes.
#[derive(Default)]
struct Told {
    name: String,
    kind: String,
    trace: String,
    span: String,
    parent: String,
    error: String,
    about: String,
    links: String,
    start_us: i64,
    end_us: i64,
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        let place = match field.name() {
            "name" => &mut self.name,
            "kind" => &mut self.kind,
            "trace" => &mut self.trace,
            "span" => &mut self.span,
            "parent" => &mut self.parent,
            "error" => &mut self.error,
            "about" => &mut self.about,
            "links" => &mut self.links,
            _ => return,
        };
        value.clone_into(place);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "start_us" => self.start_us = value,
            "end_us" => self.end_us = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
