//! The registry's stream on a real Redis: several writers at once, repeated writes, readers with a cursor.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::sync::Arc;
use std::time::Duration;

use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::registry::event::Registered;
use insightforge_schema::registry::{Change, Command, Registry, Routes, Undoes, WriteError, Written, follow, history};
use tokio::sync::watch;

const TYPE: &str = "acting";

fn stage() -> (Link, Keys) {
    let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
        .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
    let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
    (Link::new(&url, Duration::from_secs(10)).unwrap(), keys)
}

fn register(version: &str) -> Command {
    Command::Register(Registered {
        task_type: TYPE.to_owned(),
        version: version.to_owned(),
        digest: version.to_owned(),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        folder: format!("/models/{version}"),
        worker: "w".to_owned(),
    })
}

fn promote(version: &str) -> Command {
    Command::Promote { task_type: TYPE.to_owned(), version: version.to_owned() }
}

#[tokio::test]
async fn what_one_writes_another_reads_with_actor_and_reason() {
    let (link, keys) = stage();
    let (mut one, mut other) = (Registry::new(link.clone(), keys.clone()), Registry::new(link.clone(), keys.clone()));
    for version in ["v1", "v2"] {
        one.write(&register(version), "analyzer/w", None).await.unwrap();
    }
    assert_eq!(other.refresh().await.unwrap(), 2);
    other.write(&promote("v2"), "cli/ann", Some("better")).await.unwrap();
    assert_eq!(other.write(&promote("v2"), "cli/ann", None).await.unwrap(), Written::Unchanged);
    let refused = other.write(&promote("v9"), "cli/ann", None).await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    assert_eq!(one.refresh().await.unwrap(), 1);
    assert_eq!(one.routes(), other.routes());
    let all = history(&link, &keys, 1, 10).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((all[2].meta.actor.as_str(), all[2].meta.reason.as_deref()), ("cli/ann", Some("better")));
}

#[tokio::test]
async fn of_operators_at_once_each_decides_on_what_the_others_did() {
    let (link, keys) = stage();
    let mut setup = Registry::new(link.clone(), keys.clone());
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        setup.write(&register(version), "analyzer/w", None).await.unwrap();
    }
    let operators = ["v2", "v3", "v4", "v5"].map(|version| {
        let (link, keys) = (link.sibling(), keys.clone());
        tokio::spawn(async move {
            Registry::new(link, keys).write(&promote(version), "cli", None).await.unwrap();
        })
    });
    for operator in operators {
        operator.await.unwrap();
    }
    let mut before = Some("v1".to_owned());
    let promotions: Vec<_> = history(&link, &keys, 6, 100).await.unwrap();
    assert_eq!(promotions.len(), 4);
    for entry in promotions {
        let Change::Promoted(promoted) = entry.change else { panic!("{entry:?}") };
        assert_eq!(promoted.from, before, "each saw the stable version of its moment");
        before = Some(promoted.version);
    }
}

#[tokio::test]
async fn of_operators_who_roll_back_at_once_one_does_and_the_others_find_it_done() {
    let (link, keys) = stage();
    let mut setup = Registry::new(link.clone(), keys.clone());
    for version in ["v1", "v2", "v3"] {
        setup.write(&register(version), "analyzer/w", None).await.unwrap();
        setup.write(&promote(version), "cli", None).await.unwrap();
    }
    let named = Undoes::Version("v3".to_owned());
    let operators = [(); 4].map(|()| {
        let (link, keys, undoes) = (link.sibling(), keys.clone(), named.clone());
        tokio::spawn(async move {
            let command = Command::Rollback { task_type: TYPE.to_owned(), undoes };
            Registry::new(link, keys).write(&command, "cli", None).await.unwrap()
        })
    });
    let mut events = 0;
    for operator in operators {
        events += usize::from(matches!(operator.await.unwrap(), Written::Events(_)));
    }
    setup.refresh().await.unwrap();
    assert_eq!((events, setup.routes().targets(TYPE, "stable")), (1, vec!["v2"]));
}

#[tokio::test]
async fn a_reader_notices_that_redis_came_back_with_less_or_with_another_history() {
    let (link, keys) = stage();
    let (mut writer, mut reader) =
        (Registry::new(link.sibling(), keys.clone()), Registry::new(link.sibling(), keys.clone()));
    for version in ["v1", "v2"] {
        writer.write(&register(version), "analyzer/w", None).await.unwrap();
    }
    writer.write(&promote("v2"), "cli", None).await.unwrap();
    reader.refresh().await.unwrap();
    assert_eq!(reader.routes().targets(TYPE, "stable"), ["v2"]);
    // The promotion was never written to the disk that Redis came back with.
    let lost: u64 = link.query(redis::cmd("XDEL").arg(keys.registry()).arg("0-3")).await.unwrap();
    assert_eq!(lost, 1);
    assert!(reader.refresh().await.unwrap() > 0, "that is a change");
    assert_eq!((reader.routes().position, reader.routes().targets(TYPE, "stable")), (2, vec!["v1"]));
    assert_eq!(reader.refresh().await.unwrap(), 0);
    // Another history, as long as the one known.
    let _: u64 = link.query(redis::cmd("DEL").arg(keys.registry())).await.unwrap();
    let mut other = Registry::new(link.sibling(), keys.clone());
    for version in ["v8", "v9"] {
        other.write(&register(version), "analyzer/w", None).await.unwrap();
    }
    reader.refresh().await.unwrap();
    assert_eq!(reader.routes().targets(TYPE, "stable"), ["v8"]);
    assert_eq!(reader.routes(), other.routes());
    // Nothing at all.
    let _: u64 = link.query(redis::cmd("DEL").arg(keys.registry())).await.unwrap();
    assert!(reader.refresh().await.unwrap() > 0);
    assert_eq!(*reader.routes(), Routes::default());
}

#[tokio::test]
async fn a_write_that_is_sent_twice_is_stored_once() {
    let (link, keys) = stage();
    let script = include_str!("../scripts/register.lua");
    let send = async |known: u64, token: &str| {
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(keys.registry()).arg(known).arg(token);
        command.arg("retired").arg("x").arg("retired").arg("y");
        link.query::<i64>(&command).await.unwrap()
    };
    assert_eq!(send(0, "a").await, 1);
    assert_eq!(send(0, "a").await, 1, "the same write again");
    assert_eq!(send(0, "b").await, 0, "another one on old knowledge");
    assert_eq!(send(2, "b").await, 1);
    assert_eq!(send(0, "a").await, 1, "the same write again, late");
    assert_eq!(history(&link, &keys, 1, 10).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_follower_is_told_of_every_change_and_ends_with_its_listeners() {
    let (link, keys) = stage();
    let (sender, mut receiver) = watch::channel(Arc::new(Routes::default()));
    let reader = Registry::new(link.sibling(), keys.clone());
    let following = tokio::spawn(follow(reader, Duration::from_millis(5), sender));
    Registry::new(link, keys).write(&register("v1"), "analyzer/w", None).await.unwrap();
    let told = receiver.wait_for(|routes| routes.position == 1).await.unwrap().clone();
    assert_eq!(told.targets(TYPE, "stable"), ["v1"]);
    drop(receiver);
    following.await.unwrap();
}
