//! `insightforge watch`: events as they happen. A lost connection is told and made again; the place in the journal is kept,
//! so nothing is missed and nothing comes twice.

use std::io::Write;
use std::process::ExitCode;

use insightforge_schema::event::EVENT_TYPES;
use insightforge_schema::id::TaskId;
use serde_json::Value;

use super::door::{Door, DoorArgs, Failure, Pauses};
use super::feed::Feed;
use super::{exit_code, plain};

#[derive(clap::Args)]
#[command(after_help = "With a task: exit code 0 when it completed, 1 when it failed or was cancelled.")]
pub(crate) struct Args {
    #[command(flatten)]
    door: DoorArgs,
    /// Only this task: its events so far, and on to its end
    task: Option<TaskId>,
    /// Only events of this type
    #[arg(long = "type", conflicts_with = "task", value_parser = clap::builder::PossibleValuesParser::new(EVENT_TYPES))]
    event_type: Option<String>,
    /// Begin behind a cursor that --json has printed, at the journal's beginning (0), or now (end)
    #[arg(long, default_value = "end", conflicts_with = "task")]
    after: String,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let door = Door::open(&args.door)?;
    match args.task {
        Some(task) => watch_task(&door, task, args.json).await,
        None => watch_all(&door, &args).await,
    }
}

async fn watch_task(door: &Door, task: TaskId, json: bool) -> anyhow::Result<ExitCode> {
    let (history, mut feed) = Feed::of_task(door, task).await?;
    let mut line = Line::default();
    let mut end = None;
    let mut events = history;
    loop {
        for event in &events {
            end = end.or(how_it_ended(event));
            if print(event, json).is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if let Some(status) = end {
            // What is written with the end, such as the entry in the list of dead letters, is there already.
            for event in feed.next(door, false).await? {
                print(&event, json).ok();
            }
            return Ok(exit_code(status));
        }
        events = line.keep(feed.next(door, true).await).await?;
    }
}

async fn watch_all(door: &Door, args: &Args) -> anyhow::Result<ExitCode> {
    let mut feed = Feed::open(door, args.event_type.as_deref(), &args.after).await?;
    let mut line = Line::default();
    loop {
        for event in line.keep(feed.next(door, true).await).await? {
            if print(&event, args.json).is_err() {
                // Who read it has gone.
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

/// The connection, as far as people are told of it.
#[derive(Default)]
struct Line {
    lost: bool,
    pauses: Pauses,
}

impl Line {
    /// Waits while nobody answers; whoever is refused is told why.
    async fn keep(&mut self, answer: Result<Vec<Value>, Failure>) -> Result<Vec<Value>, Failure> {
        match answer {
            Ok(events) => {
                if std::mem::take(&mut self.lost) {
                    eprintln!("connected again, nothing was missed");
                    self.pauses = Pauses::default();
                }
                Ok(events)
            }
            Err(Failure::Away { why, after }) => {
                if !std::mem::replace(&mut self.lost, true) {
                    eprintln!("{why}; trying again until it answers");
                }
                tokio::time::sleep(self.pauses.next(after)).await;
                Ok(Vec::new())
            }
            Err(refused) => Err(refused),
        }
    }
}

/// The status that the event leaves a task with for good.
fn how_it_ended(event: &Value) -> Option<&'static str> {
    ["completed", "failed", "cancelled"].into_iter().find(|status| event["type"] == *status)
}

fn print(event: &Value, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", if json { plain::json(event) } else { for_people(event) })?;
    out.flush()
}

fn for_people(event: &Value) -> String {
    let text = |field: &str| plain::line(event[field].as_str().unwrap_or_default(), 64);
    format!(
        "{}  {:>9}  {}  {:<15}  {}",
        text("at"),
        text("position"),
        text("task_id"),
        text("type"),
        plain::line(&what(event), 160)
    )
}

/// What the event says, in a few words.
fn what(event: &Value) -> String {
    let data = &event["data"];
    let text = |field: &str| data[field].as_str().unwrap_or_default();
    match event["type"].as_str().unwrap_or_default() {
        "submitted" => format!("{} {}: {}", text("task_type"), text("model_version"), data["data"]),
        "processing" => format!("attempt {} by {}", event["attempt"], text("worker")),
        "completed" => format!("{} {}: {}", text("task_type"), text("model_version"), data["result"]),
        "failed" | "retry_scheduled" => format!("{}: {}", text("code"), text("message")),
        "dead_lettered" => text("code").to_owned(),
        "cancelled" | "purged" => format!("by {}: {}", event["actor"].as_str().unwrap_or_default(), text("reason")),
        "redriven" => format!("as {}", text("as_task")),
        _ => data.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line_that_no_terminal_obeys() {
        let event = json!({
            "position": "3:12", "type": "failed", "task_id": "t", "at": "2026-11-25T23:00:00Z", "attempt": 3,
            "data": { "code": "timeout", "message": "no\x1b[2J\nanswer" },
        });
        let line = for_people(&event);
        assert!(line.ends_with("failed           timeout: no�[2J�answer"), "{line}");
        assert_eq!(how_it_ended(&event), Some("failed"));
        assert_eq!(how_it_ended(&json!({ "type": "dead_lettered" })), None);
    }

    #[test]
    fn every_type_of_event_has_words() {
        for event_type in EVENT_TYPES {
            let event =
                json!({ "type": event_type, "data": { "task_type": "t", "code": "c", "as_task": "u", "worker": "w" } });
            assert!(!what(&event).is_empty(), "{event_type}");
        }
    }
}
