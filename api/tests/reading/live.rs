//! Following the journal over a WebSocket and as server-sent events: everything once, at once, and without a gap.

use insightforge_schema::id::TaskId;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::served::{Client, Got, Reader, Sent, Served, assert_gapless};
use crate::stage::{Asked, Stage};

async fn stage() -> Stage {
    Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await
}

fn asked() -> Asked {
    Asked::new("acting", r#"{"text":"a"}"#)
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_subscriber_gets_what_happens_in_the_shape_of_the_feed_with_a_cursor_to_go_on_from() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let mut client = Client::new(&served).await;
    let (before, _) = client.follow(&json!("all"), None).await;
    assert!(before.is_empty());
    let task = asked();
    stage.journal.submit(&task).await;
    stage.journal.complete(&task, r#"{"score":1}"#).await;
    let mut events = client.events(3).await;
    assert_eq!(types(&events), ["submitted", "processing", "completed"]);
    let end = stage.read("/api/events?after=end").await["next"].clone();
    assert_eq!(events[2]["cursor"], end);
    events.iter_mut().for_each(|event| drop(event.as_object_mut().unwrap().remove("cursor")));
    assert_eq!(Value::from(events), stage.read("/api/events").await["events"]);
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn who_comes_back_with_a_cursor_misses_nothing_and_gets_nothing_twice() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let old: Vec<Asked> = (0..150).map(|_| asked()).collect();
    stage.journal.submit_all(&old).await;
    let mut client = Client::new(&served).await;
    let (mut events, cursor) = client.follow(&json!("all"), Some("0")).await;
    assert_eq!(events.len(), 150, "the past comes first");
    let mut cursor = Some(cursor);
    // Leaves in mid-stream, again and again, while events go on.
    for round in 0..5 {
        let new: Vec<Asked> = (0..60).map(|_| asked()).collect();
        stage.journal.submit_all(&new).await;
        let heard = if round % 2 == 0 { client.events(20).await } else { Vec::new() };
        if let Some(last) = heard.last() {
            cursor = Some(last["cursor"].as_str().unwrap().to_owned());
        }
        events.extend(heard);
        client = Client::new(&served).await;
        let (missed, now) = client.follow(&json!("all"), cursor.as_deref()).await;
        events.extend(missed);
        cursor = Some(now);
    }
    assert_eq!(events.len(), 450);
    assert_gapless(&events);
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn topics_pick_their_events_also_those_that_do_not_say_what_their_task_is() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let (one, other) = (asked(), Asked::new("other", "{}"));
    stage.journal.submit_all(&[one.clone(), other.clone()]).await;
    let mut by_task = Client::new(&served).await;
    by_task.follow(&json!({ "task": one.task }), None).await;
    let mut by_type = Client::new(&served).await;
    by_type.follow(&json!({ "type": "other" }), None).await;
    let mut by_query = Client::new(&served).await;
    by_query.follow(&json!({ "query": "status:failed type:acting error:timeout" }), None).await;
    let mut both = Client::new(&served).await;
    both.follow(&json!({ "task": one.task }), None).await;
    both.follow(&json!({ "type": "other" }), None).await;

    stage.journal.fail(&one, "timeout").await;
    stage.journal.complete(&other, "{}").await;
    assert_eq!(types(&by_task.events(3).await), ["processing", "failed", "dead_lettered"]);
    assert_eq!(types(&by_type.events(2).await), ["processing", "completed"]);
    assert_eq!(types(&by_query.events(2).await), ["failed", "dead_lettered"]);
    let events = both.events(5).await;
    let of = |task: TaskId| events.iter().filter(|event| event["task_id"] == json!(task)).count();
    assert_eq!((of(one.task), of(other.task)), (3, 2));

    // Unsubscribed, and another task watched instead.
    by_task.say(&json!({ "unsubscribe": { "task": one.task } })).await;
    assert_eq!(by_task.next().await, Got::Message(json!({ "unsubscribed": { "task": one.task } })));
    let (past, _) = by_task.follow(&json!({ "task": other.task }), Some("0")).await;
    assert_eq!(types(&past), ["submitted", "processing", "completed"]);
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_second_topic_brings_its_own_past() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let (one, other) = (asked(), asked());
    stage.journal.submit_all(&[one.clone(), other.clone()]).await;
    stage.journal.complete(&one, "{}").await;
    let mut client = Client::new(&served).await;
    client.follow(&json!({ "task": other.task }), None).await;
    let (past, _) = client.follow(&json!({ "task": one.task }), Some("0")).await;
    assert_eq!(types(&past), ["submitted", "processing", "completed"]);
    stage.journal.complete(&other, "{}").await;
    assert_eq!(types(&client.events(2).await), ["processing", "completed"]);
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_answered_with_the_field_and_in_the_end_with_the_door() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let mut client = Client::new(&served).await;
    let cases = [
        (json!({ "subscribe": "some" }).to_string(), "/subscribe", "must be \"all\""),
        (json!({ "subscribe": { "query": "statsu:failed" } }).to_string(), "/subscribe/query", "at character 1"),
        (json!({ "subscribe": "all", "after": "7" }).to_string(), "/after", "cursor"),
        (json!({ "subscribe": "all", "after": "99.0.0.0" }).to_string(), "/after", "beyond the journal's end"),
        (json!({ "subscribe": "all", "since": 7 }).to_string(), "/since", "is not known"),
        (json!({ "unsubscribe": "all" }).to_string(), "/unsubscribe", "was not subscribed"),
        (json!({}).to_string(), "/subscribe", "is missing"),
        ("[]".to_owned(), "", "one JSON object"),
        ("{".to_owned(), "", "one JSON object"),
    ];
    for (message, field, part) in cases {
        client.raw(Message::text(message.clone())).await;
        let Got::Message(answer) = client.next().await else { panic!("{message}") };
        assert_eq!(answer["error"]["field"], field, "{message}: {answer}");
        assert!(answer["error"]["detail"].as_str().unwrap().contains(part), "{message}: {answer}");
    }
    // It can still be made good.
    client.follow(&json!("all"), None).await;
    client.raw(Message::binary(vec![1, 2])).await;
    let Got::Message(answer) = client.next().await else { panic!() };
    assert!(answer["error"]["detail"].as_str().unwrap().contains("not bytes"));
    for topic in 0..31 {
        client.follow(&json!({ "type": format!("t{topic}") }), None).await;
    }
    client.say(&json!({ "subscribe": { "type": "one more" } })).await;
    let Got::Message(answer) = client.next().await else { panic!() };
    assert!(answer["error"]["detail"].as_str().unwrap().contains("32 topics at most"));
    let closed = loop {
        client.raw(Message::text("?")).await;
        match client.next().await {
            Got::Message(_) => {}
            closed => break closed,
        }
    };
    assert_eq!(closed, Got::Closed(1008, "too many messages made no sense".to_owned()));
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn pages_of_others_may_not_listen_and_other_requests_are_told_what_the_path_is_for() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    for (origin, open) in [
        (Some(format!("http://{}", served.addr)), true),
        (Some("https://evil.example".to_owned()), false),
        (Some("null".to_owned()), false),
        (None, true),
    ] {
        match Client::with_origin(&served, origin.as_deref()).await {
            Ok(_) => assert!(open, "{origin:?}"),
            Err(Error::Http(response)) => assert!(!open && response.status() == 403, "{origin:?}"),
            Err(error) => panic!("{origin:?}: {error}"),
        }
    }
    let answer = stage.get("/api/ws").await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str()),
        (400, Some("urn:insightforge:problem:no-websocket"))
    );
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn followers_are_told_that_the_process_stops() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let mut client = Client::new(&served).await;
    client.follow(&json!("all"), None).await;
    let task = asked();
    stage.journal.submit(&task).await;
    let mut stream = Reader::new(&served, "/api/events", None).await;
    let mut of_task = Reader::new(&served, &format!("/api/tasks/{}/stream", task.task), None).await;
    assert_eq!(of_task.next().await.unwrap().name, "state");
    client.event().await;
    stage.shutdown.cancel();
    assert_eq!(client.next().await, Got::Closed(1001, "this process stops; connect again".to_owned()));
    assert!(stream.rest().await.is_empty());
    assert_eq!(of_task.rest().await.len(), 1, "its first event had come");
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn a_task_s_stream_tells_its_past_then_what_happens_and_ends_with_it() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let task = asked();
    stage.journal.submit(&task).await;
    let path = format!("/api/tasks/{}/stream", task.task);
    let mut stream = Reader::new(&served, &path, None).await;
    let state = stream.next().await.unwrap();
    assert_eq!((state.name.as_str(), &state.data["status"]), ("state", &json!("pending")));
    let first = stream.next().await.unwrap();
    assert_eq!(first.data["type"], "submitted");
    stage.journal.complete(&task, r#"{"score":1}"#).await;
    let rest = stream.rest().await;
    let told = |sent: &[Sent]| -> Vec<String> {
        let word = |sent: &Sent| sent.data["type"].as_str().unwrap_or(&sent.name).to_owned();
        sent.iter().map(word).collect()
    };
    assert_eq!(told(&rest), ["processing", "completed", "end"]);
    assert_eq!(rest[2].data, json!({ "status": "completed" }));
    // Of an ended task all of it, folded or not; from where the browser had come to, the rest of it.
    let all = Reader::new(&served, &path, None).await.rest().await;
    assert_eq!(told(&all), ["state", "submitted", "processing", "completed", "end"]);
    stage.fold().await;
    let folded = Reader::new(&served, &path, None).await.rest().await;
    assert_eq!(told(&folded), told(&all));
    let resumed = Reader::new(&served, &path, first.id.as_deref()).await.rest().await;
    assert_eq!(told(&resumed), ["state", "processing", "completed", "end"]);
    let unknown = stage.get(&format!("/api/tasks/{}/stream", TaskId::new())).await;
    assert_eq!(unknown.status, 404);
    served.end().await;
    stage.end().await;
}

#[tokio::test]
async fn the_journal_s_stream_goes_on_from_the_last_event_id() {
    let stage = stage().await;
    let served = Served::new(&stage).await;
    let tasks: Vec<Asked> = (0..100).map(|_| asked()).collect();
    stage.journal.submit_all(&tasks).await;
    let mut stream = Reader::new(&served, "/api/events?after=0", None).await;
    let mut events = Vec::new();
    let mut id = None;
    for _ in 0..40 {
        let sent = stream.next().await.unwrap();
        events.push(sent.data);
        id = sent.id;
    }
    drop(stream);
    stage.journal.complete(&tasks[0], "{}").await;
    let mut stream = Reader::new(&served, "/api/events", id.as_deref()).await;
    while events.len() < 102 {
        events.push(stream.next().await.unwrap().data);
    }
    assert_gapless(&events);
    let mut only = Reader::new(&served, "/api/events?after=0&type=completed", None).await;
    assert_eq!(only.next().await.unwrap().data["task_id"], json!(tasks[0].task));
    let wrong = stage
        .get_with(
            "/api/events",
            &[("accept".parse().unwrap(), "text/event-stream"), ("last-event-id".parse().unwrap(), "x")],
        )
        .await;
    assert_eq!(wrong.status, 422);
    served.end().await;
    stage.end().await;
}
