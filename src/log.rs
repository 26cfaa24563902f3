//! What a role logs: lines for people, or one JSON object a line for collectors.
//!
//! Every object has `timestamp`, `level`, `service`, `target` and `message`; a line about a task has `task.id` and
//! `trace_id`, under these names in every role. Fields of a span around the line stand behind its name (`request.id`).

use std::fmt;
use std::io::IsTerminal;

use anyhow::Context;
use chrono::{SecondsFormat, Utc};
use insightforge_schema::trace::SPANS;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use url::Url;

use crate::boot::LogFormat;

/// Where spans go, and with what.
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "without the feature it is only warned of"))]
pub(crate) struct Collector {
    pub(crate) endpoint: Url,
    /// `name=value,name=value`, as `OTEL_EXPORTER_OTLP_HEADERS` is written.
    pub(crate) headers: String,
    /// Share of traces that are kept whose caller has not decided.
    pub(crate) share: f64,
}

/// Logging goes on until the process ends; what is still to be sent when a role ends is sent by [`Started::end`].
#[derive(Default)]
#[must_use = "what is gathered is lost unless it is ended"]
pub(crate) struct Started {
    #[cfg(feature = "otel")]
    spans: Option<crate::otel::Sending>,
}

/// Starts logging to standard output, and sending spans where a collector is given.
pub(crate) fn start(
    filter: &str,
    format: LogFormat,
    service: &'static str,
    collector: Option<Collector>,
) -> anyhow::Result<Started> {
    // Spans are no lines.
    let no_spans = format!("{SPANS}=off").parse().expect("it is a directive");
    let filter = EnvFilter::try_new(filter).context("INSIGHTFORGE_LOG")?.add_directive(no_spans);
    let layer = tracing_subscriber::fmt::layer();
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        // Colours are for a terminal; a file or a collector gets the text.
        LogFormat::Text => layer.with_ansi(std::io::stdout().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => {
            layer.fmt_fields(JsonFields::new()).event_format(Objects { service }).with_filter(filter).boxed()
        }
    };
    let registry = tracing_subscriber::registry().with(lines);
    let Some(collector) = collector else {
        registry.init();
        return Ok(Started::default());
    };
    #[cfg(feature = "otel")]
    {
        let (layer, sending) = crate::otel::start(&collector, service)?;
        registry.with(layer).init();
        tracing::info!(share = collector.share, "spans go to a collector");
        Ok(Started { spans: Some(sending) })
    }
    #[cfg(not(feature = "otel"))]
    {
        registry.init();
        drop(collector);
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this program was built without the feature otel: no spans are told"
        );
        Ok(Started::default())
    }
}

impl Started {
    /// Sends what is left.
    pub(crate) async fn end(self) {
        #[cfg(feature = "otel")]
        if let Some(spans) = self.spans {
            spans.end().await;
        }
    }
}

/// An event as one JSON object.
struct Objects {
    service: &'static str,
}

impl<S, N> FormatEvent<S, N> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut object = Map::new();
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
            if let Ok(Value::Object(fields)) = serde_json::from_str(fields) {
                object.extend(fields.into_iter().map(|(name, value)| (format!("{}.{name}", span.name()), value)));
            }
        }
        event.record(&mut Fields(&mut object));
        // Last: no field of an event can stand in the place of these.
        let about = event.metadata();
        object.insert("timestamp".to_owned(), Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true).into());
        object.insert("level".to_owned(), about.level().as_str().into());
        object.insert("service".to_owned(), self.service.into());
        object.insert("target".to_owned(), about.target().into());
        object.entry("message").or_insert_with(|| about.name().into());
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Writes fields down as what they are: numbers and truths stay such.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let out = kept.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || out.clone());
        let layer = layer.fmt_fields(JsonFields::new()).event_format(Objects { service: "api" });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_is_one_object_with_the_same_names_everywhere() {
        let lines = logged(|| {
            let _request = tracing::info_span!("request", id = "r-1").entered();
            tracing::warn!(task.id = %"t-1", trace_id = "abc", tries = 3_u64, good = false, "it is\nso");
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        for (name, value) in [
            ("level", "WARN"),
            ("service", "api"),
            ("task.id", "t-1"),
            ("trace_id", "abc"),
            ("request.id", "r-1"),
            ("message", "it is\nso"),
        ] {
            assert_eq!(line[name], value, "{line}");
        }
        assert_eq!((&line["tries"], &line["good"]), (&3.into(), &false.into()));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z') && line["target"].is_string(), "{line}");
    }

    #[test]
    fn no_field_can_stand_in_for_the_fixed_ones() {
        let lines = logged(|| tracing::info!(service = "other", level = "x", timestamp = "y"));
        assert_eq!((&lines[0]["service"], &lines[0]["level"]), (&"api".into(), &"INFO".into()));
        assert!(lines[0]["message"].is_string(), "an event without words has its place in the code");
    }
}
