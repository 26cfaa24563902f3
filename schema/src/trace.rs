//! Traces (W3C Trace Context): which one a task belongs to, and spans for those who collect them.
//!
//! A task's trace is its caller's, else its own id stands for it. The `traceparent` in the events' envelope names the span
//! of the upload, so an attempt and a delivery are its children, in whatever process and however much later. What takes many
//! events at once, such as a fold, has a trace of its own and links to theirs. What reads the journal again tells nothing.
//!
//! A span is told as an event of `tracing` under the target [`SPANS`]; whoever collects them listens there. Nobody does
//! unless [`start`] was called, and then none of it costs anything.

use std::fmt;
use std::sync::OnceLock;

use tracing::{Level, event};

use crate::event::now_us;
use crate::id::TaskId;

/// The target under which spans are told.
pub const SPANS: &str = "insightforge::span";
/// Traces that one span links to.
const LINKS: usize = 128;

/// Which share of the traces is kept whose caller has not decided.
static SHARE: OnceLock<f64> = OnceLock::new();

/// Spans are told from now on.
pub fn start(share: f64) {
    // Whoever comes second finds it decided.
    let _ = SHARE.set(share);
}

#[must_use]
pub fn is_on() -> bool {
    SHARE.get().is_some()
}

/// The trace that a task's events belong to, as 32 hex digits: the caller's, else the task's id.
#[must_use]
pub fn trace_id(task: TaskId, traceparent: Option<&str>) -> String {
    traceparent.and_then(Traceparent::parse).map_or_else(|| task.0.as_simple().to_string(), |sent| sent.trace)
}

/// The header of version 00, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traceparent {
    /// 32 hex digits.
    pub trace: String,
    /// The span, 16 hex digits.
    pub span: String,
    /// Whether the spans of this trace are kept.
    pub is_sampled: bool,
}

impl Traceparent {
    /// Reads what this program wrote or let in; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let [version, trace, span, flags] = text.split('-').collect::<Vec<_>>()[..] else { return None };
        let is_hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_one = version == "00" && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
        let is_sampled = is_one && u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        is_one.then(|| Self { trace: trace.to_owned(), span: span.to_owned(), is_sampled })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-0{}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

/// A span that has begun, and the trace it is in.
#[derive(Debug, Clone)]
pub struct Open {
    /// What is handed on: this span in its trace.
    pub own: Traceparent,
    parent: Option<String>,
    start_us: i64,
}

/// The span of a task's arrival, below what its caller sent; `None` when its trace is not kept or nobody collects. Without
/// one the caller's `traceparent` is passed on as it came.
#[must_use]
pub fn arrival(task: TaskId, sent: Option<&str>) -> Option<Open> {
    let share = *SHARE.get()?;
    let sent = sent.and_then(Traceparent::parse);
    let trace = sent.as_ref().map_or_else(|| task.0.as_simple().to_string(), |sent| sent.trace.clone());
    let is_kept = sent.as_ref().map_or_else(|| is_within(&trace, share), |sent| sent.is_sampled);
    is_kept.then(|| open(trace, sent.map(|sent| sent.span)))
}

/// A span below the one that the events of a task name; `None` when their trace is not kept or nobody collects.
#[must_use]
pub fn below(traceparent: Option<&str>) -> Option<Open> {
    if !is_on() {
        return None;
    }
    let parent = Traceparent::parse(traceparent?).filter(|parent| parent.is_sampled)?;
    Some(open(parent.trace, Some(parent.span)))
}

/// A span that takes what belongs to many traces, with a trace of its own; `None` when none of them is kept or nobody
/// collects.
#[must_use]
pub fn across<'a>(traceparents: impl Iterator<Item = &'a str>) -> Option<(Open, Vec<Traceparent>)> {
    if !is_on() {
        return None;
    }
    let kept = traceparents.filter_map(Traceparent::parse).filter(|parent| parent.is_sampled);
    let mut links: Vec<Traceparent> = Vec::new();
    for parent in kept {
        if links.len() == LINKS {
            break;
        }
        if !links.contains(&parent) {
            links.push(parent);
        }
    }
    (!links.is_empty()).then(|| (open(format!("{:032x}", rand::random::<u128>() | 1), None), links))
}

/// The header of a request that goes out for a task: in the task's trace, below nothing that is kept.
#[must_use]
pub fn outgoing(task: TaskId, traceparent: Option<&str>) -> Traceparent {
    Traceparent { trace: trace_id(task, traceparent), span: new_span(), is_sampled: false }
}

fn open(trace: String, parent: Option<String>) -> Open {
    let own = Traceparent { trace, span: new_span(), is_sampled: true };
    Open { own, parent, start_us: now_us() }
}

/// Not zero: that is no span.
fn new_span() -> String {
    format!("{:016x}", rand::random::<u64>() | 1)
}

/// The same answer in every process: the trace's last eight digits are random, also those of a task's id, where others count
/// within a millisecond.
fn is_within(trace: &str, share: f64) -> bool {
    let last = trace.get(24..).and_then(|last| u32::from_str_radix(last, 16).ok()).unwrap_or(0);
    f64::from(last) < share * (1_u64 << 32) as f64
}

/// What a span says when it is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told<'a> {
    /// `upload`, `analyze`, `fold`, `webhook`.
    pub name: &'a str,
    /// `server`, `client`, `consumer`.
    pub kind: &'a str,
    /// What went wrong, if anything.
    pub error: Option<&'a str>,
    /// What is known of it, by name.
    pub about: &'a [(&'a str, &'a str)],
    pub links: &'a [Traceparent],
    /// When it began, if before it was opened, in microseconds since 1970-01-01 UTC.
    pub start_us: Option<i64>,
}

impl Open {
    /// It is over now.
    pub fn tell(self, told: Told<'_>) {
        let about: Vec<String> =
            told.about.iter().map(|(name, value)| format!("{name}={}", value.replace('\n', " "))).collect();
        let links: Vec<String> = told.links.iter().map(ToString::to_string).collect();
        event!(
            target: SPANS,
            Level::TRACE,
            name = told.name,
            kind = told.kind,
            trace = self.own.trace,
            span = self.own.span,
            parent = self.parent.as_deref().unwrap_or(""),
            start_us = told.start_us.unwrap_or(self.start_us),
            end_us = now_us(),
            error = told.error.unwrap_or(""),
            about = about.join("\n"),
            links = links.join(","),
        );
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_the_same() {
        assert_eq!(Traceparent::parse(SENT).unwrap().to_string(), SENT);
        assert!(!Traceparent::parse(&SENT.replace("-01", "-00")).unwrap().is_sampled);
        for wrong in ["", "00", "00-x-00f067aa0ba902b7-01", &SENT.replace("4b", "4B"), &format!("{SENT}-x")] {
            assert_eq!(Traceparent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_task_without_a_caller_s_trace_is_a_trace_itself() {
        let task = TaskId(Uuid::from_u128(7));
        assert_eq!(trace_id(task, None), "00000000000000000000000000000007");
        assert_eq!(trace_id(task, Some(SENT)), "4bf92f3577b34da6a3ce929d0e0e4736");
        let out = outgoing(task, Some(SENT));
        assert_eq!((out.trace.as_str(), out.is_sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", false));
        assert_ne!(out.span, "00f067aa0ba902b7");
    }

    #[test]
    fn the_share_is_of_the_traces_and_the_same_everywhere() {
        let kept = (0..4_000).filter(|_| is_within(&Uuid::now_v7().as_simple().to_string(), 0.25)).count();
        assert!((800..1_200).contains(&kept), "{kept}");
        let trace = Uuid::now_v7().as_simple().to_string();
        assert!(is_within(&trace, 1.0) && !is_within(&trace, 0.0));
    }

    #[test]
    fn spans_are_below_what_was_sent_and_above_what_follows() {
        let task = TaskId(Uuid::from_u128(7));
        assert!(arrival(task, Some(SENT)).is_none() || is_on(), "nobody collects");
        start(1.0);
        let arrival = arrival(task, Some(SENT)).unwrap();
        assert_eq!(arrival.own.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(arrival.parent.as_deref(), Some("00f067aa0ba902b7"));
        let handed_on = arrival.own.to_string();
        let attempt = below(Some(&handed_on)).unwrap();
        assert_eq!((&attempt.own.trace, attempt.parent.as_ref()), (&arrival.own.trace, Some(&arrival.own.span)));
        let (fold, links) = across([handed_on.as_str(), &handed_on, SENT].into_iter()).unwrap();
        assert_ne!(fold.own.trace, arrival.own.trace);
        assert_eq!((fold.parent, links.len()), (None, 2));
        assert!(below(Some(&SENT.replace("-01", "-00"))).is_none(), "the caller wants none");
        assert!(below(None).is_none() && across(std::iter::empty()).is_none());
    }
}
