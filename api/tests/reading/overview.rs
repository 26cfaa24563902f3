//! The whole system at a glance, on real servers.

use std::time::Duration;

use insightforge_schema::event::now_us;
use serde_json::json;

use crate::stage::{Asked, Stage, on_each_server};

on_each_server!(a_busy_hour_is_told_in_figures, what_waits_for_nobody_is_the_sentence);

/// Answers are kept for a second.
async fn fresh(stage: &Stage) -> serde_json::Value {
    let first = stage.read("/api/overview").await;
    loop {
        let next = stage.read("/api/overview").await;
        if next["at"] != first["at"] {
            return next;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn a_busy_hour_is_told_in_figures(stage: Stage) {
    let minute_us = 60_000_000;
    let ago = |minutes: i64| Asked::new("acting", "{}").at(now_us() - minutes * minute_us);
    let tasks: Vec<Asked> = [90, 50, 50, 10].into_iter().map(ago).collect();
    stage.journal.submit_all(&tasks).await;
    stage.journal.complete(&tasks[1], "{}").await;
    stage.journal.fail(&tasks[2], "timeout").await;
    stage.fold().await;
    let overview = fresh(&stage).await;
    let minutes = overview["per_minute"].as_array().unwrap();
    let sum = |what: &str| minutes.iter().map(|minute| minute[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!(minutes.len(), 60);
    assert_eq!((sum("submitted"), sum("completed"), sum("failed"), sum("cancelled")), (3, 1, 1, 0));
    assert_eq!(overview["per_minute_complete"], true);
    let busiest = minutes.iter().find(|minute| minute["submitted"] == 2).unwrap();
    let age = chrono::Utc::now()
        - chrono::DateTime::parse_from_rfc3339(busiest["minute"].as_str().unwrap()).unwrap().to_utc();
    assert!((49..=51).contains(&age.num_minutes()), "{age}");
    assert_eq!(overview["failures"], json!([{ "error_code": "timeout", "count": 1 }]));
    assert_eq!(overview["latency"]["sample"], 1);
    let waited = overview["latency"]["wait_ms"]["p95"].as_f64().unwrap() / 60_000.0;
    assert!((49.0..=51.0).contains(&waited), "{waited}");
    assert_eq!(overview["latency"]["inference_ms"]["p50"], 1.5);
    assert!(overview["latency"]["fold_ms"]["p50"].is_number() && overview["latency"]["delivery_ms"].is_null());
    assert_eq!(overview["webhooks"]["outstanding"], 2);
    assert_eq!(overview["projector"]["lag_events"], 0);
    assert_eq!((&overview["now"]["waiting"], &overview["now"]["dead_letters"]), (&json!(2), &json!(1)));

    // What happens later is added to what was counted.
    stage.journal.cancel(&tasks[3]).await;
    let more: Vec<Asked> = (0..40).map(|_| ago(0)).collect();
    stage.journal.submit_all(&more).await;
    stage.fold().await;
    let overview = fresh(&stage).await;
    let minutes = overview["per_minute"].as_array().unwrap();
    let sum = |what: &str| minutes.iter().map(|minute| minute[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("submitted"), sum("cancelled")), (43, 1));
    stage.end().await;
}

async fn what_waits_for_nobody_is_the_sentence(stage: Stage) {
    let overview = fresh(&stage).await;
    assert_eq!(overview["state"]["code"], "no_analyzer");
    assert_eq!((&overview["lanes"], &overview["latency"]["sample"]), (&json!([]), &json!(0)));
    let task = Asked::new("acting", "{}");
    stage.journal.submit(&task).await;
    let overview = fresh(&stage).await;
    let lane = &overview["lanes"][0];
    assert_eq!((&lane["task_type"], &lane["analyzers"]), (&json!("acting"), &json!(0)));
    let codes: Vec<&str> =
        overview["problems"].as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["no_analyzer", "lane_unserved"]);
    assert_eq!((&overview["state"]["level"], &overview["state"]["params"]["more"]), (&json!("bad"), &json!(1)));
    stage.end().await;
}
