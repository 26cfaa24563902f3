//! The state machine, as a table of every event in every status, and the SQL that repeats it.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use insightforge_schema::event::{
    BatchReceived, Cancelled, Change, Completed, DeadLettered, EVENT_TYPES, Event, Failed, Meta, Processing, Purged,
    Redriven, RetryScheduled, Shadowed, Submitted,
};
use insightforge_schema::id::{Partition, Position, TaskId};
use insightforge_schema::task::{IllegalEvent, Status, Task, apply};
use proptest::prelude::*;

fn event(task: TaskId, n: u64, change: Change) -> Event {
    let at = |n| Position { partition: Partition(0), n };
    let meta = Meta {
        at_us: i64::try_from(n).unwrap() * 1_000,
        tenant: "default".to_owned(),
        actor: "test".to_owned(),
        attempt: 1,
        trace: None,
    };
    Event { position: at(n), task, first: at(1), meta, change }
}

fn change(event_type: &str) -> Change {
    let word = || "w".to_owned();
    match event_type {
        "submitted" => Change::Submitted(Submitted {
            task_type: word(),
            model_version: word(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        }),
        "processing" => Change::Processing(Processing { worker: word() }),
        "completed" => Change::Completed(Completed {
            task_type: word(),
            model_version: word(),
            result: "{}".to_owned(),
            inference_us: 1,
            batch_size: 1,
            route: None,
        }),
        "failed" => Change::Failed(Failed {
            task_type: word(),
            model_version: word(),
            code: word(),
            message: word(),
            permanent: true,
            route: None,
        }),
        "retry_scheduled" => {
            Change::RetryScheduled(RetryScheduled { code: word(), message: word(), next_attempt: 2, due_us: 1 })
        }
        "cancelled" => Change::Cancelled(Cancelled { reason: word() }),
        "dead_lettered" => Change::DeadLettered(DeadLettered { code: word() }),
        "redriven" => Change::Redriven(Redriven { as_task: TaskId::new(), reason: None }),
        "purged" => Change::Purged(Purged { reason: word() }),
        "batch_received" => Change::BatchReceived(BatchReceived { accepted: 1, rejected: 0 }),
        "shadowed" => Change::Shadowed(Shadowed {
            task_type: word(),
            model_version: "shadow".to_owned(),
            digest: word(),
            backend: word(),
            device: word(),
            result: Some("{}".to_owned()),
            error: None,
            agrees: true,
            took_us: 1,
            batch_size: 1,
        }),
        other => panic!("{other}"),
    }
}

/// A task in `status`, by the shortest way there; the next event's number is returned with it.
fn task_in(status: Status) -> (Task, u64) {
    let way: &[&str] = match status {
        Status::Pending => &["submitted"],
        Status::Processing => &["submitted", "processing"],
        Status::Completed => &["submitted", "processing", "completed"],
        Status::Failed => &["submitted", "processing", "failed"],
        Status::Cancelled => &["submitted", "cancelled"],
    };
    let id = TaskId::new();
    let mut task = None;
    for (n, event_type) in (1..).zip(way) {
        task = Some(apply(task, &event(id, n, change(event_type))).unwrap());
    }
    let task = task.unwrap();
    assert_eq!(task.status, status);
    (task, way.len() as u64 + 1)
}

#[test]
fn an_event_of_another_task_never_changes_this_one() {
    let (task, n) = task_in(Status::Pending);
    let illegal = apply(Some(task), &event(TaskId::new(), n, change("processing"))).unwrap_err();
    assert!(matches!(illegal, IllegalEvent::OtherTask { .. }), "{illegal}");
}

#[test]
fn every_event_in_every_status_leads_where_the_diagram_says() {
    use Status::{Cancelled, Completed, Failed, Pending, Processing};
    let legal = [
        (Pending, "processing", Processing),
        (Pending, "failed", Failed),
        (Pending, "cancelled", Cancelled),
        (Processing, "completed", Completed),
        (Processing, "failed", Failed),
        (Processing, "retry_scheduled", Pending),
        (Processing, "cancelled", Cancelled),
        (Completed, "shadowed", Completed),
        (Failed, "dead_lettered", Failed),
        (Failed, "redriven", Failed),
        (Failed, "purged", Failed),
        (Cancelled, "redriven", Cancelled),
    ];
    for status in Status::ALL {
        for event_type in EVENT_TYPES {
            let (task, n) = task_in(status);
            let outcome = apply(Some(task.clone()), &event(task.id, n, change(event_type)));
            match legal.iter().find(|(from, on, _)| (*from, *on) == (status, event_type)) {
                Some((_, _, to)) => assert_eq!(outcome.unwrap().status, *to, "{status:?} {event_type}"),
                None => assert!(outcome.is_err(), "{status:?} {event_type}"),
            }
        }
    }
}

#[test]
fn a_shadow_changes_nothing_of_a_task_but_what_was_folded_last() {
    let (task, n) = task_in(Status::Completed);
    let shadowed = apply(Some(task.clone()), &event(task.id, n, change("shadowed"))).unwrap();
    assert_eq!(shadowed, Task { last_n: n, ..task });
}

#[test]
fn nothing_but_submitted_begins_a_task() {
    for event_type in EVENT_TYPES.into_iter().filter(|event_type| *event_type != "submitted") {
        let outcome = apply(None, &event(TaskId::new(), 1, change(event_type)));
        assert!(matches!(outcome, Err(IllegalEvent::NotSubmitted { .. })), "{event_type}");
    }
}

#[test]
fn the_tables_check_allows_exactly_the_machines_statuses() {
    let sql = include_str!("../migrations/0001_tables.sql");
    let table = sql.split("CREATE TABLE").find(|part| part.trim_start().starts_with("analysis_tasks")).unwrap();
    let list = table.split("status IN (").nth(1).and_then(|rest| rest.split(')').next()).expect("a CHECK of status");
    let mut allowed: Vec<_> = list.split(',').map(|word| word.trim().trim_matches('\'')).collect();
    let mut known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
    allowed.sort_unstable();
    known.sort_unstable();
    assert_eq!(allowed, known);
}

proptest! {
    #[test]
    fn any_sequence_of_events_ends_a_task_once_at_most_and_folding_twice_is_folding_once(
        types in proptest::collection::vec(0..EVENT_TYPES.len(), 0..40)
    ) {
        let id = TaskId::new();
        let events: Vec<_> =
            (1..).zip(&types).map(|(n, index)| event(id, n, change(EVENT_TYPES[*index]))).collect();
        let mut task: Option<Task> = None;
        let mut ended = 0;
        for event in &events {
            if let Ok(next) = apply(task.clone(), event) {
                ended += usize::from(next.status.is_terminal() && !task.as_ref().is_some_and(|it| it.status.is_terminal()));
                prop_assert!(!task.as_ref().is_some_and(|it| it.status.is_terminal() && it.status != next.status));
                task = Some(next);
            }
        }
        prop_assert!(ended <= 1);
        if let Some(task) = task {
            let mut again = task.clone();
            for event in events.iter().filter(|event| event.position.n <= task.last_n) {
                again = apply(Some(again), event).unwrap();
            }
            prop_assert_eq!(again, task);
        }
    }
}
