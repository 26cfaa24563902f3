//! Dead letters searched, repeated and purged, one or many; each with its event.

use insightforge_schema::event::{Change, Event, Purged, Redriven};
use insightforge_schema::id::TaskId;
use insightforge_schema::task::{Status, Task, apply};
use serde_json::{Value, json};

use crate::door::{Answer, Door, good, good_with};
use crate::work::Work;

const BASE_MS: i64 = 1_700_000_000_000;

async fn dead(door: &Door, code: &str, at_ms: i64) -> TaskId {
    let task = door.upload(&good()).await.task();
    Work::on(door, task).await.start().await.fail_at(code, at_ms).await;
    task
}

async fn list(door: &Door, query: &str) -> Answer {
    Answer::of(door.client.get(format!("http://{}/api/dead-letters{query}", door.addr))).await
}

fn listed(page: &Answer) -> Vec<TaskId> {
    let letters = page.body["dead_letters"].as_array().unwrap_or_else(|| panic!("{page:?}")).iter();
    letters.map(|letter| letter["task_id"].as_str().unwrap().parse().unwrap()).collect()
}

async fn post(door: &Door, path: &str, body: Value) -> Answer {
    Answer::of(door.post(path).json(&body)).await
}

async fn folded(door: &Door, task: TaskId) -> (Event, Task) {
    let mut events: Vec<Event> = door.events().await.into_iter().filter(|event| event.task == task).collect();
    let folded = events.iter().fold(None, |task, event| Some(apply(task, event).unwrap()));
    (events.pop().unwrap(), folded.unwrap())
}

/// The records go, as they do when their time is over.
async fn forget(door: &Door, tasks: &[TaskId]) {
    for task in tasks {
        let record = door.keys.record(door.partitions.of_task(*task), *task);
        let _: u64 = door.link.query(redis::cmd("DEL").arg(record)).await.unwrap();
    }
}

#[tokio::test]
async fn letters_are_found_by_type_code_time_and_message_from_redis_and_from_the_tables() {
    let door = Door::open_with_tables().await;
    let mut tasks = Vec::new();
    for (number, code) in ["timeout", "panic", "timeout", "bad_input"].into_iter().enumerate() {
        tasks.push(dead(&door, code, BASE_MS + 1_000 * number as i64).await);
    }
    let check = async || {
        for (query, expected) in [
            ("", vec![tasks[3], tasks[2], tasks[1], tasks[0]]),
            ("?error_code=timeout", vec![tasks[2], tasks[0]]),
            ("?text=PANIC%20it", vec![tasks[1]]),
            ("?task_type=sentiment_analysis&error_code=bad_input", vec![tasks[3]]),
            ("?task_type=other", vec![]),
            ("?from=2023-11-14T22:13:21Z&to=2023-11-14T22:13:23Z", vec![tasks[2], tasks[1]]),
            ("?to=2023-11-14T22:13:22Z&error_code=timeout", vec![tasks[0]]),
        ] {
            assert_eq!(listed(&list(&door, query).await), expected, "{query}");
        }
        let first = list(&door, "?error_code=timeout&limit=1").await;
        assert_eq!(listed(&first), [tasks[2]]);
        let next = first.body["next"].as_str().unwrap();
        let second = list(&door, &format!("?error_code=timeout&limit=1&after={next}")).await;
        assert_eq!(listed(&second), [tasks[0]]);
        assert_eq!(second.body["next"], Value::Null, "the end of the list");
    };
    check().await;
    forget(&door, &tasks[..2]).await;
    let behind = list(&door, "?error_code=timeout").await;
    assert_eq!((listed(&behind), &behind.body["unreadable"]), (vec![tasks[2]], &json!(2)), "the tables are behind");
    door.fold().await;
    forget(&door, &tasks).await;
    check().await;
    list(&door, "?from=2026-01-02&to=2026-01-02").await.is_problem(422, "to: must be later than `from`");
    list(&door, "?code=x").await.is_problem(422, "code: is not a parameter");
    door.end().await;
}

#[tokio::test]
async fn a_search_needs_the_tables_only_for_what_redis_has_forgotten() {
    let door = Door::open_on("mysql://root@127.0.0.1:9/none", |_| {}).await;
    let task = dead(&door, "timeout", BASE_MS).await;
    assert_eq!(listed(&list(&door, "?error_code=timeout").await), [task]);
    forget(&door, &[task]).await;
    assert_eq!(listed(&list(&door, "").await), [task], "the list is worth having without");
    list(&door, "?error_code=timeout").await.is_problem(503, "the database");
}

#[tokio::test]
async fn one_letter_is_repeated_with_a_reason_or_purged_for_good() {
    let door = Door::open_with_tables().await;
    let (again, gone) = (dead(&door, "timeout", BASE_MS).await, dead(&door, "panic", BASE_MS).await);
    let path = format!("/api/dead-letters/{again}/redrive");
    let repeated = post(&door, &path, json!({ "reason": "the model is mended" })).await;
    assert_eq!(repeated.status.as_u16(), 202, "{repeated:?}");
    let (last, _) = folded(&door, again).await;
    let Change::Redriven(Redriven { as_task, reason }) = &last.change else { panic!("{last:?}") };
    assert_eq!((*as_task, reason.as_deref()), (repeated.task(), Some("the model is mended")));
    assert_eq!(Answer::of(door.post(&path)).await.task(), *as_task, "twice is once, with and without a reason");

    let path = format!("/api/dead-letters/{gone}/purge");
    let purged = post(&door, &path, json!({ "reason": "of no use" })).await;
    assert_eq!((purged.status.as_u16(), &purged.body["purged"]), (200, &json!(true)), "{purged:?}");
    let (last, task) = folded(&door, gone).await;
    assert_eq!(last.change, Change::Purged(Purged { reason: "of no use".to_owned() }));
    assert_eq!((last.meta.actor.as_str(), task.status, task.dead_lettered), ("api", Status::Failed, false));
    post(&door, &path, json!({})).await.is_problem(404, "is no dead letter");
    assert_eq!(listed(&list(&door, "").await), []);
    door.fold().await;
    let detail = Answer::of(door.client.get(format!("http://{}/api/tasks/{gone}", door.addr))).await;
    assert_eq!((&detail.body["status"], &detail.body["dead_lettered"]), (&json!("failed"), &json!(false)));
    let verified = post(&door, &format!("/api/tasks/{gone}/retry"), json!({})).await;
    assert_eq!(verified.status.as_u16(), 202, "a purged task can still be repeated as a task");

    let unknown = format!("/api/dead-letters/{}/purge", TaskId::new());
    post(&door, &unknown, json!({})).await.is_problem(404, "is no dead letter");
    post(&door, &path, json!({ "raeson": "x" })).await.is_problem(422, "raeson");
    door.end().await;
}

#[tokio::test]
async fn many_are_counted_first_and_then_dealt_with_so_many_a_request() {
    let door = Door::open_with_tables().await;
    for number in 0..7 {
        dead(&door, if number % 2 == 0 { "timeout" } else { "panic" }, BASE_MS + number).await;
    }
    let redrive = "/api/dead-letters/redrive";
    let counted = post(&door, redrive, json!({ "error_code": "timeout" })).await;
    assert_eq!((&counted.body["dry_run"], &counted.body["matched"]), (&json!(true), &json!(4)), "{counted:?}");
    assert_eq!((&counted.body["done"], listed(&list(&door, "").await).len()), (&json!(0), 7));

    let some = json!({ "error_code": "timeout", "limit": 3, "dry_run": false, "reason": "mended" });
    let first = post(&door, redrive, some.clone()).await;
    assert_eq!((&first.body["done"], &first.body["more"]), (&json!(3), &json!(true)), "{first:?}");
    let second = post(&door, redrive, some).await;
    assert_eq!((&second.body["done"], &second.body["more"]), (&json!(1), &json!(false)), "{second:?}");
    let reasons: Vec<Option<String>> = door
        .events()
        .await
        .into_iter()
        .filter_map(|event| match event.change {
            Change::Redriven(redriven) => Some(redriven.reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, vec![Some("mended".to_owned()); 4]);
    assert_eq!(door.submitted_ids().await.len(), 11);

    let purge = "/api/dead-letters/purge";
    let purged = post(&door, purge, json!({ "dry_run": false, "to": "2023-11-14T22:13:20.004Z" })).await;
    assert_eq!((&purged.body["done"], &purged.body["matched"]), (&json!(2), &json!(2)), "{purged:?}");
    assert_eq!(listed(&list(&door, "").await).len(), 1);
    for (body, part) in [
        (json!({ "limit": 0 }), "limit: must be a whole number from 1 to 1000"),
        (json!({ "dry_run": "no" }), "dry_run: must be true or false"),
        (json!({ "error_code": 5 }), "error_code: must be a string"),
        (json!({ "code": "x" }), "code: is not a field"),
        (json!({ "from": "2026-01-02", "to": "2026-01-01" }), "to: must be later than `from`"),
    ] {
        post(&door, purge, body).await.is_problem(422, part);
    }
    door.end().await;
}

#[tokio::test]
async fn letters_that_cannot_be_repeated_are_passed_by_and_counted() {
    let door = Door::open_with_tables().await;
    let mut tasks = Vec::new();
    for number in 0..5 {
        tasks.push(dead(&door, "timeout", BASE_MS + number).await);
    }
    // Nothing knows these any more: they are on the list, and are no tasks.
    forget(&door, &tasks[2..]).await;
    let redrive = "/api/dead-letters/redrive";
    let (mut after, mut pages) = (Value::Null, Vec::new());
    while pages.len() < 9 {
        let page = post(&door, redrive, json!({ "limit": 2, "dry_run": false, "after": after })).await;
        let of = |name: &str| page.body[name].as_u64().unwrap_or_else(|| panic!("{page:?}"));
        pages.push((of("done"), of("already"), of("left"), page.body["refused"].as_array().unwrap().len()));
        after = page.body["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(pages, [(0, 0, 2, 2), (1, 0, 1, 1), (1, 0, 0, 0)]);
    let counted = post(&door, redrive, json!({})).await;
    assert_eq!((&counted.body["matched"], &counted.body["next"]), (&json!(3), &Value::Null), "{counted:?}");
    post(&door, redrive, json!({ "after": "5" })).await.is_problem(422, "after: must be the `next`");
    door.end().await;
}

#[tokio::test]
async fn what_takes_letters_away_is_not_for_outsiders() {
    let inside = "127.0.0.1:0".parse().unwrap();
    let door = Door::open_with(|config| config.internal_addr = Some(inside)).await;
    let task = dead(&door, "timeout", BASE_MS).await;
    for path in [
        format!("/api/dead-letters/{task}/purge"),
        "/api/dead-letters/purge".to_owned(),
        "/api/dead-letters/redrive".to_owned(),
    ] {
        assert_eq!(post(&door, &path, json!({})).await.status.as_u16(), 404, "{path}");
    }
    assert_eq!(listed(&list(&door, "").await), [task]);
    let with_url = good_with(&[("user_id", json!(1))]);
    assert!(door.upload(&with_url).await.status.is_success());
}
