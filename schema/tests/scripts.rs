//! Every script on a real Redis: repeated calls, lost tokens, and what each leaves in the journal.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_schema::event::{Cancelled, Change, Meta, encode};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal::{self, Entry};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::{
    self, Cancellation, Context, Finish, Held, Noted, Reap, Reaped, Redrive, Retry, Shadow, Start, Started, Submission,
    Submit, Takeover,
};

const PARTITION: Partition = Partition(0);

/// An empty installation, and the steps with what does not matter here filled in. The scripts do not read events, so
/// every event is the same bytes.
struct Stage {
    link: Link,
    keys: Keys,
    lane: Lane,
    event: Vec<u8>,
}

impl Stage {
    fn new() -> Self {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
            .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
        let meta = Meta { at_us: 1, tenant: "default".to_owned(), actor: "test".to_owned(), attempt: 1, trace: None };
        Self {
            link: Link::new(&url, Duration::from_secs(10)).unwrap(),
            keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())),
            lane: Lane::new("acting", "v1"),
            event: encode(&meta, &Change::Cancelled(Cancelled { reason: "test".to_owned() })),
        }
    }

    fn task(&self, fingerprint: Option<&[u8]>, idempotency_key: Option<&str>) -> Submit {
        Submit {
            task: TaskId::new(),
            lane: self.lane.clone(),
            event: self.event.clone(),
            fingerprint: fingerprint.map(<[u8]>::to_vec),
            idempotency_key: idempotency_key.map(|key| self.keys.idempotency(PARTITION, key)),
            context: Context::default(),
            expires_ms: None,
        }
    }

    async fn submit(&self, tasks: &[Submit], capacity: u64) -> Vec<Submission> {
        script::submit(&self.link, &self.keys, PARTITION, tasks, capacity).await.unwrap()
    }

    async fn submitted(&self) -> TaskId {
        let task = self.task(None, None);
        assert!(matches!(self.submit(std::slice::from_ref(&task), 0).await[..], [Submission::Accepted { .. }]));
        task.task
    }

    /// Reads one entry of the lane for `worker`: its token.
    async fn read(&self, worker: &str) -> String {
        let lane = self.keys.lane(PARTITION, &self.lane);
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg(&lane).arg(self.lane.group()).arg("0").arg("MKSTREAM");
        let _exists = self.link.query::<String>(&group).await;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(self.lane.group()).arg(worker).arg("COUNT").arg(1).arg("STREAMS").arg(&lane).arg(">");
        let reply: redis::streams::StreamReadReply = self.link.query(&read).await.unwrap();
        reply.keys[0].ids[0].id.clone()
    }

    async fn start(&self, worker: &str, task: TaskId, token: &str) -> Started {
        let start = Start { token: token.to_owned(), task, event: self.event.clone() };
        script::start(&self.link, &self.keys, PARTITION, &self.lane, worker, &[start]).await.unwrap().remove(0)
    }

    async fn started(&self, worker: &str) -> (TaskId, String) {
        let task = self.submitted().await;
        let token = self.read(worker).await;
        assert!(matches!(self.start(worker, task, &token).await, Started::Ours { .. }));
        (task, token)
    }

    async fn finish(&self, task: TaskId, token: &str, event_type: &'static str) -> Held {
        let dead_letter = (event_type == "failed").then(|| self.event.clone());
        let end = Finish { token: token.to_owned(), task, event_type, event: self.event.clone(), dead_letter };
        script::finish(&self.link, &self.keys, PARTITION, &self.lane, 1, &[end]).await.unwrap().remove(0)
    }

    async fn retry(&self, task: TaskId, token: &str) -> Held {
        let retry = Retry { token: token.to_owned(), task, event: self.event.clone(), next_attempt: 2, due_ms: 1_000 };
        script::retry(&self.link, &self.keys, PARTITION, &self.lane, &[retry]).await.unwrap().remove(0)
    }

    async fn reap(&self, task: TaskId, token: &str, state: &'static str, idle: u64, takeover: Takeover) -> Reaped {
        let reap = Reap { token: token.to_owned(), task, expected_state: state, min_idle_ms: idle, takeover };
        script::reap(&self.link, &self.keys, PARTITION, &self.lane, 1, &reap).await.unwrap()
    }

    async fn cancel(&self, task: TaskId) -> Cancellation {
        script::cancel(&self.link, &self.keys, PARTITION, &self.lane, task, &self.event).await.unwrap()
    }

    /// The event types of the journal, in order.
    async fn journal(&self) -> String {
        let key = self.keys.journal(PARTITION);
        let reply: redis::streams::StreamRangeReply =
            self.link.query(redis::cmd("XRANGE").arg(&key).arg("-").arg("+")).await.unwrap();
        let types: Vec<String> = reply.ids.iter().map(|entry| entry.get("type").unwrap()).collect();
        for (entry, n) in reply.ids.iter().zip(1..) {
            assert_eq!(entry.id, format!("0-{n}"), "numbers have no gap");
        }
        types.join(" ")
    }

    async fn waiting(&self) -> u64 {
        self.link.query(redis::cmd("XLEN").arg(self.keys.lane(PARTITION, &self.lane))).await.unwrap()
    }
}

#[tokio::test]
async fn a_repeated_submission_is_one_task_and_another_body_is_a_conflict() {
    let stage = Stage::new();
    let task = stage.task(Some(b"print"), None);
    assert_eq!(stage.submit(std::slice::from_ref(&task), 0).await, [Submission::Accepted { task: task.task, n: 1 }]);
    assert_eq!(stage.submit(std::slice::from_ref(&task), 0).await, [Submission::Known { task: task.task }]);
    let other = Submit { fingerprint: Some(b"other".to_vec()), ..task.clone() };
    assert_eq!(stage.submit(&[other], 0).await, [Submission::Conflict { task: task.task }]);
    assert_eq!((stage.journal().await.as_str(), stage.waiting().await), ("submitted", 1));
}

#[tokio::test]
async fn a_fingerprint_may_be_any_bytes() {
    let stage = Stage::new();
    let print: &[u8] = b"a|b\0\xff|";
    let (one, two) = (stage.task(Some(print), Some("k")), stage.task(Some(print), Some("k")));
    let other = stage.task(Some(b"a"), Some("k"));
    let task = one.task;
    assert_eq!(stage.submit(&[one], 0).await, [Submission::Accepted { task, n: 1 }]);
    let expected = [Submission::Known { task }, Submission::Conflict { task }];
    assert_eq!(stage.submit(&[two, other], 0).await, expected);
}

#[tokio::test]
async fn an_idempotency_key_names_one_task_even_within_one_call() {
    let stage = Stage::new();
    let (one, two) = (stage.task(Some(b"print"), Some("k")), stage.task(Some(b"print"), Some("k")));
    let other = stage.task(Some(b"other"), Some("k"));
    let answers = stage.submit(&[one.clone(), two, other], 0).await;
    let expected = [
        Submission::Accepted { task: one.task, n: 1 },
        Submission::Known { task: one.task },
        Submission::Conflict { task: one.task },
    ];
    assert_eq!(answers, expected);
    assert_eq!(stage.journal().await, "submitted");
}

#[tokio::test]
async fn a_full_lane_takes_no_more_but_still_answers_repeats() {
    let stage = Stage::new();
    let (one, two) = (stage.task(Some(b"p"), None), stage.task(Some(b"p"), None));
    let answers = stage.submit(&[one.clone(), two.clone()], 1).await;
    assert_eq!(answers, [Submission::Accepted { task: one.task, n: 1 }, Submission::Full]);
    assert_eq!(stage.submit(std::slice::from_ref(&one), 1).await, [Submission::Known { task: one.task }]);
    assert_eq!((stage.journal().await.as_str(), stage.waiting().await), ("submitted", 1));
}

#[tokio::test]
async fn a_repeated_start_is_one_event_and_another_workers_start_is_none() {
    let stage = Stage::new();
    let task = stage.submitted().await;
    let token = stage.read("w1").await;
    let first = stage.start("w1", task, &token).await;
    assert_eq!(first, Started::Ours { first: 1, submitted: stage.event.clone() });
    assert_eq!(stage.start("w1", task, &token).await, first);
    assert_eq!(stage.start("w2", task, &token).await, Started::Busy);
    assert_eq!(stage.journal().await, "submitted processing");
}

#[tokio::test]
async fn an_entry_that_is_no_tasks_token_is_taken_off_the_lane() {
    let stage = Stage::new();
    let task = stage.submitted().await;
    let token = stage.read("w1").await;
    assert_eq!(stage.start("w1", TaskId::new(), &token).await, Started::Lost);
    assert_eq!(stage.waiting().await, 0);
    assert_eq!(stage.start("w1", task, "1-1").await, Started::Lost);
    assert_eq!(stage.journal().await, "submitted");
}

#[tokio::test]
async fn a_task_ends_once_and_whoever_lost_it_is_told() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    assert_eq!(stage.finish(task, "1-1", "completed").await, Held::Lost);
    assert_eq!(stage.finish(task, &token, "completed").await, Held::Done);
    assert_eq!(stage.finish(task, &token, "completed").await, Held::Done, "a repeated call");
    assert_eq!(stage.retry(task, &token).await, Held::Lost);
    assert_eq!(stage.cancel(task).await, Cancellation::Ended("completed".to_owned()));
    assert_eq!(stage.journal().await, "submitted processing completed");
    assert_eq!(stage.waiting().await, 0);
}

#[tokio::test]
async fn a_failed_task_is_dead_lettered_once_and_driven_again_once() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    assert_eq!(stage.finish(task, &token, "failed").await, Held::Done);
    assert_eq!(stage.finish(task, &token, "failed").await, Held::Done);
    let redrive = Redrive {
        old: task,
        old_first: 1,
        redriven: stage.event.clone(),
        new: TaskId::new(),
        submitted: stage.event.clone(),
        lane: stage.lane.clone(),
        context: Context::default(),
    };
    let again = async || script::redrive(&stage.link, &stage.keys, PARTITION, &redrive).await.unwrap();
    assert_eq!(again().await, Submission::Accepted { task: redrive.new, n: 6 });
    assert_eq!(again().await, Submission::Known { task: redrive.new });
    assert_eq!(stage.journal().await, "submitted processing failed dead_lettered redriven submitted");
    let dead: u64 = stage.link.query(redis::cmd("ZCARD").arg(stage.keys.dead(PARTITION))).await.unwrap();
    assert_eq!((dead, stage.waiting().await), (0, 1));
}

#[tokio::test]
async fn a_retry_waits_until_it_is_due_and_then_runs_under_a_new_token() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    assert_eq!(stage.retry(task, &token).await, Held::Done);
    assert_eq!(stage.retry(task, &token).await, Held::Done, "a repeated call");
    let due = [(task, stage.lane.clone())];
    let move_at = async |now| script::move_due(&stage.link, &stage.keys, PARTITION, now, &due).await.unwrap();
    assert_eq!((move_at(999).await, move_at(1_000).await, move_at(1_001).await), (0, 1, 0));
    assert_eq!(stage.finish(task, &token, "completed").await, Held::Lost, "the old attempt is fenced off");
    let next = stage.read("w2").await;
    assert!(matches!(stage.start("w2", task, &next).await, Started::Ours { .. }));
    assert_eq!(stage.journal().await, "submitted processing retry_scheduled processing");
}

#[tokio::test]
async fn a_running_task_is_cancelled_at_once_and_its_workers_answer_is_not_taken() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    assert_eq!(stage.cancel(task).await, Cancellation::Done);
    assert_eq!(stage.finish(task, &token, "completed").await, Held::Lost);
    assert_eq!(stage.cancel(task).await, Cancellation::Ended("cancelled".to_owned()));
    assert_eq!(stage.cancel(TaskId::new()).await, Cancellation::Unknown);
    assert_eq!(stage.journal().await, "submitted processing cancelled");
}

#[tokio::test]
async fn a_delayed_task_is_cancelled_and_never_comes_back() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    stage.retry(task, &token).await;
    assert_eq!(stage.cancel(task).await, Cancellation::Done);
    let due = [(task, stage.lane.clone())];
    assert_eq!(script::move_due(&stage.link, &stage.keys, PARTITION, 9_999, &due).await.unwrap(), 0);
    assert_eq!(stage.waiting().await, 0);
}

#[tokio::test]
async fn only_a_silent_holder_in_the_state_judged_loses_its_task() {
    let stage = Stage::new();
    let (task, token) = stage.started("w1").await;
    let fail = || Takeover::Fail { event: stage.event.clone(), dead_letter: stage.event.clone() };
    assert_eq!(stage.reap(task, &token, "P", 60_000, fail()).await, Reaped::Alive);
    assert_eq!(stage.reap(task, &token, "Q", 0, fail()).await, Reaped::Changed);
    assert_eq!(stage.reap(task, &token, "P", 0, fail()).await, Reaped::Done);
    assert_eq!(stage.reap(task, &token, "P", 0, fail()).await, Reaped::Alive, "nobody holds it any more");
    assert_eq!(stage.finish(task, &token, "completed").await, Held::Lost);
    assert_eq!(stage.journal().await, "submitted processing failed dead_lettered");
}

#[tokio::test]
async fn a_task_read_but_never_begun_goes_back_on_its_lane() {
    let stage = Stage::new();
    let task = stage.submitted().await;
    let token = stage.read("w1").await;
    assert_eq!(stage.reap(task, &token, "Q", 0, Takeover::Requeue).await, Reaped::Done);
    assert_eq!(stage.start("w1", task, &token).await, Started::Lost);
    let next = stage.read("w2").await;
    assert!(matches!(stage.start("w2", task, &next).await, Started::Ours { .. }));
    assert_eq!(stage.journal().await, "submitted processing");
}

#[tokio::test]
async fn a_beat_says_which_attempts_are_still_held() {
    let stage = Stage::new();
    let (kept, kept_token) = stage.started("w1").await;
    let (cancelled, cancelled_token) = stage.started("w1").await;
    stage.cancel(cancelled).await;
    let held = [(kept, kept_token), (cancelled, cancelled_token)];
    let answer = script::beat(&stage.link, &stage.keys, PARTITION, &stage.lane, "w1", &held).await.unwrap();
    assert_eq!(answer, [true, false]);
}

#[tokio::test]
async fn the_view_shows_a_task_at_every_step_with_its_first_and_last_event() {
    let stage = Stage::new();
    let view = async |task| script::view(&stage.link, &stage.keys, PARTITION, task).await.unwrap();
    assert_eq!(view(TaskId::new()).await, None);
    let (task, token) = stage.started("w1").await;
    let running = view(task).await.unwrap();
    assert_eq!((running.state.as_str(), running.worker.as_deref(), running.ended_for_s), ("P", Some("w1"), None));
    assert_eq!((running.submitted, running.terminal), (stage.event.clone(), None));
    stage.finish(task, &token, "completed").await;
    let ended = view(task).await.unwrap();
    assert_eq!((ended.state.as_str(), ended.outcome.as_deref()), ("Z", Some("completed")));
    assert_eq!(ended.terminal, Some((3, stage.event.clone())));
    assert!(ended.ended_for_s.is_some_and(|s| s <= 1), "{:?}", ended.ended_for_s);
}

#[tokio::test]
async fn a_shadow_is_noted_once_a_version_and_only_behind_a_completed_task() {
    let stage = Stage::new();
    let note = async |task, version: &str| {
        let shadow = Shadow { task, version: version.to_owned(), event: stage.event.clone() };
        script::shadow(&stage.link, &stage.keys, PARTITION, &[shadow]).await.unwrap().remove(0)
    };
    let (task, token) = stage.started("w1").await;
    assert_eq!(note(task, "v2").await, Noted::Gone, "still at work");
    stage.finish(task, &token, "completed").await;
    for version in ["v2", "v2", "v3"] {
        assert_eq!(note(task, version).await, Noted::Done);
    }
    assert_eq!(stage.journal().await, "submitted processing completed shadowed shadowed");
    let ended = script::view(&stage.link, &stage.keys, PARTITION, task).await.unwrap().unwrap();
    assert_eq!(ended.terminal, Some((3, stage.event.clone())), "the answer stays the answer");
    let (failed, token) = stage.started("w1").await;
    stage.finish(failed, &token, "failed").await;
    assert_eq!(note(failed, "v2").await, Noted::Gone);
    assert_eq!(note(TaskId::new(), "v2").await, Noted::Gone);
}

#[tokio::test]
async fn a_batch_is_closed_once() {
    let stage = Stage::new();
    let batch = uuid::Uuid::new_v4();
    for _ in 0..2 {
        script::close_batch(&stage.link, &stage.keys, PARTITION, batch, &stage.event, 998, 2).await.unwrap();
    }
    assert_eq!(stage.journal().await, "batch_received");
    assert_eq!(journal::last_number(&stage.link, &stage.keys, PARTITION).await.unwrap(), 1);
}

#[tokio::test]
async fn a_run_of_the_journal_ends_with_the_entry_that_fills_it() {
    let stage = Stage::new();
    let tasks: Vec<Submit> = (0..20).map(|_| Submit { event: vec![0; 1_000], ..stage.task(None, None) }).collect();
    stage.submit(&tasks, 0).await;
    for (from, limit, bytes, numbers, end) in [
        (1, 100, 100_000, 1..=20, true),
        (1, 20, 100_000, 1..=20, false),
        (4, 9, 100_000, 4..=12, false),
        (1, 100, 3_000, 1..=3, false),
        (12, 100, 1, 12..=12, false),
        (20, 100, 100_000, 20..=20, true),
    ] {
        let (entries, is_end) = journal::run(&stage.link, &stage.keys, PARTITION, from, limit, bytes).await.unwrap();
        let found: Vec<u64> = entries.iter().filter_map(Entry::n).collect();
        assert_eq!((found, is_end), (numbers.collect(), end), "from {from}, {limit} at most, {bytes} bytes");
    }
    let beyond = journal::run(&stage.link, &stage.keys, PARTITION, 21, 100, 1).await.unwrap();
    assert!(beyond.0.is_empty() && beyond.1);
}

#[tokio::test]
async fn a_duty_is_one_processs_until_its_term_is_over() {
    let stage = Stage::new();
    let key = stage.keys.lease(PARTITION, "reap");
    let ask = async |process: &str, term_ms| script::duty(&stage.link, &key, process, term_ms).await.unwrap();
    assert!(ask("one", 60_000).await);
    assert!(!ask("two", 60_000).await);
    assert!(ask("one", 1).await, "who has it keeps it, for the term it asks for now");
    while !ask("two", 60_000).await {}
    assert!(!ask("one", 60_000).await);
}

#[tokio::test]
async fn a_group_that_exists_stays_as_it_is() {
    let stage = Stage::new();
    let task = stage.submitted().await;
    for _ in 0..2 {
        script::create_group(&stage.link, &stage.keys, PARTITION, &stage.lane).await.unwrap();
    }
    let token = stage.read("w1").await;
    script::create_group(&stage.link, &stage.keys, PARTITION, &stage.lane).await.unwrap();
    assert!(matches!(stage.start("w1", task, &token).await, Started::Ours { .. }));
}
