//! Followers that take little or nothing: they lose nothing, and keep nothing from others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use insightforge_schema::id::Partition;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::served::{Client, Got, LONG, Served, assert_gapless, narrow};
use crate::stage::{Asked, Stage};

/// Followers that read the past at the same time.
const READING: usize = 32;

async fn stage() -> Stage {
    Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await
}

/// Submits tasks with documents of which few fit into the buffers of a connection, all in one partition.
async fn submit_large(stage: &Stage, count: usize, bytes: usize) {
    let document = format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
    for _ in 0..count {
        let task = Asked::new("acting", &document).placed(Partition(1), stage.journal.partitions);
        stage.journal.submit(&task).await;
    }
}

/// Waits until so many were cut off.
async fn until_cut(stage: &Stage, count: u64) {
    let began = Instant::now();
    while stage.app.followers_cut() < count {
        assert!(began.elapsed() < LONG, "they are cut off");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nobody follows any more.
async fn until_alone(stage: &Stage) {
    let began = Instant::now();
    while stage.app.followers() > 0 {
        assert!(began.elapsed() < LONG, "their places are free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One who comes new is told the past of one task.
async fn tell_a_newcomer(stage: &Stage, served: &Served) {
    let task = Asked::new("acting", r#"{"text":"a"}"#);
    stage.journal.submit(&task).await;
    let mut client = Client::new(served).await;
    let (past, _) = client.follow(&json!({ "task": task.task }), Some("0")).await;
    assert_eq!((past.len(), &past[0]["type"]), (1, &json!("submitted")));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_with_a_cursor_from_which_nothing_is_missing() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let mut client = Client::new(&served).await;
    client.follow(&json!("all"), None).await;
    // More than the buffers of the kernel and of both ends take.
    let count = 60;
    submit_large(&stage, count, 500_000).await;
    // It does not read until it has been cut off; the connection then holds what was on its way, and the reason.
    until_cut(&stage, 1).await;
    let mut events = Vec::new();
    let reason = loop {
        match client.next().await {
            Got::Message(event) => events.push(event),
            Got::Closed(code, reason) => break (code, reason),
            Got::Broken => panic!("it is told why"),
        }
    };
    assert!(events.len() < count, "it got {} of {count}", events.len());
    let cursor = reason.1.strip_prefix("resume after ").unwrap_or_else(|| panic!("{reason:?}")).to_owned();
    assert_eq!(reason.0, 1013);
    let mut again = Client::new(&served).await;
    events.extend(again.follow(&json!("all"), Some(&cursor)).await.0);
    assert_eq!(events.len(), count);
    assert_gapless(&events);
    drop((client, again));
    until_alone(&stage).await;
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn many_who_read_the_past_slowly_do_not_keep_others_from_it() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let (count, slow) = (40, READING + 1);
    submit_large(&stage, count, 300_000).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let mut followers = JoinSet::new();
    for _ in 0..slow {
        let mut client = Client::narrow(&served).await;
        client.say(&json!({ "subscribe": "all", "after": "0" })).await;
        let taken = taken.clone();
        followers.spawn(async move {
            for _ in 0..count {
                client.event().await;
                taken.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
    }
    tell_a_newcomer(&stage, &served).await;
    assert_eq!(stage.app.followers_cut(), 0, "before anybody was found to be too slow");
    // Without turns the first would have been told everything by then; buffers hold less than half of it.
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < slow * count / 2, "the slow ones are at it still: {taken}");
    followers.shutdown().await;
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn those_who_take_nothing_of_the_past_do_not_keep_others_from_it() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    submit_large(&stage, 30, 300_000).await;
    let mut followers = Vec::new();
    for _ in 0..READING {
        let mut client = Client::narrow(&served).await;
        client.say(&json!({ "subscribe": "all", "after": "0" })).await;
        followers.push(client);
    }
    tell_a_newcomer(&stage, &served).await;
    assert_eq!(stage.app.followers_cut(), 0, "before anybody was found to be too slow");
    drop(followers);
    until_alone(&stage).await;
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_stream_that_is_not_taken_keeps_its_place_until_its_connection_ends() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    submit_large(&stage, 20, 500_000).await;
    let mut connection = narrow(&served).await;
    let request = "GET /api/events?after=0 HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    until_cut(&stage, 1).await;
    // What was not taken is in memory still.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(stage.app.followers(), 1);
    drop(connection);
    until_alone(&stage).await;
    served.end().await;
    stage.end().await;
}
