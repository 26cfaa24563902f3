//! An upload that is in order: answered as the contract says, and in the journal with all it carried.

use std::time::{Duration, Instant};

use insightforge_schema::catalogue::{self, ModelCard};
use insightforge_schema::event::Webhook;
use insightforge_schema::registry::event::Registered;
use insightforge_schema::registry::{Command, Registry};
use serde_json::json;

use crate::door::{Answer, Door, good, good_with};

#[tokio::test]
async fn the_old_example_call_is_answered_as_ever() {
    let door = Door::open().await;
    let body = r#"{"data":"{\"text\":\"好消息!\"}","task_type":"sentiment_analysis","model_version":"v1.0"}"#;
    for path in ["/api/data/upload", "/api/upload"] {
        let answer = Answer::of(door.post(path).header("Content-Type", "application/json").body(body.to_owned())).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.body["message"], "任務已接收");
        assert_eq!(answer.body.as_object().unwrap().len(), 2);
        assert_eq!(answer.header("location"), Some(&*format!("/api/result/{}", answer.task())));
        assert_eq!(answer.header("idempotency-replayed"), None);
        assert!(door.submitted_ids().await.contains(&answer.task()));
    }
}

#[tokio::test]
async fn an_answered_task_is_in_the_journal_with_all_it_carried() {
    let door = Door::open().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let upload = good_with(&[
        ("data", json!("{ \"text\" : \"a\" }")),
        ("user_id", json!(42)),
        ("webhook_url", json!("https://example.com/hook")),
        ("webhook_secret", json!("not for any log")),
    ]);
    let answer = Answer::of(door.post("/api/data/upload").header("traceparent", trace).json(&upload)).await;
    let (task, submitted, event) = door.submitted().await.remove(0);
    assert_eq!(task, answer.task());
    assert_eq!((submitted.data.as_str(), submitted.user_id), ("{ \"text\" : \"a\" }", Some(42)));
    let Some(Webhook { url, sealed_secret: Some(sealed) }) = submitted.webhook else { panic!("it had a webhook") };
    assert_eq!(url, "https://example.com/hook");
    assert_eq!(door.sealer.open(&sealed, task.0.as_bytes()).unwrap(), b"not for any log");
    let meta = event.meta;
    assert_eq!((meta.actor.as_str(), meta.tenant.as_str(), meta.attempt), ("api", "default", 0));
    assert_eq!(meta.trace.as_deref(), Some(trace));
    let untraced = Answer::of(door.post("/api/data/upload").header("traceparent", "nonsense").json(&good())).await;
    let submitted = door.submitted().await;
    let (.., event) = submitted.iter().find(|(task, ..)| *task == untraced.task()).unwrap();
    assert_eq!(event.meta.trace, None);
}

#[tokio::test]
async fn forms_of_both_kinds_are_taken() {
    let door = Door::open().await;
    let form = "data=%7B%22text%22%3A%22%E5%A5%BD+x%22%7D&task_type=sentiment_analysis&model_version=v1.0&_token=x";
    let request = door.post("/api/data/upload").header("Content-Type", "application/x-www-form-urlencoded").body(form);
    let urlencoded = Answer::of(request).await.task();
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let parts = [
        part("data", "{\"text\":\"好 x\"}"),
        part("task_type", "sentiment_analysis"),
        part("model_version", "v1.0"),
        "--b--\r\n".to_owned(),
    ];
    let request = door.post("/api/data/upload").header("Content-Type", "multipart/form-data; boundary=b");
    let multipart = Answer::of(request.body(parts.concat())).await.task();
    let submitted = door.submitted().await;
    for task in [urlencoded, multipart] {
        let (_, submitted, _) = submitted.iter().find(|(it, ..)| *it == task).unwrap();
        assert_eq!(submitted.data, "{\"text\":\"好 x\"}");
    }
}

#[tokio::test]
async fn a_thousand_uploads_at_once_are_each_in_the_journal_once() {
    let door = Door::open().await;
    let uploads = (0..1_000).map(|number| {
        let upload = good_with(&[("data", json!(format!("{{\"text\":\"{number}\"}}")))]);
        async move { (number, upload) }
    });
    let answers = futures_util::future::join_all(uploads.map(|upload| async {
        let (number, upload) = upload.await;
        (number, door.upload(&upload).await.task())
    }))
    .await;
    let submitted = door.submitted().await;
    assert_eq!(submitted.len(), 1_000);
    let by_task: std::collections::HashMap<_, _> = submitted.into_iter().map(|(task, it, _)| (task, it.data)).collect();
    assert_eq!(by_task.len(), 1_000);
    for (number, task) in answers {
        assert_eq!(by_task[&task], format!("{{\"text\":\"{number}\"}}"));
    }
}

#[tokio::test]
async fn the_write_side_is_in_the_api_description() {
    let door = Door::open().await;
    let description = Answer::of(door.client.get(format!("http://{}/api/openapi.json", door.addr))).await.body;
    for (path, method) in [
        ("/api/data/upload", "post"),
        ("/api/data/upload/batch", "post"),
        ("/analyze", "post"),
        ("/api/tasks/{task_id}/cancel", "post"),
        ("/api/tasks/{task_id}/retry", "post"),
        ("/api/dead-letters", "get"),
        ("/api/dead-letters/{task_id}/redrive", "post"),
    ] {
        let operation = &description["paths"][path][method];
        assert!(operation["summary"].is_string(), "{path}");
        assert!(operation["responses"]["503"]["content"]["application/problem+json"].is_object(), "{path}");
    }
    let upload = &description["paths"]["/api/data/upload"]["post"];
    for media in ["application/json", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert!(upload["requestBody"]["content"][media].is_object(), "{media}");
    }
}

#[tokio::test]
async fn a_version_is_named_left_out_or_an_alias_and_waits_as_it_was_asked_for() {
    let door = Door::open().await;
    for (version, asked) in [(json!(null), "stable"), (json!("stable"), "stable"), (json!("latest"), "latest")] {
        let task = door.upload(&good_with(&[("model_version", version)])).await.task();
        let submitted = door.submitted().await;
        let (_, submitted, _) = submitted.iter().find(|(it, ..)| *it == task).unwrap();
        assert_eq!(submitted.model_version, asked);
    }
}

#[tokio::test]
async fn a_package_that_was_just_added_is_asked_for_at_once_and_its_own_schema_holds() {
    let door = Door::open().await;
    let counting = |data: &str| good_with(&[("task_type", json!("counting")), ("data", json!(data))]);
    door.upload(&counting("{}")).await.is_problem(422, "task_type: \"counting\" is not known");
    let input_schema = json!({ "type": "object", "required": ["rows"], "properties": { "rows": {
        "type": "array", "items": { "type": "object", "required": ["x"], "properties": { "x": { "type": "number" } } },
    } } });
    let (task_type, version) = ("counting".to_owned(), "v1.0".to_owned());
    let card = ModelCard { task_type, version, input_schema, ..ModelCard::default() };
    catalogue::announce_models(&door.link, &door.keys, &[card]).await.unwrap();
    // The list that every process keeps is refreshed every five seconds; this takes less than one.
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        let answer = door.upload(&counting("{\"rows\":[{\"x\":1},{\"x\":\"secret\"}]}")).await;
        if answer.body["errors"].get("data").is_some() {
            answer.is_problem(422, "data: /rows/1/x: ");
            assert!(!answer.body.to_string().contains("secret"));
            break;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    door.upload(&counting("{\"rows\":[{}]}")).await.is_problem(422, "data: /rows/0: ");
    let task = door.upload(&counting("{\"rows\":[{\"x\":1}]}")).await.task();
    assert!(door.submitted_ids().await.contains(&task));
}

#[tokio::test]
async fn what_the_registry_decides_holds_for_uploads() {
    let door = Door::open().await;
    let mut registry = Registry::new(door.link.clone(), door.keys.clone());
    for version in ["v1.0", "v2.0"] {
        let registered = Registered {
            task_type: "sentiment_analysis".to_owned(),
            version: version.to_owned(),
            digest: version.to_owned(),
            backend: "linear".to_owned(),
            device: "cpu".to_owned(),
            folder: version.to_owned(),
            worker: "w".to_owned(),
        };
        registry.write(&Command::Register(registered), "test", None).await.unwrap();
    }
    let path = |command: &str| format!("/api/models/sentiment_analysis/{command}");
    let retired = Answer::of(door.post(&path("retire")).json(&json!({ "version": "v2.0" }))).await;
    assert_eq!(retired.status, 200, "{retired:?}");
    let upload = |version: &str| good_with(&[("model_version", json!(version))]);
    door.upload(&upload("v2.0")).await.is_problem(422, "v2.0 is retired and answers nobody any more; known are: v1.0");
    door.upload(&upload("candidate")).await.is_problem(422, "has no candidate version now");
    let pointed = Answer::of(door.post(&path("candidate")).json(&json!({ "version": "v1.0" }))).await;
    assert_eq!(pointed.status, 200, "{pointed:?}");
    door.upload(&upload("candidate")).await.task();
}
