//! What Redis loses of tasks that are not over comes back from the journal: on real servers, with the steps of analyzers.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use insightforge_archive::Archive;
use insightforge_projector::project;
use insightforge_projector::restore::Restorer;
use insightforge_schema::catalogue::{self, Worker};
use insightforge_schema::event::{Change, Meta, RetryScheduled, Submitted, encode, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Context, Finish, Held, Retry, Start, Started, Submit};
use insightforge_schema::standing::standing;
use stage::{Stage, completed, on_each_server, partitions, processing};

const PART: Partition = Partition(1);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// In 2100, in milliseconds.
const FAR: i64 = 4_102_444_800_000;

fn lane() -> Lane {
    Lane::new("acting", "v1")
}

fn meta(attempt: u32, trace: Option<&str>) -> Meta {
    let trace = trace.map(str::to_owned);
    Meta { at_us: now_us(), tenant: "default".to_owned(), actor: "test".to_owned(), attempt, trace }
}

impl Stage {
    async fn submit(&self, deadline_ms: Option<i64>) -> TaskId {
        let change = Change::Submitted(Submitted {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            data: r#"{"text":"今天 😀"}"#.to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: deadline_ms.map(|ms| ms * 1_000),
        });
        let submit = Submit {
            task: TaskId::new(),
            lane: lane(),
            event: encode(&meta(0, Some(TRACE)), &change),
            fingerprint: None,
            idempotency_key: None,
            context: Context { trace: Some(TRACE.to_owned()), ..Context::default() },
            expires_ms: deadline_ms,
        };
        script::submit(&self.deps.link, &self.deps.keys, PART, std::slice::from_ref(&submit), 0).await.unwrap();
        submit.task
    }

    async fn record(&self, task: TaskId, field: &str) -> String {
        let get = redis::cmd("HGET").arg(self.deps.keys.record(PART, task)).arg(field).to_owned();
        self.deps.link.query::<Option<String>>(&get).await.unwrap().unwrap_or_default()
    }

    async fn start(&self, worker: &str, task: TaskId) -> Started {
        let token = self.record(task, "q").await;
        let start = Start { token, task, event: encode(&meta(1, None), &processing()) };
        let begun = script::start(&self.deps.link, &self.deps.keys, PART, &lane(), worker, &[start]).await.unwrap();
        begun.into_iter().next().unwrap()
    }

    async fn finish(&self, task: TaskId, token: &str) -> Held {
        let end = Finish {
            token: token.to_owned(),
            task,
            event_type: "completed",
            event: encode(&meta(1, None), &completed()),
            dead_letter: None,
        };
        let now_ms = now_us() / 1_000;
        script::finish(&self.deps.link, &self.deps.keys, PART, &lane(), now_ms, &[end]).await.unwrap()[0]
    }

    async fn retry(&self, task: TaskId) {
        let token = self.record(task, "q").await;
        let change = RetryScheduled {
            code: "busy".to_owned(),
            message: "later".to_owned(),
            next_attempt: 2,
            due_us: FAR * 1_000,
        };
        let event = encode(&meta(1, None), &Change::RetryScheduled(change));
        let retry = Retry { token, task, event, next_attempt: 2, due_ms: FAR };
        script::retry(&self.deps.link, &self.deps.keys, PART, &lane(), &[retry]).await.unwrap();
    }

    async fn remove(&self, command: &str, arguments: &[&str]) {
        let gone: i64 = self.deps.link.query(redis::cmd(command).arg(arguments)).await.unwrap();
        assert_eq!(gone, 1, "{command} {arguments:?}");
    }

    /// An analyzer of this name reports that it lives.
    async fn living(&self, name: &str) {
        let worker: Worker = serde_json::from_value(serde_json::json!({
            "name": name, "seen_ms": now_us() / 1_000, "lanes": [], "in_flight": 1, "started_ms": 0, "last_read_ms": 0,
        }))
        .unwrap();
        catalogue::report(&self.deps.link, &self.deps.keys, &worker).await.unwrap();
    }

    async fn forget(&self, task: TaskId) {
        self.remove("DEL", &[&self.deps.keys.record(PART, task)]).await;
    }

    async fn fold(&self) {
        let (mut projector, _kept) = self.projector("live");
        while projector.step().await.unwrap() != project::Step::Idle {}
    }

    fn restorer(&self) -> Restorer {
        Restorer::new(self.deps.clone(), partitions())
    }

    /// Goes twice over all tasks: what the first pass found, the second has put back.
    async fn restore_all(&self, restorer: &mut Restorer) -> (usize, usize) {
        let (mut restored, mut passes, mut left) = (0, 0, 0);
        while passes < 2 {
            let looked = restorer.step(now_us() + 120_000_000).await.unwrap();
            (restored, left) = (restored + looked.restored, looked.suspects);
            passes += usize::from(looked.all);
        }
        (restored, left)
    }

    async fn stands(&self, task: TaskId) -> (String, u32, bool) {
        let standing = standing(&self.deps.link, &self.deps.keys, PART, task).await.unwrap().unwrap();
        let key = self.deps.keys.lane(PART, &lane());
        let on: Vec<redis::Value> = match standing.token.as_str() {
            "" => Vec::new(),
            token => self.deps.link.query(redis::cmd("XRANGE").arg(key).arg(token).arg(token)).await.unwrap(),
        };
        (standing.state, standing.attempt, !on.is_empty() || standing.due_ms.is_some())
    }
}

async fn whatever_key_of_a_task_is_lost_it_goes_on_as_the_journal_has_it(mut stage: Stage) {
    let folder = tempfile::tempdir().unwrap();
    stage.deps.archive = Some(Archive::open(folder.path().to_str().unwrap(), [], stage.deps.keys.prefix()).unwrap());
    let keys = stage.deps.keys.clone();
    // Trimmed from the stream below, and only in the archive then.
    let trimmed = stage.submit(None).await;
    let [fine, unlaned, forgotten, undated, running, running_forgotten, delayed, delayed_forgotten, ended] = [
        stage.submit(None).await,
        stage.submit(None).await,
        stage.submit(Some(FAR)).await,
        stage.submit(Some(FAR)).await,
        stage.submit(None).await,
        stage.submit(None).await,
        stage.submit(None).await,
        stage.submit(None).await,
        stage.submit(None).await,
    ];
    for task in [running, running_forgotten, delayed, delayed_forgotten, ended] {
        assert!(matches!(stage.start("w", task).await, Started::Ours { .. }));
    }
    for task in [delayed, delayed_forgotten] {
        stage.retry(task).await;
    }
    let token = stage.record(ended, "q").await;
    assert_eq!(stage.finish(ended, &token).await, Held::Done);
    stage.fold().await;
    let (entries, _) = stage.deps.journal().entries(PART, 1, 1, 1 << 20).await.unwrap();
    stage.deps.archive.as_ref().unwrap().put(PART, &entries).await.unwrap();
    stage.remove("XTRIM", &[&keys.journal(PART), "MINID", "0-2"]).await;

    let lane_key = keys.lane(PART, &lane());
    for task in [unlaned, running] {
        stage.remove("XDEL", &[&lane_key, &stage.record(task, "q").await]).await;
    }
    for task in [trimmed, forgotten, running_forgotten, delayed_forgotten, ended] {
        stage.forget(task).await;
    }
    stage.remove("ZREM", &[&keys.expiring(PART), &undated.to_string()]).await;
    stage.remove("ZREM", &[&keys.delayed(PART), &delayed.to_string()]).await;
    stage.remove("ZREM", &[&keys.delayed(PART), &delayed_forgotten.to_string()]).await;
    let before = journal::last_number(&stage.deps.link, &keys, PART).await.unwrap();

    let mut restorer = stage.restorer();
    assert_eq!(restorer.step(now_us()).await.unwrap().tasks, 0, "all of them are young");
    assert_eq!(stage.restore_all(&mut restorer).await, (8, 0));
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 0), "once");

    for task in [trimmed, fine, unlaned, forgotten, undated] {
        assert_eq!(stage.stands(task).await, ("Q".to_owned(), 1, true), "{task}");
        assert!(matches!(stage.start("w2", task).await, Started::Ours { submitted, .. } if !submitted.is_empty()));
    }
    for task in [running, running_forgotten] {
        assert_eq!(stage.stands(task).await, ("P".to_owned(), 1, true), "{task}");
        assert_eq!(stage.start("w2", task).await, Started::Busy, "its silent holder is found by the janitor");
    }
    for task in [delayed, delayed_forgotten] {
        assert_eq!(stage.stands(task).await, ("D".to_owned(), 2, true), "{task}");
    }
    assert_eq!(stage.record(ended, "s").await, "", "what has ended stays as it is");
    assert_eq!(stage.record(forgotten, "m").await, format!("default {TRACE}"));
    assert_eq!(stage.record(forgotten, "d").await, FAR.to_string());
    let after = journal::last_number(&stage.deps.link, &keys, PART).await.unwrap();
    assert_eq!(after, before + 5, "the five that were begun just now, and no other event");
    stage.end().await;
}

async fn a_task_that_ended_begins_no_second_life_while_the_tables_are_late(stage: Stage) {
    let task = stage.submit(None).await;
    assert!(matches!(stage.start("w", task).await, Started::Ours { .. }));
    stage.fold().await;
    // The tables have it at work; by now it is done, and long ago.
    let token = stage.record(task, "q").await;
    assert_eq!(stage.finish(task, &token).await, Held::Done);
    stage.forget(task).await;
    let mut restorer = stage.restorer();
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 1), "in doubt until the tables have caught up");
    stage.fold().await;
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 0));
    assert_eq!(stage.record(task, "s").await, "");
    stage.end().await;
}

async fn a_task_that_ended_after_it_lost_its_lane_entry_begins_no_second_life_either(stage: Stage) {
    let task = stage.submit(None).await;
    assert!(matches!(stage.start("w", task).await, Started::Ours { .. }));
    stage.fold().await;
    stage.living("w").await;
    let token = stage.record(task, "q").await;
    stage.remove("XDEL", &[&stage.deps.keys.lane(PART, &lane()), &token]).await;
    let mut restorer = stage.restorer();
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 0), "a living analyzer needs no entry to end it");
    assert_eq!(stage.record(task, "q").await, token);
    assert_eq!(stage.finish(task, &token).await, Held::Done);
    stage.forget(task).await;
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 1), "in doubt until the tables have caught up");
    stage.fold().await;
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 0));
    assert_eq!(stage.record(task, "s").await, "");
    stage.end().await;
}

async fn a_task_whose_end_could_not_be_folded_begins_no_second_life(stage: Stage) {
    let task = stage.submit(None).await;
    assert!(matches!(stage.start("w", task).await, Started::Ours { .. }));
    let first: u64 = stage.record(task, "f").await.parse().unwrap();
    let mut add = redis::cmd("XADD");
    add.arg(stage.deps.keys.journal(PART)).arg("0-*").arg("type").arg("completed").arg("task").arg(task.to_string());
    let _: String =
        stage.deps.link.query(add.arg("first").arg(first).arg("e").arg("of a later release")).await.unwrap();
    stage.fold().await;
    stage.forget(task).await;
    assert_eq!(stage.restore_all(&mut stage.restorer()).await.0, 0);
    assert_eq!(stage.record(task, "s").await, "");
    stage.end().await;
}

async fn a_record_of_another_task_with_the_same_id_is_left_alone(stage: Stage) {
    let task = stage.submit(None).await;
    stage.fold().await;
    let set = redis::cmd("HSET").arg(stage.deps.keys.record(PART, task)).arg("f").arg(99).to_owned();
    let _: i64 = stage.deps.link.query(&set).await.unwrap();
    stage.remove("XDEL", &[&stage.deps.keys.lane(PART, &lane()), &stage.record(task, "q").await]).await;
    assert_eq!(stage.restore_all(&mut stage.restorer()).await, (0, 0));
    stage.end().await;
}

async fn names_of_lanes_come_back_and_a_lane_of_another_kind_leaves_no_half_record(stage: Stage) {
    let [waits, lost] = [stage.submit(None).await, stage.submit(None).await];
    stage.fold().await;
    let lanes = stage.deps.keys.lanes(PART);
    stage.remove("DEL", &[&lanes]).await;
    stage.restore_all(&mut stage.restorer()).await;
    let names: Vec<String> = stage.deps.link.query(redis::cmd("SMEMBERS").arg(&lanes)).await.unwrap();
    assert_eq!(names, ["acting:v1"]);

    let lane_key = stage.deps.keys.lane(PART, &lane());
    let set = redis::cmd("SET").arg(&lane_key).arg("text").to_owned();
    let _: String = stage.deps.link.query(&set).await.unwrap();
    stage.forget(lost).await;
    assert_eq!(stage.restore_all(&mut stage.restorer()).await.0, 0);
    assert_eq!(stage.record(lost, "s").await, "", "nothing is written before all of it can be");
    stage.remove("DEL", &[&lane_key]).await;
    assert_eq!(stage.restore_all(&mut stage.restorer()).await, (2, 0));
    assert_eq!(stage.stands(waits).await, ("Q".to_owned(), 1, true));
    stage.end().await;
}

async fn nothing_is_made_up_when_the_journal_itself_lost_its_end(stage: Stage) {
    let task = stage.submit(None).await;
    stage.fold().await;
    stage.remove("DEL", &[&stage.deps.keys.journal(PART)]).await;
    stage.forget(task).await;
    assert_eq!(stage.restore_all(&mut stage.restorer()).await, (0, 0));
    // Its number is another task's by now.
    stage.submit(None).await;
    let mut restorer = stage.restorer();
    assert_eq!(stage.restore_all(&mut restorer).await, (0, 0));
    assert_eq!(stage.record(task, "s").await, "");
    stage.end().await;
}

async fn a_key_of_another_kind_holds_up_no_other_task(stage: Stage) {
    let [odd, lost] = [stage.submit(None).await, stage.submit(None).await];
    stage.fold().await;
    for task in [odd, lost] {
        stage.forget(task).await;
    }
    let set = redis::cmd("SET").arg(stage.deps.keys.record(PART, odd)).arg("text").to_owned();
    let _: String = stage.deps.link.query(&set).await.unwrap();
    assert_eq!(stage.restore_all(&mut stage.restorer()).await, (1, 0));
    assert_eq!(stage.stands(lost).await, ("Q".to_owned(), 1, true));
    stage.end().await;
}

on_each_server!(
    whatever_key_of_a_task_is_lost_it_goes_on_as_the_journal_has_it,
    a_task_that_ended_begins_no_second_life_while_the_tables_are_late,
    a_task_that_ended_after_it_lost_its_lane_entry_begins_no_second_life_either,
    a_task_whose_end_could_not_be_folded_begins_no_second_life,
    a_record_of_another_task_with_the_same_id_is_left_alone,
    names_of_lanes_come_back_and_a_lane_of_another_kind_leaves_no_half_record,
    nothing_is_made_up_when_the_journal_itself_lost_its_end,
    a_key_of_another_kind_holds_up_no_other_task,
);
