//! Stored registry events must decode for ever. `golden/registry/<type>.<version>.hex` is the `e` field of an event as a
//! release wrote it; such a file is never changed, a new encoding gets new files.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use insightforge_schema::registry::event::{
    CanarySet, CandidateSet, Change, ENCODING, EVENT_TYPES, Meta, Promoted, RefusalEnded, Refused, Registered, Retired,
    RolledBack, ShadowSet, Unloaded, decode, encode,
};

fn meta() -> Meta {
    Meta { at_us: 1_764_000_000_123_456, actor: "cli/ann@desk".to_owned(), reason: Some("better on tweets".to_owned()) }
}

/// Every event type with every optional field set.
fn changes() -> Vec<Change> {
    let (task_type, version) = ("sentiment_analysis".to_owned(), "v2.0".to_owned());
    let (digest, worker) = ("9f86d081884c7d65".to_owned(), "host-1-0a0b0c0d".to_owned());
    vec![
        Change::Registered(Registered {
            task_type: task_type.clone(),
            version: version.clone(),
            digest: digest.clone(),
            backend: "rten 0.27".to_owned(),
            device: "cpu".to_owned(),
            folder: "/models/sentiment_analysis/v2.0".to_owned(),
            worker: worker.clone(),
        }),
        Change::Refused(Refused {
            task_type: Some(task_type.clone()),
            version: Some(version.clone()),
            folder: "/models/sentiment_analysis/v2.0".to_owned(),
            reason: "model.onnx is not the file the manifest names".to_owned(),
            worker: worker.clone(),
        }),
        Change::RefusalEnded(RefusalEnded {
            task_type: Some(task_type.clone()),
            folder: "/models/sentiment_analysis/v2.0".to_owned(),
            worker: worker.clone(),
        }),
        Change::Unloaded(Unloaded { task_type: task_type.clone(), version: version.clone(), digest, worker }),
        Change::Promoted(Promoted {
            task_type: task_type.clone(),
            version: version.clone(),
            from: Some("v1.0".to_owned()),
        }),
        Change::CandidateSet(CandidateSet { task_type: task_type.clone(), version: Some(version.clone()) }),
        Change::CanarySet(CanarySet { task_type: task_type.clone(), version: version.clone(), share: 500 }),
        Change::ShadowSet(ShadowSet { task_type: task_type.clone(), versions: vec![version.clone()] }),
        Change::RolledBack(RolledBack { task_type: task_type.clone(), from: version.clone(), to: "v1.0".to_owned() }),
        Change::Retired(Retired { task_type, version }),
    ]
}

fn golden(name: &str, version: u8) -> Vec<u8> {
    let path = format!("{}/golden/registry/{name}.{version}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn every_registry_event_ever_written_is_still_read() {
    let types: Vec<String> = changes().iter().map(|change| change.event_type().to_owned()).collect();
    assert_eq!(types, EVENT_TYPES);
    for change in changes() {
        let name = change.event_type().to_owned();
        assert_eq!(decode(&name, &golden(&name, 1)), (meta(), change), "{name}");
    }
}

#[test]
fn this_release_writes_the_registrys_bytes_of_its_encoding_version() {
    for change in changes() {
        let name = change.event_type();
        let (now, kept) = (encode(&meta(), &change), golden(name, ENCODING));
        let advice = "raise ENCODING and add golden files of the new version";
        assert_eq!(hex::encode(now), hex::encode(kept), "{name}: {advice}");
    }
}

#[test]
fn what_cannot_be_read_in_the_registry_becomes_an_unknown_event_with_its_reason() {
    let sound = encode(&meta(), &changes().remove(9));
    let mut later = sound.clone();
    let at = later.windows(2).position(|pair| pair == [0xa1, b'v']).unwrap() + 2;
    later[at] = ENCODING + 1;
    for (event_type, bytes) in
        [("retired", &later[..]), ("retired", &sound[..9]), ("retired", &[]), ("exploded", &sound[..])]
    {
        match decode(event_type, bytes).1 {
            Change::Unknown(unknown) => assert!(unknown.event_type == event_type && !unknown.reason.is_empty()),
            other => panic!("{other:?}"),
        }
    }
}
