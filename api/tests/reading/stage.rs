//! An installation of its own for every test, and the lives of tasks in it.

use std::time::Duration;

use insightforge_schema::event::{
    BatchLine, Cancelled, Change, Completed, DeadLettered, Failed, Meta, Processing, Submitted, Webhook, encode, now_us,
};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::{self, Cancellation, Context, Finish, Held, Start, Started, Submission, Submit};

pub(crate) fn redis_url() -> String {
    std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL must name a server for the tests")
}

/// A journal, and what appends to it.
pub(crate) struct Journal {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) partitions: PartitionCount,
}

/// A task to submit.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) task: TaskId,
    pub(crate) at_us: i64,
    pub(crate) submitted: Submitted,
}

impl Asked {
    pub(crate) fn new(task_type: &str, data: &str) -> Self {
        let submitted = Submitted {
            task_type: task_type.to_owned(),
            model_version: "v1.0".to_owned(),
            data: data.to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
        };
        Self { task: TaskId::new(), at_us: now_us(), submitted }
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.submitted.model_version);
        self
    }

    pub(crate) fn line(mut self, batch: uuid::Uuid, line: u32) -> Self {
        self.submitted.batch = Some(BatchLine { id: batch, line });
        self
    }

    pub(crate) fn webhook(mut self, url: &str) -> Self {
        self.submitted.webhook = Some(Webhook { url: url.to_owned(), sealed_secret: Some(b"sealed bytes".to_vec()) });
        self
    }

    pub(crate) fn at(mut self, at_us: i64) -> Self {
        self.at_us = at_us;
        self
    }

    fn lane(&self) -> Lane {
        Lane::new(&self.submitted.task_type, &self.submitted.model_version)
    }
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            link: Link::new(&redis_url(), Duration::from_secs(10)).unwrap(),
            keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())),
            partitions: PartitionCount::new(4).unwrap(),
        }
    }

    pub(crate) fn partition(&self, task: TaskId) -> Partition {
        self.partitions.of_task(task)
    }

    pub(crate) async fn submit(&self, asked: &Asked) -> TaskId {
        self.submit_all(std::slice::from_ref(asked)).await;
        asked.task
    }

    pub(crate) async fn submit_all(&self, asked: &[Asked]) {
        for partition in self.partitions.iter() {
            let submits: Vec<Submit> =
                asked.iter().filter(|it| self.partition(it.task) == partition).map(submit).collect();
            for chunk in submits.chunks(500) {
                let answers = script::submit(&self.link, &self.keys, partition, chunk, 0).await.unwrap();
                assert!(answers.iter().all(|answer| matches!(answer, Submission::Accepted { .. })), "{answers:?}");
            }
        }
    }

    /// Begins the task's next attempt.
    pub(crate) async fn start(&self, asked: &Asked) {
        let (partition, token) = (self.partition(asked.task), self.token(asked.task).await);
        let event = encode(&meta("analyzer/a", 1), &Change::Processing(Processing { worker: "a".to_owned() }));
        let start = Start { token, task: asked.task, event };
        let started = script::start(&self.link, &self.keys, partition, &asked.lane(), "a", &[start]).await.unwrap();
        assert!(matches!(started[..], [Started::Ours { .. }]), "{started:?}");
    }

    pub(crate) async fn complete(&self, asked: &Asked, result: &str) {
        self.start(asked).await;
        let completed = Change::Completed(Completed {
            task_type: asked.submitted.task_type.clone(),
            model_version: asked.submitted.model_version.clone(),
            result: result.to_owned(),
            inference_us: 1_500,
            batch_size: 1,
        });
        self.finish(asked, "completed", &completed, None).await;
    }

    pub(crate) async fn fail(&self, asked: &Asked, code: &str) {
        self.start(asked).await;
        let failed = Change::Failed(Failed {
            task_type: asked.submitted.task_type.clone(),
            model_version: asked.submitted.model_version.clone(),
            code: code.to_owned(),
            message: format!("{code} it is"),
            permanent: true,
        });
        let letter = Change::DeadLettered(DeadLettered { code: code.to_owned() });
        self.finish(asked, "failed", &failed, Some(&letter)).await;
    }

    pub(crate) async fn cancel(&self, asked: &Asked) {
        let (partition, change) = (self.partition(asked.task), Cancelled { reason: "not needed".to_owned() });
        let event = encode(&meta("api", 0), &Change::Cancelled(change));
        let cancelled = script::cancel(&self.link, &self.keys, partition, &asked.lane(), asked.task, &event).await;
        assert_eq!(cancelled.unwrap(), Cancellation::Done);
    }

    async fn finish(&self, asked: &Asked, event_type: &'static str, change: &Change, letter: Option<&Change>) {
        let (partition, token) = (self.partition(asked.task), self.token(asked.task).await);
        let meta = meta("analyzer/a", 1);
        let dead_letter = letter.map(|letter| encode(&meta, letter));
        let end = Finish { token, task: asked.task, event_type, event: encode(&meta, change), dead_letter };
        let now_ms = now_us() / 1_000;
        let ended = script::finish(&self.link, &self.keys, partition, &asked.lane(), now_ms, &[end]).await.unwrap();
        assert_eq!(ended, [Held::Done]);
    }

    async fn token(&self, task: TaskId) -> String {
        let record = self.keys.record(self.partition(task), task);
        self.link.query(redis::cmd("HGET").arg(record).arg("q")).await.unwrap()
    }
}

fn submit(asked: &Asked) -> Submit {
    let meta = Meta { at_us: asked.at_us, ..meta("api", 0) };
    Submit {
        task: asked.task,
        lane: asked.lane(),
        event: encode(&meta, &Change::Submitted(asked.submitted.clone())),
        fingerprint: None,
        idempotency_key: None,
        context: Context::default(),
    }
}

fn meta(actor: &str, attempt: u32) -> Meta {
    Meta { at_us: now_us(), tenant: "default".to_owned(), actor: actor.to_owned(), attempt, trace: None }
}
