//! One task: seen at once, seen after its record is gone, seen during outages.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use insightforge_schema::event::now_us;
use insightforge_schema::id::TaskId;
use insightforge_schema::tables;
use serde_json::{Value, json};

use crate::proxy::Proxy;
use crate::stage::{Answer, Asked, Stage, ask, on_each_server};

fn asked() -> Asked {
    Asked::new("sentiment_analysis", r#"{"text":"好消息!"}"#)
}

/// The record leaves, as it does when its time is over.
async fn forget(stage: &Stage, asked: &Asked) {
    let key = stage.journal.keys.record(stage.journal.partition(asked.task), asked.task);
    let _: i64 = stage.journal.link.query(redis::cmd("DEL").arg(key)).await.unwrap();
}

/// A database that nobody answers for.
async fn during_outage(stage: &Stage, path: &str) -> Answer {
    let nowhere = tables::reading_pool("mysql://root@127.0.0.1:9/none", 1).unwrap();
    let router = stage.with_pool(nowhere).await;
    ask(&router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn a_task_is_visible_from_its_upload_on_and_looks_the_same_from_redis_and_from_the_tables(stage: Stage) {
    let (task, path) = (asked(), |task: &Asked| format!("/api/result/{}", task.task));
    stage.journal.submit(&task).await;
    let seen = stage.read(&path(&task)).await;
    assert_eq!((&seen["status"], &seen["result"], &seen["attempt"]), (&json!("pending"), &Value::Null, &json!(0)));
    stage.journal.start(&task).await;
    assert_eq!(stage.read(&path(&task)).await["status"], "processing");

    let done = asked();
    stage.journal.submit(&done).await;
    stage.journal.complete(&done, r#"{"sentiment":"Positive","score":0.90}"#).await;
    let live = stage.get(&path(&done)).await;
    assert!(live.text.contains(r#""result":{"sentiment":"Positive","score":0.90}"#), "{}", live.text);
    stage.fold().await;
    forget(&stage, &done).await;
    let folded = stage.read(&path(&done)).await;
    assert_eq!(folded["result"], json!({ "sentiment": "Positive", "score": 0.9 }));
    assert_eq!((&folded["backend"], &folded["route_reason"]), (&json!("linear"), &json!("canary")));
    for member in [
        "task_id",
        "status",
        "task_type",
        "model_version",
        "error_code",
        "attempt",
        "created_at",
        "completed_at",
        "model_digest",
        "backend",
        "route_reason",
    ] {
        assert_eq!(live.json()[member], folded[member], "{member}");
    }
    stage.end().await;
}

async fn a_task_whose_end_the_tables_do_not_have_yet_is_neither_unknown_nor_pending(stage: Stage) {
    let long_ago = now_us() - 200_000_000;
    let (unfolded, pending) = (asked().at(long_ago), asked().at(long_ago));
    stage.journal.submit(&pending).await;
    stage.fold().await;
    for task in [&pending, &unfolded] {
        // What the tables lack begins long ago.
        let partition = stage.journal.partition(task.task);
        stage.journal.submit(&asked().at(long_ago).placed(partition, stage.journal.partitions)).await;
    }
    stage.journal.submit(&unfolded).await;
    for task in [&pending, &unfolded] {
        stage.journal.complete(task, r#"{"sentiment":"Positive"}"#).await;
        forget(&stage, task).await;
        for path in ["/api/result/", "/api/tasks/"] {
            let late = stage.get(&format!("{path}{}", task.task)).await;
            assert_eq!(
                (late.status, &late.headers[header::RETRY_AFTER]),
                (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
            );
            assert!(late.text.contains("behind the journal"), "{}", late.text);
        }
    }
    stage.fold().await;
    for task in [&pending, &unfolded] {
        assert_eq!(stage.read(&format!("/api/result/{}", task.task)).await["status"], "completed");
    }
    stage.end().await;
}

async fn failed_and_cancelled_tasks_say_why(stage: Stage) {
    let (failed, cancelled) = (asked(), asked());
    stage.journal.submit_all(&[failed.clone(), cancelled.clone()]).await;
    stage.journal.fail(&failed, "timeout").await;
    stage.journal.cancel(&cancelled).await;
    let seen = async || {
        let failed = stage.read(&format!("/api/result/{}", failed.task)).await;
        let cancelled = stage.read(&format!("/api/tasks/{}", cancelled.task)).await;
        assert_eq!((&failed["status"], &failed["error_code"]), (&json!("failed"), &json!("timeout")));
        assert_eq!(failed["error_message"], "timeout it is");
        assert_eq!((&cancelled["status"], &cancelled["error_message"]), (&json!("cancelled"), &json!("not needed")));
        assert_eq!((&cancelled["attempt"], &cancelled["links"]["cancel"]), (&json!(0), &Value::Null));
        assert_eq!(cancelled["links"]["retry"], format!("/api/tasks/{}/retry", cancelled["task_id"].as_str().unwrap()));
    };
    seen().await;
    stage.fold().await;
    forget(&stage, &failed).await;
    forget(&stage, &cancelled).await;
    seen().await;
    assert_eq!(stage.read(&format!("/api/tasks/{}", failed.task)).await["dead_lettered"], true);
    stage.end().await;
}

async fn a_task_shows_all_that_either_side_knows_and_no_secret(stage: Stage) {
    let batch = uuid::Uuid::new_v4();
    let task = asked().line(batch, 7).webhook("https://user:hunter2@example.com/hook?token=hunter2");
    stage.journal.submit(&task).await;
    stage.fold().await;
    // The tables know that it waits; the record knows better.
    stage.journal.complete(&task, "{}").await;
    let seen = stage.read(&format!("/api/tasks/{}", task.task)).await;
    assert_eq!((&seen["status"], &seen["attempt"], &seen["worker"]), (&json!("completed"), &json!(1), &json!("a")));
    assert_eq!(seen["data_payload"], json!({ "text": "好消息!" }));
    assert_eq!((&seen["batch_id"], &seen["batch_line"]), (&json!(batch), &json!(7)));
    assert_eq!(seen["webhook_url"], "https://example.com/hook?…");
    assert_eq!(seen["links"]["batch"], format!("/api/batches/{batch}"));
    stage.fold().await;
    let later = stage.read(&format!("/api/tasks/{}", task.task)).await;
    assert_ne!(later["started_at"], Value::Null, "which only the tables know");
    assert_eq!(later["completed_at"], seen["completed_at"]);
    for answer in [seen, later] {
        assert!(!answer.to_string().contains("hunter2") && !answer.to_string().contains("sealed"), "{answer}");
    }
    stage.end().await;
}

async fn a_record_that_is_kept_to_know_repeated_requests_is_no_cache(stage: Stage) {
    let task = asked();
    stage.journal.submit(&task).await;
    stage.journal.complete(&task, "{}").await;
    let key = stage.journal.keys.record(stage.journal.partition(task.task), task.task);
    // As of a task whose id the caller brought: kept for a day, and ended 101 s ago.
    let _: i64 = stage.journal.link.query(redis::cmd("HSET").arg(&key).arg("u").arg(86_400)).await.unwrap();
    let _: i64 = stage.journal.link.query(redis::cmd("EXPIRE").arg(&key).arg(86_400 - 101)).await.unwrap();
    let cached = stage.get(&format!("/result/{}", task.task)).await;
    assert_eq!((cached.status, &cached.json()["detail"]), (StatusCode::NOT_FOUND, &json!("任務不存在或已過期")));
    // Not folded yet: it is still the one that knows.
    assert_eq!(stage.read(&format!("/api/result/{}", task.task)).await["status"], "completed");
    stage.fold().await;
    assert_eq!(stage.read(&format!("/api/result/{}", task.task)).await["status"], "completed");
    stage.end().await;
}

async fn during_an_outage_of_the_tables_what_redis_knows_is_answered_and_nothing_is_said_to_be_unknown(stage: Stage) {
    let task = asked();
    stage.journal.submit(&task).await;
    for path in [format!("/api/result/{}", task.task), format!("/api/tasks/{}", task.task)] {
        let answer = during_outage(&stage, &path).await;
        assert_eq!((answer.status, &answer.json()["status"]), (StatusCode::OK, &json!("pending")));
    }
    let events = during_outage(&stage, &format!("/api/tasks/{}/events", task.task)).await;
    assert_eq!((events.status, &events.json()["events"][0]["type"]), (StatusCode::OK, &json!("submitted")));
    for path in [format!("/api/result/{}", TaskId::new()), "/api/tasks".to_owned()] {
        let answer = during_outage(&stage, &path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert_eq!(answer.headers[header::RETRY_AFTER], "2");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    }
    stage.end().await;
}

async fn a_database_that_freezes_holds_nobody_for_long_and_no_work_up(stage: Stage) {
    let url = url::Url::parse(&stage.url).unwrap();
    let proxy = Proxy::to(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())).await;
    let mut through = url.clone();
    through.set_port(Some(proxy.addr.port())).unwrap();
    let router = stage.with_pool(tables::reading_pool(through.as_str(), 2).unwrap()).await;
    let get = async |path: &str| ask(&router, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(get("/api/tasks").await.status, StatusCode::OK);
    proxy.block();
    let task = asked();
    stage.journal.submit(&task).await;
    // More than there are connections.
    let began = std::time::Instant::now();
    let lists = futures_util::future::join_all((0..6).map(|_| get("/api/tasks")));
    let live = async {
        let answer = get(&format!("/api/result/{}", task.task)).await;
        (answer.status, began.elapsed())
    };
    let (lists, (status, took)) = tokio::join!(lists, live);
    assert!(lists.iter().all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE), "{lists:?}");
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    assert_eq!(status, StatusCode::OK);
    assert!(took.as_secs() < 2, "what Redis knows is not held up: {took:?}");
    stage.end().await;
}

async fn what_is_unknown_or_no_id_is_said_so(stage: Stage) {
    let unknown = TaskId::new();
    for path in ["/api/result", "/api/tasks"] {
        let answer = stage.get(&format!("{path}/{unknown}")).await;
        assert_eq!(
            (answer.status, &answer.json()["detail"]),
            (StatusCode::NOT_FOUND, &json!(format!("there is no task {unknown}")))
        );
        let answer = stage.get(&format!("{path}/abc")).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.json()["errors"]["task_id"][0], "must be a UUID");
    }
    assert_eq!(stage.get(&format!("/api/tasks/{unknown}/events")).await.status, StatusCode::NOT_FOUND);
    for id in [unknown.to_string(), "abc".to_owned()] {
        let answer = stage.get(&format!("/result/{id}")).await;
        assert_eq!((answer.status, &answer.json()["detail"]), (StatusCode::NOT_FOUND, &json!("任務不存在或已過期")));
    }
    stage.end().await;
}

async fn the_former_model_servers_answer_has_its_members_and_no_others(stage: Stage) {
    let members = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let (done, failed) = (asked(), asked());
    stage.journal.submit_all(&[done.clone(), failed.clone()]).await;
    let waiting = stage.read(&format!("/result/{}", done.task)).await;
    assert_eq!(members(&waiting), "data_payload model_version status task_type");
    stage.journal.complete(&done, r#"{"score":1}"#).await;
    stage.journal.fail(&failed, "bad_input").await;
    let answer = stage.read(&format!("/result/{}", done.task)).await;
    assert_eq!(members(&answer), "data_payload model_version result status task_type");
    assert_eq!((&answer["data_payload"]["text"], &answer["result"]["score"]), (&json!("好消息!"), &json!(1)));
    let answer = stage.read(&format!("/result/{}", failed.task)).await;
    assert_eq!(members(&answer), "data_payload error model_version status task_type");
    stage.end().await;
}

on_each_server! {
    a_task_is_visible_from_its_upload_on_and_looks_the_same_from_redis_and_from_the_tables,
    a_task_whose_end_the_tables_do_not_have_yet_is_neither_unknown_nor_pending,
    failed_and_cancelled_tasks_say_why,
    a_task_shows_all_that_either_side_knows_and_no_secret,
    a_record_that_is_kept_to_know_repeated_requests_is_no_cache,
    during_an_outage_of_the_tables_what_redis_knows_is_answered_and_nothing_is_said_to_be_unknown,
    a_database_that_freezes_holds_nobody_for_long_and_no_work_up,
    what_is_unknown_or_no_id_is_said_so,
    the_former_model_servers_answer_has_its_members_and_no_others,
}
