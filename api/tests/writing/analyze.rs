//! The former model server's door.

use insightforge_schema::address::AddressPolicy;
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::script;
use serde_json::{Value, json};

use crate::door::{Answer, Door};

fn call(task: TaskId, fields: &[(&str, Value)]) -> Value {
    let mut call = json!({
        "task_id": task,
        "data": "{\"text\":\"a\"}",
        "task_type": "sentiment_analysis",
        "webhook_url": "http://172.18.0.5/webhook",
        "webhook_secret": "s",
    });
    for (name, value) in fields {
        call[*name] = value.clone();
    }
    call
}

async fn open() -> Door {
    Door::open_with(|config| config.addresses = AddressPolicy::parse("172.16.0.0/12").unwrap()).await
}

#[tokio::test]
async fn the_same_task_twice_is_one_and_another_under_its_id_is_refused() {
    let (door, task) = (open().await, TaskId::new());
    for _ in 0..2 {
        let answer = Answer::of(door.post("/analyze").json(&call(task, &[]))).await;
        assert_eq!((answer.status.as_u16(), answer.task()), (200, task));
        assert_eq!(answer.body["message"], "任務已接收");
    }
    let other = call(task, &[("data", json!("{\"text\":\"b\"}"))]);
    Answer::of(door.post("/analyze").json(&other)).await.is_problem(409, "task_id");
    let submitted = door.submitted().await;
    assert_eq!(submitted.len(), 1);
    assert_eq!(submitted[0].1.model_version, "v1.0");
}

#[tokio::test]
async fn what_will_fail_is_accepted_and_waits_where_it_will_be_told_so() {
    let door = open().await;
    let ours = Lane::new("sentiment_analysis", "v1.0").to_string();
    let nobodys = Lane::unroutable().to_string();
    for (fields, lane) in [
        (vec![("data", json!("no json"))], &ours),
        (vec![("data", json!(""))], &ours),
        (vec![("data", json!("{\"text\":\"\\u0000\"}"))], &ours),
        (vec![("task_type", json!("unheard_of"))], &nobodys),
        (vec![("task_type", json!("with:colon"))], &nobodys),
        (vec![("model_version", json!("v9"))], &nobodys),
        (vec![("extra", json!(1))], &ours),
    ] {
        let task = TaskId::new();
        let answer = Answer::of(door.post("/analyze").json(&call(task, &fields))).await;
        assert_eq!((answer.status.as_u16(), answer.task()), (200, task), "{fields:?}");
        let partition = door.partitions.of_task(task);
        let view = script::view(&door.link, &door.keys, partition, task).await.unwrap().unwrap();
        assert_eq!(view.lane, *lane, "{fields:?}");
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_answered_later_is_refused_now() {
    let door = open().await;
    for (fields, status, part) in [
        (vec![("task_id", json!("17"))], 422, "task_id: must be a UUID"),
        (vec![("task_id", json!(null))], 422, "task_id: is missing"),
        (vec![("data", json!(17))], 422, "data: must be a string"),
        (vec![("webhook_url", json!(null)), ("webhook_secret", json!(null))], 422, "webhook_url: is missing"),
        (vec![("webhook_url", json!("http://127.0.0.1/"))], 422, "webhook_url: 127.0.0.1 is"),
        (vec![("webhook_url", json!("http://169.254.169.254/latest"))], 422, "webhook_url: 169.254.169.254 is"),
        (vec![("webhook_url", json!("ftp://example.com/"))], 422, "webhook_url: a webhook URL starts with"),
    ] {
        Answer::of(door.post("/analyze").json(&call(TaskId::new(), &fields))).await.is_problem(status, part);
    }
    let form = door.post("/analyze").header("Content-Type", "application/x-www-form-urlencoded").body("a=b");
    Answer::of(form).await.is_problem(415, "Content-Type");
    assert_eq!(door.events().await.len(), 0);
}

#[tokio::test]
async fn with_an_address_of_its_own_the_public_one_does_not_have_it() {
    let door = Door::open_with(|config| config.internal_addr = Some("127.0.0.1:0".parse().unwrap())).await;
    Answer::of(door.post("/analyze").json(&call(TaskId::new(), &[]))).await.is_problem(404, "nothing at this path");
}

#[tokio::test]
async fn an_address_that_others_reach_does_not_have_it() {
    let door = Door::open_with(|config| config.http_addr = "0.0.0.0:0".parse().unwrap()).await;
    Answer::of(door.post("/analyze").json(&call(TaskId::new(), &[]))).await.is_problem(404, "nothing at this path");
}
