//! The scripts on a real Redis, asked in the model's words.

use std::collections::HashMap;
use std::time::Duration;

use insightforge_schema::deadline;
use insightforge_schema::event::{Change, Event, Meta, Processing, RetryScheduled, Submitted, encode};
use insightforge_schema::id::{Partition, Position, TaskId};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::restore::{self, Found, Restored};
use insightforge_schema::script::{
    self, Cancellation, Context, Finish, Held, Noted, Purge, Reap, Reaped, Redrive, Retry, Shadow, Start, Started,
    Submission, Submit,
};
use insightforge_schema::trim::{self, Trim, Trimmed};
use proptest::prelude::*;
use redis::streams::StreamRangeReply;

use crate::model::{Answer, Model, PUT_BACK_DUE, Picture, Prepared, State, Takeover, id_of, number_of};
use crate::{Deadline, Derived};

const PARTITION: Partition = Partition(0);
/// Longer than anybody here has ever been silent.
const LONG_MS: u64 = 3_600_000;
/// Deadlines in milliseconds since 1970: the one has passed, the other will not while anybody looks.
const PAST_MS: i64 = 1_000;
const FAR_MS: i64 = 4_000_000_000_000;

/// An installation of its own. The scripts read no events, so every event is the same bytes.
pub(crate) struct Stage {
    link: Link,
    keys: Keys,
    lane: Lane,
    event: Vec<u8>,
    /// Tokens of the model's entries, by number.
    tokens: Vec<String>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
            .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
        let stage = Self {
            link: Link::new(&url, Duration::from_secs(10)).unwrap(),
            keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())),
            lane: Lane::new("acting", "v1"),
            event: encode(&meta(1), &submitted()),
            tokens: Vec::new(),
        };
        stage.create_group().await;
        stage
    }

    async fn create_group(&self) {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(self.lane_key()).arg(self.lane.group()).arg("0").arg("MKSTREAM");
        self.link.query::<String>(&create).await.unwrap();
    }

    fn lane_key(&self) -> String {
        self.keys.lane(PARTITION, &self.lane)
    }

    pub(crate) async fn take(&mut self, model: &Model, step: Prepared) -> Answer {
        match step {
            Prepared::Submit { task, other_body, key, deadline } => self.submit(task, other_body, key, deadline).await,
            Prepared::Read { worker } => self.read(worker).await,
            Prepared::Start { worker, entry } => self.start(model, worker, entry).await,
            Prepared::Finish { entry, event_type } => self.finish(model, entry, event_type).await,
            Prepared::Retry { entry, due } => self.retry(model, entry, due).await,
            Prepared::Reap { entry, silent, expected, takeover } => {
                self.reap(model, entry, silent, expected, takeover).await
            }
            Prepared::Cancel { task } => self.cancel(task).await,
            Prepared::Move { now } => self.move_due(model, now).await,
            Prepared::Redrive { old, new } => self.redrive(model, old, new).await,
            Prepared::Beat { worker, entry } => self.beat(model, worker, entry).await,
            Prepared::TimePasses { task } => self.pass_time(task).await,
            Prepared::Expire => self.expire(model).await,
            Prepared::Purge { task } => self.purge(model, task).await,
            Prepared::Note { task } => self.note(task).await,
            Prepared::Trim { upto, ends } => self.trim(model, upto, ends).await,
            Prepared::Lose(what) => self.lose(what).await,
            Prepared::LoseRecord { task } => self.lose_record(model, task).await,
            Prepared::PutBack => self.put_back(model).await,
            Prepared::LoseGroup => {
                let mut destroy = redis::cmd("XGROUP");
                destroy.arg("DESTROY").arg(self.lane_key()).arg(self.lane.group());
                self.link.query::<i64>(&destroy).await.unwrap();
                self.create_group().await;
                Answer::Nothing
            }
        }
    }

    async fn submit(&self, task: usize, other_body: bool, key: Option<usize>, deadline: Deadline) -> Answer {
        let submit = Submit {
            task: id_of(task),
            lane: self.lane.clone(),
            event: self.event.clone(),
            fingerprint: Some(if other_body { b"other".to_vec() } else { b"print".to_vec() }),
            idempotency_key: key.map(|key| self.idempotency(key)),
            context: Context::default(),
            expires_ms: match deadline {
                Deadline::None => None,
                Deadline::Past => Some(PAST_MS),
                Deadline::Far => Some(FAR_MS),
            },
        };
        let answers = script::submit(&self.link, &self.keys, PARTITION, &[submit], 0).await.unwrap();
        submission(&answers[0])
    }

    fn idempotency(&self, key: usize) -> String {
        self.keys.idempotency(PARTITION, &format!("k{key}"))
    }

    async fn read(&self, worker: usize) -> Answer {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(self.lane.group()).arg(format!("w{worker}")).arg("COUNT").arg(1);
        read.arg("STREAMS").arg(self.lane_key()).arg(">");
        let reply: Option<redis::streams::StreamReadReply> = self.link.query(&read).await.unwrap();
        let token = reply.and_then(|reply| Some(reply.keys.first()?.ids.first()?.id.clone()));
        Answer::Read(token.map(|token| self.number(&token)))
    }

    fn number(&self, token: &str) -> usize {
        self.tokens.iter().position(|known| known == token).expect("a token that was learnt")
    }

    async fn start(&self, model: &Model, worker: usize, entry: usize) -> Answer {
        let (task, token) = self.named(model, entry);
        let start = Start { token, task, event: self.event.clone() };
        let name = format!("w{worker}");
        let started = script::start(&self.link, &self.keys, PARTITION, &self.lane, &name, &[start]).await.unwrap();
        match &started[0] {
            Started::Ours { first, submitted } => {
                assert_eq!(*submitted, self.event);
                Answer::Ours(*first)
            }
            Started::Busy => Answer::Busy,
            Started::Lost => Answer::Lost,
            Started::Expired => Answer::Late,
        }
    }

    fn named(&self, model: &Model, entry: usize) -> (TaskId, String) {
        (id_of(model.lane[entry].task), self.tokens[entry].clone())
    }

    async fn finish(&self, model: &Model, entry: usize, event_type: &'static str) -> Answer {
        let (task, token) = self.named(model, entry);
        let dead_letter = (event_type == "failed").then(|| self.event.clone());
        let end = Finish { token, task, event_type, event: self.event.clone(), dead_letter };
        held(script::finish(&self.link, &self.keys, PARTITION, &self.lane, 1, &[end]).await.unwrap()[0])
    }

    async fn retry(&self, model: &Model, entry: usize, due_ms: i64) -> Answer {
        let (task, token) = self.named(model, entry);
        let next_attempt = model.tasks[&model.lane[entry].task].attempt + 1;
        let retry = Retry { token, task, event: self.event.clone(), next_attempt, due_ms };
        held(script::retry(&self.link, &self.keys, PARTITION, &self.lane, &[retry]).await.unwrap()[0])
    }

    async fn reap(
        &self,
        model: &Model,
        entry: usize,
        silent: bool,
        expected_state: &'static str,
        takeover: Takeover,
    ) -> Answer {
        let (task, token) = self.named(model, entry);
        let event = self.event.clone();
        let next_attempt = model.tasks[&model.lane[entry].task].attempt + 1;
        let takeover = match takeover {
            Takeover::Drop => script::Takeover::Drop,
            Takeover::Requeue => script::Takeover::Requeue,
            Takeover::Retry => script::Takeover::Retry { event, next_attempt, due_ms: 1 },
            Takeover::Fail => script::Takeover::Fail { dead_letter: event.clone(), event },
        };
        let reap = Reap { token, task, expected_state, min_idle_ms: if silent { 0 } else { LONG_MS }, takeover };
        match script::reap(&self.link, &self.keys, PARTITION, &self.lane, 1, &reap).await.unwrap() {
            Reaped::Done => Answer::Done,
            Reaped::Alive => Answer::Alive,
            Reaped::Changed => Answer::Changed,
        }
    }

    async fn cancel(&self, task: usize) -> Answer {
        match script::cancel(&self.link, &self.keys, PARTITION, &self.lane, id_of(task), &self.event).await.unwrap() {
            Cancellation::Done => Answer::Done,
            Cancellation::Ended(outcome) => {
                let known = ["completed", "failed", "cancelled"].into_iter().find(|word| *word == outcome);
                Answer::Ended(known.expect("an outcome"))
            }
            Cancellation::Unknown => Answer::Unknown,
        }
    }

    async fn move_due(&self, model: &Model, now: i64) -> Answer {
        // Also those that are not due, and those that never were delayed: the script looks itself.
        let (mut due, mut rest): (Vec<_>, Vec<_>) = (model.due(now), model.tasks.keys().copied().collect());
        rest.retain(|number| !due.contains(number));
        due.extend(rest);
        let due: Vec<_> = due.into_iter().map(|number| (id_of(number), self.lane.clone())).collect();
        Answer::Moved(script::move_due(&self.link, &self.keys, PARTITION, now, &due).await.unwrap())
    }

    async fn redrive(&self, model: &Model, old: usize, new: usize) -> Answer {
        let redrive = Redrive {
            old: id_of(old),
            old_first: model.tasks[&old].first,
            redriven: self.event.clone(),
            new: id_of(new),
            submitted: self.event.clone(),
            lane: self.lane.clone(),
            context: Context::default(),
        };
        submission(&script::redrive(&self.link, &self.keys, PARTITION, &redrive).await.unwrap())
    }

    async fn beat(&self, model: &Model, worker: usize, entry: usize) -> Answer {
        let (name, held) = (format!("w{worker}"), [self.named(model, entry)]);
        let held = script::beat(&self.link, &self.keys, PARTITION, &self.lane, &name, &held).await.unwrap();
        Answer::Held(held[0])
    }

    async fn lose(&self, what: Derived) -> Answer {
        let key = match what {
            Derived::Lane => self.lane_key(),
            Derived::Delayed => self.keys.delayed(PARTITION),
            Derived::Deadlines => self.keys.expiring(PARTITION),
        };
        self.link.query::<i64>(redis::cmd("DEL").arg(key)).await.unwrap();
        if what == Derived::Lane {
            self.create_group().await;
        }
        Answer::Nothing
    }

    /// By the events that a journal of these steps holds.
    async fn lose_record(&self, model: &Model, number: usize) -> Answer {
        let (task, known) = (id_of(number), &model.tasks[&number]);
        self.link.query::<i64>(redis::cmd("DEL").arg(self.keys.record(PARTITION, task))).await.unwrap();
        let first = Position { partition: PARTITION, n: known.first };
        assert_eq!(restore::look(&self.link, &self.keys, first, task).await.unwrap(), Found::Gone);
        let mut change = submitted();
        if let Change::Submitted(submitted) = &mut change {
            submitted.expires_us = match known.deadline {
                Deadline::None => None,
                Deadline::Past => Some(PAST_MS * 1_000),
                Deadline::Far => Some(FAR_MS * 1_000),
            };
        }
        let event = |position, attempt, change| Event { position, task, first, meta: meta(attempt), change };
        let last = Position { partition: PARTITION, n: known.first + 1 };
        let submitted = event(first, 1, change);
        let latest = match known.state {
            State::Queued if known.attempt == 1 => submitted.clone(),
            State::Processing => {
                let worker = format!("w{}", known.worker.expect("somebody runs it"));
                event(last, known.attempt, Change::Processing(Processing { worker }))
            }
            State::Queued | State::Delayed => {
                let due_us = known.due.unwrap_or(PUT_BACK_DUE) * 1_000;
                let (code, message) = ("busy".to_owned(), String::new());
                let change = RetryScheduled { code, message, next_attempt: known.attempt, due_us };
                event(last, known.attempt - 1, Change::RetryScheduled(change))
            }
            State::Ended => unreachable!("only open ones are lost"),
        };
        let restored = restore::restore(&self.link, &self.keys, &self.lane, &submitted, &latest).await.unwrap();
        assert_eq!(restored, Restored::Done);
        Answer::Done
    }

    async fn put_back(&self, model: &Model) -> Answer {
        let mut count = 0;
        for (number, task) in &model.tasks {
            let first = Position { partition: PARTITION, n: task.first };
            let found = restore::look(&self.link, &self.keys, first, id_of(*number)).await.unwrap();
            if let Found::Misplaced(misplaced) = found {
                let (id, due) = (id_of(*number), PUT_BACK_DUE);
                let replaced = restore::replace(&self.link, &self.keys, PARTITION, id, &misplaced, due).await.unwrap();
                assert_eq!(replaced, Restored::Done);
                count += 1;
            }
        }
        Answer::Moved(count)
    }

    /// Redis' clock cannot be moved here: the deadline is.
    async fn pass_time(&self, task: usize) -> Answer {
        let mut record = redis::cmd("HSET");
        record.arg(self.keys.record(PARTITION, id_of(task))).arg("d").arg(PAST_MS);
        self.link.query::<i64>(&record).await.unwrap();
        let mut waiting = redis::cmd("ZADD");
        waiting.arg(self.keys.expiring(PARTITION)).arg("XX").arg(PAST_MS).arg(id_of(task).to_string());
        self.link.query::<i64>(&waiting).await.unwrap();
        Answer::Nothing
    }

    async fn expire(&self, model: &Model) -> Answer {
        // Also those that are not late, and those that have ended: the script looks itself.
        let tasks: Vec<TaskId> = model.tasks.keys().map(|number| id_of(*number)).collect();
        Answer::Expired(deadline::end(&self.link, &self.keys, PARTITION, &tasks, "test").await.unwrap())
    }

    async fn purge(&self, model: &Model, task: usize) -> Answer {
        let letter = Purge { task: id_of(task), first: model.tasks[&task].first, event: self.event.clone() };
        Answer::Purged(script::purge(&self.link, &self.keys, PARTITION, &[letter]).await.unwrap()[0])
    }

    async fn note(&self, task: usize) -> Answer {
        let shadow = Shadow { task: id_of(task), version: "v2".to_owned(), event: self.event.clone() };
        Answer::Noted(script::shadow(&self.link, &self.keys, PARTITION, &[shadow]).await.unwrap() == [Noted::Done])
    }

    async fn trim(&self, model: &Model, upto: usize, ends: usize) -> Answer {
        let (upto, ends) = (upto as u64, ends as u64);
        let mark = trim::mark(&self.link, &self.keys, PARTITION).await.unwrap();
        assert!(trim::move_mark(&self.link, &self.keys, PARTITION, mark, ends).await.unwrap(), "nobody else moves it");
        // Also those that have ended, and those that began later: the script looks itself.
        let open: Vec<_> = model.tasks.iter().map(|(number, task)| (id_of(*number), task.first)).collect();
        let beyond = Trim { upto: ends, folded: ends, keep: 1, open: &open };
        assert!(
            ends == 0
                || matches!(
                    trim::trim(&self.link, &self.keys, PARTITION, &beyond).await.unwrap(),
                    Trimmed::Beyond(bound) if bound == ends - 1
                ),
            "the last event stays"
        );
        let trim = Trim { upto, folded: ends, keep: 1, open: &open };
        match trim::trim(&self.link, &self.keys, PARTITION, &trim).await.unwrap() {
            Trimmed::Done(events) => Answer::Trimmed(usize::try_from(events).unwrap()),
            refused => panic!("{refused:?}"),
        }
    }

    /// Who waits with a deadline, and whether it has passed.
    async fn waiting(&self) -> Vec<(TaskId, bool)> {
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.keys.expiring(PARTITION)).arg(0).arg(-1).arg("WITHSCORES");
        let waiting: Vec<(String, i64)> = self.link.query(&range).await.unwrap();
        let mut waiting: Vec<_> =
            waiting.into_iter().map(|(id, deadline)| (id.parse().unwrap(), deadline == PAST_MS)).collect();
        waiting.sort_unstable();
        waiting
    }

    async fn idempotency_keys(&self) -> Vec<(usize, TaskId)> {
        let mut keys = Vec::new();
        for key in 0..crate::KEYS {
            let value: Option<String> = self.link.query(redis::cmd("GET").arg(self.idempotency(key))).await.unwrap();
            keys.extend(value.map(|value| (key, value[value.len() - 36..].parse().unwrap())));
        }
        keys
    }

    /// Looks at the lane: it holds the model's entries, and those that are new tell their tokens.
    pub(crate) async fn learn(&mut self, model: &Model) -> Result<(), TestCaseError> {
        let range: StreamRangeReply =
            self.link.query(redis::cmd("XRANGE").arg(self.lane_key()).arg("-").arg("+")).await.unwrap();
        let found: Vec<&str> = range.ids.iter().map(|entry| entry.id.as_str()).collect();
        let expected = model.on_lane();
        prop_assert_eq!(found.len(), expected.len(), "{:?} on the lane; {:?}", found, model);
        for (token, entry) in found.into_iter().zip(expected) {
            if entry == self.tokens.len() {
                self.tokens.push(token.to_owned());
            }
            prop_assert_eq!(self.tokens.get(entry).map(String::as_str), Some(token));
        }
        Ok(())
    }

    /// What there is in Redis.
    pub(crate) async fn picture(&self, model: &Model) -> Picture {
        let journal: StreamRangeReply =
            self.link.query(redis::cmd("XRANGE").arg(self.keys.journal(PARTITION)).arg("-").arg("+")).await.unwrap();
        for (entry, n) in journal.ids.iter().zip(model.trimmed + 1..) {
            assert_eq!(entry.id, format!("0-{n}"), "numbers have no gap");
        }
        let task = |text: String| text.parse::<TaskId>().expect("a task's id");
        let lane: StreamRangeReply =
            self.link.query(redis::cmd("XRANGE").arg(self.lane_key()).arg("-").arg("+")).await.unwrap();
        let mut list = redis::cmd("XPENDING");
        list.arg(self.lane_key()).arg(self.lane.group()).arg("-").arg("+").arg(100);
        let pending: Vec<(String, String, i64, i64)> = self.link.query(&list).await.unwrap();
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.keys.delayed(PARTITION)).arg(0).arg(-1).arg("WITHSCORES");
        let delayed: Vec<(String, i64)> = self.link.query(&range).await.unwrap();
        let dead: Vec<String> =
            self.link.query(redis::cmd("ZRANGE").arg(self.keys.dead(PARTITION)).arg(0).arg(-1)).await.unwrap();
        let mut picture = Picture {
            journal: journal.ids.iter().map(|it| (it.get("type").unwrap(), task(it.get("task").unwrap()))).collect(),
            lane: lane.ids.iter().map(|it| task(it.get("i").unwrap())).collect(),
            pending: pending.into_iter().map(|(token, worker, ..)| (self.number(&token), worker)).collect(),
            delayed: delayed.into_iter().map(|(id, due)| (task(id), due)).collect(),
            dead: dead.into_iter().map(task).collect(),
            waiting: self.waiting().await,
            keys: self.idempotency_keys().await,
            records: Vec::new(),
        };
        for number in model.tasks.keys() {
            let key = self.keys.record(PARTITION, id_of(*number));
            // What is carried over of a trimmed event is no text.
            let record: HashMap<String, Vec<u8>> = self.link.query(redis::cmd("HGETALL").arg(key)).await.unwrap();
            let field = |name: &str| String::from_utf8(record.get(name).cloned().unwrap_or_default()).unwrap();
            let token = Some(field("q")).filter(|token| !token.is_empty()).map(|token| self.number(&token));
            picture.records.push((id_of(*number), field("s"), token, field("a"), field("w"), field("o")));
        }
        picture.delayed.sort_unstable();
        picture.dead.sort_unstable();
        picture.records.sort_unstable();
        picture
    }

    /// Takes its keys away.
    pub(crate) async fn remove(&self) {
        let keys: Vec<String> =
            self.link.query(redis::cmd("KEYS").arg(format!("*{}*", self.keys.prefix()))).await.unwrap();
        if !keys.is_empty() {
            self.link.query::<i64>(redis::cmd("DEL").arg(keys)).await.unwrap();
        }
    }
}

fn meta(attempt: u32) -> Meta {
    Meta { at_us: 1, tenant: "default".to_owned(), actor: "test".to_owned(), attempt, trace: None }
}

fn submitted() -> Change {
    Change::Submitted(Submitted {
        task_type: "acting".to_owned(),
        model_version: "v1".to_owned(),
        data: "{}".to_owned(),
        user_id: None,
        webhook: None,
        batch: None,
        retry_of: None,
        expires_us: None,
    })
}

fn submission(submission: &Submission) -> Answer {
    match submission {
        Submission::Accepted { n, .. } => Answer::Accepted(*n),
        Submission::Known { task } => Answer::Known(number_of(*task)),
        Submission::Conflict { task } => Answer::Conflict(number_of(*task)),
        Submission::Full => Answer::Nothing,
    }
}

fn held(held: Held) -> Answer {
    match held {
        Held::Done => Answer::Done,
        Held::Lost => Answer::Lost,
    }
}
