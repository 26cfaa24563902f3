//! A task's history: whole, wherever its events are, and its announcements.

use axum::http::StatusCode;
use insightforge_schema::id::TaskId;
use serde_json::{Value, json};

use crate::stage::{Asked, Stage, on_each_server};

fn asked() -> Asked {
    Asked::new("sentiment_analysis", r#"{"text":"hi"}"#)
}

fn types(history: &Value) -> String {
    let events = history["events"].as_array().unwrap().iter();
    events.map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
}

async fn the_history_is_whole_before_during_and_after_folding(stage: Stage) {
    let (task, other) = (asked(), asked());
    stage.journal.submit_all(&[task.clone(), other]).await;
    let path = format!("/api/tasks/{}/events", task.task);
    let before = stage.read(&path).await;
    assert_eq!(types(&before), "submitted");
    assert_eq!(before["events"][0]["data"]["data"], json!({ "text": "hi" }));
    stage.fold().await;
    stage.journal.start(&task).await;
    assert_eq!(types(&stage.read(&path).await), "submitted processing");
    stage.fold().await;
    let folded = stage.read(&path).await;
    assert_eq!((types(&folded), &folded["complete"]), ("submitted processing".to_owned(), &json!(true)));
    assert_eq!(folded["events"][0], before["events"][0], "read from the journal while it is there");
    assert_eq!((&folded["events"][1]["attempt"], &folded["events"][1]["actor"]), (&json!(1), &json!("analyzer/a")));
    stage.end().await;
}

async fn events_that_have_left_the_journal_are_told_from_the_tables(stage: Stage) {
    let task = asked();
    stage.journal.submit(&task).await;
    stage.journal.fail(&task, "timeout").await;
    stage.fold().await;
    let whole = stage.read(&format!("/api/tasks/{}/events", task.task)).await;
    let journal = stage.journal.keys.journal(stage.journal.partition(task.task));
    let _: i64 = stage.journal.link.query(redis::cmd("XTRIM").arg(journal).arg("MAXLEN").arg(1)).await.unwrap();
    let trimmed = stage.read(&format!("/api/tasks/{}/events", task.task)).await;
    assert_eq!(types(&trimmed), "submitted processing failed dead_lettered");
    for (from_journal, from_tables) in
        whole["events"].as_array().unwrap().iter().zip(trimmed["events"].as_array().unwrap())
    {
        for member in ["position", "type", "task_id", "at", "actor", "attempt"] {
            assert_eq!(from_journal[member], from_tables[member], "{member}");
        }
    }
    assert_eq!(trimmed["events"][2]["data"]["code"], "timeout");
    assert_eq!(trimmed["events"][2]["description"], "failed: timeout");
    stage.end().await;
}

async fn a_history_is_read_page_by_page(stage: Stage) {
    let task = asked();
    stage.journal.submit(&task).await;
    stage.fold().await;
    stage.journal.fail(&task, "timeout").await;
    let (mut seen, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let page = stage.read(&format!("/api/tasks/{}/events?limit=1&after={after}", task.task)).await;
        seen.push(types(&page));
        after = page["next"].clone();
    }
    assert_eq!(seen.join(" "), "submitted processing failed dead_lettered");
    let wrong = stage.get(&format!("/api/tasks/{}/events?limit=501&after=x&page=2", task.task)).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    let named = wrong.json()["errors"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(named, ["after", "limit", "page"]);
    stage.end().await;
}

async fn a_task_far_behind_the_checkpoint_shows_its_ends_and_says_that_there_may_be_more(stage: Stage) {
    // One partition's worth of other events between, more than one request searches.
    let task = asked();
    let place = stage.journal.partition(task.task);
    let others: Vec<Asked> = (0..10_001).map(|_| asked().placed(place, stage.journal.partitions)).collect();
    stage.journal.submit_all(&others).await;
    stage.journal.submit(&task).await;
    stage.journal.complete(&task, "{}").await;
    // From the task's beginning on it is found, however much lies before it.
    let found = stage.read(&format!("/api/tasks/{}/events", task.task)).await;
    assert_eq!((types(&found), &found["complete"]), ("submitted processing completed".to_owned(), &json!(true)));
    let first = &others[0];
    let history = stage.read(&format!("/api/tasks/{}/events", first.task)).await;
    assert_eq!((types(&history), &history["complete"]), ("submitted".to_owned(), &json!(false)));
    stage.journal.complete(first, "{}").await;
    let history = stage.read(&format!("/api/tasks/{}/events", first.task)).await;
    assert_eq!((types(&history), &history["complete"]), ("submitted completed".to_owned(), &json!(false)));
    stage.end().await;
}

async fn deliveries_show_every_attempt_and_no_secret(stage: Stage) {
    let task = asked().webhook("https://user:hunter2@example.com/hook?token=hunter2");
    stage.journal.submit(&task).await;
    let path = format!("/api/webhooks/deliveries?task_id={}", task.task);
    stage.fold().await;
    assert_eq!(stage.read(&path).await["deliveries"], json!([]));
    stage.journal.complete(&task, "{}").await;
    stage.fold().await;
    let insert = "INSERT INTO webhook_attempts (outbox_id, endpoint, attempt, outcome, status_code, error, duration_us, created_at)
        SELECT id, endpoint, 1, 'retry', 503, 'status 503', 1200, created_at FROM webhook_outbox WHERE endpoint = 'task'";
    sqlx::query(insert).execute(&stage.pool).await.unwrap();
    let answer = stage.read(&path).await;
    let deliveries = answer["deliveries"].as_array().unwrap();
    let brief: Vec<_> =
        deliveries.iter().map(|it| (it["endpoint"].as_str().unwrap(), it["state"].as_str().unwrap())).collect();
    assert_eq!(brief, [("default", "sending"), ("task", "sending")]);
    assert_eq!((&deliveries[0]["url"], &deliveries[1]["url"]), (&Value::Null, &json!("https://example.com/hook?…")));
    assert_eq!(deliveries[0]["attempts"], json!([]));
    assert_eq!(deliveries[1]["attempts"][0]["status_code"], 503);
    assert!(!answer.to_string().contains("hunter2") && !answer.to_string().contains("sealed"), "{answer}");
    let wrong = stage.get("/api/webhooks/deliveries?task_id=7").await;
    assert_eq!(wrong.json()["errors"]["task_id"][0], "must be a UUID");
    assert_eq!(
        stage.read(&format!("/api/webhooks/deliveries?task_id={}", TaskId::new())).await["deliveries"],
        json!([])
    );
    stage.end().await;
}

on_each_server! {
    the_history_is_whole_before_during_and_after_folding,
    events_that_have_left_the_journal_are_told_from_the_tables,
    a_history_is_read_page_by_page,
    a_task_far_behind_the_checkpoint_shows_its_ends_and_says_that_there_may_be_more,
    deliveries_show_every_attempt_and_no_secret,
}
