//! Batches: progress at every stage, results by line.

use axum::http::{StatusCode, header};
use insightforge_schema::event::{BatchReceived, Change, Meta, encode, now_us};
use insightforge_schema::script;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::stage::{Asked, Stage, on_each_server};

fn line(batch: Uuid, line: u32) -> Asked {
    Asked::new("sentiment_analysis", &format!("{{\"line\":{line}}}")).line(batch, line)
}

async fn close(stage: &Stage, batch: Uuid, accepted: u32, rejected: u32) {
    let meta = Meta { at_us: now_us(), tenant: "default".to_owned(), actor: "api".to_owned(), attempt: 0, trace: None };
    let event = encode(&meta, &Change::BatchReceived(BatchReceived { accepted, rejected }));
    let partition = stage.journal.partitions.of(batch.as_bytes());
    let (link, keys) = (&stage.journal.link, &stage.journal.keys);
    script::close_batch(link, keys, partition, batch, &event, accepted, rejected).await.unwrap();
}

async fn progress_is_told_from_the_first_line_to_the_last_end(stage: Stage) {
    let batch = Uuid::new_v4();
    let path = format!("/api/batches/{batch}");
    let unknown = stage.get(&path).await;
    assert_eq!(
        (unknown.status, &unknown.json()["detail"]),
        (StatusCode::NOT_FOUND, &json!(format!("there is no batch {batch}")))
    );
    let lines: Vec<Asked> = (1..=3).map(|n| line(batch, n)).collect();
    stage.journal.submit_all(&lines[..2]).await;
    stage.fold().await;
    let uploading = stage.read(&path).await;
    assert_eq!((&uploading["received"], &uploading["accepted"]), (&json!(false), &Value::Null));
    assert_eq!((&uploading["tasks"]["pending"], &uploading["done"]), (&json!(2), &json!(false)));
    stage.journal.submit(&lines[2]).await;
    close(&stage, batch, 3, 2).await;
    let received = stage.read(&path).await;
    assert_eq!(
        (&received["received"], &received["accepted"], &received["rejected"]),
        (&json!(true), &json!(3), &json!(2))
    );
    assert_eq!(received["not_folded"], 1);
    stage.journal.complete(&lines[0], "{}").await;
    stage.journal.fail(&lines[1], "timeout").await;
    stage.fold().await;
    let half = stage.read(&path).await;
    assert_eq!(half["tasks"], json!({ "pending": 1, "processing": 0, "completed": 1, "failed": 1, "cancelled": 0 }));
    assert_eq!((&half["not_folded"], &half["done"]), (&json!(0), &json!(false)));
    stage.journal.cancel(&lines[2]).await;
    stage.fold().await;
    assert_eq!(stage.read(&path).await["done"], true);
    // The summary in Redis leaves in time; the tables keep it.
    let key = stage.journal.keys.batch(stage.journal.partitions.of(batch.as_bytes()), batch);
    let _: i64 = stage.journal.link.query(redis::cmd("DEL").arg(key)).await.unwrap();
    let later = stage.read(&path).await;
    assert_eq!((&later["accepted"], &later["done"]), (&json!(3), &json!(true)));
    assert_ne!(later["received_at"], Value::Null);
    stage.end().await;
}

async fn results_come_by_line_in_pages_and_as_a_stream(stage: Stage) {
    let batch = Uuid::new_v4();
    let path = format!("/api/batches/{batch}/results");
    assert_eq!(stage.get(&path).await.status, StatusCode::NOT_FOUND);
    // More than the stream asks for at once.
    let lines: Vec<Asked> = (1..=1_203).map(|n| line(batch, n)).collect();
    stage.journal.submit_all(&lines).await;
    stage.journal.complete(&lines[0], r#"{"score":0.50}"#).await;
    stage.journal.fail(&lines[1], "bad_input").await;
    stage.fold().await;
    let page = stage.read(&format!("{path}?limit=2")).await;
    assert_eq!(page["next"], 2);
    let first = &page["results"][0];
    assert_eq!(
        (&first["line"], &first["status"], &first["result"]["score"]),
        (&json!(1), &json!("completed"), &json!(0.5))
    );
    assert_eq!((&page["results"][1]["error_code"], &page["results"][1]["result"]), (&json!("bad_input"), &Value::Null));
    let rest = stage.read(&format!("{path}?after=1202")).await;
    assert_eq!((&rest["results"][0]["line"], &rest["next"]), (&json!(1_203), &Value::Null));
    assert_eq!(stage.read(&format!("{path}?after=1203")).await["results"], json!([]));

    let ndjson = [(header::ACCEPT, "application/x-ndjson")];
    let stream = stage.get_with(&path, &ndjson).await;
    assert_eq!(
        (stream.status, stream.headers[header::CONTENT_TYPE].as_bytes()),
        (StatusCode::OK, &b"application/x-ndjson"[..])
    );
    let numbers: Vec<u64> = stream
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=1_203).collect::<Vec<_>>());
    let some = stage.get_with(&format!("{path}?limit=700&after=3"), &ndjson).await;
    assert_eq!(some.text.lines().count(), 700);
    let failed = stage.get_with(&format!("{path}?status=failed"), &ndjson).await;
    assert_eq!(failed.text.lines().count(), 1);
    stage.end().await;
}

on_each_server! {
    progress_is_told_from_the_first_line_to_the_last_end,
    results_come_by_line_in_pages_and_as_a_stream,
}
