//! Packages come, change, break and go while the store serves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use insightforge_inference::{Change, InferError, Loaded, Open, OpenError, Package, Served, State};
use serde_json::{Value, json};

use crate::common::{document, manifest, write_package};
use crate::echo::{BYTES, Echoes, soon, store, store_with};

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
    let store = store(vec![root.path().to_owned()], BYTES * 5 / 2);
    for version in ["v1", "v2", "v3"] {
        write_package(root.path(), "echo", version, version, ("", ""));
        store.scan().await;
    }
    let state = |version| store.get("echo", version).unwrap().state();
    assert_eq!(["v1", "v2", "v3"].map(state), [State::Unloaded, State::InMemory, State::InMemory]);
    assert_eq!(salt(&store.get("echo", "v2").unwrap()).await, "v2");
    assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "v1");
    assert_eq!(["v1", "v2", "v3"].map(state), [State::InMemory, State::InMemory, State::Unloaded]);
    assert_eq!(store.resident_bytes(), 2 * BYTES);
}

#[tokio::test]
async fn another_content_never_answers_in_the_name_of_an_unloaded_version() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], BYTES * 3 / 2);
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
async fn what_is_read_is_what_was_verified_and_only_regular_files_are_read() {
    let root = tempfile::tempdir().unwrap();
    let folder = write_package(root.path(), "echo", "v1", "verified", ("", ""));
    let package = Package::read(&folder).unwrap();
    std::fs::write(folder.join("salt.txt"), "exchanged").unwrap();
    assert!(package.file("salt.txt").unwrap_err().to_string().contains("SHA-256"));

    let store = store(vec![root.path().to_owned()], ROOMY);
    let endless = write_package(root.path(), "echo", "v2", "endless", ("", ""));
    std::fs::remove_file(endless.join("salt.txt")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", endless.join("salt.txt")).unwrap();
    let elsewhere = root.path().join("secret.txt");
    std::fs::write(&elsewhere, "elsewhere").unwrap();
    let linked = write_package(root.path(), "echo", "v5", "elsewhere", ("", ""));
    std::fs::remove_file(linked.join("salt.txt")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, linked.join("salt.txt")).unwrap();
    let silent = write_package(root.path(), "echo", "v3", "silent", ("", ""));
    std::fs::remove_file(silent.join("salt.txt")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(silent.join("salt.txt")).status().unwrap().success());
    let long = write_package(root.path(), "echo", "v4", "long", ("", ""));
    std::fs::File::create(long.join("model.toml")).unwrap().set_len(1 << 40).unwrap();
    let changes = store.scan().await;
    for (change, named) in changes.iter().zip(["SHA-256", "link out of", "regular file", "bytes", "link out of"]) {
        assert!(matches!(change, Change::Refused { reason, .. } if reason.contains(named)), "{named}: {change:?}");
    }
    assert_eq!(changes.len(), 5);
}

#[tokio::test]
async fn long_documents_that_find_no_place_are_not_even_read_and_blank_texts_are_nobody_s_input() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], ROOMY);
    write_package(root.path(), "echo", "v1", "v1", ("", "[batch]\nmax_queue = 2"));
    store.scan().await;
    let served = store.get("echo", "v1").unwrap();
    let broken = "x".repeat(1 << 17);
    let codes = |answers: Vec<Result<String, InferError>>| -> Vec<String> {
        answers.into_iter().map(|answer| answer.unwrap_err().code.into_owned()).collect()
    };
    let answers = served.infer(vec![broken; 4], soon()).await;
    assert_eq!(codes(answers), ["bad_input", "bad_input", "overloaded", "overloaded"]);
    // Their places are free again.
    assert!(served.infer(vec![document(&"a".repeat(10_000)); 2], soon()).await.iter().all(Result::is_ok));
    let long = "a".repeat(20_001);
    let odd = ["", " \n\u{3000}", "\u{200b}\u{feff}", long.as_str()].map(document).to_vec();
    assert_eq!(codes(served.infer(odd, soon()).await), ["bad_input"; 4]);
}

#[tokio::test]
async fn a_model_with_a_call_in_flight_is_never_unloaded() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], BYTES * 3 / 2);
    write_package(root.path(), "echo", "v1", "v1", ("", ""));
    store.scan().await;
    let busy = store.get("echo", "v1").unwrap();
    // A document that long is read on another thread: polled once, the call is under way and not done.
    let long = json!({"text": "x", "more": "a".repeat(1 << 17)}).to_string();
    let mut call = Box::pin(busy.infer(vec![long.clone()], soon()));
    assert!(std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    write_package(root.path(), "echo", "v2", "v2", ("", ""));
    // It is not even opened before there is room for it.
    assert!(store.scan_within(Duration::from_millis(300)).await.is_empty());
    assert!(busy.state() == State::InMemory && store.get("echo", "v2").is_none());
    assert!(call.await.iter().all(Result::is_ok));
    while store.get("echo", "v2").is_none() {
        store.scan_within(Duration::from_millis(10)).await;
    }
    let other = store.get("echo", "v2").unwrap();
    assert_eq!((busy.state(), other.state()), (State::Unloaded, State::InMemory));

    let mut call = Box::pin(other.infer(vec![long], soon()));
    assert!(std::future::poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_pending())).await);
    let error = busy.infer_one(&document("x"), soon()).await.unwrap_err();
    assert_eq!((error.code.as_ref(), error.permanent), ("overloaded", false));
    assert!(call.await.iter().all(Result::is_ok));
    assert_eq!(salt(&busy).await, "v1");
}

#[tokio::test]
async fn a_model_that_needs_more_than_the_whole_budget_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], BYTES - 1);
    write_package(root.path(), "echo", "v1", "v1", ("", ""));
    let changes = store.scan().await;
    let needed = format!("{BYTES} bytes");
    assert!(matches!(&changes[..], [Change::Refused { reason, .. }] if reason.contains(&needed)), "{changes:?}");
}

/// Opens as [`Echoes`] do, while the gate is open.
#[derive(Default)]
struct Gated {
    closed: Mutex<bool>,
    opened: Condvar,
    opens: AtomicUsize,
}

impl Gated {
    fn set(&self, closed: bool) {
        *self.closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }
}

impl Open for Gated {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.closed.lock().unwrap(), |closed| *closed).unwrap());
        Echoes.open(package)
    }
}

#[tokio::test]
async fn a_model_on_its_way_back_is_loaded_once_for_all_whoever_gives_up_and_keeps_its_memory_meanwhile() {
    let root = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gated::default());
    let store = store_with(vec![root.path().to_owned()], BYTES * 3 / 2, gate.clone());
    for version in ["v1", "v2"] {
        write_package(root.path(), "echo", version, version, ("", ""));
        store.scan().await;
    }
    let (away, here) = (store.get("echo", "v1").unwrap(), store.get("echo", "v2").unwrap());
    assert_eq!((away.state(), here.state()), (State::Unloaded, State::InMemory));

    gate.set(true);
    for _ in 0..3 {
        let impatient = away.infer_one(&document("x"), Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(impatient.unwrap_err().code, "timeout");
    }
    // The bytes are promised already.
    let error = here.infer_one(&document("x"), soon()).await.unwrap_err();
    assert_eq!((error.code.as_ref(), error.permanent), ("overloaded", false));
    let patient = tokio::spawn({
        let away = away.clone();
        async move { salt(&away).await }
    });
    gate.set(false);
    assert_eq!(patient.await.unwrap(), "v1");
    assert_eq!(gate.opens.load(Ordering::SeqCst), 3, "each at its scan, and one coming back");
    assert_eq!(salt(&here).await, "v2");
}

#[tokio::test]
async fn a_package_that_hangs_while_it_is_opened_keeps_none_from_coming_and_going() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], ROOMY);
    for version in ["a1", "a2", "a3", "a4"] {
        write_package(root.path(), "echo", version, "hang", ("", ""));
    }
    assert!(store.scan_within(Duration::from_millis(50)).await.is_empty());
    // All places to open in are taken; each is given back after its turn.
    let sound = write_package(root.path(), "echo", "v1", "v1", ("", ""));
    let begun = Instant::now();
    while store.get("echo", "v1").is_none() {
        store.scan_within(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(salt(&store.get("echo", "v1").unwrap()).await, "v1");
    std::fs::remove_dir_all(sound).unwrap();
    let changes = store.scan_within(Duration::from_millis(50)).await;
    assert!(matches!(&changes[..], [Change::Unloaded { .. }]), "{changes:?}");
    // Its files change: it is served then.
    write_package(root.path(), "echo", "a1", "hang no more", ("", ""));
    assert!(matches!(&store.scan().await[..], [Change::Loaded(_)]));
}

#[tokio::test]
async fn a_version_whose_folder_is_broken_stays_in_memory_and_the_refusal_ends_with_its_cause() {
    let root = tempfile::tempdir().unwrap();
    let store = store(vec![root.path().to_owned()], BYTES * 3 / 2);
    let folder = write_package(root.path(), "echo", "v1", "v1", ("", ""));
    store.scan().await;
    let sound = std::fs::read(folder.join("model.toml")).unwrap();
    let written = std::fs::metadata(folder.join("model.toml")).unwrap().modified().unwrap();
    let put = |content: &[u8]| {
        std::fs::write(folder.join("model.toml"), content).unwrap();
        let file = std::fs::File::options().append(true).open(folder.join("model.toml")).unwrap();
        file.set_modified(written).unwrap();
    };
    put(b"format = 1");
    assert!(matches!(&store.scan().await[..], [Change::Refused { .. }]));
    write_package(root.path(), "echo", "v2", "v2", ("", ""));
    store.scan_within(Duration::from_millis(300)).await;
    let running = store.get("echo", "v1").unwrap();
    assert_eq!(running.state(), State::InMemory);
    assert_eq!(salt(&running).await, "v1");
    assert_eq!(store.refused().await, [("echo".to_owned(), "v1".to_owned())]);

    put(&sound);
    let mut changes = Vec::new();
    while store.get("echo", "v2").is_none() {
        changes.extend(store.scan_within(Duration::from_millis(50)).await);
    }
    assert!(matches!(&changes[..], [Change::Withdrawn { .. }, Change::Loaded(_)]), "{changes:?}");
    assert!(store.refused().await.is_empty());
    assert_eq!(running.state(), State::Unloaded);

    let broken = write_package(root.path(), "echo", "v3", "v3", ("", ""));
    std::fs::write(broken.join("salt.txt"), "other").unwrap();
    assert!(matches!(&store.scan().await[..], [Change::Refused { .. }]));
    std::fs::remove_dir_all(broken).unwrap();
    let changes = store.scan().await;
    assert!(matches!(&changes[..], [Change::Withdrawn { version, .. }] if version == "v3"), "{changes:?}");
}

#[tokio::test]
async fn every_package_that_is_part_of_the_program_is_sound() {
    for package in insightforge_inference::store::built_in() {
        package.unwrap();
    }
}
