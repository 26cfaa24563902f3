//! `insightforge replay`: the journal, printed for people, and beside each event what the task had become after it.
//!
//! [`read`] merges the partitions by time, [`print`] puts an event and its task into words or JSON.

mod print;
mod read;

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use chrono::DateTime;
use insightforge_schema::event::{Change, EVENT_TYPES, Event};
use insightforge_schema::id::{Position, TaskId};
use insightforge_schema::task::{self, IllegalEvent, Status, Task};

use crate::config::{ArchiveArgs, RedisArgs};
use print::Printer;
use read::Reader;

/// Completed tasks whose last state is remembered, for events that should not have followed.
const COMPLETED: usize = 100_000;
/// How long `--follow` waits when nothing is new.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Only this task's events
    #[arg(long)]
    task: Option<TaskId>,
    /// Only events of this type (`submitted`, `completed`, …); may be repeated
    #[arg(long = "type", value_parser = clap::builder::PossibleValuesParser::new(EVENT_TYPES))]
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
    let link = args.redis.link()?;
    let journal = args.archive.journal(&args.redis, &link)?;
    let count = args.redis.recorded_partitions(&link).await?;
    let mut reader = Reader::open(journal, count, &args).await?;
    let mut printer = Printer::new(std::io::BufWriter::new(std::io::stdout().lock()), args.json);
    let (mut states, mut shown_any) = (States::default(), false);
    loop {
        let events = reader.next_page().await?;
        let exhausted = events.is_empty();
        for event in events {
            let folded = states.fold(&event);
            if shown(&args, &event) {
                shown_any = true;
                if printer.print(&event, &folded).is_err() {
                    return Ok(ExitCode::SUCCESS); // the reader of our output has gone
                }
            }
        }
        if printer.out.flush().is_err() {
            return Ok(ExitCode::SUCCESS);
        }
        if exhausted {
            if !args.follow || reader.bounded {
                if !shown_any {
                    eprintln!("no event matches");
                }
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

/// The tasks as they are so far. Those that are not over are all remembered, and so are those that failed or were
/// cancelled: more may follow.
#[derive(Default)]
struct States {
    tasks: HashMap<TaskId, Task>,
    completed: VecDeque<TaskId>,
}

impl States {
    /// The task after the event; batch notes belong to no task.
    fn fold(&mut self, event: &Event) -> Result<Option<Task>, IllegalEvent> {
        if matches!(event.change, Change::BatchReceived(_)) {
            return Ok(None);
        }
        let before = self.tasks.remove(&event.task);
        match task::apply(before.clone(), event) {
            Ok(after) => {
                self.tasks.insert(event.task, after.clone());
                if after.status == Status::Completed {
                    self.forget_the_oldest_completed(event.task);
                }
                Ok(Some(after))
            }
            Err(illegal) => {
                if let Some(before) = before {
                    self.tasks.insert(event.task, before);
                }
                Err(illegal)
            }
        }
    }

    fn forget_the_oldest_completed(&mut self, newest: TaskId) {
        self.completed.push_back(newest);
        if self.completed.len() > COMPLETED
            && let Some(oldest) = self.completed.pop_front()
        {
            self.tasks.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::id::Partition;

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
}
