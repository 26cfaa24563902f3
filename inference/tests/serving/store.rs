//! Packages come, change, break and go while the store serves.

use std::task::Poll;

use insightforge_inference::{Change, Served, State};
use serde_json::Value;

use crate::common::{document, manifest, write_package};
use crate::echo::{soon, store};

const ROOMY: u64 = 1 << 30;

async fn salt(served: &Served) -> String {
    let answer = served.infer_one(&document("x"), soon()).await.unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["salt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_package_is_served_a_changed_one_replaced_and_a_removed_one_dropped() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], ROOMY);
    assert!(store.scan().await.is_empty());

    let folder = write_package(root.path(), "echo", "v1", "one", ("", ""));
    let changes = store.scan().await;
    assert!(matches!(&changes[..], [Change::Loaded(served)] if served.manifest().version == "v1"), "{changes:?}");
    assert!(store.scan().await.is_empty());
    let old = store.get("echo", "v1").unwrap();
    assert_eq!(salt(&old).await, "one");

    write_package(root.path(), "echo", "v1", "another", ("", ""));
    let changes = store.scan().await;
    assert!(matches!(&changes[..], [Change::Reloaded { from, .. }] if from == old.digest()), "{changes:?}");
    assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "another");
    // Who holds the old one still has it.
    assert_eq!(salt(&old).await, "one");

    std::fs::remove_dir_all(folder).unwrap();
    let changes = store.scan().await;
    assert!(matches!(&changes[..], [Change::Unloaded { task_type, .. }] if task_type == "echo"), "{changes:?}");
    assert!(store.get("echo", "v1").is_none() && store.served().is_empty());
}

#[tokio::test]
async fn a_half_written_package_is_refused_once_and_served_when_whole() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], ROOMY);
    let folder = write_package(root.path(), "echo", "v1", "whole", ("", ""));
    std::fs::write(folder.join("salt.txt"), "who").unwrap();
    let changes = store.scan().await;
    assert!(
        matches!(&changes[..], [Change::Refused { reason, .. }] if reason.contains("salt.txt") && reason.contains("SHA-256")),
        "{changes:?}"
    );
    assert!(store.scan().await.is_empty());
    std::fs::write(folder.join("salt.txt"), "whole").unwrap();
    assert!(matches!(&store.scan().await[..], [Change::Loaded(_)]));
}

#[tokio::test]
async fn a_change_that_breaks_a_package_leaves_the_running_one_alone() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], ROOMY);
    let folder = write_package(root.path(), "echo", "v1", "sound", ("", ""));
    store.scan().await;
    for (content, named) in [
        ("format = 1".to_owned(), "task_type"),
        (manifest("other", "v1", "sound", ("", "")), "other/v1"),
        (manifest("echo", "v1", "sound", ("", "")).replace("\"hello\" }", "\"bye\" }"), "expected"),
    ] {
        std::fs::write(folder.join("model.toml"), content).unwrap();
        let changes = store.scan().await;
        assert!(
            matches!(&changes[..], [Change::Refused { reason, .. }] if reason.contains(named)),
            "{named}: {changes:?}"
        );
        assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "sound");
    }
}

#[tokio::test]
async fn a_source_that_cannot_be_read_takes_nothing_away() {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    write_package(&models, "echo", "v1", "one", ("", ""));
    let store = store(vec![models.clone()], ROOMY);
    store.scan().await;
    std::fs::rename(&models, root.path().join("away")).unwrap();
    assert!(store.scan().await.is_empty());
    assert!(store.get("echo", "v1").is_some());
}

#[tokio::test]
async fn the_least_used_model_makes_room_and_comes_back_when_asked() {
    let root = tempfile::tempdir().unwrap();
    // Each needs 1,000 bytes.
    let store = store(vec![root.path().to_owned()], 2_500);
    for version in ["v1", "v2", "v3"] {
        write_package(root.path(), "echo", version, version, ("", ""));
        store.scan().await;
    }
    let state = |version| store.get("echo", version).unwrap().state();
    assert_eq!(["v1", "v2", "v3"].map(state), [State::Unloaded, State::InMemory, State::InMemory]);
    assert_eq!(salt(&store.get("echo", "v2").unwrap()).await, "v2");
    assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "v1");
    assert_eq!(["v1", "v2", "v3"].map(state), [State::InMemory, State::InMemory, State::Unloaded]);
    assert_eq!(store.resident_bytes(), 2_000);
}

#[tokio::test]
async fn another_content_never_answers_in_the_name_of_an_unloaded_version() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], 1_500);
    for (version, salt) in [("v1", "old"), ("v2", "v2")] {
        write_package(root.path(), "echo", version, salt, ("", ""));
        store.scan().await;
    }
    let old = store.get("echo", "v1").unwrap();
    assert_eq!(old.state(), State::Unloaded);
    write_package(root.path(), "echo", "v1", "new", ("", ""));
    let error = old.infer_one(&document("x"), soon()).await.unwrap_err();
    assert_eq!((error.code.as_ref(), error.permanent), ("model_unavailable", false));
    store.scan().await;
    assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "new");
}

#[tokio::test]
async fn a_model_with_a_call_in_flight_is_never_unloaded() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], 1_500);
    write_package(root.path(), "echo", "v1", "v1", ("", ""));
    store.scan().await;
    let busy = store.get("echo", "v1").unwrap();
    // A document that long is read on another thread: polled once, the call is under way and not done.
    let long = document(&"a".repeat(1 << 17));
    let mut call = Box::pin(busy.infer(vec![long], soon()));
    assert!(std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    write_package(root.path(), "echo", "v2", "v2", ("", ""));
    store.scan().await;
    let other = store.get("echo", "v2").unwrap();
    assert_eq!((busy.state(), other.state()), (State::InMemory, State::Unloaded));
    let error = other.infer_one(&document("x"), soon()).await.unwrap_err();
    assert_eq!(error.code, "model_unavailable");
    assert!(call.await.iter().all(Result::is_ok));
    assert_eq!(salt(&other).await, "v2");
    assert_eq!((busy.state(), other.state()), (State::Unloaded, State::InMemory));
}

#[tokio::test]
async fn a_model_that_needs_more_than_the_whole_budget_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], 999);
    write_package(root.path(), "echo", "v1", "v1", ("", ""));
    let changes = store.scan().await;
    assert!(matches!(&changes[..], [Change::Refused { reason, .. }] if reason.contains("1000 bytes")), "{changes:?}");
}

#[tokio::test]
async fn every_package_that_is_part_of_the_program_is_sound() {
    for package in insightforge_inference::store::built_in() {
        package.unwrap();
    }
}
