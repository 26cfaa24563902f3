//! The journal as a feed: complete, in order, and at once.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use insightforge_schema::id::Position;
use serde_json::{Value, json};

use crate::stage::{Asked, Stage};

async fn stage() -> Stage {
    Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await
}

fn asked() -> Asked {
    Asked::new("sentiment_analysis", "{}")
}

fn positions(feed: &Value) -> Vec<Position> {
    feed["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["position"].as_str().unwrap().parse().unwrap())
        .collect()
}

/// Reads from `after` until there is no more at once; the cursor it ends at.
async fn read_all(stage: &Stage, filter: &str, after: &str) -> (Vec<Value>, String) {
    let (mut events, mut after) = (Vec::new(), after.to_owned());
    loop {
        let feed = stage.read(&format!("/api/events?after={after}&{filter}")).await;
        events.extend(feed["events"].as_array().unwrap().clone());
        feed["next"].as_str().unwrap().clone_into(&mut after);
        if feed["more"] == false {
            return (events, after);
        }
    }
}

#[tokio::test]
async fn a_reader_gets_every_event_once_in_order_whatever_its_page() {
    let stage = stage().await;
    let tasks: Vec<Asked> = (0..80).map(|_| asked()).collect();
    stage.journal.submit_all(&tasks).await;
    for task in &tasks[..20] {
        stage.journal.complete(task, "{}").await;
    }
    for limit in [1, 7, 20, 1_000] {
        let (events, _) = read_all(&stage, &format!("limit={limit}"), "0").await;
        let positions = positions(&json!({ "events": events }));
        let mut last: HashMap<u16, u64> = HashMap::new();
        for position in &positions {
            let before = last.insert(position.partition.0, position.n).unwrap_or(0);
            assert_eq!(position.n, before + 1, "no gap and no repetition within a partition");
        }
        assert_eq!(positions.len(), 120, "limit={limit}");
    }
    let (events, _) = read_all(&stage, "limit=1000", "0").await;
    let times: Vec<_> = events
        .iter()
        .map(|event| chrono::DateTime::parse_from_rfc3339(event["at"].as_str().unwrap()).unwrap())
        .collect();
    assert!(times.is_sorted(), "partitions are merged by time");
    stage.end().await;
}

#[tokio::test]
async fn filters_give_what_they_say_and_move_on_past_the_rest() {
    let stage = stage().await;
    let tasks: Vec<Asked> = (0..200).map(|_| asked()).collect();
    stage.journal.submit_all(&tasks).await;
    stage.journal.complete(&tasks[3], r#"{"score":1}"#).await;
    let (completed, next) = read_all(&stage, "type=completed", "0").await;
    assert_eq!(completed.len(), 1);
    assert_eq!(
        (&completed[0]["task_id"], &completed[0]["data"]["result"]["score"]),
        (&json!(tasks[3].task), &json!(1))
    );
    let (all, end) = read_all(&stage, "limit=1000", "0").await;
    assert_eq!(next, end, "nothing that did not match is looked at again");
    let (own, _) = read_all(&stage, &format!("task={}", tasks[3].task), "0").await;
    let types: Vec<&str> = own.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["submitted", "processing", "completed"]);
    assert_eq!(all.len(), 202);
    assert_eq!(stage.read("/api/events?after=end").await["next"], end);
    stage.end().await;
}

#[tokio::test]
async fn events_that_have_left_redis_are_read_as_if_they_were_there() {
    let stage = stage().await;
    let tasks: Vec<Asked> = (0..200).map(|_| asked()).collect();
    stage.journal.submit_all(&tasks).await;
    for task in &tasks[..20] {
        stage.journal.complete(task, "{}").await;
    }
    stage.fold().await;
    let history = format!("/api/tasks/{}/events", tasks[0].task);
    let first = stage.read("/api/events?limit=30").await;
    let (all, told) = (read_all(&stage, "limit=1000", "0").await, stage.read(&history).await);
    assert_eq!(told["events"].as_array().unwrap().len(), 3);
    stage.archive(30).await;
    for limit in [7, 1_000] {
        assert_eq!(read_all(&stage, &format!("limit={limit}"), "0").await, all, "limit={limit}");
    }
    // A reader that came this far before goes on, across the seam.
    let (rest, _) = read_all(&stage, "limit=11", first["next"].as_str().unwrap()).await;
    let first = first["events"].as_array().unwrap().clone();
    assert_eq!([first, rest].concat(), all.0);
    assert_eq!(stage.read(&history).await, told, "with its documents");
    stage.end().await;
}

#[tokio::test]
async fn a_waiting_reader_is_answered_when_something_happens_and_not_before() {
    let stage = stage().await;
    let task = asked();
    stage.journal.submit(&task).await;
    let end = stage.read("/api/events?after=end").await["next"].as_str().unwrap().to_owned();
    let began = Instant::now();
    let path = format!("/api/events?after={end}&wait=20&type=completed");
    let (feed, ()) = tokio::join!(stage.read(&path), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stage.journal.complete(&task, "{}").await;
    });
    assert_eq!(feed["events"][0]["type"], "completed");
    assert!(began.elapsed() < Duration::from_secs(10));
    // Nothing comes: the wait ends by itself.
    let quiet = stage.read(&format!("/api/events?after={}&wait=1", feed["next"].as_str().unwrap())).await;
    assert_eq!((&quiet["events"], &quiet["next"], &quiet["more"]), (&json!([]), &feed["next"], &json!(false)));
    stage.end().await;
}

#[tokio::test]
async fn readers_that_follow_lose_nothing_while_events_pour_in() {
    let stage = stage().await;
    let tasks: Vec<Asked> = (0..2_000).map(|_| asked()).collect();
    let follow = async |limit: usize| {
        let (mut seen, mut after) = (HashSet::new(), "0".to_owned());
        while seen.len() < tasks.len() {
            let feed = stage.read(&format!("/api/events?after={after}&wait=5&limit={limit}")).await;
            for position in positions(&feed) {
                assert!(seen.insert(position), "{position} comes once");
            }
            feed["next"].as_str().unwrap().clone_into(&mut after);
        }
    };
    let write = async {
        for chunk in tasks.chunks(50) {
            stage.journal.submit_all(chunk).await;
        }
    };
    tokio::join!(follow(10), follow(100), follow(1_000), write);
    stage.end().await;
}

#[tokio::test]
async fn a_process_that_stops_answers_its_waiting_readers() {
    let stage = stage().await;
    let began = Instant::now();
    let (feed, ()) = tokio::join!(stage.read("/api/events?after=end&wait=20"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stage.shutdown.cancel();
    });
    assert_eq!(feed["events"], json!([]));
    assert!(began.elapsed() < Duration::from_secs(10));
    stage.end().await;
}

#[tokio::test]
async fn a_cursor_that_cannot_be_right_is_refused_instead_of_waited_on() {
    let stage = stage().await;
    let tasks: Vec<Asked> = (0..100).map(|_| asked()).collect();
    stage.journal.submit_all(&tasks).await;
    for after in ["1.2.3", "x", "1.2.3.4.5", "-1.0.0.0"] {
        let answer = stage.get(&format!("/api/events?after={after}")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{after}");
        assert_eq!(answer.json()["errors"]["after"][0], "must be `next` of an earlier answer, 0 or end");
    }
    let beyond = stage.get("/api/events?after=900.900.900.900&wait=20").await;
    assert_eq!(beyond.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(beyond.json()["errors"]["after"][0].as_str().unwrap().starts_with("is beyond the journal's end"));
    let wrong = stage.get("/api/events?type=done&wait=-1&limit=0&task=x").await.json();
    let named: Vec<&String> = wrong["errors"].as_object().unwrap().keys().collect();
    assert_eq!(named, ["limit", "task", "type", "wait"]);
    // What the journal has lost is said, not skipped.
    for partition in stage.journal.partitions.iter() {
        let key = stage.journal.keys.journal(partition);
        let _: i64 = stage.journal.link.query(redis::cmd("XTRIM").arg(key).arg("MAXLEN").arg(2)).await.unwrap();
    }
    let trimmed = stage.get("/api/events?after=1.1.1.1").await;
    assert_eq!((trimmed.status, &trimmed.json()["title"]), (StatusCode::GONE, &json!("No longer in the journal")));
    assert_eq!(stage.read("/api/events?after=0").await["events"].as_array().unwrap().len(), 8);
    stage.end().await;
}
