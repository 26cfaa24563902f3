//! Stored events must decode for ever. `golden/<type>.<version>.hex` is the `e` field of an event as a release wrote it;
//! such a file is never changed, a new encoding gets new files.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use insightforge_schema::event::{
    BatchLine, BatchReceived, Cancelled, Change, Completed, DeadLettered, ENCODING, Failed, Meta, Processing, Purged,
    Redriven, RetryScheduled, Route, ShadowError, Shadowed, Submitted, Webhook, decode, encode,
};

fn meta() -> Meta {
    Meta {
        at_us: 1_764_000_000_123_456,
        tenant: "default".to_owned(),
        actor: "api".to_owned(),
        attempt: 2,
        trace: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
    }
}

/// Every event type with every optional field set, and the first with none.
fn changes() -> Vec<(&'static str, Change)> {
    let full = Submitted {
        task_type: "sentiment_analysis".to_owned(),
        model_version: "v1.0".to_owned(),
        data: r#"{"text":"今天天氣真好"}"#.to_owned(),
        user_id: Some(42),
        webhook: Some(Webhook { url: "https://example.com/hook".to_owned(), sealed_secret: Some(vec![0, 128, 255]) }),
        batch: Some(BatchLine { id: "0190a6f0-0000-7000-8000-0000000000aa".parse().unwrap(), line: 7 }),
        retry_of: Some("0190a6f0-0000-7000-8000-000000000001".parse().unwrap()),
        expires_us: None,
    };
    let bare = Submitted { user_id: None, webhook: None, batch: None, retry_of: None, ..full.clone() };
    let expiring = Submitted { expires_us: Some(1_764_000_600_000_000), ..full.clone() };
    vec![
        ("submitted", Change::Submitted(full)),
        ("submitted-bare", Change::Submitted(bare)),
        ("submitted-expiring", Change::Submitted(expiring)),
        ("processing", Change::Processing(Processing { worker: "host-1-0a0b0c0d".to_owned() })),
        (
            "completed",
            Change::Completed(Completed {
                task_type: "sentiment_analysis".to_owned(),
                model_version: "v1.0".to_owned(),
                result: r#"{"sentiment":"positive"}"#.to_owned(),
                inference_us: 12,
                batch_size: 3,
                route: None,
            }),
        ),
        (
            "failed",
            Change::Failed(Failed {
                task_type: "sentiment_analysis".to_owned(),
                model_version: "v1.0".to_owned(),
                code: "bad_input".to_owned(),
                message: "/text is empty".to_owned(),
                permanent: true,
                route: None,
            }),
        ),
        (
            "retry_scheduled",
            Change::RetryScheduled(RetryScheduled {
                code: "timeout".to_owned(),
                message: "no answer in 120000 ms".to_owned(),
                next_attempt: 3,
                due_us: 1_764_000_001_000_000,
            }),
        ),
        ("cancelled", Change::Cancelled(Cancelled { reason: "asked by the caller".to_owned() })),
        ("dead_lettered", Change::DeadLettered(DeadLettered { code: "bad_input".to_owned() })),
        ("redriven", Change::Redriven(redriven(None))),
        ("redriven-reasoned", Change::Redriven(redriven(Some("the model is mended")))),
        ("purged", Change::Purged(Purged { reason: "of no use any more".to_owned() })),
        ("batch_received", Change::BatchReceived(BatchReceived { accepted: 998, rejected: 2 })),
        (
            "completed-routed",
            Change::Completed(Completed {
                task_type: "sentiment_analysis".to_owned(),
                model_version: "v2.0".to_owned(),
                result: r#"{"sentiment":"positive"}"#.to_owned(),
                inference_us: 12,
                batch_size: 3,
                route: Some(route()),
            }),
        ),
        (
            "failed-routed",
            Change::Failed(Failed {
                task_type: "sentiment_analysis".to_owned(),
                model_version: "v2.0".to_owned(),
                code: "bad_output".to_owned(),
                message: "a number that is none".to_owned(),
                permanent: true,
                route: Some(route()),
            }),
        ),
        ("shadowed", Change::Shadowed(shadowed(Some(r#"{"sentiment":"neutral"}"#), None))),
        (
            "shadowed-batched",
            Change::Shadowed(Shadowed { batch_size: 16, ..shadowed(Some(r#"{"sentiment":"neutral"}"#), None) }),
        ),
        ("shadowed-failed", Change::Shadowed(shadowed(None, Some(("timeout", "no answer in 2000 ms"))))),
    ]
}

fn redriven(reason: Option<&str>) -> Redriven {
    let as_task = "0190a6f0-0000-7000-8000-000000000002".parse().unwrap();
    Redriven { as_task, reason: reason.map(str::to_owned) }
}

fn route() -> Route {
    Route {
        asked: "stable".to_owned(),
        reason: "canary".to_owned(),
        digest: "9f86d081884c7d65".to_owned(),
        backend: "rten 0.27".to_owned(),
        device: "cpu".to_owned(),
        registry_n: 17,
    }
}

fn shadowed(result: Option<&str>, error: Option<(&str, &str)>) -> Shadowed {
    Shadowed {
        task_type: "sentiment_analysis".to_owned(),
        model_version: "v3.0".to_owned(),
        digest: "9f86d081884c7d65".to_owned(),
        backend: "rten 0.27".to_owned(),
        device: "cpu".to_owned(),
        result: result.map(str::to_owned),
        error: error.map(|(code, message)| ShadowError { code: code.to_owned(), message: message.to_owned() }),
        agrees: false,
        took_us: 900,
        batch_size: 1,
    }
}

fn golden(name: &str, version: u8) -> Vec<u8> {
    let path = format!("{}/golden/{name}.{version}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn every_event_ever_written_is_still_read() {
    for (name, change) in changes() {
        assert_eq!(decode(change.event_type(), &golden(name, 1)), (meta(), change), "{name}");
    }
}

#[test]
fn this_release_writes_the_bytes_of_its_encoding_version() {
    for (name, change) in changes() {
        let (now, kept) = (encode(&meta(), &change), golden(name, ENCODING));
        assert_eq!(
            hex::encode(now),
            hex::encode(kept),
            "{name}: raise ENCODING and add golden files of the new version"
        );
    }
}

#[test]
fn a_field_of_a_later_release_is_passed_over() {
    #[derive(serde::Serialize)]
    struct Later {
        v: u8,
        meta: Meta,
        body: Body,
        colour: &'static str,
    }
    #[derive(serde::Serialize)]
    struct Body {
        reason: &'static str,
        mood: u8,
    }
    let later = Later { v: ENCODING, meta: meta(), body: Body { reason: "late", mood: 3 }, colour: "blue" };
    let bytes = rmp_serde::to_vec_named(&later).unwrap();
    assert_eq!(decode("cancelled", &bytes).1, Change::Cancelled(Cancelled { reason: "late".to_owned() }));
}

#[test]
fn what_cannot_be_read_becomes_an_unknown_event_with_its_reason() {
    let sound = encode(&meta(), &Change::Cancelled(Cancelled { reason: "x".to_owned() }));
    let mut later = sound.clone();
    let at = later.windows(2).position(|pair| pair == [0xa1, b'v']).unwrap() + 2;
    later[at] = ENCODING + 1;
    for (event_type, bytes) in
        [("cancelled", &later[..]), ("cancelled", &sound[..9]), ("cancelled", &[]), ("exploded", &sound[..])]
    {
        match decode(event_type, bytes).1 {
            Change::Unknown(unknown) => assert!(unknown.event_type == event_type && !unknown.reason.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
