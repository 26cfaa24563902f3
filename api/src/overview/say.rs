//! The sentence: what needs a look, the worst first, in words, and as a code with parameters for other languages.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::lanes::Load;
use super::minutes::Minute;
use super::recent::Webhooks;
use crate::health::Projector;

/// Tables that are further behind than this are worth a word, in seconds.
const LAG_S: f64 = 30.0;
/// A lane that somebody serves is slow when its oldest task waits for longer than this, in seconds.
const SLOW_S: f64 = 300.0;
/// The last so many minutes are judged, once so many tasks ended in them, by the share that failed.
const MINUTES: usize = 5;
const ENDED_LEAST: u64 = 20;
const FAILED_SHARE: f64 = 0.1;
/// Attempts to deliver are judged once there are so many, by the share that failed.
const TRIED_LEAST: u64 = 20;
const UNDELIVERED_SHARE: f64 = 0.1;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Ok,
    /// It works, and something needs a look.
    Warn,
    /// Something does not work.
    Bad,
}

/// One sentence.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct Saying {
    level: Level,
    /// Stable: `all_good`, `redis_down`, `mysql_down`, `journal_moved_back`, `projector_behind`, `projector_unknown`, `lanes_unknown`, `no_analyzer`,
    /// `backlog_full`, `lane_unserved`, `lane_slow`, `failures_many`, `webhooks_failing`, `webhooks_overdue`.
    #[schema(example = "lane_unserved")]
    code: &'static str,
    /// The figures in the sentence, by name.
    #[schema(value_type = Object)]
    params: Value,
    /// The sentence in English.
    text: String,
}

/// What was found out; `None` and empty where nothing could be.
pub(super) struct Seen<'a> {
    pub(super) redis: bool,
    pub(super) mysql: bool,
    pub(super) load: Option<&'a Load>,
    pub(super) limit: u64,
    pub(super) projector: Option<Projector>,
    pub(super) minutes: &'a [Minute],
    pub(super) webhooks: Option<&'a Webhooks>,
}

/// The worst of the problems, or that there are none.
pub(super) fn state(problems: &[Saying]) -> Saying {
    let Some(worst) = problems.first() else {
        return saying(Level::Ok, "all_good", json!({}), "All good".to_owned());
    };
    let mut worst = worst.clone();
    let more = problems.len() - 1;
    if more > 0 {
        worst.params["more"] = more.into();
        worst.text = format!("{}; and {more} more", worst.text);
    }
    worst
}

/// What needs a look, the worst first.
pub(super) fn problems(seen: &Seen<'_>) -> Vec<Saying> {
    let mut problems = servers(seen);
    problems.extend(seen.load.map(|load| of_lanes(load, seen.limit)).unwrap_or_default());
    problems.extend(failures(seen.minutes));
    problems.extend(seen.webhooks.map(webhooks).unwrap_or_default());
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.level));
    problems
}

fn servers(seen: &Seen<'_>) -> Vec<Saying> {
    let mut problems = Vec::new();
    if !seen.redis {
        let text = "Redis does not answer: no work is accepted".to_owned();
        problems.push(saying(Level::Bad, "redis_down", json!({}), text));
    }
    if !seen.mysql {
        let text = "MySQL does not answer: work is accepted, folding and old reads wait".to_owned();
        problems.push(saying(Level::Bad, "mysql_down", json!({}), text));
    }
    if seen.redis && seen.load.is_none() {
        problems.push(saying(Level::Warn, "lanes_unknown", json!({}), "What waits cannot be found out now".to_owned()));
    }
    match seen.projector {
        Some(Projector { journal_moved_back: true, .. }) => {
            let text =
                "The tables have events that the journal has not: Redis lost its end, and nothing is folded".to_owned();
            problems.push(saying(Level::Bad, "journal_moved_back", json!({}), text));
        }
        Some(Projector { lag_events, lag_seconds, .. }) if lag_seconds > LAG_S => {
            let text = format!(
                "The tables are {lag_events} events and {lag_seconds:.0} s behind the journal: does a projector run?"
            );
            problems.push(saying(
                Level::Bad,
                "projector_behind",
                json!({ "events": lag_events, "seconds": lag_seconds }),
                text,
            ));
        }
        None if seen.redis && seen.mysql => {
            let text = "How far the tables are behind cannot be found out now".to_owned();
            problems.push(saying(Level::Warn, "projector_unknown", json!({}), text));
        }
        _ => {}
    }
    problems
}

fn of_lanes(load: &Load, limit: u64) -> Vec<Saying> {
    let mut problems = Vec::new();
    let tasks: u64 = load.lanes.iter().map(|lane| lane.waiting + lane.in_flight).sum();
    if tasks >= limit {
        let text = format!("{tasks} tasks wait, as many as may: uploads are answered 429");
        problems.push(saying(Level::Bad, "backlog_full", json!({ "tasks": tasks, "limit": limit }), text));
    }
    if load.crew.alive == 0 {
        let level = if tasks > 0 { Level::Bad } else { Level::Warn };
        problems.push(saying(level, "no_analyzer", json!({ "tasks": tasks }), "No analyzer is alive".to_owned()));
    }
    for lane in load.lanes.iter().filter(|lane| lane.waiting > 0) {
        let (waiting, oldest_s) = (lane.waiting, lane.oldest_s);
        let (task_type, version) = (&lane.task_type, &lane.model_version);
        let params =
            json!({ "task_type": task_type, "model_version": version, "tasks": waiting, "oldest_s": oldest_s });
        let wait = if waiting == 1 { "1 task waits".to_owned() } else { format!("{waiting} tasks wait") };
        if lane.analyzers == 0 {
            let text = format!("{wait}, the oldest for {oldest_s:.0} s: {task_type} {version} has no analyzer");
            problems.push(saying(Level::Bad, "lane_unserved", params, text));
        } else if oldest_s > SLOW_S {
            let text = format!("{wait} for {task_type} {version}, the oldest for {oldest_s:.0} s");
            problems.push(saying(Level::Warn, "lane_slow", params, text));
        }
    }
    problems
}

fn failures(minutes: &[Minute]) -> Option<Saying> {
    let last = &minutes[minutes.len().saturating_sub(MINUTES)..];
    let failed: u64 = last.iter().map(|minute| minute.failed).sum();
    let ended = failed + last.iter().map(|minute| minute.completed).sum::<u64>();
    let share = failed as f64 / ended.max(1) as f64;
    (ended >= ENDED_LEAST && share > FAILED_SHARE).then(|| {
        let text = format!("{failed} of the {ended} tasks that ended in the last {MINUTES} minutes failed");
        saying(Level::Warn, "failures_many", json!({ "failed": failed, "ended": ended, "share": share }), text)
    })
}

fn webhooks(webhooks: &Webhooks) -> Vec<Saying> {
    let mut problems = Vec::new();
    let Webhooks { tried, delivered, overdue, .. } = webhooks;
    let failed = tried - delivered;
    let share = failed as f64 / (*tried).max(1) as f64;
    if *tried >= TRIED_LEAST && share > UNDELIVERED_SHARE {
        let text = format!("{failed} of the last {tried} attempts to deliver a webhook failed");
        let params = json!({ "failed": failed, "tried": tried, "share": share });
        problems.push(saying(Level::Warn, "webhooks_failing", params, text));
    }
    if *overdue > 0 {
        let text = format!("{overdue} webhooks should have been sent more than a minute ago");
        problems.push(saying(Level::Warn, "webhooks_overdue", json!({ "count": overdue }), text));
    }
    problems
}

fn saying(level: Level, code: &'static str, params: Value, text: String) -> Saying {
    Saying { level, code, params, text }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::lanes::LaneLoad;
    use super::*;

    fn lane(waiting: u64, oldest_s: f64, analyzers: usize) -> Load {
        let lane = LaneLoad {
            task_type: "acting".to_owned(),
            model_version: "v2".to_owned(),
            waiting,
            in_flight: 1,
            oldest_s,
            analyzers,
        };
        Load::of(vec![lane], 1)
    }

    fn seen(load: &Load) -> Seen<'_> {
        let projector = Some(Projector { lag_events: 1, lag_seconds: 0.1, journal_moved_back: false });
        Seen { redis: true, mysql: true, load: Some(load), limit: 100, projector, minutes: &[], webhooks: None }
    }

    fn said(seen: &Seen<'_>) -> String {
        let problems = problems(seen);
        let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
        format!("{}: {}", codes.join(" "), state(&problems).text)
    }

    #[test]
    fn each_thing_that_needs_a_look_is_said_the_worst_first() {
        let well = lane(3, 1.0, 1);
        assert_eq!(said(&seen(&well)), ": All good");
        assert_eq!(
            said(&seen(&lane(3, 301.0, 0))),
            "lane_unserved: 3 tasks wait, the oldest for 301 s: acting v2 has no analyzer"
        );
        assert!(said(&seen(&lane(1, 301.0, 1))).starts_with("lane_slow: 1 task waits for acting v2"));
        assert!(said(&seen(&lane(99, 1.0, 1))).starts_with("backlog_full: "));
        assert!(said(&seen(&Load::of(Vec::new(), 0))).starts_with("no_analyzer: "));
        let away = Seen { redis: false, load: None, projector: None, ..seen(&well) };
        assert!(said(&away).starts_with("redis_down: "));
        let behind = Projector { lag_events: 9, lag_seconds: 31.0, journal_moved_back: false };
        let moved = Projector { journal_moved_back: true, ..behind };
        assert!(said(&Seen { projector: Some(moved), ..seen(&well) }).starts_with("journal_moved_back: "));
        let two = said(&Seen { projector: Some(behind), ..seen(&lane(1, 301.0, 1)) });
        assert!(two.starts_with("projector_behind lane_slow: ") && two.ends_with("; and 1 more"), "{two}");
        let minute =
            |completed, failed| Minute { minute: DateTime::UNIX_EPOCH, submitted: 0, completed, failed, cancelled: 0 };
        let mut hour = vec![minute(0, 1_000); 55];
        hour.extend(vec![minute(18, 2); 5]);
        assert_eq!(said(&Seen { minutes: &hour, ..seen(&well) }), ": All good", "one in ten of the last minutes");
        hour.push(minute(0, 9));
        assert!(said(&Seen { minutes: &hour, ..seen(&well) }).starts_with("failures_many: 17 of the 89 tasks"));
    }
}
