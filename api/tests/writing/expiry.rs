//! Deadlines as callers give them: one task, lines of a batch, a column of a CSV file, a default for all.

use insightforge_schema::event::{Change, Failed};
use insightforge_schema::id::TaskId;
use insightforge_schema::task::{Status, apply};
use serde_json::{Value, json};

use crate::door::{Answer, Door, good_with};
use crate::work::Work;

const YEAR_2100: i64 = 4_102_444_800_000_000;

/// The deadline in the task's event, and what the start script sees.
async fn deadline(door: &Door, task: TaskId) -> (Option<i64>, Option<i64>) {
    let submitted = door.submitted().await.into_iter().find(|it| it.0 == task).unwrap().1;
    let record = door.keys.record(door.partitions.of_task(task), task);
    let live: Option<i64> = door.link.query(redis::cmd("HGET").arg(record).arg("d")).await.unwrap();
    (submitted.expires_us, live)
}

#[tokio::test]
async fn a_deadline_travels_in_the_event_and_in_the_record_and_is_shown() {
    let door = Door::open_with_tables().await;
    let at = door.upload(&good_with(&[("expires_at", json!("2100-01-01T00:00:00Z"))])).await.task();
    assert_eq!(deadline(&door, at).await, (Some(YEAR_2100), Some(YEAR_2100 / 1_000)));
    let inside = door.upload(&good_with(&[("expires_in_s", json!(600))])).await.task();
    let (us, ms) = deadline(&door, inside).await;
    let arrived = door.submitted().await.into_iter().find(|it| it.0 == inside).unwrap().2.meta.at_us;
    assert_eq!((us, ms), (Some(arrived + 600_000_000), Some((arrived + 600_000_000) / 1_000)));
    let without = door.upload(&good_with(&[("expires_at", Value::Null)])).await.task();
    assert_eq!(deadline(&door, without).await, (None, None));

    let shown = async |task: TaskId| {
        let get = |path: String| door.client.get(format!("http://{}{path}", door.addr));
        let detail = Answer::of(get(format!("/api/tasks/{task}"))).await.body["expires_at"].clone();
        let why = Answer::of(get(format!("/api/tasks/{task}/why"))).await.body["expires_at"].clone();
        assert_eq!(detail, why);
        detail
    };
    assert_eq!(shown(at).await, "2100-01-01T00:00:00Z");
    door.fold().await;
    assert_eq!((shown(at).await, shown(without).await), (json!("2100-01-01T00:00:00Z"), Value::Null));
    let record = door.keys.record(door.partitions.of_task(at), at);
    let _: u64 = door.link.query(redis::cmd("DEL").arg(record)).await.unwrap();
    assert_eq!(shown(at).await, "2100-01-01T00:00:00Z", "the tables remember it");
    door.end().await;
}

#[tokio::test]
async fn a_task_that_nobody_takes_in_time_fails_once_as_expired_and_can_be_repeated_without_its_deadline() {
    let door = Door::open_with_tables().await;
    let late = good_with(&[("expires_at", json!("2001-01-01T00:00:00Z"))]);
    let answer = Answer::of(door.post("/api/data/upload").header("Prefer", "wait=20").json(&late)).await;
    assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("failed")), "{answer:?}");
    assert_eq!((&answer.body["error_code"], &answer.body["attempt"]), (&json!("expired"), &json!(0)));
    let task = answer.task();
    let events: Vec<_> = door.events().await.into_iter().filter(|event| event.task == task).collect();
    let [_, end] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(&end.change, Change::Failed(Failed { code, .. }) if code == "expired"));
    assert_eq!(end.meta.actor, "api");
    let folded = events.iter().fold(None, |task, event| Some(apply(task, event).unwrap())).unwrap();
    assert_eq!((folded.status, folded.dead_lettered), (Status::Failed, false));

    let again = Answer::of(door.post(&format!("/api/tasks/{task}/retry"))).await.task();
    assert_eq!(deadline(&door, again).await, (None, None));
    door.end().await;
}

#[tokio::test]
async fn a_task_that_runs_is_not_expired() {
    let door = Door::open().await;
    let task = door.upload(&good_with(&[("expires_in_s", json!(3))])).await.task();
    let running = Work::on(&door, task).await.start().await;
    // Until another task with the same deadline has been expired, the janitor has looked at all.
    let partition = door.partitions.of_task(task);
    let other = TaskId::new_in(partition, door.partitions);
    let late = good_with(&[("expires_in_s", json!(3)), ("task_id", json!(other))]);
    let answer = Answer::of(door.post("/api/data/upload").header("Prefer", "wait=20").json(&late)).await;
    assert_eq!(answer.body["error_code"], "expired", "{answer:?}");
    running.complete("{}").await;
    let types: Vec<String> = door
        .events()
        .await
        .into_iter()
        .filter(|event| event.task == task)
        .map(|event| event.change.event_type().to_owned())
        .collect();
    assert_eq!(types, ["submitted", "processing", "completed"]);
}

#[tokio::test]
async fn a_repeated_request_is_the_same_task_also_after_its_deadline() {
    let door = Door::open().await;
    let send = async |fields: &[(&str, Value)]| {
        Answer::of(door.post("/api/data/upload").header("Idempotency-Key", "k").json(&good_with(fields))).await
    };
    let past = [("expires_at", json!("2001-01-01T00:00:00Z"))];
    let (first, second) = (send(&past).await, send(&past).await);
    assert_eq!((first.task(), second.header("idempotency-replayed")), (second.task(), Some("true")));
    send(&[("expires_in_s", json!(5))]).await.is_problem(422, "Idempotency-Key");
}

#[tokio::test]
async fn every_line_of_a_batch_can_have_a_deadline_and_all_together_a_default() {
    let door = Door::open().await;
    let path = "/api/data/upload/batch?task_type=sentiment_analysis&expires_at=2100-01-01T00:00:00Z";
    let post = async |path: &str, media: &str, body: String| {
        Answer::of(door.post(path).header("Content-Type", media).body(body)).await
    };
    let lines = [
        json!({ "text": "一" }),
        json!({ "text": "二", "expires_at": "2100-01-01T00:00:01Z" }),
        json!({ "text": "三", "expires_in_s": 0 }),
    ];
    let body = lines.map(|line| line.to_string()).join("\n");
    let answer = post(path, "application/x-ndjson", body).await;
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"]), (&json!(2), &json!(1)), "{answer:?}");
    assert!(answer.body.to_string().contains("expires_in_s"), "{answer:?}");
    let csv = "text,expires_in_s\n四,600\n五,\n".to_owned();
    let answer = post("/api/data/upload/batch?task_type=sentiment_analysis", "text/csv", csv).await;
    assert_eq!(answer.body["accepted"], 2, "{answer:?}");

    let mut found: Vec<(String, Option<i64>)> = door
        .submitted()
        .await
        .into_iter()
        .map(|(_, submitted, event)| {
            let rest = submitted.expires_us.map(|us| if us < YEAR_2100 { us - event.meta.at_us } else { us });
            (submitted.data, rest)
        })
        .collect();
    found.sort();
    let text = |text: &str| json!({ "text": text }).to_string();
    let mut expected = [
        (text("一"), Some(YEAR_2100)),
        (text("二"), Some(YEAR_2100 + 1_000_000)),
        (text("四"), Some(600_000_000)),
        (text("五"), None),
    ];
    expected.sort();
    assert_eq!(found, expected);

    for query in ["expires_at=soon", "expires_in_s=x", "expires_in_s=5&expires_at=2100-01-01T00:00:00Z"] {
        let path = format!("/api/data/upload/batch?task_type=sentiment_analysis&{query}");
        post(&path, "text/csv", "text\n六\n".to_owned()).await.is_problem(422, "expires_");
    }
}
