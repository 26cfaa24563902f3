//! Answers at once: asked of the api, given by an analyzer's synchronous door, and nothing of it in the journal.

use serde_json::{Value, json};
use sqlx::Row;

use crate::caller::TEXT;
use crate::eventually;
use crate::installation::{Database, Installation, ROLES};
use crate::process::Signal;

#[tokio::test]
async fn a_question_is_answered_as_a_task_would_be_and_leaves_nothing_behind() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    installation.settings.push(("INSIGHTFORGE_INFER_ADDR", "127.0.0.1:0".to_owned()));
    for role in ROLES {
        installation.start(role).await;
    }
    let caller = installation.caller();
    let question = json!({ "task_type": "sentiment_analysis", "model_version": "v1.0", "data": { "text": TEXT } });
    let answer = eventually("a question is answered", async || {
        let answer = caller.post("/api/infer", &question).await.unwrap();
        let status = answer.status();
        // 503 until the analyzer has said where its door is, 422 until it has registered its models.
        assert!(matches!(status.as_u16(), 200 | 422 | 503), "{status}");
        if status == 200 { Some(answer.json::<Value>().await.unwrap()) } else { None }
    })
    .await;
    assert_eq!(answer["reason"], "exact");
    let ready = caller.get_json("/v2/models/sentiment_analysis/ready").await;
    assert_eq!(ready["ready"], true);
    let tensors = json!({ "inputs": [{ "name": "text", "datatype": "BYTES", "shape": [1], "data": [TEXT] }] });
    let tensors = caller.post("/v2/models/sentiment_analysis/versions/v1.0/infer", &tensors).await.unwrap();
    let tensors: Value = tensors.json().await.unwrap();
    let result: Value = serde_json::from_str(tensors["outputs"][0]["data"][0].as_str().unwrap()).unwrap();
    assert_eq!(result, answer["result"]);

    let accepted: Value = caller.upload(TEXT).await.json().await.unwrap();
    let ended = caller.wait_for_end(accepted["task_id"].as_str().unwrap()).await;
    assert_eq!(ended["result"], answer["result"]);
    assert_eq!((&ended["model_digest"], &ended["backend"]), (&answer["model_digest"], &answer["backend"]));
    let tasks = eventually("the task is in the tables", async || {
        let row = sqlx::query("SELECT CAST(COUNT(*) AS SIGNED) AS tasks FROM analysis_tasks");
        let tasks: i64 = row.fetch_one(&installation.pool).await.unwrap().get("tasks");
        (tasks > 0).then_some(tasks)
    })
    .await;
    assert_eq!(tasks, 1, "the questions are no tasks");

    installation.stop("analyzer", Signal::Terminate).await;
    let none = eventually("nobody answers any more", async || {
        let answer = caller.post("/api/infer", &question).await.unwrap();
        (answer.status() != 200).then_some(answer)
    })
    .await;
    assert_eq!(none.status(), 503);
    installation.end().await;
}
