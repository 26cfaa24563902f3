//! Servers that are full, gone, or gone and back: what was answered 202 is there once, and nothing else was promised.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use insightforge_schema::id::TaskId;
use serde_json::json;

use crate::door::{Answer, Door, good, good_with};

/// A Redis of this test's own, which may be killed.
struct Redis {
    port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Redis {
    async fn start() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let process = Self::run(port, &folder);
        let redis = Self { port, folder, process };
        redis.answers().await;
        redis
    }

    /// With the settings this program ships.
    fn run(port: u16, folder: &tempfile::TempDir) -> Child {
        let mut command = Command::new("redis-server");
        command.arg("--port").arg(port.to_string()).args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.args(["--appendfsync", "always", "--maxmemory-policy", "noeviction", "--dir"]).arg(folder.path());
        command.stdout(Stdio::null()).spawn().expect("redis-server is installed")
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    async fn answers(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "redis-server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As by a power cut.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::run(self.port, &self.folder);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_full_redis_takes_no_uploads_and_still_lets_tasks_end() {
    let redis = Redis::start().await;
    let door = Door::open_on_redis(&redis.url(), Duration::from_secs(10)).await;
    let task = door.upload(&good()).await.task();
    let limit = async |bytes: &str| {
        let mut command = redis::cmd("CONFIG");
        door.link.query::<String>(command.arg("SET").arg("maxmemory").arg(bytes)).await.unwrap();
    };
    limit("1mb").await;
    let refused = door.upload(&good()).await;
    refused.is_problem(503, "nothing of this request was stored");
    assert_eq!(
        (refused.body["type"].as_str(), refused.header("retry-after")),
        (Some("urn:insightforge:problem:journal-full"), Some("10"))
    );
    let batch = door.post("/api/data/upload/batch?task_type=sentiment_analysis&model_version=v1.0");
    let batch = batch.header("Content-Type", "text/csv").body("text\na\n");
    Answer::of(batch).await.is_problem(503, "the journal is full");
    let cancelled = Answer::of(door.post(&format!("/api/tasks/{task}/cancel"))).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    limit("0").await;
    door.upload(&good()).await.task();
}

#[tokio::test]
async fn while_redis_is_gone_nothing_is_promised() {
    let mut redis = Redis::start().await;
    let door = Door::open_on_redis(&redis.url(), Duration::from_secs(1)).await;
    redis.kill();
    let answer = door.upload(&good()).await;
    answer.is_problem(503, "whether this request was stored");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn uploads_under_way_outlive_a_redis_that_is_killed_and_comes_back() {
    let mut redis = Redis::start().await;
    let door = Door::open_on_redis(&redis.url(), Duration::from_secs(30)).await;
    let uploads = futures_util::future::join_all((0..400).map(|number| {
        let upload = good_with(&[("data", json!(format!("{{\"text\":\"{number}\"}}")))]);
        let door = &door;
        async move {
            tokio::time::sleep(Duration::from_millis(number)).await;
            door.upload(&upload).await
        }
    }));
    let outage = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        redis.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.start_again();
    };
    let (answers, ()) = tokio::join!(uploads, outage);
    let promised: BTreeSet<TaskId> = answers.iter().map(Answer::task).collect();
    assert_eq!(promised.len(), 400);
    assert_eq!(door.submitted_ids().await, promised);
}

#[tokio::test]
async fn no_upload_waits_for_the_tables() {
    let door = Door::open_on("mysql://root@127.0.0.1:1/nowhere", |_| {}).await;
    let began = std::time::Instant::now();
    let task = door.upload(&good()).await.task();
    let cancelled = Answer::of(door.post(&format!("/api/tasks/{task}/cancel"))).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    let again = Answer::of(door.post(&format!("/api/tasks/{task}/retry"))).await;
    assert_eq!(again.status, 202, "{again:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // Only what nothing but the tables can know needs them.
    let unknown = Answer::of(door.post(&format!("/api/tasks/{}/retry", TaskId::new()))).await;
    unknown.is_problem(503, "the database");
}
