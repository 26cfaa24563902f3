//! A task that kills whoever works on it: three times, and it is given up, with its history.

use std::time::{Duration, Instant};

use insightforge_schema::fail::Step;
use serde_json::{Value, json};

use crate::collect::drain;
use crate::dice::Dice;
use crate::faults::Kind;
use crate::fleet::{ANALYZER, API, PROJECTOR};
use crate::program::http;
use crate::site::{Site, Slot};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_kills_its_worker_three_times_is_failed_and_stands_among_the_dead_letters_with_its_history() {
    let mut slot = Slot::new().await;
    // Whatever the fault: nothing strikes here but the task.
    let kind = Kind::At(Step::StartWritten);
    let Ok((folder, _, redis)) = slot.prepare(kind).await else { panic!("it needs nothing special") };
    let mut site = Site::open(kind, Dice::new(3), folder, redis, slot.mariadb()).await;
    // The models are announced by now; from here on every analyzer dies as soon as it has begun a task.
    site.load.warm_up(crate::SHORT, &mut Dice::new(4)).await;
    drain(&mut site).await;
    site.fleet.terminate(|role| role.name == ANALYZER).await;
    let task = uuid::Uuid::now_v7().to_string();
    let body = json!({
        "data": "{\"text\":\"poison\"}", "task_type": "sentiment_analysis", "model_version": "v1.0", "task_id": task,
    });
    let base = format!("http://{}", site.fleet.api_addr);
    let accepted = http().post(format!("{base}/api/data/upload")).json(&body).send().await.unwrap();
    assert_eq!(accepted.status(), 202);
    for death in 1..=3 {
        site.fleet.start_doomed(ANALYZER, &format!("{}:1", Step::StartWritten.name())).await;
        assert!(site.fleet.died(Duration::from_secs(30)).await, "death {death}: nobody began the task");
    }
    site.fleet.start(&[ANALYZER]).await;

    let ended = get_until(&format!("{base}/api/result/{task}"), |it| it["status"] == "failed").await;
    assert_eq!(ended["error_code"], "worker_lost", "{ended}");
    let shown = format!("{base}/api/tasks/{task}/events");
    let history = get_until(&shown, |it| it.to_string().contains("dead_lettered")).await;
    let types: Vec<&str> =
        history["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "submitted",
        "processing",
        "retry_scheduled",
        "processing",
        "retry_scheduled",
        "processing",
        "failed",
        "dead_lettered",
    ];
    assert_eq!(types, expected, "{history}");
    let letters = get_until(&format!("{base}/api/dead-letters"), |it| it.to_string().contains(&task)).await;
    assert!(letters.to_string().contains("worker_lost"), "{letters}");
    site.fleet.terminate(|role| [API, ANALYZER, PROJECTOR].contains(&role.name)).await;
    assert!(site.fleet.complaints.is_empty(), "{:?}", site.fleet.complaints);
}

/// Asks until the answer is as it should be.
async fn get_until(url: &str, good: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = http().get(url).send().await.unwrap();
        let body: Value = answer.json().await.unwrap_or(Value::Null);
        if good(&body) {
            return body;
        }
        assert!(Instant::now() < deadline, "{url}: {body}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
