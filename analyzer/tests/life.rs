//! The life of tasks that go as they should, or fail by themselves.

mod stage;

use insightforge_analyzer::end::Tally;
use insightforge_schema::event::Change;
use stage::{PARTITION, Stage};

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
    assert_eq!(completed.result, r#"{"said":"ok"}"#);
    assert_eq!((completed.task_type.as_str(), completed.model_version.as_str()), ("acting", "v1"));
    assert_eq!(completed.batch_size, 1);
    let left: i64 = stage.query(&["XLEN", &stage.lane_key()]).await;
    assert_eq!(left, 0, "an ended task leaves its lane");
    let kept: i64 = stage.query(&["TTL", &stage.keys.record(PARTITION, task)]).await;
    assert!((1..=100).contains(&kept), "its record is kept for a while: {kept}");
    assert_eq!(hand.worker.in_flight(), 0);
}
