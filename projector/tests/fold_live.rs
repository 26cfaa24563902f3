//! The projector on a real Redis and real databases: every test runs on each of them.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::time::Duration;

use insightforge_projector::project::{Step, StepError};
use insightforge_projector::webhook::WebhookConfig;
use insightforge_projector::{Config, Upkeep};
use insightforge_schema::event::{BatchReceived, Change, DeadLettered};
use insightforge_schema::id::{Partition, TaskId};
use sqlx::AssertSqlSafe;
use stage::{Stage, completed, failed, on_each_server, partitions, processing, routed, shadowed, submitted};
use tokio_util::sync::CancellationToken;

async fn whole_lives_become_rows_logs_results_and_announcements(stage: Stage) {
    let (mut projector, mut handed_over) = stage.projector("one");
    let (good, bad) = (TaskId::new(), TaskId::new());
    stage.life(Partition(0), good, &[processing(), completed()]).await;
    let letter = Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() });
    stage.life(Partition(1), bad, &[processing(), failed(), letter]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(7));
    assert_eq!(stage.statuses().await, ["completed", "failed"]);
    assert_eq!((stage.count("task_logs").await, stage.count("analysis_results").await), (7, 1));
    let deliveries = handed_over.try_recv().unwrap();
    assert_eq!(deliveries.len(), 2);
    let body: serde_json::Value = serde_json::from_slice(&deliveries[0].body).unwrap();
    assert_eq!((&body["task_id"], &body["status"]), (&good.to_string().into(), &"completed".into()));
    assert_eq!(body["result"]["sentiment"], "Positive");
    let leased: i64 = stage.count("webhook_outbox WHERE state = 1").await;
    assert_eq!(leased, 2);
    let text: String =
        sqlx::query_scalar("SELECT JSON_UNQUOTE(JSON_EXTRACT(data_payload, '$.text')) FROM analysis_tasks LIMIT 1")
            .fetch_one(&stage.deps.pool)
            .await
            .unwrap();
    assert_eq!(text, "今天 😀");
    stage.end().await;
}

async fn a_life_folded_event_by_event_and_by_a_new_projector_ends_in_the_same_rows(stage: Stage) {
    let task = TaskId::new();
    let first = stage.append(Partition(0), task, 0, &submitted("not json")).await;
    let (mut one, _kept) = stage.projector("one");
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    stage.append(Partition(0), task, first, &processing()).await;
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    // The next one has nothing in memory and loads the task.
    let (mut two, mut handed_over) = stage.projector("two");
    stage.append(Partition(0), task, first, &completed()).await;
    assert_eq!(two.step().await.unwrap(), Step::Folded(1));
    assert_eq!(stage.statuses().await, ["completed"]);
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    assert_eq!(stage.count("task_logs").await, 3);
    stage.end().await;
}

async fn the_model_that_answered_stands_with_the_result_and_shadows_stand_beside(stage: Stage) {
    let (mut projector, mut handed_over) = stage.projector("one");
    let task = TaskId::new();
    let first = stage.append(Partition(0), task, 0, &submitted("{}")).await;
    for change in [processing(), routed()] {
        stage.append(Partition(0), task, first, &change).await;
    }
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    let columns = "status, CAST(model_version AS CHAR), CAST(updated_at AS CHAR)";
    let row = async || -> (String, String, String) {
        let statement = AssertSqlSafe(format!("SELECT {columns} FROM analysis_tasks"));
        sqlx::query_as(statement).fetch_one(&stage.deps.pool).await.unwrap()
    };
    let answered = row().await;
    assert_eq!((answered.0.as_str(), answered.1.as_str()), ("completed", "v2"));
    for change in [shadowed(Some(r#"{"sentiment":"Positive"}"#)), shadowed(None)] {
        stage.append(Partition(0), task, first, &change).await;
    }
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    assert_eq!(row().await, answered, "a shadow changes nothing of the task");
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    assert!(handed_over.try_recv().is_err(), "a shadow is announced to nobody");
    let result: (String, String, String, String) =
        sqlx::query_as("SELECT model_version, model_digest, backend, route_reason FROM analysis_results")
            .fetch_one(&stage.deps.pool)
            .await
            .unwrap();
    let expected = ["v2", "9f86d081", "linear", "canary"].map(str::to_owned);
    assert_eq!([result.0, result.1, result.2, result.3], expected);
    let shadows: Vec<(String, bool, Option<String>, bool)> = sqlx::query_as(
        "SELECT model_version, result_data IS NOT NULL, error_code, agrees FROM analysis_shadow_results ORDER BY id",
    )
    .fetch_all(&stage.deps.pool)
    .await
    .unwrap();
    let v3 = || "v3".to_owned();
    assert_eq!(shadows, [(v3(), true, None, true), (v3(), false, Some("timeout".to_owned()), false)]);
    let details: String = sqlx::query_scalar(
        "SELECT CAST(JSON_UNQUOTE(JSON_EXTRACT(details, '$.route_reason')) AS CHAR) FROM task_logs WHERE event_type = 'completed'",
    )
    .fetch_one(&stage.deps.pool)
    .await
    .unwrap();
    assert_eq!(details, "canary");
    stage.end().await;
}

async fn of_two_projectors_one_is_fenced_and_nothing_is_folded_twice(stage: Stage) {
    let (mut one, _one) = stage.projector("one");
    let (mut two, _two) = stage.projector("two");
    stage.life(Partition(0), TaskId::new(), &[]).await;
    assert_eq!(one.step().await.unwrap(), Step::Folded(1));
    assert_eq!(two.step().await.unwrap(), Step::Idle);
    stage.life(Partition(0), TaskId::new(), &[processing(), completed()]).await;
    let (left, right) = tokio::join!(one.step(), two.step());
    let mut outcomes = [left.unwrap(), right.unwrap()].map(|step| format!("{step:?}"));
    outcomes.sort();
    assert_eq!(outcomes, ["Fenced", "Folded(3)"]);
    assert_eq!((stage.count("task_logs").await, stage.count("webhook_outbox").await), (4, 1));
    stage.end().await;
}

async fn what_cannot_be_folded_is_a_fault_and_holds_nothing_up(stage: Stage) {
    let (mut projector, _kept) = stage.projector("one");
    let task = TaskId::new();
    stage.life(Partition(0), task, &[completed(), processing(), completed(), completed()]).await;
    // The same id again, long after its record was gone.
    stage.life(Partition(0), task, &[processing()]).await;
    stage.append(Partition(0), TaskId::new(), 999, &processing()).await;
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(10));
    assert_eq!(stage.statuses().await, ["completed", "processing"]);
    assert_eq!((stage.count("projection_faults").await, stage.count("task_logs").await), (5, 5));
    stage.end().await;
}

async fn whatever_a_caller_or_a_model_says_holds_nothing_up(stage: Stage) {
    let (mut projector, _kept) = stage.projector("one");
    let long_key = format!(r#"{{"{}":1}}"#, "k".repeat(70_000));
    for data in [r#"{"n":1e999}"#, r#"[0e400]"#, "'\\", "\0", &long_key, &"9".repeat(400)] {
        let first = stage.append(Partition(0), TaskId::new(), 0, &submitted(data)).await;
        assert!(first > 0);
    }
    // In one fold with its submission, and as a change of a row that is there.
    let mut verbose = failed();
    if let Change::Failed(failed) = &mut verbose {
        failed.message = "好'\\".repeat(30_000);
    }
    let mut absurd = completed();
    if let Change::Completed(completed) = &mut absurd {
        completed.result = r#"{"score":-1e309}"#.to_owned();
    }
    stage.life(Partition(0), TaskId::new(), &[processing(), verbose.clone()]).await;
    stage.life(Partition(0), TaskId::new(), &[processing(), absurd]).await;
    let task = TaskId::new();
    let first = stage.life(Partition(0), task, &[processing()]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(14));
    stage.append(Partition(0), task, first, &verbose).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(1));
    assert_eq!(stage.count("analysis_tasks WHERE CHAR_LENGTH(error_message) > 16000").await, 2);
    assert_eq!((stage.count("projection_faults").await, stage.count("analysis_tasks").await), (0, 9));
    stage.end().await;
}

async fn a_server_that_is_emptied_under_a_living_connection_is_not_folded_on(stage: Stage) {
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    let (mut projector, _kept) = stage.projector("one");
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    let cut = redis::cmd("DEL").arg(stage.deps.keys.journal(Partition(0))).clone();
    let _: i64 = stage.deps.link.query(&cut).await.unwrap();
    // So much comes before anybody looks that the numbers go on where they were.
    let new = TaskId::new();
    for _ in 0..4 {
        stage.append(Partition(0), new, 0, &submitted("{}")).await;
    }
    for _ in 0..2 {
        let refused = projector.step().await.unwrap_err();
        assert!(matches!(refused, StepError::MovedBack { folded: 2, .. }), "{refused}");
    }
    assert_eq!(stage.statuses().await, ["processing"]);
    stage.end().await;
}

async fn a_journal_that_lost_its_end_is_not_folded_on_even_once_it_is_longer_again(stage: Stage) {
    let old = TaskId::new();
    stage.life(Partition(0), old, &[processing()]).await;
    assert_eq!(stage.projector("one").0.step().await.unwrap(), Step::Folded(2));
    // Redis comes back without its last event, and its number is given to another.
    let cut = redis::cmd("DEL").arg(stage.deps.keys.journal(Partition(0))).clone();
    let _: i64 = stage.deps.link.query(&cut).await.unwrap();
    let new = TaskId::new();
    stage.append(Partition(0), new, 0, &submitted("{}")).await;
    for _ in 0..3 {
        let refused = stage.projector("two").0.step().await.unwrap_err();
        assert!(matches!(refused, StepError::MovedBack { folded: 2, .. }), "{refused}");
        stage.append(Partition(0), new, 1, &processing()).await;
    }
    assert_eq!(stage.statuses().await, ["processing"]);
    stage.end().await;
}

async fn an_event_of_another_task_under_a_known_number_is_a_fault(stage: Stage) {
    let (mut projector, _kept) = stage.projector("one");
    let first = stage.life(Partition(0), TaskId::new(), &[]).await;
    stage.append(Partition(0), TaskId::new(), first, &processing()).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    assert_eq!((stage.statuses().await, stage.count("projection_faults").await), (vec!["pending".to_owned()], 1));
    stage.end().await;
}

async fn a_batch_that_ends_again_is_a_fault_and_holds_nothing_up(stage: Stage) {
    let (mut projector, _kept) = stage.projector("one");
    let end = Change::BatchReceived(BatchReceived { accepted: 1, rejected: 0 });
    let (one, other) = (TaskId::new(), TaskId::new());
    stage.append(Partition(0), one, 0, &end).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(1));
    // Under the same idempotency key a batch has the same id, and a day later nothing else is left of the first one.
    stage.append(Partition(0), one, 0, &end).await;
    stage.append(Partition(0), other, 0, &end).await;
    stage.append(Partition(0), other, 0, &end).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    assert_eq!((stage.count("analysis_batches").await, stage.count("projection_faults").await), (2, 2));
    stage.end().await;
}

async fn a_lost_connection_changes_nothing_and_the_step_is_made_again(stage: Stage) {
    let (mut projector, mut handed_over) = stage.projector("one");
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    let task = TaskId::new();
    stage.life(Partition(0), task, &[processing(), completed()]).await;
    // Writers wait for this lock; the projector's connection is killed while it waits.
    let mut lock = stage.deps.pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM projection_checkpoint FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    let kill = async {
        loop {
            if let Some(id) = stage.waiting_writer().await {
                sqlx::query(AssertSqlSafe(format!("KILL {id}"))).execute(&stage.server).await.unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (step, ()) = tokio::join!(projector.step(), kill);
    assert!(step.is_err(), "{step:?}");
    lock.rollback().await.unwrap();
    assert_eq!(projector.step().await.unwrap(), Step::Folded(3));
    assert_eq!(handed_over.try_recv().unwrap().len(), 1);
    assert_eq!(stage.statuses().await, ["processing", "completed"]);
    stage.end().await;
}

async fn a_projector_that_the_database_does_not_answer_stops_all_the_same(stage: Stage) {
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    let (mut projector, _kept) = stage.projector("one");
    assert_eq!(projector.step().await.unwrap(), Step::Folded(2));
    let mut lock = stage.pool(1).begin().await.unwrap();
    sqlx::query("SELECT * FROM projection_checkpoint FOR UPDATE").fetch_all(&mut *lock).await.unwrap();
    stage.life(Partition(0), TaskId::new(), &[processing()]).await;
    let drain = Duration::from_secs(1);
    let config = Config {
        partitions: partitions(),
        owner: "two".to_owned(),
        batch_events: 10,
        webhook: WebhookConfig { drain, ..WebhookConfig::default() },
        upkeep: Upkeep::default(),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(insightforge_projector::run(config, stage.deps.clone(), shutdown.clone()));
    while stage.waiting_writer().await.is_none() {
        tokio::task::yield_now().await;
    }
    shutdown.cancel();
    let ended = tokio::time::timeout(drain + Duration::from_secs(2), running).await;
    ended.expect("it ends in time").unwrap().unwrap();
    lock.rollback().await.unwrap();
    stage.end().await;
}

on_each_server! {
    a_projector_that_the_database_does_not_answer_stops_all_the_same,
    whole_lives_become_rows_logs_results_and_announcements,
    a_life_folded_event_by_event_and_by_a_new_projector_ends_in_the_same_rows,
    the_model_that_answered_stands_with_the_result_and_shadows_stand_beside,
    of_two_projectors_one_is_fenced_and_nothing_is_folded_twice,
    what_cannot_be_folded_is_a_fault_and_holds_nothing_up,
    whatever_a_caller_or_a_model_says_holds_nothing_up,
    a_server_that_is_emptied_under_a_living_connection_is_not_folded_on,
    a_journal_that_lost_its_end_is_not_folded_on_even_once_it_is_longer_again,
    an_event_of_another_task_under_a_known_number_is_a_fault,
    a_batch_that_ends_again_is_a_fault_and_holds_nothing_up,
    a_lost_connection_changes_nothing_and_the_step_is_made_again,
}
