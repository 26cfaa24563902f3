//! `insightforge replay`: the journal, printed for people, and beside each event what the task had become after it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::{Partition, PartitionCount, Position, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::task::{self, IllegalEvent, Task};
use serde_json::{Value, json};

use crate::config::RedisArgs;

/// Events read from one partition at a time.
const PAGE: usize = 1_000;
/// How long `--follow` waits when nothing is new.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    /// Only this task's events
    #[arg(long)]
    task: Option<TaskId>,
    /// Only events of this type (`submitted`, `completed`, …); may be repeated
    #[arg(long = "type")]
    types: Vec<String>,
    /// Start here: a position (`3:1284`, that partition only), or a time (RFC 3339, or `10m`, `2h`, `1d` ago)
    #[arg(long)]
    from: Option<Bound>,
    /// Stop behind here: a position or a time, as for --from
    #[arg(long)]
    to: Option<Bound>,
    /// Keep waiting for new events
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A place in the journal as a person gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Position(Position),
    /// Microseconds since 1970-01-01 UTC.
    Time(i64),
}

impl std::str::FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(position) = text.parse::<Position>() {
            return Ok(Self::Position(position));
        }
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.timestamp_micros()));
        }
        let unit = match text.chars().last() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            _ => 0,
        };
        match text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<i64>().ok()) {
            Some(count) if unit > 0 => {
                Ok(Self::Time(insightforge_schema::event::now_us() - count.saturating_mul(unit * 1_000_000)))
            }
            _ => {
                Err("neither a position (3:1284), a time (2026-01-31T12:00:00Z), nor a time ago (10m, 2h, 1d)"
                    .to_owned())
            }
        }
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (link, keys) = (args.redis.link()?, args.redis.keys());
    let count = args.redis.recorded_partitions(&link).await?;
    let mut reader = Reader::open(&link, &keys, count, &args).await?;
    let mut printer =
        Printer { json: args.json, color: std::io::stdout().is_terminal(), out: std::io::stdout().lock() };
    let mut states = HashMap::new();
    loop {
        let events = reader.next_page().await?;
        let exhausted = events.is_empty();
        for event in events {
            let folded = fold(&mut states, &event);
            if shown(&args, &event) && printer.print(&event, &folded).is_err() {
                return Ok(ExitCode::SUCCESS); // the reader of our output has gone
            }
        }
        if exhausted {
            if !args.follow || reader.bounded {
                return Ok(ExitCode::SUCCESS);
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

/// Whether an event passes the filters. Those before `--from` are read only to know what they made of the tasks.
fn shown(args: &Args, event: &Event) -> bool {
    let after = match args.from {
        Some(Bound::Position(from)) => event.position >= from,
        Some(Bound::Time(from)) => event.meta.at_us >= from,
        None => true,
    };
    let before = match args.to {
        Some(Bound::Time(to)) => event.meta.at_us <= to,
        Some(Bound::Position(_)) | None => true,
    };
    let wanted = args.types.is_empty() || args.types.iter().any(|wanted| wanted == event.change.event_type());
    after && before && wanted && args.task.is_none_or(|task| task == event.task)
}

/// The task after the event; batch notes belong to no task.
fn fold(states: &mut HashMap<TaskId, Task>, event: &Event) -> Result<Option<Task>, IllegalEvent> {
    if matches!(event.change, Change::BatchReceived(_)) {
        return Ok(None);
    }
    let before = states.remove(&event.task);
    match task::apply(before.clone(), event) {
        Ok(after) => {
            // An ended task is kept: dead-lettered and redriven may still follow.
            states.insert(event.task, after.clone());
            Ok(Some(after))
        }
        Err(illegal) => {
            if let Some(before) = before {
                states.insert(event.task, before);
            }
            Err(illegal)
        }
    }
}

/// Reads the partitions side by side and merges them by time, in each partition by position.
struct Reader<'a> {
    link: &'a Link,
    keys: &'a Keys,
    lanes: Vec<PartitionReader>,
    /// There is an end to reach (`--to`): following beyond it would be endless waiting.
    bounded: bool,
}

struct PartitionReader {
    partition: Partition,
    next: u64,
    last: Option<u64>,
    buffer: std::collections::VecDeque<Event>,
}

impl<'a> Reader<'a> {
    async fn open(link: &'a Link, keys: &'a Keys, count: PartitionCount, args: &Args) -> anyhow::Result<Self> {
        let only = match (args.task, args.from, args.to) {
            (Some(task), ..) => Some(count.of_task(task)),
            (_, Some(Bound::Position(position)), _) | (_, _, Some(Bound::Position(position))) => {
                Some(position.partition)
            }
            _ => None,
        };
        if let (Some(Bound::Position(from)), Some(Bound::Position(to))) = (args.from, args.to)
            && from.partition != to.partition
        {
            bail!("--from and --to name different partitions");
        }
        let mut lanes = Vec::new();
        for partition in count.iter().filter(|partition| only.is_none_or(|only| only == *partition)) {
            let last = match args.to {
                Some(Bound::Position(to)) => Some(to.n),
                Some(Bound::Time(to)) => Some(journal::number_at(link, keys, partition, to + 1).await?),
                None => None,
            };
            lanes.push(PartitionReader { partition, next: 1, last, buffer: std::collections::VecDeque::new() });
        }
        Ok(Self { link, keys, lanes, bounded: args.to.is_some() })
    }

    /// The next events in order; empty when every partition is at its end for now.
    async fn next_page(&mut self) -> anyhow::Result<Vec<Event>> {
        for lane in &mut self.lanes {
            if lane.buffer.is_empty() && lane.last.is_none_or(|last| lane.next <= last) {
                let events = journal::range(self.link, self.keys, lane.partition, lane.next, lane.last, PAGE)
                    .await
                    .context("reading the journal")?;
                lane.next = events.last().map_or(lane.next, |event| event.position.n + 1);
                lane.buffer.extend(events);
            }
        }
        let mut page = Vec::new();
        // Merge until one partition runs dry: the others may hold later events than what it will bring.
        while let Some(earliest) = self
            .lanes
            .iter_mut()
            .filter(|lane| !lane.buffer.is_empty())
            .min_by_key(|lane| lane.buffer.front().map_or(i64::MAX, |event| event.meta.at_us))
        {
            page.extend(earliest.buffer.pop_front());
            if earliest.buffer.is_empty() && page.len() >= PAGE {
                break;
            }
        }
        Ok(page)
    }
}

struct Printer<W> {
    json: bool,
    color: bool,
    out: W,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, event: &Event, folded: &Result<Option<Task>, IllegalEvent>) -> std::io::Result<()> {
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
        Change::Submitted(it) => format!("{} {} by {actor}: {}", it.task_type, it.model_version, cut(&it.data)),
        Change::Processing(it) => format!("attempt {} by {}", event.meta.attempt, it.worker),
        Change::Completed(it) => format!("{} in {} µs (batch of {})", cut(&it.result), it.inference_us, it.batch_size),
        Change::Failed(it) => format!("{}: {}", it.code, cut(&it.message)),
        Change::RetryScheduled(it) => {
            format!("{}: {}; attempt {} at {}", it.code, cut(&it.message), it.next_attempt, rfc3339(it.due_us))
        }
        Change::Cancelled(it) => format!("by {actor}: {}", cut(&it.reason)),
        Change::DeadLettered(it) => it.code.clone(),
        Change::Redriven(it) => format!("by {actor}, as {}", it.as_task),
        Change::BatchReceived(it) => format!("{} accepted, {} rejected", it.accepted, it.rejected),
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
    fn a_bound_is_a_position_a_time_or_a_time_ago() {
        assert_eq!("3:17".parse(), Ok(Bound::Position(Position { partition: Partition(3), n: 17 })));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Bound::Time(1_000_000)));
        let Ok(Bound::Time(ago)) = "2h".parse() else { panic!("2h is a time ago") };
        let now = insightforge_schema::event::now_us();
        assert!((now - 7_200_000_000 - ago).abs() < 5_000_000);
        for bad in ["", "h", "yesterday", "5w", "3:", ":4"] {
            assert!(bad.parse::<Bound>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor_or_flood_the_line() {
        assert_eq!(cut("a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(cut(&"x".repeat(500)).chars().count(), 121);
    }
}
