//! What can be done with a task after it was accepted: waited for, cancelled, repeated.

use insightforge_schema::event::{Change, Event, Webhook};
use insightforge_schema::id::TaskId;
use insightforge_schema::script;
use insightforge_schema::task::{Status, Task, apply};
use serde_json::json;

use crate::door::{Answer, Door, good, good_with};
use crate::work::Work;

/// The events of one task, folded.
async fn folded(door: &Door, task: TaskId) -> (Vec<Event>, Task) {
    let events: Vec<Event> = door.events().await.into_iter().filter(|event| event.task == task).collect();
    let folded = events.iter().fold(None, |task, event| Some(apply(task, event).unwrap()));
    (events, folded.unwrap())
}

async fn post(door: &Door, path: String) -> Answer {
    Answer::of(door.post(&path)).await
}

async fn forget(door: &Door, task: TaskId) {
    let record = door.keys.record(door.partitions.of_task(task), task);
    let gone: u64 = door.link.query(redis::cmd("DEL").arg(record)).await.unwrap();
    assert_eq!(gone, 1);
}

#[tokio::test]
async fn who_prefers_to_wait_gets_the_result_and_else_the_usual_answer() {
    let door = Door::open().await;
    let preferring =
        async |prefer: &str| Answer::of(door.post("/api/data/upload").header("Prefer", prefer).json(&good())).await;
    let waiting = tokio::join!(preferring("wait=20"), async {
        let task = door.first_task().await;
        Work::on(&door, task).await.start().await.complete("{\"sentiment\":\"Positive\",\"score\":1.0}").await;
    });
    let answer = waiting.0;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, Some("wait=20")), "{answer:?}");
    assert_eq!(
        (&answer.body["status"], &answer.body["result"]["sentiment"]),
        (&json!("completed"), &json!("Positive"))
    );
    assert!(answer.header("location").unwrap().ends_with(answer.body["task_id"].as_str().unwrap()));

    let began = std::time::Instant::now();
    let answer = preferring("wait=1").await;
    assert!((1..5).contains(&began.elapsed().as_secs()));
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (202, None));
    assert_eq!(answer.body["message"], "任務已接收");
}

#[tokio::test]
async fn a_task_is_cancelled_once_whether_it_waits_or_runs() {
    let door = Door::open_with_tables().await;
    for running in [false, true] {
        let task = door.upload(&good()).await.task();
        if running {
            Work::on(&door, task).await.start().await;
        }
        let path = format!("/api/tasks/{task}/cancel");
        for _ in 0..2 {
            let answer = Answer::of(door.post(&path).json(&json!({ "reason": "not needed" }))).await;
            assert_eq!((answer.status.as_u16(), &answer.body["status"]), (200, &json!("cancelled")), "{answer:?}");
        }
        let (events, folded) = folded(&door, task).await;
        assert_eq!((folded.status, events.len()), (Status::Cancelled, if running { 3 } else { 2 }));
        let last = events.last().unwrap();
        assert_eq!((last.meta.actor.as_str(), last.meta.attempt), ("api", u32::from(running)));
        let Change::Cancelled(cancelled) = &last.change else { panic!("{last:?}") };
        assert_eq!(cancelled.reason, "not needed");
    }
    door.end().await;
}

#[tokio::test]
async fn a_task_that_cannot_be_cancelled_says_why() {
    let door = Door::open_with_tables().await;
    let task = door.upload(&good()).await.task();
    let path = format!("/api/tasks/{task}/cancel");
    let too_long = "x".repeat(501);
    for (body, part) in [
        (json!({ "reason": 5 }), "reason: must be a string"),
        (json!({ "reason": too_long }), "reason: must be a string of 500 characters at most"),
        (json!({ "resaon": "x" }), "resaon: is not a field"),
    ] {
        Answer::of(door.post(&path).json(&body)).await.is_problem(422, part);
    }
    Work::on(&door, task).await.start().await.complete("{}").await;
    post(&door, path.clone()).await.is_problem(409, "it is completed");
    post(&door, format!("/api/tasks/{}/cancel", TaskId::new())).await.is_problem(404, "no such task");
    post(&door, "/api/tasks/nonsense/cancel".to_owned()).await.is_problem(422, "task_id: must be a UUID");
    forget(&door, task).await;
    door.fold().await;
    post(&door, path).await.is_problem(409, "it is completed");
    door.end().await;
}

#[tokio::test]
async fn a_failed_task_is_repeated_as_one_new_task_with_its_secret() {
    let door = Door::open_with_tables().await;
    let upload = good_with(&[
        ("user_id", json!(7)),
        ("webhook_url", json!("https://example.com/hook")),
        ("webhook_secret", json!("a secret")),
    ]);
    let old = door.upload(&upload).await.task();
    let path = format!("/api/tasks/{old}/retry");
    post(&door, path.clone()).await.is_problem(409, "this one is pending");
    let work = Work::on(&door, old).await.start().await;
    post(&door, path.clone()).await.is_problem(409, "this one is processing");
    work.fail("bad_input").await;

    let answers = futures_util::future::join_all((0..20).map(|_| post(&door, path.clone()))).await;
    let new = answers[0].task();
    assert!(answers.iter().all(|answer| answer.task() == new && answer.body["retry_of"] == json!(old)));
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed").is_some()).count();
    assert_eq!((replayed, answers[0].status.as_u16()), (19, 202));
    assert_eq!(answers[0].header("location"), Some(&*format!("/api/result/{new}")));

    let (events, folded_old) = folded(&door, old).await;
    assert_eq!(events.iter().filter(|event| event.change.event_type() == "redriven").count(), 1);
    assert_eq!((folded_old.redriven_as, folded_old.dead_lettered), (Some(new), false));
    let (_, submitted, _) = door.submitted().await.into_iter().find(|(task, ..)| *task == new).unwrap();
    assert_eq!((submitted.retry_of, submitted.user_id), (Some(old), Some(7)));
    let Some(Webhook { sealed_secret: Some(sealed), .. }) = submitted.webhook else { panic!("it had a webhook") };
    assert_eq!(door.sealer.open(&sealed, new.0.as_bytes()).unwrap(), b"a secret");
    Work::on(&door, new).await.start().await.complete("{}").await;
    door.end().await;
}

#[tokio::test]
async fn a_task_whose_record_is_gone_is_repeated_from_the_tables_once() {
    let door = Door::open_with_tables().await;
    for trimmed in [false, true] {
        let old = door.upload(&good_with(&[("user_id", json!(7))])).await.task();
        Work::on(&door, old).await.start().await.fail("timeout").await;
        door.fold().await;
        forget(&door, old).await;
        if trimmed {
            let partition = door.partitions.of_task(old);
            let (events, _) = folded(&door, old).await;
            let mut command = redis::cmd("XDEL");
            command.arg(door.keys.journal(partition)).arg(events[0].position.stream_id());
            assert_eq!(door.link.query::<u64>(&command).await.unwrap(), 1);
        }
        let path = format!("/api/tasks/{old}/retry");
        let new = post(&door, path.clone()).await.task();
        let partition = door.partitions.of_task(new);
        let view = script::view(&door.link, &door.keys, partition, new).await.unwrap().unwrap();
        let (_, Change::Submitted(submitted)) = insightforge_schema::event::decode("submitted", &view.submitted) else {
            panic!("{view:?}")
        };
        let data: serde_json::Value = serde_json::from_str(&submitted.data).unwrap();
        assert_eq!((data, submitted.user_id), (json!({ "text": "好消息!" }), Some(7)));
        assert_eq!((submitted.task_type.as_str(), submitted.retry_of), ("sentiment_analysis", Some(old)));

        // Long after, when nothing in Redis tells of it, the row does.
        door.fold().await;
        forget(&door, new).await;
        let again = post(&door, path).await;
        assert_eq!((again.task(), again.header("idempotency-replayed")), (new, Some("true")));
    }
    post(&door, format!("/api/tasks/{}/retry", TaskId::new())).await.is_problem(404, "no such task");
    door.end().await;
}

#[tokio::test]
async fn what_redis_lost_is_neither_repeated_twice_nor_said_to_be_over() {
    let door = Door::open_with_tables().await;
    let old = door.upload(&good()).await.task();
    Work::on(&door, old).await.start().await.fail("timeout").await;
    let path = format!("/api/tasks/{old}/retry");
    let new = post(&door, path.clone()).await.task();
    door.fold().await;
    // The old one's record still stands, and says nothing of the new one.
    forget(&door, new).await;
    let again = post(&door, path).await;
    assert_eq!((again.task(), again.header("idempotency-replayed")), (new, Some("true")));
    let submitted = door.submitted_ids().await;
    assert_eq!(submitted.len(), 2, "{submitted:?}");

    let cancelled = post(&door, format!("/api/tasks/{new}/cancel")).await;
    cancelled.is_problem(503, "nothing was lost");
    assert_eq!(cancelled.header("retry-after"), Some("30"));
    door.end().await;
}

#[tokio::test]
async fn dead_letters_are_listed_latest_first_and_leave_by_being_repeated() {
    let door = Door::open_with_tables().await;
    let mut failed = Vec::new();
    for number in 0..25 {
        let task = door.upload(&good()).await.task();
        // Some within one millisecond.
        Work::on(&door, task).await.start().await.fail_at("bad_input", 1_700_000_000_000 + number / 5).await;
        failed.push((number / 5, task));
    }
    failed.sort_by(|a, b| b.cmp(a));
    let list =
        async |query: &str| Answer::of(door.client.get(format!("http://{}/api/dead-letters{query}", door.addr))).await;
    let mut listed = Vec::new();
    let mut query = "?limit=4".to_owned();
    loop {
        let page = list(&query).await;
        let letters = page.body["dead_letters"].as_array().unwrap();
        listed.extend(letters.iter().map(|letter| letter["task_id"].as_str().unwrap().parse::<TaskId>().unwrap()));
        for letter in letters {
            assert_eq!((&letter["error_code"], &letter["attempts"]), (&json!("bad_input"), &json!(1)), "{letter}");
            assert_eq!(letter["task_type"], "sentiment_analysis");
        }
        let Some(next) = page.body["next"].as_str() else { break };
        query = format!("?limit=4&after={next}");
    }
    assert_eq!(listed, failed.iter().map(|(_, task)| *task).collect::<Vec<_>>());

    let (gone, kept) = (listed[0], listed[1]);
    assert_eq!(post(&door, format!("/api/dead-letters/{gone}/redrive")).await.status, 202);
    door.fold().await;
    forget(&door, kept).await;
    let page = list("?limit=1").await;
    assert_eq!(page.body["dead_letters"][0]["task_id"], json!(kept));
    assert_eq!(page.body["dead_letters"][0]["error_message"], "bad_input it is", "from the tables");
    list("?limit=0").await.is_problem(422, "limit: must be from 1 to 200");
    door.end().await;
}
