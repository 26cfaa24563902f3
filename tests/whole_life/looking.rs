//! What people see, and order where the private network comes: the overview, counts and insight, the checks, a task as
//! it happens, webhooks again.

use serde_json::json;

use crate::caller::TEXT;
use crate::eventually;
use crate::installation::{Database, Installation};

#[tokio::test]
async fn an_operator_sees_how_it_is_and_has_a_webhook_sent_again() {
    let installation = Installation::running(Database::MariaDb).await;
    let caller = installation.caller();
    let accepted: serde_json::Value = caller.upload(TEXT).await.json().await.unwrap();
    let task = accepted["task_id"].as_str().unwrap().to_owned();

    let stream = caller.get(&format!("/api/tasks/{task}/stream")).await.text().await.unwrap();
    assert!(
        stream.contains("event: state") && stream.ends_with("event: end\ndata: {\"status\":\"completed\"}\n\n"),
        "{stream}"
    );
    let first = installation.receiver.of_task(&task).await.remove(0);
    let delivery = eventually("the delivery is recorded", async || {
        let listed =
            caller.get_json(&format!("/api/webhooks/deliveries?task_id={task}")).await["deliveries"][0].clone();
        (listed["state"] == "delivered").then_some(listed)
    })
    .await;
    let path = format!("/api/webhooks/deliveries/{}/resend", delivery["id"].as_str().unwrap());
    let ordered = caller.post(&path, &json!({ "reason": "the receiver lost it" })).await.unwrap();
    assert_eq!(ordered.status(), 202);
    let again = eventually("it comes again", async || {
        let all = installation.receiver.of_task(&task).await;
        (all.len() == 2).then(|| all[1].clone())
    })
    .await;
    assert_eq!((&again.body, &again.headers["webhook-id"]), (&first.body, &first.headers["webhook-id"]));

    let state = eventually("the overview is calm", async || {
        let overview = caller.get_json("/api/overview").await;
        let sum: u64 =
            overview["per_minute"].as_array()?.iter().filter_map(|minute| minute["completed"].as_u64()).sum();
        (sum == 1 && overview["latency"]["delivery_ms"].is_object()).then_some(overview["state"].clone())
    })
    .await;
    assert_eq!((&state["code"], &state["text"]), (&json!("all_good"), &json!("All good")));

    let facets = caller.get_json("/api/tasks/facets?q=type:sentiment_analysis").await;
    assert_eq!((&facets["matched"], &facets["matched_is_exact"]), (&json!(1), &json!(true)), "{facets}");
    assert_eq!(facets["status"], json!([{ "value": "completed", "count": 1 }]), "{facets}");
    assert_eq!(caller.get_json("/api/tasks/facets?q=status:failed").await["matched"], 0);
    let insight = caller.get_json("/api/insight?q=type:sentiment_analysis").await;
    assert_eq!((&insight["matched"], &insight["sampled"]), (&json!(1), &json!(1)), "{insight}");
    assert_eq!(insight["labels"], json!([{ "label": "Positive", "count": 1, "share": 1.0 }]), "{insight}");
    assert_eq!(insight["models"][0]["model_version"], "v1.0", "{insight}");

    let system = caller.get_json("/api/system").await;
    let checks = system["checks"].to_string();
    assert!(checks.contains("appendfsync always") && checks.contains("migrations applied"), "{checks}");
    let setting =
        |name: &str| system["settings"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap();
    assert_eq!(setting("DATABASE_URL")["hidden"], true);
    assert_eq!(setting("INSIGHTFORGE_MAX_BACKLOG")["value"], "1000000");
    installation.assert_no_secret_in("/api/system", &system.to_string());

    // Last: a test message is about no task.
    let ordered = caller.post("/api/webhooks/ping", &json!({ "endpoint": "default" })).await.unwrap();
    let order: serde_json::Value = ordered.json().await.unwrap();
    let told = eventually("the test message is answered", async || {
        let told = caller.get_json(&format!("/api/webhooks/orders/{}", order["order"])).await;
        (told["state"] == "done").then_some(told)
    })
    .await;
    assert_eq!(told["status_code"], 204, "{told}");
    assert!(installation.receiver.deliveries().iter().any(|delivery| delivery.json()["type"] == "ping"));
    installation.end().await;
}
