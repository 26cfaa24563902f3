//! Roles are told to stop, or killed, under load; two projectors work at once; nothing is lost and nothing is done twice.

use uuid::Uuid;

use crate::installation::{Database, Installation, ROLES};
use crate::process::Signal;

const TASKS: usize = 240;

/// Uploads while every role is ended and started again in turn; the accepted tasks.
async fn load_while_every_role_ends(installation: &mut Installation, signal: Signal) -> Vec<Uuid> {
    let caller = installation.caller();
    let load = tokio::spawn(async move { caller.upload_many(TASKS, 8).await });
    for role in ROLES {
        let before = installation.count("analysis_tasks").await;
        crate::eventually("the load goes on", async || {
            (load.is_finished() || installation.count("analysis_tasks").await > before).then_some(())
        })
        .await;
        installation.stop(role, signal).await;
        installation.start(role).await;
    }
    load.await.unwrap()
}

#[tokio::test]
async fn every_role_told_to_stop_under_load_ends_in_time_and_nothing_is_lost() {
    let mut installation = Installation::running(Database::MariaDb).await;
    let tasks = load_while_every_role_ends(&mut installation, Signal::Terminate).await;
    installation.every_task_completed_once(&tasks).await;
    let repeated = installation.receiver.counts().into_iter().filter(|(_, count)| *count > 1).count();
    assert_eq!(repeated, 0, "a projector that stops records what it delivered");
    installation.run(&["verify"]).await;
    installation.end().await;
}

#[tokio::test]
async fn every_role_killed_under_load_loses_nothing() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    // The silent holder's tasks are taken over after this time.
    installation.settings.push(("INSIGHTFORGE_LEASE_MS", "3000".to_owned()));
    for role in ROLES {
        installation.start(role).await;
    }
    let tasks = load_while_every_role_ends(&mut installation, Signal::Kill).await;
    // Delivery is at least once here: a killed sender cannot say what it had sent.
    installation.every_task_completed_once(&tasks).await;
    installation.run(&["verify"]).await;
    installation.end().await;
}

#[tokio::test]
async fn two_of_every_role_do_each_task_once() {
    let mut installation = Installation::running(Database::MariaDb).await;
    for role in ["analyzer", "projector"] {
        installation.start(role).await;
    }
    let tasks = installation.caller().upload_many(TASKS, 8).await;
    installation.every_task_completed_once(&tasks).await;
    assert!(installation.receiver.counts().values().all(|count| *count == 1), "a webhook was sent twice");
    installation.run(&["verify"]).await;
    installation.end().await;
}
