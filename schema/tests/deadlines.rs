//! Deadlines on a real Redis: whatever happens to a task and in which order, it ends once, and nothing begins too late.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_schema::deadline::{EXPIRED, end, past};
use insightforge_schema::event::{
    Cancelled, Change, Completed, Event, Failed, Meta, Processing, RetryScheduled, Submitted, encode,
};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::{
    self, Cancellation, Context, Finish, Held, Reap, Reaped, Retry, Start, Started, Submission, Submit, Takeover,
};
use insightforge_schema::task::{Status, Task, apply};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PARTITION: Partition = Partition(0);
/// In 1970 and in 2100.
const PASSED: i64 = 1_000;
const FAR: i64 = 4_102_444_800_000;

struct Stage {
    link: Link,
    keys: Keys,
    lane: Lane,
}

fn meta(attempt: u32) -> Meta {
    Meta { at_us: 5, tenant: "acme".to_owned(), actor: "test".to_owned(), attempt, trace: None }
}

impl Stage {
    fn new() -> Self {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
            .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
        Self {
            link: Link::new(&url, Duration::from_secs(10)).unwrap(),
            keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())),
            lane: Lane::new("acting", "v1"),
        }
    }

    async fn submit(&self, expires_ms: Option<i64>) -> TaskId {
        let task = TaskId::new();
        let change = Submitted {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: expires_ms.map(|ms| ms * 1_000),
        };
        let submit = Submit {
            task,
            lane: self.lane.clone(),
            event: encode(&meta(0), &Change::Submitted(change)),
            fingerprint: None,
            idempotency_key: None,
            context: Context { tenant: "acme".to_owned(), trace: None },
            expires_ms,
        };
        let answer = script::submit(&self.link, &self.keys, PARTITION, &[submit], 0).await.unwrap();
        assert!(matches!(answer[..], [Submission::Accepted { .. }]));
        task
    }

    /// The deadline comes nearer or goes.
    async fn set_deadline(&self, task: TaskId, ms: i64) {
        let record = self.keys.record(PARTITION, task);
        let _: i64 = self.link.query(redis::cmd("HSET").arg(record).arg("d").arg(ms)).await.unwrap();
        let mut place = redis::cmd("ZADD");
        place.arg(self.keys.expiring(PARTITION)).arg("XX").arg(ms).arg(task.to_string());
        let _: i64 = self.link.query(&place).await.unwrap();
    }

    async fn field(&self, task: TaskId, name: &str) -> String {
        let record = self.keys.record(PARTITION, task);
        let value: Option<String> = self.link.query(redis::cmd("HGET").arg(record).arg(name)).await.unwrap();
        value.unwrap_or_default()
    }

    /// The task's lane entry; one that never was when it has none.
    async fn token(&self, task: TaskId) -> String {
        let token = self.field(task, "q").await;
        if token.is_empty() { "0-1".to_owned() } else { token }
    }

    async fn make_group(&self) {
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg(self.keys.lane(PARTITION, &self.lane)).arg(self.lane.group()).arg("0").arg("MKSTREAM");
        let _exists = self.link.query::<String>(&group).await;
    }

    /// An analyzer is handed everything that waits on the lane.
    async fn deliver(&self) {
        self.make_group().await;
        let lane = self.keys.lane(PARTITION, &self.lane);
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(self.lane.group()).arg("w").arg("COUNT").arg(1_000).arg("STREAMS").arg(&lane).arg(">");
        let _: redis::Value = self.link.query(&read).await.unwrap();
    }

    async fn start(&self, task: TaskId) -> Started {
        let event = encode(&meta(1), &Change::Processing(Processing { worker: "w".to_owned() }));
        let start = Start { token: self.token(task).await, task, event };
        script::start(&self.link, &self.keys, PARTITION, &self.lane, "w", &[start]).await.unwrap().remove(0)
    }

    async fn retry(&self, task: TaskId) -> Held {
        let retried = RetryScheduled { code: "c".to_owned(), message: String::new(), next_attempt: 2, due_us: 0 };
        let event = encode(&meta(1), &Change::RetryScheduled(retried));
        let retry = Retry { token: self.token(task).await, task, event, next_attempt: 2, due_ms: 0 };
        script::retry(&self.link, &self.keys, PARTITION, &self.lane, &[retry]).await.unwrap().remove(0)
    }

    async fn reap(&self, task: TaskId, state: &'static str, takeover: Takeover) -> Reaped {
        let token = self.token(task).await;
        let reap = Reap { token, task, expected_state: state, min_idle_ms: 0, takeover };
        script::reap(&self.link, &self.keys, PARTITION, &self.lane, 1, &reap).await.unwrap()
    }

    async fn complete(&self, task: TaskId) -> Held {
        let completed = Completed {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            result: "{}".to_owned(),
            inference_us: 1,
            batch_size: 1,
            route: None,
        };
        let event = encode(&meta(1), &Change::Completed(completed));
        let token = self.token(task).await;
        let finish = Finish { token, task, event_type: "completed", event, dead_letter: None };
        script::finish(&self.link, &self.keys, PARTITION, &self.lane, 1, &[finish]).await.unwrap().remove(0)
    }

    async fn cancel(&self, task: TaskId) -> Cancellation {
        let event = encode(&meta(0), &Change::Cancelled(Cancelled { reason: String::new() }));
        script::cancel(&self.link, &self.keys, PARTITION, &self.lane, task, &event).await.unwrap()
    }

    async fn expire(&self) -> usize {
        let tasks = past(&self.link, &self.keys, PARTITION, 100).await.unwrap();
        end(&self.link, &self.keys, PARTITION, &tasks, "test").await.unwrap()
    }

    async fn events(&self) -> Vec<Event> {
        journal::range(&self.link, &self.keys, PARTITION, 1, None, 10_000).await.unwrap()
    }

    async fn count(&self, command: &str, key: String) -> u64 {
        self.link.query(redis::cmd(command).arg(key)).await.unwrap()
    }
}

fn types(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.change.event_type()).collect()
}

#[tokio::test]
async fn a_waiting_task_out_of_time_is_not_begun_and_ends_once_without_a_dead_letter() {
    let stage = Stage::new();
    let task = stage.submit(Some(PASSED)).await;
    stage.deliver().await;
    assert_eq!(stage.start(task).await, Started::Expired);
    assert_eq!(types(&stage.events().await), ["submitted"], "a refused start writes nothing");
    assert_eq!((stage.expire().await, stage.expire().await), (1, 0));
    assert_eq!(end(&stage.link, &stage.keys, PARTITION, &[task], "again").await.unwrap(), 0);
    let events = stage.events().await;
    assert_eq!(types(&events), ["submitted", "failed"]);
    let Change::Failed(Failed { code, message, permanent, .. }) = &events[1].change else { panic!("{events:?}") };
    assert_eq!((code.as_str(), *permanent, events[1].meta.attempt), (EXPIRED, true, 0));
    assert!(message.contains("1970-01-01T00:00:01.000000Z"), "{message}");
    assert_eq!((events[1].meta.tenant.as_str(), events[1].meta.actor.as_str()), ("acme", "test"));
    for key in [stage.keys.dead(PARTITION), stage.keys.expiring(PARTITION), stage.keys.delayed(PARTITION)] {
        assert_eq!(stage.count("ZCARD", key).await, 0);
    }
    assert_eq!(stage.count("XLEN", stage.keys.lane(PARTITION, &stage.lane)).await, 0);
    assert!(stage.count("TTL", stage.keys.record(PARTITION, task)).await <= 100);
    assert_eq!(stage.start(task).await, Started::Lost);
    assert_eq!(stage.cancel(task).await, Cancellation::Ended("failed".to_owned()));
}

#[tokio::test]
async fn a_deadline_that_is_not_past_ends_nothing_and_a_task_without_one_keeps_no_trace_of_any() {
    let stage = Stage::new();
    let (with, without) = (stage.submit(Some(FAR)).await, stage.submit(None).await);
    assert_eq!(past(&stage.link, &stage.keys, PARTITION, 10).await.unwrap(), []);
    assert_eq!(end(&stage.link, &stage.keys, PARTITION, &[with, without], "test").await.unwrap(), 0);
    assert_eq!(stage.count("ZCARD", stage.keys.expiring(PARTITION)).await, 1);
    assert_eq!((stage.field(with, "d").await, stage.field(without, "d").await), (FAR.to_string(), String::new()));
}

#[tokio::test]
async fn a_running_task_is_never_expired_but_the_wait_for_its_next_attempt_is() {
    let stage = Stage::new();
    let task = stage.submit(Some(FAR)).await;
    stage.deliver().await;
    assert!(matches!(stage.start(task).await, Started::Ours { .. }));
    stage.set_deadline(task, PASSED).await;
    assert_eq!(end(&stage.link, &stage.keys, PARTITION, &[task], "test").await.unwrap(), 0);
    assert!(matches!(stage.start(task).await, Started::Ours { .. }), "a repeated call of its holder");
    assert_eq!(stage.retry(task).await, Held::Done);
    assert_eq!(stage.expire().await, 1);
    assert_eq!(types(&stage.events().await), ["submitted", "processing", "retry_scheduled", "failed"]);
    assert_eq!(stage.count("ZCARD", stage.keys.delayed(PARTITION)).await, 0);
}

#[tokio::test]
async fn a_lane_nobody_ever_served_lets_its_tasks_expire() {
    let stage = Stage::new();
    let task = stage.submit(Some(PASSED)).await;
    assert_eq!(stage.expire().await, 1);
    assert_eq!(stage.field(task, "o").await, "failed");
    assert_eq!(stage.count("XLEN", stage.keys.lane(PARTITION, &stage.lane)).await, 0);
}

#[tokio::test]
async fn what_is_no_task_among_the_deadlines_is_taken_out() {
    let stage = Stage::new();
    for stranger in ["no id".to_owned(), TaskId::new().to_string()] {
        let mut place = redis::cmd("ZADD");
        place.arg(stage.keys.expiring(PARTITION)).arg(1).arg(stranger);
        let _: i64 = stage.link.query(&place).await.unwrap();
    }
    assert_eq!(stage.expire().await, 0);
    assert_eq!(stage.count("ZCARD", stage.keys.expiring(PARTITION)).await, 0);
}

/// Random steps in random order on a handful of tasks; the deadlines come and go on the way.
#[tokio::test]
async fn in_any_order_of_steps_a_task_ends_once_and_no_attempt_begins_too_late() {
    for seed in 0..40 {
        let stage = Stage::new();
        let mut random = StdRng::seed_from_u64(seed);
        stage.make_group().await;
        let mut tasks = Vec::new();
        for _ in 0..4 {
            tasks.push(stage.submit([None, Some(PASSED), Some(FAR)][random.random_range(0..3)]).await);
        }
        for _ in 0..40 {
            let task = tasks[random.random_range(0..tasks.len())];
            match random.random_range(0..10) {
                0 => stage.deliver().await,
                1 | 2 => {
                    let (state, deadline) = (stage.field(task, "s").await, stage.field(task, "d").await);
                    let late = state == "Q" && deadline == PASSED.to_string();
                    let started = stage.start(task).await;
                    assert_eq!(started == Started::Expired, late, "seed {seed}");
                }
                3 => drop(stage.retry(task).await),
                4 => drop(stage.complete(task).await),
                5 => drop(stage.cancel(task).await),
                6 => drop(stage.expire().await),
                7 => {
                    let due = [(task, stage.lane.clone())];
                    let _moved = script::move_due(&stage.link, &stage.keys, PARTITION, 1, &due).await.unwrap();
                }
                8 => {
                    let retried =
                        RetryScheduled { code: "c".to_owned(), message: String::new(), next_attempt: 2, due_us: 0 };
                    let event = encode(&meta(1), &Change::RetryScheduled(retried));
                    if stage.field(task, "q").await.is_empty() {
                        continue;
                    }
                    let takeover = Takeover::Retry { event, next_attempt: 2, due_ms: 0 };
                    let _reaped = stage.reap(task, "P", takeover).await;
                }
                _ if !stage.field(task, "d").await.is_empty() => {
                    stage.set_deadline(task, [PASSED, FAR][random.random_range(0..2)]).await;
                }
                _ => {}
            }
        }
        let events = stage.events().await;
        for task in tasks {
            let mut folded: Option<Task> = None;
            for event in events.iter().filter(|event| event.task == task) {
                folded = Some(apply(folded, event).unwrap_or_else(|illegal| panic!("seed {seed}: {illegal}")));
            }
            let folded = folded.unwrap();
            let ends = events.iter().filter(|event| event.task == task && event.change.is_terminal()).count();
            assert_eq!(ends, usize::from(folded.status.is_terminal()), "seed {seed}");
            let state = stage.field(task, "s").await;
            assert_eq!(state == "Z", folded.status.is_terminal(), "seed {seed}");
            // Exactly the waiting tasks with a deadline stand among the deadlines.
            let mut score = redis::cmd("ZSCORE");
            score.arg(stage.keys.expiring(PARTITION)).arg(task.to_string());
            let listed: Option<f64> = stage.link.query(&score).await.unwrap();
            let waits = folded.status == Status::Pending && !stage.field(task, "d").await.is_empty();
            assert_eq!(listed.is_some(), waits, "seed {seed} {state}");
        }
    }
}
