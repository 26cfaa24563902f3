//! The models that come with the program, at work: from a lane to the journal.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod stage;

use insightforge_analyzer::Deps;
use insightforge_analyzer::end::Tally;
use insightforge_analyzer::model::Registry;
use insightforge_schema::event::Change;
use insightforge_schema::keys::Lane;
use stage::Stage;

#[tokio::test]
async fn a_text_is_judged_its_names_are_found_and_a_bad_document_fails_at_the_first_try() {
    let stage = Stage::new();
    let deps = Deps { registry: Registry::built_in(), ..stage.deps() };
    let mut hand = Stage::hand(Stage::config("w1"), deps).await;
    let [sentiment, entities] =
        ["sentiment_analysis", "named_entity_recognition"].map(|task_type| Lane::new(task_type, "v1.0"));
    let good = stage.submit_to(&sentiment, &sentiment, r#"{"text":"好消息!"}"#).await;
    let named = stage.submit_to(&entities, &entities, r#"{"text":"張三在台灣"}"#).await;
    let bad = stage.submit_to(&entities, &entities, r#"{"text":7}"#).await;

    assert_eq!(hand.work().await, Tally { completed: 2, failed: 1, ..Tally::default() });

    for (task, member, value) in [(good, "/sentiment", "Positive"), (named, "/entities/1/text", "台灣")] {
        let events = stage.events(task).await;
        let Some(Change::Completed(completed)) = events.last().map(|event| &event.change) else { panic!("{events:?}") };
        let result: serde_json::Value = serde_json::from_str(&completed.result).unwrap();
        assert_eq!(result.pointer(member).unwrap(), value);
    }
    assert_eq!(stage.story(bad).await, "submitted processing failed dead_lettered");
    let failed = stage.failure(bad).await;
    assert!(failed.permanent && failed.message == "/text must be a string, not a number", "{failed:?}");
}
