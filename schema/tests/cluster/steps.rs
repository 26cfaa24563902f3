//! Every step of a task, and what belongs to no task, on every master.

use std::collections::HashSet;
use std::time::Duration;

use insightforge_schema::catalogue::{self, ModelCard, Worker};
use insightforge_schema::deadline;
use insightforge_schema::event::{Change, Event, Meta, Submitted};
use insightforge_schema::id::{Partition, PartitionCount, Position, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::{BlockingReader, Link, LinkError};
use insightforge_schema::registry::event::Registered;
use insightforge_schema::registry::{Command, Registry, Written};
use insightforge_schema::restore::{self, Found, Restored};
use insightforge_schema::script::{
    self, Cancellation, Context, Finish, Held, Noted, Purge, Reap, Reaped, Redrive, Retry, Shadow, Start, Started,
    Submission, Submit, Takeover,
};
use insightforge_schema::standing;
use insightforge_schema::trim::{self, Trim, Trimmed};

use crate::redis_cluster::{MASTERS, RedisCluster};

/// Enough for every master to have some.
const PARTITIONS: u16 = 8;
const LEASE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn every_step_of_a_task_is_taken_on_whatever_master_has_its_partition() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start(folder.path(), "no").await;
    let link = Link::new(&cluster.url(), Duration::from_secs(10)).unwrap();
    let keys = Keys::new("t");
    let count = PartitionCount::new(PARTITIONS).unwrap();

    let mut masters = HashSet::new();
    for partition in count.iter() {
        masters.insert(cluster.owner(&keys.journal(partition)).await);
        whole_life(&link, &keys, count, partition).await;
    }
    assert_eq!(masters.len(), MASTERS, "some partitions live on every master");
    what_belongs_to_no_task(&link, &keys).await;

    let servers = link.servers().await.unwrap();
    assert_eq!(servers.len(), MASTERS);
    for (name, server) in servers {
        let role: Vec<redis::Value> = server.query(&redis::cmd("ROLE")).await.unwrap();
        assert_eq!(role[0], redis::Value::BulkString(b"master".to_vec()), "{name}");
    }
    mistaken_addresses(&cluster).await;
}

fn submit(task: TaskId, lane: &Lane, expires_ms: Option<i64>) -> Submit {
    Submit {
        task,
        lane: lane.clone(),
        event: b"submitted".to_vec(),
        fingerprint: Some(b"same".to_vec()),
        idempotency_key: None,
        context: Context::default(),
        expires_ms,
    }
}

/// Five tasks: completed, failed and re-driven, repeated, given up, out of time.
async fn whole_life(link: &Link, keys: &Keys, count: PartitionCount, partition: Partition) {
    let lane = Lane::new("acting", "v1");
    let of_partition = || loop {
        let task = TaskId::new();
        if count.of_task(task) == partition {
            return task;
        }
    };
    let tasks: Vec<TaskId> = (0..4).map(|_| of_partition()).collect();
    let late = of_partition();
    let submits: Vec<Submit> = tasks.iter().map(|task| submit(*task, &lane, None)).collect();
    let key = format!("{partition}-key");
    let mut submits = submits;
    submits[0].idempotency_key = Some(keys.idempotency(partition, &key));
    submits.push(submit(late, &lane, Some(1)));
    let accepted = script::submit(link, keys, partition, &submits, 0).await.unwrap();
    assert!(accepted.iter().all(|it| matches!(it, Submission::Accepted { .. })), "{accepted:?}");
    let again = script::submit(link, keys, partition, &submits[..1], 0).await.unwrap();
    assert_eq!(again, [Submission::Known { task: tasks[0] }]);

    script::create_group(link, keys, partition, &lane).await.unwrap();
    let mut reader = BlockingReader::new(link, &keys.lanes(partition));
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(lane.group()).arg("w").arg("COUNT").arg(9).arg("BLOCK").arg(1_000).arg("STREAMS");
    read.arg(keys.lane(partition, &lane)).arg(">");
    let reply = reader.read(&read, LEASE).await.unwrap();
    let reply: redis::streams::StreamReadReply = redis::from_redis_value(reply).unwrap();
    let tokens: Vec<String> = reply.keys[0].ids.iter().map(|entry| entry.id.clone()).collect();
    let starts: Vec<Start> = tasks
        .iter()
        .chain([&late])
        .zip(&tokens)
        .map(|(task, token)| Start { token: token.clone(), task: *task, event: b"processing".to_vec() })
        .collect();
    let started = script::start(link, keys, partition, &lane, "w", &starts).await.unwrap();
    assert!(started[..4].iter().all(|it| matches!(it, Started::Ours { .. })), "{started:?}");
    assert_eq!(started[4], Started::Expired);
    assert_eq!(deadline::end(link, keys, partition, &[late], "w").await.unwrap(), 1);

    let held: Vec<(TaskId, String)> = tasks.iter().copied().zip(tokens.iter().cloned()).collect();
    assert_eq!(script::beat(link, keys, partition, &lane, "w", &held).await.unwrap(), [true; 4]);
    let end = |index: usize, event_type: &'static str| Finish {
        token: tokens[index].clone(),
        task: tasks[index],
        event_type,
        event: event_type.as_bytes().to_vec(),
        dead_letter: (event_type == "failed").then(|| b"dead_lettered".to_vec()),
    };
    let ends = [end(0, "completed"), end(1, "failed")];
    assert_eq!(script::finish(link, keys, partition, &lane, 5, &ends).await.unwrap(), [Held::Done; 2]);
    let shadow = Shadow { task: tasks[0], version: "v2".to_owned(), event: b"shadowed".to_vec() };
    assert_eq!(script::shadow(link, keys, partition, &[shadow]).await.unwrap(), [Noted::Done]);

    let new = TaskId::derived(b"again", partition, count);
    let redrive = Redrive {
        old: tasks[1],
        old_first: 2,
        redriven: b"redriven".to_vec(),
        new,
        submitted: b"submitted".to_vec(),
        lane: lane.clone(),
        context: Context::default(),
    };
    let redriven = script::redrive(link, keys, partition, &redrive).await.unwrap();
    assert!(matches!(redriven, Submission::Accepted { .. }), "{redriven:?}");
    let purge = |task, event: &[u8]| Purge { task, first: 2, event: event.to_vec() };
    let purged = script::purge(link, keys, partition, &[purge(tasks[1], b"purged")]).await.unwrap();
    assert_eq!(purged, [false], "the re-drive took it off");

    let retry = Retry {
        token: tokens[2].clone(),
        task: tasks[2],
        event: b"retry_scheduled".to_vec(),
        next_attempt: 2,
        due_ms: 10,
    };
    assert_eq!(script::retry(link, keys, partition, &lane, &[retry]).await.unwrap(), [Held::Done]);
    assert_eq!(script::move_due(link, keys, partition, 11, &[(tasks[2], lane.clone())]).await.unwrap(), 1);
    let gone = script::cancel(link, keys, partition, &lane, tasks[2], b"cancelled").await.unwrap();
    assert_eq!(gone, Cancellation::Done);

    let reap = Reap {
        token: tokens[3].clone(),
        task: tasks[3],
        expected_state: "P",
        min_idle_ms: 0,
        takeover: Takeover::Fail { event: b"failed".to_vec(), dead_letter: b"dead_lettered".to_vec() },
    };
    assert_eq!(script::reap(link, keys, partition, &lane, 7, &reap).await.unwrap(), Reaped::Done);
    assert!(script::view(link, keys, partition, tasks[3]).await.unwrap().is_some());
    for (event, purged) in [(&b"purged"[..], true), (b"purged", true), (b"by another", false)] {
        let letter = purge(tasks[3], event);
        assert_eq!(script::purge(link, keys, partition, &[letter]).await.unwrap(), [purged], "{event:?}");
    }
    let silent = script::silent(link, keys, partition, &lane, 0, "-", 10).await.unwrap();
    assert_eq!((silent.tokens, silent.next), (Vec::new(), None), "every entry that was delivered has ended");
    comes_back(link, keys, &lane, new, partition).await;
    let stands = standing::standing(link, keys, partition, new).await.unwrap().unwrap();
    assert!(standing::ahead(link, keys, partition, &lane, &stands.line, &stands.token).await.unwrap().is_some());
    standing::recent_endings(link, keys, partition).await.unwrap();

    let batch = uuid::Uuid::new_v4();
    script::close_batch(link, keys, partition, batch, b"batch_received", 1, 0).await.unwrap();
    script::prune(link, keys, partition, &lane, 3_600_000).await.unwrap();
    assert!(script::duty(link, &keys.lease(partition, "reap"), "w", 1_000).await.unwrap());

    let last = journal::last_number(link, keys, partition).await.unwrap();
    let (entries, end) = journal::run(link, keys, partition, 1, 1_000, 1 << 20).await.unwrap();
    assert!(end && entries.len() as u64 == last, "{last} events, {} read", entries.len());
    assert!(trim::move_mark(link, keys, partition, None, last).await.unwrap());
    let open = [(new, 9)];
    let trimmed = trim::trim(link, keys, partition, &Trim { upto: 2, folded: last, keep: 1, open: &open }).await;
    assert!(matches!(trimmed.unwrap(), Trimmed::Done(2)));
}

/// A waiting task loses the name of its lane, its lane entry, and then its record.
async fn comes_back(link: &Link, keys: &Keys, lane: &Lane, task: TaskId, partition: Partition) {
    let view = script::view(link, keys, partition, task).await.unwrap().unwrap();
    let first = Position { partition, n: view.first };
    let del = |key: String| redis::cmd("DEL").arg(key).to_owned();
    let _: i64 = link.query(&del(keys.lanes(partition))).await.unwrap();
    assert_eq!(restore::announce(link, keys, partition, &[lane]).await.unwrap(), 1);
    let _: i64 = link.query(&del(keys.lane(partition, lane))).await.unwrap();
    let Found::Misplaced(misplaced) = restore::look(link, keys, first, task).await.unwrap() else { panic!("it is") };
    assert_eq!(restore::replace(link, keys, partition, task, &misplaced, 5).await.unwrap(), Restored::Done);
    assert_eq!(restore::replace(link, keys, partition, task, &misplaced, 5).await.unwrap(), Restored::Changed);
    assert_eq!(restore::look(link, keys, first, task).await.unwrap(), Found::Fine { lane: Some(lane.clone()) });

    let _: i64 = link.query(&del(keys.record(partition, task))).await.unwrap();
    assert_eq!(restore::look(link, keys, first, task).await.unwrap(), Found::Gone);
    let submitted = Event {
        position: first,
        task,
        first,
        meta: Meta { at_us: 5, tenant: "default".to_owned(), actor: "api".to_owned(), attempt: 0, trace: None },
        change: Change::Submitted(Submitted {
            task_type: lane.task_type.clone(),
            model_version: lane.model_version.clone(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        }),
    };
    assert_eq!(restore::restore(link, keys, lane, &submitted, &submitted).await.unwrap(), Restored::Done);
    assert_eq!(restore::restore(link, keys, lane, &submitted, &submitted).await.unwrap(), Restored::Changed);
    script::create_group(link, keys, partition, lane).await.unwrap();
}

async fn what_belongs_to_no_task(link: &Link, keys: &Keys) {
    let card = ModelCard { task_type: "acting".to_owned(), version: "v1".to_owned(), ..ModelCard::default() };
    catalogue::announce_models(link, keys, &[card]).await.unwrap();
    assert_eq!(catalogue::models(link, keys).await.unwrap().len(), 1);
    let worker = Worker {
        name: "w".to_owned(),
        lanes: vec!["acting:v1".to_owned()],
        in_flight: 0,
        started_ms: 0,
        last_read_ms: 0,
        seen_ms: insightforge_schema::event::now_us() / 1_000,
        infer_addr: None,
        limits: None,
    };
    catalogue::report(link, keys, &worker).await.unwrap();
    assert_eq!(catalogue::workers(link, keys).await.unwrap().len(), 1);
    catalogue::sign_off(link, keys, "w").await.unwrap();
    let mut registry = Registry::new(link.clone(), keys.clone());
    let command = Command::Register(Registered {
        task_type: "acting".to_owned(),
        version: "v1".to_owned(),
        digest: "d".to_owned(),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        folder: "built-in".to_owned(),
        worker: "w".to_owned(),
    });
    assert!(matches!(registry.write(&command, "a", None).await.unwrap(), Written::Events(_)));
}

/// Whoever takes one for the other is told which it is.
async fn mistaken_addresses(cluster: &RedisCluster) {
    let words = async |url: &str| -> String {
        let link = Link::new(url, Duration::from_secs(5)).unwrap();
        // One of them is another master's.
        for key in ["a", "b", "c", "d", "e", "f"] {
            match link.query::<Option<String>>(redis::cmd("GET").arg(key)).await {
                Err(LinkError::Refused(words)) => return words,
                other => drop(other.unwrap()),
            }
        }
        String::new()
    };
    let one = words(&format!("redis://127.0.0.1:{}", cluster.nodes[0].port)).await;
    assert!(one.contains("is a node of a Redis Cluster"), "{one}");
    let single = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
    let all = words(&single.replace("redis://", "redis+cluster://")).await;
    assert!(all.contains("is no node of a Redis Cluster"), "{all}");
}
