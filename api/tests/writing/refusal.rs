//! Whatever is wrong is said clearly, and nothing of it is stored.

use serde_json::{Value, json};

use crate::door::{Answer, Door, good, good_with};

async fn raw(door: &Door, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(door.post("/api/data/upload").header("Content-Type", content_type).body(body)).await
}

#[tokio::test]
async fn a_wrong_field_is_named_and_nothing_is_stored() {
    let door = Door::open().await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let cases: &[(&str, Value, &str)] = &[
        ("data", json!(null), "is missing"),
        ("data", json!({ "text": "a" }), "must be a string, not an object"),
        ("data", json!(5), "must be a string, not a number"),
        ("data", json!(""), "it is empty"),
        ("data", json!("not json"), "must be a JSON document in a string"),
        ("data", json!("{\"text\":\"\"}"), "/text: must not be empty"),
        ("data", json!("{\"text\":\"  \"}"), "/text: must not be empty"),
        ("data", json!("{\"other\":\"a\"}"), "/text: is missing"),
        ("data", json!("{\"text\":7}"), "/text: must be of type"),
        ("data", json!("[]"), "must be of type"),
        ("data", json!(deep), "nested deeper than 30 levels"),
        ("data", json!("{\"text\":\"a\\u0000b\"}"), "/text: must not contain the character NUL"),
        ("data", json!("{\"text\":\"a\u{0}b\"}"), "must be a JSON document in a string"),
        ("data", json!("{\"text\":\"\\ud800\"}"), "surrogate"),
        ("data", json!("{\"text\":\"a\",\"text\":\"b\"}"), "/text: is there twice"),
        ("task_type", json!(null), "is missing"),
        ("task_type", json!("image_analysis"), "known are: named_entity_recognition, sentiment_analysis"),
        ("task_type", json!(["sentiment_analysis"]), "must be a string, not an array"),
        ("model_version", json!("candidate"), "has no candidate version now; known are: v1.0, v2.0, stable, latest"),
        ("model_version", json!("v7"), "known are: v1.0, v2.0"),
        ("task_id", json!("nope"), "must be a UUID"),
        ("task_id", json!("00000000-0000-0000-0000-000000000000"), "must not be the nil UUID"),
        ("user_id", json!("me"), "must be a whole number"),
        ("webhook_url", json!("http://localhost/x"), "is this machine itself"),
        ("webhook_secret", json!("secret"), "needs a webhook_url"),
        ("modelversion", json!("v1.0"), "is not a field of this request"),
    ];
    for (field, value, part) in cases {
        let answer = door.upload(&good_with(&[(field, value.clone())])).await;
        answer.is_problem(422, part);
        let errors = answer.body["errors"].as_object().unwrap();
        assert_eq!(errors.keys().collect::<Vec<_>>(), [field], "{value}");
        assert!(errors[*field][0].as_str().unwrap().contains(part));
    }
    let all = door.upload(&json!({ "data": 1, "x": 2, "user_id": "y" })).await;
    let named: Vec<&String> = all.body["errors"].as_object().unwrap().keys().collect();
    assert_eq!(named, ["data", "task_type", "user_id", "x"]);
    assert_eq!(door.events().await.len(), 0);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_its_place() {
    let door = Door::open().await;
    let json = "application/json";
    raw(&door, json, "").await.is_problem(400, "is empty");
    raw(&door, json, "{\"data\":\n \"x\",}").await.is_problem(400, "line 2 column 6");
    raw(&door, json, "not json").await.is_problem(400, "line 1 column 2");
    raw(&door, json, "[1,2]").await.is_problem(400, "expected a JSON object");
    raw(&door, json, "[".repeat(100_000)).await.is_problem(400, "expected a JSON object");
    raw(&door, json, &b"{\"data\":\"\xff\"}"[..]).await.is_problem(400, "no UTF-8 from byte 10 on");
    raw(&door, json, r#"{"data":"\ud800","task_type":"x"}"#).await.is_problem(422, "data: is no text");
    let twice = r#"{"data":"{\"text\":\"a\"}","task_type":"sentiment_analysis","model_version":"v1.0","data":"{}"}"#;
    raw(&door, json, twice).await.is_problem(422, "data: is there twice");
    let form = "application/x-www-form-urlencoded";
    raw(&door, form, "data=%ff").await.is_problem(400, "data: is no UTF-8");
    raw(&door, form, good().to_string()).await.is_problem(415, "send Content-Type: application/json");
    raw(&door, "multipart/form-data; boundary=b", "--b\r\nnonsense").await.is_problem(400, "");
    for wrong in ["text/plain", "application/xml", "application/json; charset=big5", "multipart/form-data"] {
        raw(&door, wrong, good().to_string()).await.is_problem(415, "Content-Type");
    }
    let missing = door.post("/api/data/upload").body(good().to_string());
    Answer::of(missing).await.is_problem(415, "Content-Type: is missing");
    let zipped = door.post("/api/data/upload").header("Content-Encoding", "gzip").json(&good());
    Answer::of(zipped).await.is_problem(415, "Content-Encoding");
    let get = door.client.get(format!("http://{}/api/data/upload", door.addr));
    Answer::of(get).await.is_problem(405, "other methods");
    assert_eq!(door.events().await.len(), 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_or_without_its_length() {
    let door = Door::open().await;
    let large = good_with(&[("data", json!(format!("{{\"text\":\"{}\"}}", "x".repeat(10 << 20))))]).to_string();
    raw(&door, "application/json", large.clone()).await.is_problem(413, "larger than 1048576 bytes");
    let pieces: Vec<Result<String, std::io::Error>> =
        large.as_bytes().chunks(65_536).map(|piece| Ok(String::from_utf8(piece.to_vec()).unwrap())).collect();
    let unannounced = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    raw(&door, "application/json", unannounced).await.is_problem(413, "larger than 1048576 bytes");
    let fits = good_with(&[("data", json!(format!("{{\"text\":\"{}\"}}", "x".repeat(900_000))))]);
    door.upload(&fits).await.task();
    assert_eq!(door.submitted_ids().await.len(), 1);
}

#[tokio::test]
async fn when_as_many_wait_as_may_the_next_is_asked_to_come_back() {
    let door = Door::open_with(|config| config.max_backlog = 10).await;
    let good = good();
    let answers = futures_util::future::join_all((0..50).map(|_| door.upload(&good))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!((accepted, door.submitted_ids().await.len()), (10, 10));
    let refused = answers.iter().find(|answer| answer.status != 202).unwrap();
    refused.is_problem(429, "nothing of this request was stored");
    assert_eq!(refused.header("retry-after"), Some("2"));

    // Work is done: as soon as that has been counted, there is room again.
    for task in door.submitted_ids().await {
        let answer = Answer::of(door.post(&format!("/api/tasks/{task}/cancel"))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while door.upload(&good).await.status != 202 {
        assert!(tokio::time::Instant::now() < deadline, "room is never found");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
