//! An event and its task, for people or as JSON.

use std::io::{IsTerminal, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use insightforge_schema::event::{Change, Event};
use insightforge_schema::task::{IllegalEvent, Task};
use serde_json::{Value, json};

/// Prints to `out`; the caller flushes.
pub(super) struct Printer<W: Write> {
    json: bool,
    color: bool,
    pub(super) out: W,
}

impl<W: Write> Printer<W> {
    /// Colors only a terminal's output.
    pub(super) fn new(out: W, json: bool) -> Self {
        Self { json, color: std::io::stdout().is_terminal(), out }
    }

    pub(super) fn print(&mut self, event: &Event, folded: &Result<Option<Task>, IllegalEvent>) -> std::io::Result<()> {
        if self.json { writeln!(self.out, "{}", as_json(event, folded)) } else { self.print_for_people(event, folded) }
    }

    fn print_for_people(&mut self, event: &Event, folded: &Result<Option<Task>, IllegalEvent>) -> std::io::Result<()> {
        let paint = |code: &str, text: &str| {
            if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let color = match &event.change {
            Change::Completed(_) => "32",
            Change::Failed(_) | Change::DeadLettered(_) | Change::Unknown(_) => "31",
            Change::RetryScheduled(_) | Change::Cancelled(_) => "33",
            _ => "36",
        };
        let state = match folded {
            Ok(Some(task)) => describe_state(task),
            Ok(None) => String::new(),
            Err(illegal) => paint("31", &format!("ILLEGAL: {illegal}")),
        };
        writeln!(
            self.out,
            "{:>10}  {}  {}  {}  {}",
            event.position.to_string(),
            rfc3339(event.meta.at_us),
            event.task,
            paint(color, &format!("{:<15}", event.change.event_type())),
            describe(event),
        )?;
        if !state.is_empty() {
            writeln!(self.out, "{:>10}  {}", "", paint("2", &format!("└ {state}")))?;
        }
        Ok(())
    }
}

/// What the event says, in one line; long documents are cut.
fn describe(event: &Event) -> String {
    let actor = &event.meta.actor;
    match &event.change {
        Change::Submitted(it) => {
            let expires = it.expires_us.map(|us| format!(", expires {}", rfc3339(us))).unwrap_or_default();
            format!("{} {} by {actor}{expires}: {}", it.task_type, it.model_version, cut(&it.data))
        }
        Change::Processing(it) => format!("attempt {} by {}", event.meta.attempt, it.worker),
        Change::Completed(it) => format!("{} in {} µs (batch of {})", cut(&it.result), it.inference_us, it.batch_size),
        Change::Failed(it) => format!("{}: {}", it.code, cut(&it.message)),
        Change::RetryScheduled(it) => {
            format!("{}: {}; attempt {} at {}", it.code, cut(&it.message), it.next_attempt, rfc3339(it.due_us))
        }
        Change::Cancelled(it) => format!("by {actor}: {}", cut(&it.reason)),
        Change::DeadLettered(it) => it.code.clone(),
        Change::Redriven(it) => {
            let reason = it.reason.as_deref().map(|reason| format!(": {}", cut(reason))).unwrap_or_default();
            format!("by {actor}, as {}{reason}", it.as_task)
        }
        Change::Purged(it) => format!("by {actor}: {}", cut(&it.reason)),
        Change::BatchReceived(it) => format!("{} accepted, {} rejected", it.accepted, it.rejected),
        Change::Shadowed(it) => {
            let outcome = it.result.as_deref().map(cut).or_else(|| it.error.as_ref().map(|error| error.code.clone()));
            let verdict = if it.agrees { "agrees" } else { "differs" };
            format!("{} {verdict}: {}", it.model_version, outcome.unwrap_or_default())
        }
        Change::Unknown(it) => it.reason.clone(),
    }
}

fn describe_state(task: &Task) -> String {
    let mut text = format!("{}, attempt {}", task.status.as_str(), task.attempt);
    if let Some(error) = &task.error {
        text.push_str(&format!(", last error {}", error.code));
    }
    if let Some(as_task) = task.redriven_as {
        text.push_str(&format!(", repeated as {as_task}"));
    } else if task.dead_lettered {
        text.push_str(", dead letter");
    }
    text
}

fn as_json(event: &Event, folded: &Result<Option<Task>, IllegalEvent>) -> Value {
    let state = match folded {
        Ok(Some(task)) => json!({
            "status": task.status.as_str(),
            "attempt": task.attempt,
            "worker": task.worker,
            "error_code": task.error.as_ref().map(|error| &error.code),
            "dead_lettered": task.dead_lettered,
            "redriven_as": task.redriven_as,
        }),
        Ok(None) => Value::Null,
        Err(illegal) => json!({ "illegal": illegal.to_string() }),
    };
    json!({
        "position": event.position.to_string(),
        "at": rfc3339(event.meta.at_us),
        "type": event.change.event_type(),
        "task_id": event.task,
        "attempt": event.meta.attempt,
        "tenant": event.meta.tenant,
        "actor": event.meta.actor,
        "trace": event.meta.trace,
        "data": event.change.public_data(),
        "state": state,
    })
}

fn rfc3339(at_us: i64) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(at_us).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// At most 120 characters, on one line, without control characters: the text is a stranger's.
fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(120).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_move_the_cursor_or_flood_the_line() {
        assert_eq!(cut("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(cut(&"x".repeat(500)).chars().count(), 121);
    }
}
