//! Health, models and analyzers, and what holds for every answer.

use axum::body::Body;
use axum::http::{HeaderName, Request, StatusCode, header};
use insightforge_schema::catalogue::{Worker, announce_models, report};
use insightforge_schema::event::now_us;
use insightforge_schema::tables;
use serde_json::{Value, json};

use crate::stage::{Asked, Stage, ask, card, on_each_server};

async fn be_alive(stage: &Stage, name: &str) {
    let worker = Worker {
        name: name.to_owned(),
        lanes: vec!["sentiment_analysis:v1.0".to_owned()],
        in_flight: 2,
        started_ms: now_us() / 1_000,
        last_read_ms: now_us() / 1_000,
        seen_ms: now_us() / 1_000,
        infer_addr: None,
        limits: None,
    };
    report(&stage.journal.link, &stage.journal.keys, &worker).await.unwrap();
}

/// The problems it names, joined.
fn problems(health: &Value) -> String {
    let problems = health["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem.as_str().unwrap()).collect::<Vec<_>>().join("; ")
}

async fn health_counts_what_waits_and_names_what_is_missing(stage: Stage) {
    be_alive(&stage, "w1").await;
    be_alive(&stage, "w2").await;
    let (task, deserted) = (Asked::new("sentiment_analysis", "{}"), Asked::new("singing", "{}"));
    stage.journal.submit_all(&[task.clone(), deserted]).await;
    let failed = Asked::new("sentiment_analysis", "{}");
    stage.journal.submit(&failed).await;
    stage.journal.fail(&failed, "timeout").await;
    let health = stage.read("/api/health").await;
    assert_eq!(health["status"], "degraded");
    assert_eq!(problems(&health), "1 tasks wait for singing v1.0, which no analyzer serves");
    let components = &health["components"];
    assert_eq!((&components["redis"]["up"], &components["mysql"]["up"]), (&json!(true), &json!(true)));
    assert_eq!(components["projector"]["lag_events"], 6, "nothing is folded yet");
    assert_eq!(components["analyzers"], json!({ "alive": 2, "by_task_type": { "sentiment_analysis": 2 } }));
    assert_eq!((&components["backlog"]["tasks"], &components["backlog"]["dead_letters"]), (&json!(2), &json!(1)));
    let again = stage.read("/api/health").await;
    assert_eq!(again, health, "asking often costs nothing");
    stage.end().await;
}

async fn readiness_is_redis_and_an_outage_of_the_tables_is_shown(stage: Stage) {
    be_alive(&stage, "w1").await;
    let nowhere = tables::reading_pool("mysql://root@127.0.0.1:9/none", 1).unwrap();
    let router = stage.with_pool(nowhere).await;
    let get = async |path: &str| ask(&router, Request::get(path).body(Body::empty()).unwrap()).await;
    let ready = get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["mysql"]["up"]), (StatusCode::OK, &json!(false)));
    let health = get("/api/health").await;
    assert_eq!((health.status, &health.json()["status"]), (StatusCode::OK, &json!("degraded")));
    assert!(problems(&health.json()).starts_with("MySQL does not answer"), "{}", health.text);
    let live = get("/livez").await;
    assert_eq!((live.status, live.text.as_str()), (StatusCode::OK, "ok"));
    let ready = stage.read("/readyz").await;
    assert_eq!((&ready["redis"]["up"], &ready["mysql"]["up"]), (&json!(true), &json!(true)));
    stage.end().await;
}

async fn models_say_what_they_are_and_whether_anybody_serves_them(stage: Stage) {
    be_alive(&stage, "w1").await;
    let models = stage.read("/api/models").await;
    let brief: Vec<_> =
        models["models"].as_array().unwrap().iter().map(|it| (&it["task_type"], &it["analyzers"])).collect();
    assert_eq!(brief, [(&json!("named_entity_recognition"), &json!(0)), (&json!("sentiment_analysis"), &json!(1))]);
    let path = models["models"][1]["card"].as_str().unwrap();
    let card_of = stage.read(path).await;
    assert_eq!((&card_of["input_schema"]["type"], &card_of["limits"]), (&json!("object"), &json!("irony")));
    assert_eq!(stage.get("/api/models/sentiment_analysis/v9").await.status, StatusCode::NOT_FOUND);
    let analyzers = stage.read("/api/analyzers").await;
    assert_eq!(
        (&analyzers["analyzers"][0]["name"], &analyzers["analyzers"][0]["in_flight"]),
        (&json!("w1"), &json!(2))
    );
    announce_models(&stage.journal.link, &stage.journal.keys, &[card("singing")]).await.unwrap();
    stage.end().await;
}

async fn every_answer_has_a_name_and_is_kept_by_nobody(stage: Stage) {
    let request_id = HeaderName::from_static("x-request-id");
    for path in ["/api/models", "/api/tasks?limit=0", "/nothing"] {
        let answer = stage.get_with(path, &[(request_id.clone(), "mine-1")]).await;
        assert_eq!(answer.headers[&request_id], "mine-1");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    let answer = stage.get_with("/api/models", &[(request_id.clone(), "not a name")]).await;
    assert!(answer.headers[&request_id].to_str().unwrap().parse::<uuid::Uuid>().is_ok());
    stage.end().await;
}

on_each_server! {
    health_counts_what_waits_and_names_what_is_missing,
    readiness_is_redis_and_an_outage_of_the_tables_is_shown,
    models_say_what_they_are_and_whether_anybody_serves_them,
    every_answer_has_a_name_and_is_kept_by_nobody,
}
