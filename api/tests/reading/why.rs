//! Why a task is not done: at every point of its life, and during outages.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use insightforge_schema::catalogue::{Limits, Worker, report};
use insightforge_schema::event::{Change, Meta, RetryScheduled, encode, now_us};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::Lane;
use insightforge_schema::link::Link;
use insightforge_schema::script::{self, Held, Retry};
use insightforge_schema::tables;
use serde_json::{Value, json};

use crate::stage::{Asked, Stage, ask, on_each_server};

fn asked(stage: &Stage) -> Asked {
    Asked::new("sentiment_analysis", r#"{"text":"好"}"#).placed(Partition(1), stage.journal.partitions)
}

async fn why(stage: &Stage, asked: &Asked) -> Value {
    stage.read(&format!("/api/tasks/{}/why", asked.task)).await
}

fn said(why: &Value) -> String {
    let sentences = why["sentences"].as_array().unwrap().iter();
    sentences.map(|sentence| sentence.as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

async fn be_alive(stage: &Stage, name: &str, lanes: &[&str]) {
    let now_ms = now_us() / 1_000;
    let worker = Worker {
        name: name.to_owned(),
        lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(),
        in_flight: 0,
        started_ms: now_ms,
        last_read_ms: now_ms,
        seen_ms: now_ms,
        infer_addr: None,
        limits: Some(Limits { lease_ms: 15_000, max_attempts: 3, task_timeout_ms: 120_000 }),
    };
    report(&stage.journal.link, &stage.journal.keys, &worker).await.unwrap();
}

fn lane() -> Lane {
    Lane::new("sentiment_analysis", "v1.0")
}

/// An analyzer takes the first `count` tasks of the lane without beginning them.
async fn take(stage: &Stage, count: usize) {
    let key = stage.journal.keys.lane(Partition(1), &lane());
    let mut create = redis::cmd("XGROUP");
    create.arg("CREATE").arg(&key).arg(lane().group()).arg("0");
    let _: redis::Value = stage.journal.link.query(&create).await.unwrap();
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(lane().group()).arg("a").arg("COUNT").arg(count).arg("STREAMS").arg(&key).arg(">");
    let _: redis::Value = read.query_async(&mut stage.journal.link.blocking(&key).await.unwrap()).await.unwrap();
}

async fn retry(stage: &Stage, asked: &Asked, due_ms: i64) {
    let (link, keys, partition) = (&stage.journal.link, &stage.journal.keys, Partition(1));
    let token: String = link.query(redis::cmd("HGET").arg(keys.record(partition, asked.task)).arg("q")).await.unwrap();
    let meta = Meta { at_us: now_us(), tenant: "default".to_owned(), actor: "a".to_owned(), attempt: 1, trace: None };
    let change = RetryScheduled {
        code: "timeout".to_owned(),
        message: "too late".to_owned(),
        next_attempt: 2,
        due_us: due_ms * 1_000,
    };
    let event = encode(&meta, &Change::RetryScheduled(change));
    let retry = Retry { token, task: asked.task, event, next_attempt: 2, due_ms };
    assert_eq!(script::retry(link, keys, partition, &lane(), &[retry]).await.unwrap(), [Held::Done]);
}

async fn a_waiting_task_is_told_its_place_its_servers_and_its_turn(stage: Stage) {
    let tasks: Vec<Asked> = (0..5).map(|_| asked(&stage)).collect();
    for task in &tasks {
        stage.journal.submit(task).await;
    }
    let lonely = why(&stage, &tasks[4]).await;
    assert_eq!((&lonely["stand"], &lonely["status"]), (&json!("queued"), &json!("pending")));
    assert_eq!((&lonely["queue"]["ahead"], &lonely["queue"]["waiting"]), (&json!(4), &json!(5)));
    assert_eq!(lonely["queue"]["eta_s"], Value::Null, "nobody is there to take it");
    assert!(lonely["remedy"].as_str().unwrap().contains("no analyzer is alive"), "{lonely}");
    assert_eq!(lonely["rows"]["behind_events"], 5);
    assert!(said(&lonely).contains("the task is not in them yet"), "{lonely}");

    be_alive(&stage, "other", &["sentiment_analysis:v2.0"]).await;
    let wrong = why(&stage, &tasks[4]).await;
    assert!(wrong["remedy"].as_str().unwrap().contains("sentiment_analysis v1.0"), "{wrong}");
    be_alive(&stage, "a", &["sentiment_analysis:v1.0"]).await;
    take(&stage, 2).await;
    stage.journal.complete_as(&tasks[0], "v1.0", "{}").await;
    stage.fold().await;
    let served = why(&stage, &tasks[4]).await;
    assert_eq!((&served["queue"]["ahead"], &served["queue"]["in_flight"]), (&json!(2), &json!(1)));
    assert_eq!(served["analyzers"][0]["name"], "a");
    assert_eq!((&served["remedy"], &served["attempts_limit"]), (&Value::Null, &json!(3)));
    // One ended within the last second or so; two wait before it, one is being worked on, and it is one itself.
    let (pace, eta) = (served["queue"]["per_second"].as_f64().unwrap(), served["queue"]["eta_s"].as_f64().unwrap());
    assert!(pace > 0.0 && pace <= 1.0 && (eta * pace - 4.0).abs() < 1e-6, "{served}");
    assert_eq!((&served["rows"]["behind_events"], &served["rows"]["status"]), (&json!(0), &json!("pending")));
    let taken = why(&stage, &tasks[1]).await;
    assert_eq!((&taken["stand"], &taken["holder"]["worker"]), (&json!("taken"), &json!("a")));
    let hurried = asked(&stage).expiring(4_102_444_800_000_000);
    stage.journal.submit(&hurried).await;
    let hurried = why(&stage, &hurried).await;
    assert_eq!(hurried["expires_at"], "2100-01-01T00:00:00Z");
    assert!(said(&hurried).contains("fails as expired when no attempt has begun by 2100-01-01"), "{hurried}");
    stage.end().await;
}

async fn a_running_and_a_delayed_task_are_told_their_holder_and_their_next_attempt(stage: Stage) {
    let task = asked(&stage);
    stage.journal.submit(&task).await;
    be_alive(&stage, "a", &["sentiment_analysis:v1.0"]).await;
    take(&stage, 1).await;
    stage.journal.start(&task).await;
    let running = why(&stage, &task).await;
    assert_eq!((&running["stand"], &running["status"]), (&json!("running"), &json!("processing")));
    let holder = &running["holder"];
    assert_eq!((&holder["worker"], &holder["alive"], &holder["lease_ms"]), (&json!("a"), &json!(true), &json!(15_000)));
    assert!(holder["since"].is_string() && holder["lease_ends_at"].is_string(), "{running}");
    assert!(holder["idle_ms"].as_u64().unwrap() < 15_000);
    assert!(said(&running).starts_with("a works on attempt 1 of 3 since "), "{running}");

    let due_ms = now_us() / 1_000 + 60_000;
    retry(&stage, &task, due_ms).await;
    let delayed = why(&stage, &task).await;
    assert_eq!((&delayed["stand"], &delayed["next_attempt"]["attempt"]), (&json!("delayed"), &json!(2)));
    assert_eq!((&delayed["last_error"]["code"], &delayed["attempt"]), (&json!("timeout"), &json!(1)));
    let due = delayed["next_attempt"]["due_at"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!((due.timestamp_millis(), &delayed["next_attempt"]["overdue"]), (due_ms, &json!(false)));
    stage.end().await;
}

async fn an_ended_task_is_told_how_and_who_was_told_of_it(stage: Stage) {
    let task = asked(&stage);
    stage.journal.submit(&task).await;
    stage.journal.fail(&task, "bad_input").await;
    let before = why(&stage, &task).await;
    assert_eq!((&before["stand"], &before["end"]["dead_letter"]), (&json!("ended"), &json!(true)));
    assert_eq!((&before["webhooks"], &before["rows"]["status"]), (&json!([]), &Value::Null));
    stage.fold().await;
    let url = "UPDATE webhook_outbox SET attempts = 1, state = 0";
    sqlx::query(url).execute(&stage.pool).await.unwrap();
    let tried = "INSERT INTO webhook_attempts
            (outbox_id, endpoint, attempt, outcome, status_code, error, duration_us, created_at)
        SELECT id, endpoint, 1, 'retry', 503, NULL, 5, created_at FROM webhook_outbox";
    sqlx::query(tried).execute(&stage.pool).await.unwrap();
    let told = why(&stage, &task).await;
    let webhook = &told["webhooks"][0];
    assert_eq!((&webhook["endpoint"], &webhook["state"]), (&json!("default"), &json!("due")));
    assert_eq!((&webhook["attempts"], &webhook["last_status_code"]), (&json!(1), &json!(503)));
    assert!(webhook["due_at"].is_string() && said(&told).contains("last answer 503"), "{told}");

    // Its record has gone: the tables remember.
    let record = stage.journal.keys.record(Partition(1), task.task);
    let _: i64 = stage.journal.link.query(redis::cmd("DEL").arg(record)).await.unwrap();
    let later = why(&stage, &task).await;
    assert_eq!((&later["stand"], &later["status"]), (&json!("ended"), &json!("failed")));
    assert_eq!((&later["last_error"]["code"], &later["end"]["dead_letter"]), (&json!("bad_input"), &json!(true)));
    assert_eq!(later["webhooks"], told["webhooks"]);
    stage.end().await;
}

async fn outages_take_away_only_what_the_other_server_knows(stage: Stage) {
    let task = asked(&stage);
    stage.journal.submit(&task).await;
    let path = format!("/api/tasks/{}/why", task.task);
    let nowhere = tables::reading_pool("mysql://root@127.0.0.1:9/none", 1).unwrap();
    let router = stage.with_pool(nowhere).await;
    let answer = ask(&router, Request::get(&path).body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let away = answer.json();
    assert_eq!((&away["stand"], &away["rows"]["answer"]), (&json!("queued"), &json!(false)));
    assert_eq!(away["webhooks"], Value::Null);
    let unknown = format!("/api/tasks/{}/why", TaskId::new());
    let answer = ask(&router, Request::get(&unknown).body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "nobody can say that there is no such task");
    assert_eq!(stage.get(&unknown).await.status, StatusCode::NOT_FOUND);
    assert_eq!(stage.get("/api/tasks/x/why").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    stage.fold().await;
    let gone = Link::new("redis://127.0.0.1:9", std::time::Duration::from_millis(200)).unwrap();
    let routes = insightforge_schema::registry::Routes::default();
    let sources = insightforge_api::why::Sources {
        link: &gone,
        keys: &stage.journal.keys,
        partitions: stage.journal.partitions,
        pool: &stage.pool,
        routes: &routes,
    };
    let why = Box::pin(insightforge_api::why::explain(sources, task.task)).await.unwrap().unwrap();
    let why = serde_json::to_value(why).unwrap();
    assert_eq!((&why["stand"], &why["status"]), (&json!("unknown"), &json!("pending")));
    assert!(said(&why).contains("The journal does not answer now"), "{why}");
    stage.end().await;
}

on_each_server!(
    a_waiting_task_is_told_its_place_its_servers_and_its_turn,
    a_running_and_a_delayed_task_are_told_their_holder_and_their_next_attempt,
    an_ended_task_is_told_how_and_who_was_told_of_it,
    outages_take_away_only_what_the_other_server_knows,
);
