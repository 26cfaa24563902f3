//! From the upload to the verified webhook.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use uuid::Uuid;

use crate::caller::TEXT;
use crate::eventually;
use crate::installation::{Database, Installation};

async fn a_task_goes_from_its_upload_to_a_verified_webhook(database: Database) {
    let installation = Installation::running(database).await;
    let caller = installation.caller();

    let answer = caller.upload(TEXT).await;
    assert_eq!(answer.status(), 202);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let accepted: Value = answer.json().await.unwrap();
    let task = accepted["task_id"].as_str().unwrap().to_owned();
    assert_eq!(accepted["message"], "任務已接收");
    assert!(task.parse::<Uuid>().is_ok(), "{task}");
    assert_eq!(location, format!("/api/result/{task}"));

    let ended = caller.wait_for_end(&task).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["result"]["sentiment"], "Positive", "{ended}");
    let score = ended["result"]["score"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&score) && ended["result"]["model_info"].is_string(), "{ended}");

    assert_eq!(rows_of(&installation.pool, &task).await, ["submitted", "processing", "completed"]);
    let row = row_of(&installation.pool, &task).await;
    assert_eq!(row.get::<&str, _>("status"), "completed");
    assert_eq!(row.get::<Value, _>("data_payload"), json!({ "text": TEXT }));
    assert_eq!(row.get::<Value, _>("result_data"), ended["result"]);
    assert_eq!((row.get::<i64, _>("began"), row.get::<i64, _>("ended")), (1, 1));

    let deliveries = installation.receiver.of_task(&task).await;
    assert_eq!(deliveries.len(), 1);
    let announced = deliveries[0].json();
    assert_eq!(announced["status"], "completed");
    assert_eq!(announced["result"], ended["result"]);
    assert_eq!(announced["error_message"], Value::Null);
    assert_eq!(announced["model_version"], "v1.0");
    deliveries[0].verify_with_every_library(&installation.webhook_secret).await;

    let events = installation.replay(&task).await;
    assert_eq!(steps(&events), ["submitted→pending", "processing→processing", "completed→completed"]);
    installation.run(&["verify"]).await;
    installation.end().await;
}

async fn a_task_that_cannot_be_analysed_fails_and_is_announced_to_its_own_webhook(database: Database) {
    let mut installation = Installation::running(database).await;
    let own_secret = format!("own-{}", Uuid::new_v4());
    installation.secrets.push(own_secret.clone());
    let own_receiver = crate::receiver::Receiver::listen().await;
    let caller = installation.caller();

    let task = Uuid::new_v4().to_string();
    let request = json!({
        "task_id": task, "data": "no JSON at all", "task_type": "sentiment_analysis",
        "webhook_url": own_receiver.url, "webhook_secret": own_secret,
    });
    for _ in 0..2 {
        let answer = caller.post("/analyze", &request).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    let ended = caller.wait_for_end(&task).await;
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["error_code"], "bad_input", "{ended}");
    let why = ended["error_message"].as_str().unwrap().to_owned();
    let legacy = caller.get_json(&format!("/result/{task}")).await;
    assert_eq!((&legacy["status"], &legacy["error"]), (&json!("failed"), &json!(why)), "{legacy}");

    let own = own_receiver.of_task(&task).await;
    assert_eq!(own.len(), 1);
    let announced = own[0].json();
    assert_eq!((&announced["status"], &announced["result"]), (&json!("failed"), &Value::Null));
    assert_eq!(announced["error_message"], json!(why));
    assert_eq!(own[0].legacy_signature_by_php(&own_secret).await, Ok(task.clone()));
    installation.receiver.of_task(&task).await[0].verify_with_every_library(&installation.webhook_secret).await;

    let history = ["submitted", "processing", "failed", "dead_lettered"];
    assert_eq!(rows_of(&installation.pool, &task).await, history);
    let events = installation.replay(&task).await;
    assert_eq!(steps(&events), ["submitted→pending", "processing→processing", "failed→failed", "dead_lettered→failed"]);
    let readable = installation.run(&["replay", "--task", &task]).await;
    for event in history {
        assert!(readable.contains(event), "{event} in {readable}");
    }
    let shown = caller.get(&format!("/api/tasks/{task}/events")).await.text().await.unwrap();
    installation.assert_no_secret_in("/api/tasks/…/events", &shown);
    installation.run(&["verify"]).await;
    installation.end().await;
}

/// The event types in the task's history, once the tables have its end.
async fn rows_of(pool: &MySqlPool, task: &str) -> Vec<String> {
    let history = "SELECT l.event_type FROM task_logs l JOIN analysis_tasks t ON t.id = l.analysis_task_id \
         WHERE t.task_id = ? AND t.status IN ('completed', 'failed') AND (t.status = 'completed' OR t.dead_lettered) \
         ORDER BY l.id";
    eventually("the tables have the task's end", async || {
        let events: Vec<String> = sqlx::query_scalar(history).bind(task).fetch_all(pool).await.unwrap();
        (!events.is_empty()).then_some(events)
    })
    .await
}

async fn row_of(pool: &MySqlPool, task: &str) -> sqlx::mysql::MySqlRow {
    // Both servers: MariaDB gives JSON columns as text, MySQL as JSON.
    let row = "SELECT t.status, t.data_payload, r.result_data, CAST(t.started_at >= t.created_at AS SIGNED) began, \
         CAST(t.completed_at >= t.started_at AS SIGNED) ended \
         FROM analysis_tasks t JOIN analysis_results r ON r.analysis_task_id = t.id WHERE t.task_id = ?";
    sqlx::query(AssertSqlSafe(row)).bind(task).fetch_one(pool).await.unwrap()
}

/// `event→status` of each event and the state after it.
fn steps(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    events.iter().map(|event| format!("{}→{}", text(&event["type"]), text(&event["state"]["status"]))).collect()
}

macro_rules! on_every_database {
    ($($test:ident)*) => {
        mod mariadb {
            use super::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::MariaDb).await })*
        }
        mod mysql {
            use super::Database;
            $(#[tokio::test] async fn $test() { super::$test(Database::MySql).await })*
        }
    };
}

on_every_database! {
    a_task_goes_from_its_upload_to_a_verified_webhook
    a_task_that_cannot_be_analysed_fails_and_is_announced_to_its_own_webhook
}
