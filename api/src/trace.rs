//! `traceparent` (W3C Trace Context): checked and carried into the events. A header that is no such thing is ignored, as
//! the recommendation asks (§3.2.2.1); without one a task's own id serves as its trace, and nothing is stored.

use axum::http::HeaderMap;
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::trace::{Open, Told, arrival, trace_id};

/// What is said of a task once it is stored: a line in the log, and its span, where spans are collected.
pub(crate) struct Arrival {
    trace: Option<String>,
    /// With the lane, which the span tells.
    span: Option<(Open, String)>,
}

impl Arrival {
    /// Begins below what the caller sent; gives also the `traceparent` that the task's events carry.
    pub(crate) fn begin(task: TaskId, sent: Option<String>, lane: &Lane) -> (Self, Option<String>) {
        let span = arrival(task, sent.as_deref());
        let trace = span.as_ref().map(|span| span.own.to_string()).or(sent);
        (Self { trace: trace.clone(), span: span.map(|span| (span, lane.to_string())) }, trace)
    }

    /// The task is stored.
    pub(crate) fn end(self, task: TaskId) {
        tracing::debug!(task.id = %task, trace_id = trace_id(task, self.trace.as_deref()), "a task was accepted");
        let Some((span, lane)) = self.span else { return };
        let task = task.to_string();
        let about = [("task.id", task.as_str()), ("lane", &lane)];
        span.tell(Told { name: "upload", kind: "server", about: &about, ..Told::default() });
    }
}

/// The caller's `traceparent`, in the form of version 00.
pub(crate) fn read(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() { None } else { parse(value.trim()) }
}

/// A later version may append fields; its first four are those of version 00 (§3.2.2.3).
fn parse(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let parent = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let wrong = version == "ff" || zero(trace) || zero(parent) || (version == "00" && parts.next().is_some());
    (!wrong).then(|| format!("00-{trace}-{parent}-{flags}"))
}

fn hex(part: &str, digits: usize) -> Option<&str> {
    let fits = part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_traceparent_passes() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings";
        assert_eq!(parse(good).as_deref(), Some(good));
        assert_eq!(parse(later).as_deref(), Some(good));
        for wrong in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in "[0-9a-f-]{0,80}") {
            parse(&text);
        }
    }
}
