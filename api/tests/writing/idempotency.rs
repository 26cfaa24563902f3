//! The same request twice is one task.

use std::collections::HashSet;

use futures_util::future::join_all;
use insightforge_schema::id::TaskId;
use serde_json::{Value, json};

use crate::door::{Answer, Door, good, good_with};

async fn upload(door: &Door, key: &str, body: &Value) -> Answer {
    Answer::of(door.post("/api/data/upload").header("Idempotency-Key", key).json(body)).await
}

#[tokio::test]
async fn the_same_key_and_body_get_the_same_answer() {
    let door = Door::open().await;
    let first = upload(&door, "k", &good()).await;
    let again = upload(&door, "k", &good()).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    let other = upload(&door, "other key", &good()).await;
    assert_ne!(other.task(), first.task());
    assert_eq!(door.submitted_ids().await.len(), 2);
}

#[tokio::test]
async fn the_same_key_with_another_body_is_refused() {
    let door = Door::open().await;
    upload(&door, "k", &good()).await.task();
    for other in [
        good_with(&[("data", json!("{\"text\":\"b\"}"))]),
        good_with(&[("user_id", json!(1))]),
        good_with(&[("task_id", json!(TaskId::new()))]),
    ] {
        let answer = upload(&door, "k", &other).await;
        answer.is_problem(422, "came with another body before");
        assert!(answer.body["errors"]["Idempotency-Key"].is_array());
    }
    assert_eq!(door.submitted_ids().await.len(), 1);
}

#[tokio::test]
async fn of_a_hundred_at_once_under_one_key_one_is_stored_and_all_hear_of_it() {
    let door = Door::open().await;
    let body = good();
    let answers = join_all((0..100).map(|_| upload(&door, "k", &body))).await;
    let tasks: HashSet<TaskId> = answers.iter().map(Answer::task).collect();
    assert_eq!(tasks.len(), 1);
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_some()).count();
    assert_eq!(replayed, 99);
    assert_eq!(door.submitted_ids().await.into_iter().collect::<HashSet<_>>(), tasks);
}

#[tokio::test]
async fn of_two_bodies_at_once_under_one_key_one_wins() {
    let door = Door::open().await;
    let bodies: Vec<Value> =
        (0..40).map(|number| good_with(&[("data", json!(format!("{{\"text\":\"{}\"}}", number % 2)))])).collect();
    let answers = join_all(bodies.iter().map(|body| upload(&door, "k", body))).await;
    let accepted: Vec<usize> = (0..40).filter(|at| answers[*at].status == 202).collect();
    assert_eq!(accepted.len(), 20);
    assert!(accepted.iter().all(|at| at % 2 == accepted[0] % 2));
    assert_eq!(answers.iter().filter(|answer| answer.status == 422).count(), 20);
    assert_eq!(door.submitted_ids().await.len(), 1);
}

#[tokio::test]
async fn a_callers_own_id_is_the_tasks_and_repeats_are_one_task() {
    let (door, task) = (Door::open().await, TaskId::new());
    let mine = good_with(&[("task_id", json!(task))]);
    let answers = join_all((0..20).map(|_| door.upload(&mine))).await;
    assert!(answers.iter().all(|answer| answer.task() == task));
    let other = good_with(&[("task_id", json!(task)), ("user_id", json!(1))]);
    let answer = door.upload(&other).await;
    answer.is_problem(409, "belongs to a task with other fields");
    assert!(answer.body["errors"]["task_id"].is_array());
    assert_eq!(door.submitted_ids().await.len(), 1);
}

#[tokio::test]
async fn an_id_that_named_a_task_long_ago_is_refused_for_another_and_intake_waits_for_no_tables() {
    let (door, task) = (Door::open_with_tables().await, TaskId::new());
    let mine = good_with(&[("task_id", json!(task))]);
    assert_eq!(door.upload(&mine).await.status, 202);
    assert_eq!(door.post(&format!("/api/tasks/{task}/cancel")).send().await.unwrap().status(), 200);
    door.fold().await;
    let again = door.upload(&mine).await;
    assert_eq!(
        (again.status.as_u16(), again.header("idempotency-replayed")),
        (202, Some("true")),
        "Redis remembers it"
    );

    let record = door.keys.record(door.partitions.of_task(task), task);
    assert_eq!(door.link.query::<i64>(redis::cmd("DEL").arg(record)).await.unwrap(), 1);
    for body in [mine.clone(), good_with(&[("task_id", json!(task)), ("user_id", json!(1))])] {
        let answer = door.upload(&body).await;
        answer.is_problem(409, "task_id: belongs to a task that was accepted before");
        assert!(answer.body["errors"]["task_id"].is_array());
    }
    let lines = [task, TaskId::new()].map(|id| json!({ "text": "四", "task_id": id }).to_string()).join("\n");
    let batch =
        door.post("/api/data/upload/batch?task_type=sentiment_analysis").header("content-type", "application/x-ndjson");
    let batch = Answer::of(batch.body(lines)).await;
    assert_eq!((&batch.body["accepted"], &batch.body["rejected"]), (&json!(1), &json!(1)), "{:?}", batch.body);

    let locked = door.lock_tables().await;
    let began = std::time::Instant::now();
    let [first, second] = [TaskId::new(), TaskId::new()].map(|id| good_with(&[("task_id", json!(id))]));
    for body in [first, second] {
        assert_eq!(door.upload(&body).await.status, 202);
    }
    assert!(
        began.elapsed() < std::time::Duration::from_secs(2),
        "the first waits a tenth of a second: {:?}",
        began.elapsed()
    );
    locked.close().await.unwrap();
    assert_eq!(door.submitted_ids().await.len(), 4);
    door.end().await;
}

#[tokio::test]
async fn a_key_beside_an_own_id_guards_both_wherever_they_live() {
    let door = Door::open().await;
    // Enough ids to live in every partition, the key's among them.
    for number in 0..12 {
        let (key, task) = (format!("k{number}"), TaskId::new());
        let mine = good_with(&[("task_id", json!(task))]);
        let first = upload(&door, &key, &mine).await;
        let again = upload(&door, &key, &mine).await;
        assert_eq!((first.task(), again.task()), (task, task));
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        upload(&door, &key, &good()).await.is_problem(422, "Idempotency-Key");
        upload(&door, &key, &good_with(&[("task_id", json!(TaskId::new()))])).await.is_problem(422, "Idempotency-Key");
    }
    assert_eq!(door.submitted_ids().await.len(), 12);
}

#[tokio::test]
async fn a_wrong_key_is_named_together_with_the_wrong_fields() {
    let door = Door::open().await;
    let long = "k".repeat(256);
    let answer = upload(&door, &long, &good_with(&[("data", json!(1))])).await;
    answer.is_problem(422, "Idempotency-Key: must have 1 to 255 printable ASCII characters");
    answer.is_problem(422, "data: must be a string");
    upload(&door, "", &good()).await.is_problem(422, "Idempotency-Key");
}
