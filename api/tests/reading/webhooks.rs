//! Deliveries listed, and ordered again: with the real projector, on real servers.

use std::time::Duration;

use insightforge_projector::webhook::orders::{Clerk, Step};
use insightforge_projector::webhook::send::system_lookup;
use insightforge_projector::webhook::{Endpoint, Secret, WebhookConfig};
use insightforge_schema::seal::Sealer;
use serde_json::{Value, json};

use crate::stage::{Asked, Stage, ask, on_each_server};

on_each_server!(
    deliveries_are_listed_by_state_endpoint_and_time_page_by_page,
    what_is_ordered_is_done_by_the_projector_and_told_of,
    what_cannot_be_ordered_is_refused_with_its_field,
    a_delivery_is_shown_as_it_was_sent_and_answered_without_its_secret,
);

/// Nobody listens there.
fn clerk(stage: &Stage) -> Clerk {
    let endpoint = Endpoint {
        name: "default".to_owned(),
        url: "http://127.0.0.1:9/hook?token=hidden".to_owned(),
        secret: Secret::new("0123456789abcdef"),
        legacy_header: true,
    };
    let config = WebhookConfig { endpoints: vec![endpoint], ..WebhookConfig::default() };
    let connection = (stage.journal.link.clone(), stage.journal.keys.clone());
    Clerk::new(&config, connection, stage.pool.clone(), Sealer::new(&[7; 32]), system_lookup()).unwrap()
}

/// Ended tasks with deliveries: those of the first were given up, of the second made, the others are due.
async fn ended(stage: &Stage, count: usize) -> Vec<Asked> {
    let tasks: Vec<Asked> = (0..count).map(|_| Asked::new("acting", "{}")).collect();
    stage.journal.submit_all(&tasks).await;
    for task in &tasks {
        stage.journal.complete(task, "{}").await;
    }
    stage.fold().await;
    for (task, state) in tasks.iter().zip([3, 2]) {
        let over = "UPDATE webhook_outbox o JOIN analysis_tasks t ON t.id = o.analysis_task_id \
            SET o.state = ?, o.attempts = 2, o.finished_at = UTC_TIMESTAMP(6) WHERE t.task_id = ?";
        sqlx::query(over).bind(state).bind(task.task.to_string()).execute(&stage.pool).await.unwrap();
        let tried = "INSERT INTO webhook_attempts (outbox_id, endpoint, attempt, outcome, status_code, duration_us, created_at) \
            SELECT o.id, o.endpoint, 1, ?, 500, 1500, UTC_TIMESTAMP(6) FROM webhook_outbox o \
            JOIN analysis_tasks t ON t.id = o.analysis_task_id WHERE t.task_id = ?";
        let outcome = if state == 2 { "delivered" } else { "gave_up" };
        sqlx::query(tried).bind(outcome).bind(task.task.to_string()).execute(&stage.pool).await.unwrap();
    }
    tasks
}

async fn deliveries(stage: &Stage, filter: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage.read(&format!("/api/webhooks/deliveries?limit=2&cursor={cursor}&{filter}")).await;
        all.extend(page["deliveries"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

async fn deliveries_are_listed_by_state_endpoint_and_time_page_by_page(stage: Stage) {
    let tasks = ended(&stage, 7).await;
    let all = deliveries(&stage, "").await;
    assert_eq!(all.len(), 7);
    let of = |task: &Asked| all.iter().find(|it| it["task_id"] == json!(task.task)).unwrap();
    assert_eq!((&of(&tasks[0])["state"], &of(&tasks[0])["attempt_count"]), (&json!("given_up"), &json!(2)));
    assert_eq!(of(&tasks[1])["attempts"][0]["outcome"], "delivered");
    let position = of(&tasks[0])["position"].as_str().unwrap();
    assert_eq!(of(&tasks[0])["id"], format!("{position}~default"));
    // The sender of the stage is nobody: what it was handed is leased.
    for (filter, count) in [
        ("state=given_up", 1),
        ("state=delivered", 1),
        ("state=sending", 5),
        ("endpoint=default", 7),
        ("endpoint=task", 0),
        ("from=2026-01-01&state=given_up", 1),
        ("to=2026-01-01", 0),
    ] {
        assert_eq!(deliveries(&stage, filter).await.len(), count, "{filter}");
    }
    let own = stage.read(&format!("/api/webhooks/deliveries?task_id={}", tasks[1].task)).await;
    assert_eq!(own["deliveries"].as_array().unwrap().len(), 1);
    clerk(&stage).show_endpoints().await.unwrap();
    let endpoints = stage.read("/api/webhooks").await;
    let endpoint = &endpoints["endpoints"][0];
    assert_eq!((&endpoint["endpoint"], &endpoint["url"]), (&json!("default"), &json!("http://127.0.0.1:9/hook?…")));
    assert_eq!((&endpoint["tried"], &endpoint["success"], &endpoint["p95_ms"]), (&json!(2), &json!(0.5), &json!(1.5)));
    assert_eq!((&endpoint["outstanding"], &endpoint["given_up"]), (&json!(5), &json!(1)));
    assert_eq!(endpoint["last_error"], "the answer was 500");
    stage.end().await;
}

async fn what_is_ordered_is_done_by_the_projector_and_told_of(stage: Stage) {
    let tasks = ended(&stage, 3).await;
    let mut clerk = clerk(&stage);
    clerk.show_endpoints().await.unwrap();
    let given_up = deliveries(&stage, "state=given_up").await.remove(0);
    let id = given_up["id"].as_str().unwrap();

    let counted = stage.post("/api/webhooks/resend", &json!({ "since": "0" })).await;
    assert_eq!(counted.json(), json!({ "dry_run": true, "matched": 2, "matched_is_exact": true, "order": null }));
    let one = stage.post(&format!("/api/webhooks/deliveries/{id}/resend"), &json!({ "reason": "it is back" })).await;
    assert_eq!((one.status.as_u16(), one.json()), (202, json!({ "order": 1 })));
    assert_eq!(stage.read("/api/webhooks/orders/1").await["state"], "waiting");
    assert_eq!(clerk.step().await.unwrap(), Step::Done(1));
    let told = stage.read("/api/webhooks/orders/1").await;
    assert_eq!((&told["state"], &told["resent"], &told["reason"]), (&json!("done"), &json!(1), &json!("it is back")));
    let own = stage.read(&format!("/api/webhooks/deliveries?task_id={}", tasks[0].task)).await;
    assert_eq!((&own["deliveries"][0]["state"], &own["deliveries"][0]["attempt_count"]), (&json!("due"), &json!(0)));
    let again = stage.post(&format!("/api/webhooks/deliveries/{id}/resend"), &json!({})).await;
    assert_eq!(again.status, 409, "it is still to be made");

    let filter = json!({ "state": "delivered", "dry_run": false, "reason": "lost at the receiver" });
    let many = stage.post("/api/webhooks/resend", &filter).await;
    assert_eq!((many.status.as_u16(), &many.json()["order"]), (202, &json!(2)));
    clerk.step().await.unwrap();
    let nothing = stage.post("/api/webhooks/resend", &filter).await;
    assert_eq!((nothing.status.as_u16(), &nothing.json()["order"]), (200, &json!(null)));

    let ping = stage.post("/api/webhooks/ping", &json!({ "endpoint": "default" })).await;
    assert_eq!((ping.status.as_u16(), ping.json()), (202, json!({ "order": 3 })));
    tokio::time::timeout(Duration::from_secs(30), clerk.step()).await.unwrap().unwrap();
    let told = stage.read("/api/webhooks/orders/3").await;
    assert_eq!((&told["kind"], &told["state"], &told["status_code"]), (&json!("ping"), &json!("done"), &json!(null)));
    assert!(told["error"].as_str().unwrap().contains("connection could not be made"), "{told}");
    assert_eq!(stage.get("/api/webhooks/orders/4").await.status, 404);
    stage.end().await;
}

async fn what_cannot_be_ordered_is_refused_with_its_field(stage: Stage) {
    for (path, body, status, field) in [
        ("/api/webhooks/resend", json!({ "state": "due" }), 422, "state"),
        ("/api/webhooks/resend", json!({ "since": "1.2" }), 422, "since"),
        ("/api/webhooks/resend", json!({ "limit": 10_001 }), 422, "limit"),
        ("/api/webhooks/resend", json!({ "from": "2026-01-02", "to": "2026-01-01" }), 422, "to"),
        ("/api/webhooks/resend", json!({ "dry": true }), 422, "dry"),
        ("/api/webhooks/ping", json!({}), 422, "endpoint"),
        ("/api/webhooks/ping", json!({ "endpoint": "nobody" }), 404, ""),
        ("/api/webhooks/deliveries/7/resend", json!({}), 422, "id"),
        ("/api/webhooks/deliveries/0:7~default/resend", json!({}), 404, ""),
        ("/api/webhooks/deliveries/0:7~default/resend", json!({ "reason": 7 }), 422, "reason"),
    ] {
        let answer = stage.post(path, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.text);
        if !field.is_empty() {
            assert!(answer.json()["errors"][field].is_array(), "{path} {body}: {}", answer.text);
        }
    }
    // Outsiders can look, and make nobody receive anything.
    let (public, internal) = stage.behind_an_internal_listener().await;
    for (router, status) in [(&public, 404), (&internal, 200)] {
        let request = axum::http::Request::post("/api/webhooks/resend").header("content-type", "application/json");
        let answer = ask(router, request.body(axum::body::Body::from("{}")).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status);
    }
    stage.end().await;
}

async fn a_delivery_is_shown_as_it_was_sent_and_answered_without_its_secret(stage: Stage) {
    let tasks = ended(&stage, 2).await;
    let given_up = deliveries(&stage, "state=given_up").await.remove(0);
    let id = given_up["id"].as_str().unwrap();
    let sent = "INSERT INTO webhook_attempts (outbox_id, endpoint, attempt, outcome, status_code, duration_us, created_at, \
        sent_s, signature, legacy_signature, trace, answer_type, answer, answer_cut) \
        SELECT outbox_id, endpoint, 2, 'gave_up', 503, 900, UTC_TIMESTAMP(6), 1764072000, 'v1,abc=', 'f00d', '00-1-2-01', \
        'text/plain', 'out of order', 1 FROM webhook_attempts WHERE outcome = 'gave_up'";
    sqlx::query(sent).execute(&stage.pool).await.unwrap();

    let shown = stage.read(&format!("/api/webhooks/deliveries/{id}")).await;
    assert_eq!((&shown["delivery"]["id"], &shown["signed"]), (&given_up["id"], &json!(true)));
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["task_id"], tasks[0].task.to_string());
    let attempts = shown["attempts"].as_array().unwrap();
    // The first is as an earlier release left it.
    assert_eq!((&attempts[0]["request"], &attempts[0]["answer"]), (&Value::Null, &Value::Null));
    let called = format!("msg_{}_default", tasks[0].task.0.as_simple());
    assert_eq!(attempts[1]["request"]["signed_prefix"], format!("{called}.1764072000."));
    let headers = attempts[1]["request"]["headers"].as_array().unwrap();
    let header =
        |name: &str| headers.iter().find(|header| header["name"] == name).map(|header| header["value"].clone());
    assert_eq!(header("webhook-id"), Some(json!(called)));
    assert_eq!(header("webhook-signature"), Some(json!("v1,abc=")));
    assert_eq!(header("x-webhook-signature"), Some(json!("f00d")));
    let answer = json!({ "content_type": "text/plain", "body": "out of order", "cut": true });
    assert_eq!((&attempts[1]["answer"], &attempts[1]["status_code"]), (&answer, &json!(503)));
    assert_eq!(stage.get("/api/webhooks/deliveries/0:99~default").await.status.as_u16(), 404);
    assert_eq!(stage.get("/api/webhooks/deliveries/first").await.status.as_u16(), 422);
    // A signature that covers no time can be sent again by whoever reads it.
    let (outside, inside) = stage.behind_an_internal_listener().await;
    let path = format!("/api/webhooks/deliveries/{id}");
    let request = || axum::http::Request::get(&path).body(axum::body::Body::empty()).unwrap();
    assert_eq!(ask(&outside, request()).await.status.as_u16(), 404);
    assert_eq!(ask(&inside, request()).await.status.as_u16(), 200);
    stage.end().await;
}
