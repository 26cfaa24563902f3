//! An analyzer's steps on one task.

use insightforge_schema::event::{Change, Completed, DeadLettered, Failed, Meta, Processing, encode, now_us};
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Finish, Held, Start, Started};

use crate::door::Door;

pub(crate) struct Work<'a> {
    door: &'a Door,
    task: TaskId,
    lane: Lane,
    token: String,
}

fn meta() -> Meta {
    Meta { at_us: now_us(), tenant: "default".to_owned(), actor: "analyzer/a".to_owned(), attempt: 1, trace: None }
}

impl<'a> Work<'a> {
    pub(crate) async fn on(door: &'a Door, task: TaskId) -> Self {
        let partition = door.partitions.of_task(task);
        let record = door.keys.record(partition, task);
        let mut command = redis::cmd("HMGET");
        let (token, lane): (String, String) = door.link.query(command.arg(record).arg("q").arg("l")).await.unwrap();
        Self { door, task, lane: Lane::parse(&lane).unwrap(), token }
    }

    pub(crate) async fn start(self) -> Self {
        let (door, partition) = (self.door, self.door.partitions.of_task(self.task));
        let lane = door.keys.lane(partition, &self.lane);
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg(&lane).arg(self.lane.group()).arg("0").arg("MKSTREAM");
        let _exists = door.link.query::<String>(&group).await;
        let event = encode(&meta(), &Change::Processing(Processing { worker: "a".to_owned() }));
        let start = Start { token: self.token.clone(), task: self.task, event };
        let started = script::start(&door.link, &door.keys, partition, &self.lane, "a", &[start]).await.unwrap();
        assert!(matches!(started[..], [Started::Ours { .. }]), "{started:?}");
        self
    }

    pub(crate) async fn complete(self, result: &str) {
        let completed = Change::Completed(Completed {
            task_type: self.lane.task_type.clone(),
            model_version: self.lane.model_version.clone(),
            result: result.to_owned(),
            inference_us: 1,
            batch_size: 1,
            route: None,
        });
        self.finish("completed", &completed, None, now_us() / 1_000).await;
    }

    pub(crate) async fn fail(self, code: &str) {
        self.fail_at(code, now_us() / 1_000).await;
    }

    pub(crate) async fn fail_at(self, code: &str, at_ms: i64) {
        let failed = Change::Failed(Failed {
            task_type: self.lane.task_type.clone(),
            model_version: self.lane.model_version.clone(),
            code: code.to_owned(),
            message: format!("{code} it is"),
            permanent: true,
            route: None,
        });
        let letter = Change::DeadLettered(DeadLettered { code: code.to_owned() });
        self.finish("failed", &failed, Some(&letter), at_ms).await;
    }

    async fn finish(self, event_type: &'static str, change: &Change, letter: Option<&Change>, now_ms: i64) {
        let (door, partition) = (self.door, self.door.partitions.of_task(self.task));
        let end = Finish {
            token: self.token,
            task: self.task,
            event_type,
            event: encode(&meta(), change),
            dead_letter: letter.map(|letter| encode(&meta(), letter)),
        };
        let ended = script::finish(&door.link, &door.keys, partition, &self.lane, now_ms, &[end]).await.unwrap();
        assert_eq!(ended, [Held::Done]);
    }
}
