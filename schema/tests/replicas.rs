//! Writes that replicas must confirm, and what is left without them: on servers of this test's own.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use insightforge_schema::follow::Follower;
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::journal::last_number;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::script::{self, Context, Submission, Submit};
use tempfile::TempDir;

const PARTITION: Partition = Partition(0);

/// A Redis of this test's own; it ends with it.
struct Server {
    port: u16,
    process: Child,
    _folder: TempDir,
}

impl Server {
    async fn start(more: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(folder.path())
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { port, process, _folder: folder };
        server.link(Duration::from_secs(10)).query::<String>(&redis::cmd("PING")).await.unwrap();
        server
    }

    fn link(&self, deadline: Duration) -> Link {
        Link::new(&format!("redis://127.0.0.1:{}", self.port), deadline).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

#[tokio::test]
async fn a_write_counts_only_when_enough_replicas_have_it_and_stands_all_the_same() {
    let keys = Keys::new("t");
    let primary = Server::start(&["--appendonly", "yes"]).await;
    let lane = Lane::new("acting", "v1");
    let task = Submit {
        task: TaskId::new(),
        lane,
        event: b"event".to_vec(),
        fingerprint: None,
        idempotency_key: None,
        context: Context::default(),
        expires_ms: None,
    };
    let submit = async |seconds: u64| {
        let link = primary.link(Duration::from_secs(seconds)).confirmed_by(1);
        script::submit(&link, &keys, PARTITION, std::slice::from_ref(&task), 0).await
    };

    let alone = submit(2).await;
    assert!(matches!(&alone, Err(LinkError::Unavailable(reason)) if reason.contains("0 of 1 replicas")), "{alone:?}");
    assert_eq!(last_number(&primary.link(Duration::from_secs(5)), &keys, PARTITION).await.unwrap(), 1);

    let replica = Server::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]).await;
    let confirmed = submit(20).await.unwrap();
    assert!(matches!(confirmed[..], [Submission::Known { .. } | Submission::Accepted { .. }]), "{confirmed:?}");
    assert_eq!(last_number(&replica.link(Duration::from_secs(5)), &keys, PARTITION).await.unwrap(), 1);

    drop(replica);
    let reading = primary.link(Duration::from_secs(5)).confirmed_by(1);
    assert!(script::view(&reading, &keys, PARTITION, task.task).await.unwrap().is_some(), "reading asks no replica");
}

#[tokio::test]
async fn the_follower_says_when_a_journal_ends_before_what_it_has_or_holds_something_else_there() {
    let server = Server::start(&[]).await;
    let (link, keys) = (server.link(Duration::from_secs(5)), Keys::new("t"));
    let partitions = PartitionCount::new(2).unwrap();
    let journal = keys.journal(Partition(1));
    let add = async |event: &str| {
        let mut add = redis::cmd("XADD");
        add.arg(&journal).arg("0-*").arg("type").arg("completed").arg("task").arg("x").arg("first").arg(0);
        let _: String = link.query(add.arg("e").arg(event)).await.unwrap();
    };
    add("one").await;
    add("two").await;
    let block = Duration::from_millis(200);
    let mut follower = Follower::new(&link, &keys, partitions);
    let read = follower.read(&[0, 0], 10, block).await.unwrap();
    assert_eq!((read.entries[0].0, read.entries[0].1.0.len(), read.moved_back.len()), (Partition(1), 2, 0));

    let mut late = Follower::new(&link, &keys, partitions);
    let read = late.read(&[0, 3], 10, block).await.unwrap();
    assert_eq!(read.moved_back, [(Partition(1), 2)], "it ends before what one has");
    let read = late.read(&[0, 2], 10, block).await.unwrap();
    assert!(read.entries.is_empty() && read.moved_back.is_empty());

    // The server comes back with another second event, and goes on.
    let _: i64 = link.query(redis::cmd("DEL").arg(&journal)).await.unwrap();
    for event in ["one", "other", "three"] {
        add(event).await;
    }
    let _: i64 = link.query(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal")).await.unwrap();
    let mut moved_back = Vec::new();
    for _ in 0..20 {
        if let Ok(read) = follower.read(&[0, 2], 10, block).await {
            moved_back.extend(read.moved_back);
        }
        if !moved_back.is_empty() {
            break;
        }
    }
    assert_eq!(moved_back, [(Partition(1), 3)], "something else stands in the place of the last event read");
}
