//! What there is to see, taken from the api's answers. What an answer does not tell is absent, never zero.

use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::super::plain;

/// Names of lanes, analyzers and errors are cut here.
const NAME: usize = 60;

#[derive(Debug)]
pub(super) struct View {
    pub(super) address: String,
    pub(super) version: String,
    /// In words: what needs a look, or that nothing does.
    pub(super) level: Level,
    pub(super) sentences: Vec<String>,
    pub(super) work: Work,
    /// The last whole minute.
    pub(super) minute: Option<Minute>,
    pub(super) lanes: Vec<Lane>,
    pub(super) analyzers: Vec<Analyzer>,
    pub(super) projector: Option<Lag>,
    /// Of the last hour, by error.
    pub(super) failures: Vec<(String, u64)>,
    pub(super) webhooks: Option<Webhooks>,
    /// p95 from upload to row, in milliseconds.
    pub(super) end_to_end_ms: Option<f64>,
    looked: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Well,
    Look,
    Down,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) tasks: Option<u64>,
    pub(super) in_flight: Option<u64>,
    pub(super) delayed: Option<u64>,
    pub(super) dead_letters: Option<u64>,
    pub(super) limit: Option<u64>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Minute {
    pub(super) submitted: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: String,
    pub(super) tasks: u64,
    pub(super) oldest_s: f64,
    pub(super) analyzers: u64,
    /// By how many tasks a second it grows (or, below zero, shrinks) since the last look.
    pub(super) grows: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Analyzer {
    pub(super) name: String,
    pub(super) lanes: usize,
    pub(super) in_flight: u64,
    /// Seconds since it took a task.
    pub(super) last_take_s: Option<f64>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Lag {
    pub(super) events: u64,
    pub(super) seconds: f64,
}

#[derive(Debug, PartialEq)]
pub(super) struct Webhooks {
    pub(super) tried: u64,
    /// A share.
    pub(super) success: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) outstanding: u64,
    pub(super) overdue: u64,
}

impl View {
    /// Reads `{"health": …, "analyzers": …, "overview": …}`.
    pub(super) fn read(answers: &Value, address: &str) -> Self {
        let (health, overview) = (&answers["health"], &answers["overview"]);
        let (level, sentences) = state(health, overview);
        let backlog = &health["components"]["backlog"];
        let analyzers = list(&answers["analyzers"]["analyzers"], |it| Some(Analyzer::read(it)));
        let known = answers["analyzers"].is_object();
        Self {
            address: address.to_owned(),
            version: name(&health["version"]),
            level,
            sentences,
            work: Work {
                tasks: backlog["tasks"].as_u64(),
                in_flight: known.then(|| analyzers.iter().map(|it| it.in_flight).sum()),
                delayed: backlog["delayed"].as_u64(),
                dead_letters: backlog["dead_letters"].as_u64(),
                limit: backlog["limit"].as_u64(),
            },
            minute: Minute::last(overview),
            lanes: list(&backlog["lanes"], |it| Some(Lane::read(it))),
            analyzers,
            projector: Lag::read(&health["components"]["projector"]),
            failures: list(&overview["failures"], |it| Some((name(&it["error_code"]), it["count"].as_u64()?))),
            webhooks: Webhooks::read(&overview["webhooks"]),
            end_to_end_ms: overview["latency"]["end_to_end_ms"]["p95"].as_f64(),
            looked: Instant::now(),
        }
    }

    /// With the lanes' growth since an earlier look.
    pub(super) fn since(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self };
        let seconds = self.looked.duration_since(before.looked).as_secs_f64();
        let earlier: HashMap<&str, u64> = before.lanes.iter().map(|lane| (lane.name.as_str(), lane.tasks)).collect();
        for lane in &mut self.lanes {
            let was = earlier.get(lane.name.as_str());
            lane.grows = was.filter(|_| seconds > 0.0).map(|was| (lane.tasks as f64 - *was as f64) / seconds);
        }
        self
    }
}

/// In the overview's words where there are some, else in health's.
fn state(health: &Value, overview: &Value) -> (Level, Vec<String>) {
    let mut sentences = list(&overview["problems"], |it| Some(sentence(&it["text"])));
    if !overview.is_object() {
        sentences = list(&health["problems"], |it| Some(sentence(it)));
    }
    let level = match (health["status"].as_str(), overview["state"]["level"].as_str()) {
        (Some("down"), _) | (_, Some("bad")) => Level::Down,
        (Some("ok"), None | Some("ok")) => Level::Well,
        _ => Level::Look,
    };
    if sentences.is_empty() {
        sentences.push(if level == Level::Well { "All good".to_owned() } else { "Something needs a look".to_owned() });
    }
    (level, sentences)
}

impl Minute {
    /// The last in the list is still going on.
    fn last(overview: &Value) -> Option<Self> {
        let minutes = overview["per_minute"].as_array()?;
        let last = minutes.get(minutes.len().checked_sub(2)?)?;
        let count = |field: &str| last[field].as_u64();
        Some(Self { submitted: count("submitted")?, completed: count("completed")?, failed: count("failed")? })
    }
}

impl Lane {
    fn read(lane: &Value) -> Self {
        Self {
            name: format!("{} {}", name(&lane["task_type"]), name(&lane["model_version"])),
            tasks: lane["tasks"].as_u64().unwrap_or(0),
            oldest_s: lane["oldest_seconds"].as_f64().unwrap_or(0.0),
            analyzers: lane["analyzers"].as_u64().unwrap_or(0),
            grows: None,
        }
    }
}

impl Analyzer {
    fn read(analyzer: &Value) -> Self {
        let at = analyzer["last_read_at"].as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok());
        // One that never took a task says that it did in 1970.
        let at = at.filter(|at| at.timestamp() > 0);
        Self {
            name: name(&analyzer["name"]),
            lanes: analyzer["lanes"].as_array().map_or(0, Vec::len),
            in_flight: analyzer["in_flight"].as_u64().unwrap_or(0),
            last_take_s: at.map(|at| (Utc::now() - at).num_milliseconds().max(0) as f64 / 1e3),
        }
    }
}

impl Lag {
    fn read(projector: &Value) -> Option<Self> {
        Some(Self { events: projector["lag_events"].as_u64()?, seconds: projector["lag_seconds"].as_f64()? })
    }
}

impl Webhooks {
    fn read(webhooks: &Value) -> Option<Self> {
        Some(Self {
            tried: webhooks["tried"].as_u64()?,
            success: webhooks["success"].as_f64(),
            p95_ms: webhooks["p95_ms"].as_f64(),
            outstanding: webhooks["outstanding"].as_u64()?,
            overdue: webhooks["overdue"].as_u64()?,
        })
    }
}

fn list<T>(values: &Value, read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
    values.as_array().into_iter().flatten().filter_map(read).collect()
}

fn name(value: &Value) -> String {
    plain::line(value.as_str().unwrap_or("?"), NAME)
}

fn sentence(value: &Value) -> String {
    plain::line(value.as_str().unwrap_or("?"), 200)
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// Answers in the api's shapes.
    pub(in super::super) fn answers() -> Value {
        json!({
            "health": {
                "status": "degraded", "version": "0.1.0",
                "problems": ["3 tasks wait for sentiment_analysis v2, which no analyzer serves"],
                "components": {
                    "projector": { "lag_events": 12, "lag_seconds": 0.5 },
                    "backlog": {
                        "tasks": 15, "delayed": 2, "limit": 1_000_000, "dead_letters": 4,
                        "lanes": [
                            { "task_type": "sentiment_analysis", "model_version": "v2", "tasks": 3, "oldest_seconds": 301.2, "analyzers": 0 },
                            { "task_type": "named_entity_recognition\u{1b}[2J", "model_version": "v1.0", "tasks": 10, "oldest_seconds": 0.2, "analyzers": 1 },
                        ],
                    },
                },
            },
            "analyzers": { "analyzers": [
                { "name": "analyzer/a-1", "lanes": ["a:1", "b:1"], "in_flight": 7, "last_read_at": "2026-01-01T00:00:00Z" },
                { "name": "analyzer/b-2", "lanes": ["a:1"], "in_flight": 1, "last_read_at": "1970-01-01T00:00:00Z" },
            ] },
            "overview": {
                "state": { "level": "warn" },
                "problems": [{ "text": "3 tasks wait longer than 5 min: sentiment_analysis v2 has no analyzer" }],
                "per_minute": [
                    { "submitted": 60, "completed": 57, "failed": 3, "cancelled": 0 },
                    { "submitted": 1, "completed": 0, "failed": 0, "cancelled": 0 },
                ],
                "failures": [{ "error_code": "timeout", "count": 5 }],
                "webhooks": { "tried": 100, "success": 0.98, "p95_ms": 12.0, "outstanding": 2, "overdue": 0 },
                "latency": { "end_to_end_ms": { "p95": 41.5 } },
            },
        })
    }

    #[test]
    fn the_answers_are_read_and_their_names_are_harmless() {
        let view = View::read(&answers(), "http://x");
        assert_eq!((view.level, view.sentences.len()), (Level::Look, 1));
        assert!(view.sentences[0].contains("has no analyzer"));
        assert_eq!((view.work.tasks, view.work.in_flight, view.work.dead_letters), (Some(15), Some(8), Some(4)));
        assert_eq!(view.minute, Some(Minute { submitted: 60, completed: 57, failed: 3 }));
        assert_eq!(view.lanes[1].name, "named_entity_recognition�[2J v1.0");
        assert_eq!(view.analyzers[1].last_take_s, None);
        assert_eq!(view.projector, Some(Lag { events: 12, seconds: 0.5 }));
        assert_eq!(view.failures, [("timeout".to_owned(), 5)]);
        assert_eq!(view.webhooks.unwrap().success, Some(0.98));
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let mut answers = answers();
        answers["overview"] = Value::Null;
        answers["analyzers"] = Value::Null;
        answers["health"] =
            json!({ "status": "down", "problems": ["Redis does not answer"], "version": "0.1.0", "components": {} });
        let view = View::read(&answers, "http://x");
        assert_eq!((view.level, &view.sentences[..]), (Level::Down, &["Redis does not answer".to_owned()][..]));
        assert_eq!((view.work.tasks, view.work.in_flight, view.minute, view.projector), (None, None, None, None));
        assert!(view.webhooks.is_none() && view.lanes.is_empty());
    }

    #[test]
    fn a_lane_s_growth_is_what_changed_between_two_looks() {
        let first = View::read(&answers(), "http://x");
        let mut later = answers();
        later["health"]["components"]["backlog"]["lanes"][0]["tasks"] = json!(1);
        let mut second = View::read(&later, "http://x");
        second.looked = first.looked + Duration::from_secs(2);
        let second = second.since(Some(&first));
        assert_eq!(second.lanes[0].grows, Some(-1.0));
        assert_eq!(second.lanes[1].grows, Some(0.0));
        assert_eq!(first.lanes[0].grows, None);
    }
}
