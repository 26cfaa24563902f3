//! The life of tasks that go as they should, or fail by themselves.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use std::sync::atomic::Ordering;

use insightforge_analyzer::Config;
use insightforge_analyzer::config::BACKOFF_CEILING_MS;
use insightforge_analyzer::end::Tally;
use insightforge_analyzer::move_due::move_due;
use insightforge_analyzer::process::process;
use insightforge_analyzer::reap::{self, Round};
use insightforge_analyzer::waiting;
use insightforge_schema::event::{Change, Meta, Processing, encode, now_us};
use insightforge_schema::keys::Lane;
use insightforge_schema::script::{self, Cancellation, Start, Started};
use stage::{PARTITION, Stage, fold};

#[tokio::test]
async fn a_task_is_taken_and_completed_with_two_events_that_carry_its_tenant_and_trace() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("ok").await;

    assert_eq!(hand.work().await, Tally { completed: 1, ..Tally::default() });

    let events = stage.events(task).await;
    assert_eq!(stage.story(task).await, "submitted processing completed");
    for event in &events[1..] {
        assert_eq!(event.meta.tenant, "acme");
        assert_eq!(event.meta.trace.as_deref(), Some("00-aa-bb-01"));
        assert_eq!(event.meta.actor, "analyzer/w1");
        assert_eq!(event.meta.attempt, 1);
        assert_eq!(event.first, events[0].position);
    }
    let Change::Completed(completed) = &events[2].change else { panic!("{:?}", events[2]) };
    assert_eq!(completed.result, r#"{"label":"ham","said":"ok"}"#);
    assert_eq!((completed.task_type.as_str(), completed.model_version.as_str()), ("acting", "v1"));
    assert_eq!(completed.batch_size, 1);
    let left: i64 = stage.query(&["XLEN", &stage.lane_key()]).await;
    assert_eq!(left, 0, "an ended task leaves its lane");
    let kept: i64 = stage.query(&["TTL", &stage.keys.record(PARTITION, task)]).await;
    assert!((1..=100).contains(&kept), "its record is kept for a while: {kept}");
    assert_eq!(hand.worker.in_flight(), 0);
}

#[tokio::test]
async fn tasks_that_wait_together_go_to_the_model_together() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    stage.submit_all(&["ok 1", "ok 2", "ok 3"]).await;
    assert_eq!(hand.work().await.completed, 3);
    assert_eq!(stage.actor.calls.load(Ordering::Relaxed), 1);
    let starts = stage.journal().await.iter().map(|event| event.change.event_type().to_owned()).collect::<Vec<_>>();
    assert_eq!(
        starts.join(" "),
        "submitted submitted submitted processing processing processing completed completed completed"
    );
}

#[tokio::test]
async fn a_type_or_version_that_is_not_served_is_never_taken() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let other_version = Lane::new("acting", "v2");
    let other_type = Lane::new("singing", "v1");
    let tasks = [
        stage.submit_to(&other_version, &other_version, "ok").await,
        stage.submit_to(&other_type, &other_type, "ok").await,
    ];
    assert_eq!(hand.work().await, Tally::default());
    for task in tasks {
        assert_eq!(stage.story(task).await, "submitted");
    }
    let round = reap::round(&hand.worker, PARTITION).await.unwrap();
    assert_eq!(round, Round::default(), "a janitor leaves waiting tasks alone");
}

#[tokio::test]
async fn what_lies_on_a_lane_is_told_also_where_nobody_serves_it() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let deserted = Lane::new("singing", "v1");
    stage.submit_all(&["ok 1", "ok 2"]).await;
    stage.submit_to(&deserted, &deserted, "ok").await;
    hand.work().await;
    let mut found = waiting::look(&hand.worker, PARTITION).await.unwrap();
    found.sort_by(|a, b| a.lane.cmp(&b.lane));
    let told: Vec<_> = found.iter().map(|waiting| (waiting.lane.to_string(), waiting.tasks)).collect();
    assert_eq!(told, [("acting:v1".to_owned(), 0), ("singing:v1".to_owned(), 1)]);
    assert!(found[0].oldest_s == 0.0 && (0.0..60.0).contains(&found[1].oldest_s), "{found:?}");
}

#[tokio::test]
async fn a_task_nobody_can_serve_fails_and_is_told_what_was_asked_and_what_is_known() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let unknown_type = stage.submit_to(&Lane::unroutable(), &Lane::new("juggling", "v1"), "ok").await;
    let unknown_version = stage.submit_to(&Lane::unroutable(), &Lane::new("acting", "v9"), "ok").await;
    assert_eq!(hand.work().await, Tally { failed: 2, ..Tally::default() });
    for (task, code, words) in [
        (unknown_type, "unknown_task_type", ["juggling", "acting"]),
        (unknown_version, "unknown_model_version", ["v9", "v1"]),
    ] {
        assert_eq!(stage.story(task).await, "submitted processing failed dead_lettered");
        let failed = stage.failure(task).await;
        assert_eq!((failed.code.as_str(), failed.permanent), (code, true));
        assert!(words.iter().all(|word| failed.message.contains(word)), "{}", failed.message);
    }
}

#[tokio::test]
async fn a_permanent_error_fails_at_the_first_attempt_and_lands_on_the_dead_letter_list() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("bad").await;
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    assert_eq!(stage.story(task).await, "submitted processing failed dead_lettered");
    let failed = stage.failure(task).await;
    assert_eq!(
        (failed.code.as_str(), failed.message.as_str(), failed.permanent),
        ("bad_input", "bad_input it is", true)
    );
    let dead: Vec<String> = stage.query(&["ZRANGE", &stage.keys.dead(PARTITION), "0", "-1"]).await;
    assert_eq!(dead, [task.to_string()]);
}

#[tokio::test]
async fn a_transient_error_is_repeated_until_it_passes() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("flaky").await;
    for _ in 0..2 {
        assert_eq!(hand.work().await, Tally { retried: 1, ..Tally::default() });
        assert_eq!(hand.work().await, Tally::default(), "a delayed task waits");
        assert_eq!(hand.move_all(&stage).await, 1);
    }
    assert_eq!(hand.work().await, Tally { completed: 1, ..Tally::default() });
    let story = "submitted processing retry_scheduled processing retry_scheduled processing completed";
    assert_eq!(stage.story(task).await, story);
    let attempts: Vec<u32> = stage.events(task).await.iter().map(|event| event.meta.attempt).collect();
    assert_eq!(attempts, [0, 1, 1, 2, 2, 3, 3]);
}

#[tokio::test]
async fn a_retry_is_not_moved_before_it_is_due() {
    let stage = Stage::new();
    let config =
        Config { backoff_base_ms: BACKOFF_CEILING_MS, backoff_cap_ms: BACKOFF_CEILING_MS, ..Stage::config("w1") };
    let mut hand = stage.worker_with(config).await;
    stage.submit("flaky").await;
    assert_eq!(hand.work().await.retried, 1);
    assert_eq!(move_due(&hand.worker, PARTITION).await.unwrap(), 0);
}

#[tokio::test]
async fn a_task_that_always_fails_has_three_attempts_and_then_fails_for_good() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("broken").await;
    for _ in 0..2 {
        assert_eq!(hand.work().await.retried, 1);
        hand.move_all(&stage).await;
    }
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    assert_eq!(stage.actor.tried("broken"), 3);
    let failed = stage.failure(task).await;
    assert_eq!((failed.code.as_str(), failed.permanent), ("broken", false));
    assert_eq!(fold(&stage.journal().await), [("failed", 1)].into());
    let dead: i64 = stage.query(&["ZCARD", &stage.keys.dead(PARTITION)]).await;
    assert_eq!(dead, 1);
    assert_eq!(hand.move_all(&stage).await, 0);
}

#[tokio::test]
async fn an_input_that_panics_fails_alone_and_its_batch_is_answered() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let tasks = stage.submit_all(&["ok 1", "panic", "ok 2"]).await;
    assert_eq!(hand.work().await, Tally { completed: 2, retried: 1, ..Tally::default() });
    assert_eq!(stage.story(tasks[0]).await, "submitted processing completed");
    let events = stage.events(tasks[1]).await;
    let Change::RetryScheduled(retry) = &events[2].change else { panic!("{events:?}") };
    assert_eq!((retry.code.as_str(), retry.next_attempt), ("panic", 2));
}

#[tokio::test]
async fn a_batch_with_a_missing_answer_is_asked_again_one_by_one() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let tasks = stage.submit_all(&["ok 1", "short", "ok 2"]).await;
    assert_eq!(hand.work().await, Tally { completed: 3, ..Tally::default() });
    assert_eq!(stage.actor.calls.load(Ordering::Relaxed), 4);
    let Change::Completed(completed) = &stage.events(tasks[2]).await[2].change else { panic!() };
    assert_eq!(completed.result, r#"{"label":"ham","said":"ok 2"}"#, "every answer goes to its own task");
}

#[tokio::test]
async fn a_result_that_is_no_json_never_reaches_the_journal() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("garbage").await;
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    assert_eq!(stage.failure(task).await.code, "bad_output");
}

#[tokio::test]
async fn a_model_that_hangs_is_left_behind_and_the_task_repeated_alone() {
    let stage = Stage::new();
    stage.actors.timeout_ms.store(50, Ordering::Relaxed);
    stage.put_model("acting", "v1", "");
    let mut hand = stage.worker("w1").await;
    let tasks = stage.submit_all(&["hang", "ok 1"]).await;
    // The batch is given up, then each is asked alone; the second time the input does not hang.
    assert_eq!(hand.work().await, Tally { completed: 2, ..Tally::default() });
    assert_eq!((stage.actor.tried("hang"), stage.actor.tried("ok 1")), (2, 1));
    assert_eq!(fold(&stage.journal().await), [("completed", 2)].into());
    assert_eq!(stage.story(tasks[0]).await, "submitted processing completed");
    stage.actor.release();
}

#[tokio::test]
async fn a_task_whose_model_is_silent_for_too_long_is_repeated() {
    let stage = Stage::new();
    let mut hand = stage.worker_with(Config { task_timeout_ms: 50, ..Stage::config("w1") }).await;
    let task = stage.submit("hang").await;
    assert_eq!(hand.work().await, Tally { retried: 1, ..Tally::default() });
    let Change::RetryScheduled(retry) = &stage.events(task).await[2].change else { panic!() };
    assert_eq!((retry.code.as_str(), retry.next_attempt), ("timeout", 2));
    stage.actor.release();
}

#[tokio::test]
async fn a_task_whose_input_the_journal_lost_fails_for_good() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("ok").await;
    let _: i64 = stage.query(&["XDEL", &stage.keys.journal(PARTITION), "0-1"]).await;
    assert_eq!(hand.work().await, Tally { failed: 1, ..Tally::default() });
    assert_eq!(stage.failure(task).await.code, "input_lost");
}

#[tokio::test]
async fn a_task_cancelled_after_it_was_read_is_never_begun() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("ok").await;
    let mut batches = hand.take().await;
    assert_eq!(stage.cancel(task).await, Cancellation::Done);
    assert_eq!(process(&hand.worker, batches.pop().unwrap()).await, Tally::default());
    assert_eq!(stage.story(task).await, "submitted cancelled");
    assert_eq!(stage.actor.tried("ok"), 0);
}

#[tokio::test]
async fn the_answer_of_a_task_cancelled_while_it_ran_is_refused() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let task = stage.submit("hang").await;
    let work = hand.work_behind().await;
    stage.actor.wait_for_hang().await;
    assert_eq!(stage.cancel(task).await, Cancellation::Done);
    stage.actor.release();
    assert_eq!(work.await.unwrap(), Tally { lost: 1, ..Tally::default() });
    assert_eq!(stage.story(task).await, "submitted processing cancelled");
}

#[tokio::test]
async fn places_bound_what_is_in_flight() {
    let stage = Stage::new();
    let mut hand = stage.worker_with(Config { max_in_flight: 5, ..Stage::config("w1") }).await;
    for index in 0..12 {
        stage.submit(&format!("ok {index}")).await;
    }
    // The first read asks every lane, the next one only where there was something.
    let mut first = hand.take().await;
    first.extend(hand.take().await);
    assert_eq!(first.iter().map(|batch| batch.references.len()).sum::<usize>(), 5);
    assert_eq!(hand.worker.in_flight(), 5);
    drop(first);
    assert_eq!(hand.worker.in_flight(), 0);
}

#[tokio::test]
async fn a_broken_record_takes_nobody_along_neither_at_the_start_nor_in_a_janitor_s_round() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let tasks = stage.submit_all(&["ok 1", "ok 2", "ok 3"]).await;
    let record = stage.keys.record(PARTITION, tasks[1]);
    let _: i64 = stage.query(&["HDEL", &record, "f"]).await;
    assert_eq!(hand.work().await, Tally { completed: 2, ..Tally::default() });
    assert_eq!(stage.story(tasks[0]).await, "submitted processing completed");

    let _: i64 = stage.query(&["HSET", &record, "a", "many"]).await;
    let later = stage.submit("ok 4").await;
    drop(hand.take().await);
    assert_eq!(hand.reap_all(&stage).await, Round { requeued: 1, ..Round::default() });
    assert_eq!(hand.work().await, Tally { completed: 1, ..Tally::default() });
    assert_eq!(stage.story(later).await, "submitted processing completed");
}

#[tokio::test]
async fn a_task_out_of_time_is_ended_instead_of_begun_and_takes_nobody_along() {
    let stage = Stage::new();
    let mut hand = stage.worker("w1").await;
    let tasks = stage.submit_all(&["ok 1", "ok 2", "ok 3"]).await;
    let (record, expiring) = (stage.keys.record(PARTITION, tasks[1]), stage.keys.expiring(PARTITION));
    let _: i64 = stage.query(&["HSET", &record, "d", "1000"]).await;
    let _: i64 = stage.query(&["ZADD", &expiring, "1000", &tasks[1].to_string()]).await;

    assert_eq!(hand.work().await, Tally { completed: 2, ..Tally::default() });

    assert_eq!(stage.story(tasks[1]).await, "submitted failed");
    let end = stage.events(tasks[1]).await.remove(1);
    let Change::Failed(failed) = &end.change else { panic!("{end:?}") };
    assert_eq!((failed.code.as_str(), failed.permanent, end.meta.attempt), ("expired", true, 0));
    assert_eq!((end.meta.actor.as_str(), end.meta.tenant.as_str()), ("analyzer/w1", "acme"));
    for key in [expiring, stage.keys.dead(PARTITION)] {
        let left: i64 = stage.query(&["ZCARD", &key]).await;
        assert_eq!(left, 0, "{key}");
    }
    let left: i64 = stage.query(&["XLEN", &stage.lane_key()]).await;
    assert_eq!((left, hand.worker.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_task_that_kills_its_worker_three_times_ends_among_the_dead_letters_with_its_history() {
    let stage = Stage::new();
    let task = stage.submit("ok").await;
    let healer = stage.worker("healer").await;
    for attempt in 1..=3 {
        let name = format!("w{attempt}");
        let mut victim = stage.worker(&name).await;
        let batches = victim.take().await;
        let (lane, reference) = (&batches[0].lane, batches[0].references[0].clone());
        let meta = Meta {
            at_us: now_us(),
            tenant: "acme".to_owned(),
            actor: format!("analyzer/{name}"),
            attempt,
            trace: None,
        };
        let event = encode(&meta, &Change::Processing(Processing { worker: name.clone() }));
        let start = Start { token: reference.token, task, event };
        let started = script::start(&stage.link, &stage.keys, PARTITION, &lane.lane, &name, &[start]).await.unwrap();
        assert!(matches!(started[..], [Started::Ours { .. }]), "{started:?}");
        // It dies: nothing more is heard of it.
        drop((batches, victim));
        let ended = if attempt < 3 {
            Round { retried: 1, ..Round::default() }
        } else {
            Round { failed: 1, ..Round::default() }
        };
        assert_eq!(healer.reap_all(&stage).await, ended, "attempt {attempt}");
        assert_eq!(healer.move_all(&stage).await, u64::from(attempt < 3));
    }
    assert_eq!(
        stage.story(task).await,
        "submitted processing retry_scheduled processing retry_scheduled processing failed dead_lettered"
    );
    let failed = stage.failure(task).await;
    assert_eq!((failed.code.as_str(), failed.permanent), ("worker_lost", false));
    assert!(failed.message.contains("w3"), "{}", failed.message);
    let dead: i64 = stage.query(&["ZCARD", &stage.keys.dead(PARTITION)]).await;
    assert_eq!((dead, stage.actor.tried("ok")), (1, 0));
    assert_eq!(fold(&stage.journal().await), [("failed", 1)].into());
}
