//! Packages in an object store, mirrored step by step.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

#[path = "../../tests/shared/bucket.rs"]
mod bucket;
mod common;

use std::path::Path;

use bucket::Bucket;
use common::write_package;
use insightforge_inference::Package;
use insightforge_inference::store::{Mirror, Pulled};
use object_store::ObjectStoreExt;
use url::Url;

fn mirror(remote: &Path, local: &Path, most_bytes: u64) -> Mirror {
    Mirror::open(&Url::from_directory_path(remote).unwrap(), [], local.to_owned(), most_bytes).unwrap()
}

fn named(version: &str) -> (String, String) {
    ("echo".to_owned(), version.to_owned())
}

#[tokio::test]
async fn packages_come_change_and_go_with_the_object_store() {
    let (remote, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mirror = mirror(remote.path(), local.path(), 1 << 20);
    let (task_type, version) = named("v1");
    assert_eq!(mirror.pull().await.unwrap(), []);

    let folder = write_package(remote.path(), "echo", "v1", "one", ("", ""));
    assert_eq!(mirror.pull().await.unwrap(), [Pulled::Fetched { task_type, version }]);
    let here = local.path().join("echo/v1");
    assert_eq!(Package::read(&here).unwrap().digest, Package::read(&folder).unwrap().digest);
    assert_eq!(mirror.pull().await.unwrap(), []);

    write_package(remote.path(), "echo", "v1", "another", ("", ""));
    assert!(matches!(mirror.pull().await.unwrap()[..], [Pulled::Fetched { .. }]));
    assert_eq!(Package::read(&here).unwrap().file("salt.txt").unwrap().as_ref(), b"another");

    std::fs::remove_dir_all(&folder).unwrap();
    assert!(matches!(mirror.pull().await.unwrap()[..], [Pulled::Removed { .. }]));
    assert!(!here.exists());
    assert_eq!(std::fs::read_dir(local.path()).unwrap().filter(|it| it.as_ref().unwrap().path().is_file()).count(), 0);
}

#[tokio::test]
async fn a_package_that_is_not_whole_or_too_large_leaves_the_old_one_in_place() {
    let (remote, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut mirror = mirror(remote.path(), local.path(), 5_000);
    write_package(remote.path(), "echo", "v1", "one", ("", ""));
    mirror.pull().await.unwrap();
    let old = Package::read(&local.path().join("echo/v1")).unwrap().digest;
    let refused = |pulled: Vec<Pulled>, named: &str| {
        let [Pulled::Refused { reason, .. }] = &pulled[..] else { panic!("{named}: {pulled:?}") };
        assert!(reason.contains(named), "{reason}");
        assert_eq!(Package::read(&local.path().join("echo/v1")).unwrap().digest, old);
    };

    let folder = write_package(remote.path(), "echo", "v1", "another", ("", ""));
    std::fs::write(folder.join("salt.txt"), "anoth").unwrap();
    refused(mirror.pull().await.unwrap(), "SHA-256");
    std::fs::remove_file(folder.join("salt.txt")).unwrap();
    refused(mirror.pull().await.unwrap(), "salt.txt is not there");
    write_package(remote.path(), "echo", "v1", &"a".repeat(5_000), ("", ""));
    refused(mirror.pull().await.unwrap(), "5000 bytes");
    std::fs::write(folder.join("model.toml"), "format = 1").unwrap();
    refused(mirror.pull().await.unwrap(), "task_type");

    write_package(remote.path(), "echo", "v1", "another", ("", ""));
    assert!(matches!(mirror.pull().await.unwrap()[..], [Pulled::Fetched { .. }]));
}

#[tokio::test]
async fn a_package_that_cannot_be_had_keeps_no_other_away_and_is_told_once() {
    let (remote, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // The names of its files cannot both be, and one is too long for any file system.
    let folder = write_package(remote.path(), "echo", "a", "one", ("", ""));
    let text = std::fs::read_to_string(folder.join("model.toml")).unwrap();
    let hash = "0".repeat(64);
    let odd = format!("[files]\n\"{}\" = \"{hash}\"\n\"salt.txt/below\" = \"{hash}\"\n", "n".repeat(300));
    std::fs::write(folder.join("model.toml"), text.replace("[files]", &odd)).unwrap();
    let wrong = write_package(remote.path(), "echo", "b", "one", ("", ""));
    std::fs::write(wrong.join("salt.txt"), "two").unwrap();
    write_package(remote.path(), "echo", "c", "one", ("", ""));
    std::fs::create_dir(local.path().join("echo")).unwrap();
    std::fs::write(local.path().join("echo/.DS_Store"), "").unwrap();

    let mut mirror = mirror(remote.path(), local.path(), 1 << 20);
    let pulled = mirror.pull().await.unwrap();
    assert!(
        matches!(&pulled[..], [Pulled::Refused { .. }, Pulled::Refused { .. }, Pulled::Fetched { version, .. }] if version == "c"),
        "{pulled:?}"
    );
    assert_eq!(mirror.pull().await.unwrap(), [], "neither is fetched again as it is");
    std::fs::write(wrong.join("salt.txt"), "one").unwrap();
    assert!(matches!(&mirror.pull().await.unwrap()[..], [Pulled::Fetched { version, .. }] if version == "b"));
}

#[tokio::test]
async fn what_is_here_already_is_not_fetched_again_after_a_restart_unless_it_is_damaged() {
    let (remote, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_package(remote.path(), "echo", "v1", "one", ("", ""));
    mirror(remote.path(), local.path(), 1 << 20).pull().await.unwrap();
    std::fs::create_dir(local.path().join(".pull-rest")).unwrap();
    assert_eq!(mirror(remote.path(), local.path(), 1 << 20).pull().await.unwrap(), []);
    assert!(!local.path().join(".pull-rest").exists());
    std::fs::write(local.path().join("echo/v1/salt.txt"), "damaged").unwrap();
    assert_eq!(mirror(remote.path(), local.path(), 1 << 20).pull().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_object_store_that_cannot_be_reached_takes_nothing_away() {
    // The program does this at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (remote, local) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_package(remote.path(), "echo", "v1", "one", ("", ""));
    mirror(remote.path(), local.path(), 1 << 20).pull().await.unwrap();
    let nowhere = Url::parse("http://127.0.0.1:9/models/").unwrap();
    let options = [("allow_http".to_owned(), "true".to_owned()), ("timeout".to_owned(), "1 second".to_owned())];
    let mut mirror = Mirror::open(&nowhere, options, local.path().to_owned(), 1 << 20).unwrap();
    assert!(mirror.pull().await.is_err());
    assert!(Package::read(&local.path().join("echo/v1")).is_ok());
}

/// Puts every file of a package's folder into a bucket, as an operator would.
async fn upload(bucket: &Bucket, folder: &Path, to: &str) {
    for file in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{to}/{}", file.file_name().to_str().unwrap());
        bucket.objects().put(&name.into(), std::fs::read(file.path()).unwrap().into()).await.unwrap();
    }
}

#[tokio::test]
async fn packages_are_fetched_from_a_bucket() {
    let (bucket, here, local) = (Bucket::serve(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = Url::parse(&bucket.url("models")).unwrap();
    let mut mirror = Mirror::open(&url, bucket.options(), local.path().to_owned(), 1 << 20).unwrap();
    assert_eq!(mirror.pull().await.unwrap(), []);

    let folder = write_package(here.path(), "echo", "v1", "one", ("", ""));
    upload(&bucket, &folder, "models/echo/v1").await;
    let (task_type, version) = named("v1");
    assert_eq!(mirror.pull().await.unwrap(), [Pulled::Fetched { task_type, version }]);
    let fetched = local.path().join("echo/v1");
    assert_eq!(Package::read(&fetched).unwrap().digest, Package::read(&folder).unwrap().digest);
    let folder = write_package(here.path(), "echo", "v1", "another", ("", ""));
    upload(&bucket, &folder, "models/echo/v1").await;
    assert!(matches!(mirror.pull().await.unwrap()[..], [Pulled::Fetched { .. }]));
    for file in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let name = format!("models/echo/v1/{}", file.file_name().to_str().unwrap());
        bucket.objects().delete(&name.into()).await.unwrap();
    }
    assert!(matches!(mirror.pull().await.unwrap()[..], [Pulled::Removed { .. }]));
}
