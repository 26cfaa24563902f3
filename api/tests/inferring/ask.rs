//! `POST /api/infer`.

use serde_json::json;

use crate::rig::{Rig, good, good_with};

#[tokio::test]
async fn a_document_is_answered_with_who_answered_and_why() {
    let rig = Rig::open().await;
    for data in [json!({ "text": "好 a b" }), json!("{\"text\":\"好 a b\"}"), json!("{\"text\":\"\\u597d a b\"}")] {
        let answer = rig.infer(&good_with(&[("data", data)])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = &answer.body;
        assert_eq!(body["result"]["sentiment"], "Positive");
        assert_eq!(body["result"]["words"], 3);
        assert_eq!(
            (&body["task_type"], &body["model_version"], &body["backend"], &body["reason"]),
            (&json!("sentiment_analysis"), &json!("v1.0"), &json!("words"), &json!("stable"))
        );
        assert_eq!(body["model_digest"].as_str().unwrap().len(), 64);
        assert!(body["inference_us"].is_u64(), "{body}");
    }
}

#[tokio::test]
async fn versions_are_asked_by_name_and_by_alias() {
    let rig = Rig::open().await;
    for (asked, version, reason) in
        [(json!("v2.0"), "v2.0", "exact"), (json!("stable"), "v1.0", "stable"), (json!(null), "v1.0", "stable")]
    {
        let body = rig.infer(&good_with(&[("model_version", asked)])).await.body;
        assert_eq!((&body["model_version"], &body["reason"]), (&json!(version), &json!(reason)));
        assert_eq!(body["result"]["model_info"], version);
    }
    rig.promote("v2.0");
    assert_eq!(rig.infer(&good()).await.body["model_version"], "v2.0");
}

#[tokio::test]
async fn a_canary_takes_its_share_of_keys_and_keeps_them() {
    let rig = Rig::open().await;
    rig.canary("v2.0", 5_000);
    let mut of_canary = 0;
    for key in 0..40 {
        let asked = good_with(&[("key", json!(format!("caller {key}")))]);
        let first = rig.infer(&asked).await.body;
        assert_eq!(rig.infer(&asked).await.body["model_version"], first["model_version"]);
        of_canary += u32::from(first["model_version"] == "v2.0");
        let reason = if first["model_version"] == "v2.0" { "canary" } else { "stable" };
        assert_eq!(first["reason"], reason);
    }
    assert!((8..=32).contains(&of_canary), "{of_canary} of 40");
    rig.canary("v2.0", 10_000);
    assert_eq!(rig.infer(&good()).await.body["reason"], "canary");
    rig.canary("v2.0", 0);
    assert_eq!(rig.infer(&good()).await.body["reason"], "stable");
}

#[tokio::test]
async fn each_of_many_documents_has_an_answer_of_its_own() {
    let rig = Rig::open().await;
    let inputs = json!([{ "text": "a" }, "{\"text\":\"好\"}", { "text": "" }, { "text": "panic" }, "no json", 5, { "text": "b c" }]);
    let answer = rig.infer(&json!({ "task_type": "sentiment_analysis", "inputs": inputs })).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.body["results"].as_array().unwrap();
    assert_eq!(results.len(), 7);
    for (at, words) in [(0, 1), (1, 1), (6, 2)] {
        assert_eq!(results[at]["result"]["words"], words);
    }
    for (at, code, part) in [
        (2, "bad_input", "/text: must not be empty"),
        (3, "panic", "panicked"),
        (4, "bad_input", "must be a JSON document"),
        (5, "bad_input", "must be of type \"object\", not integer"),
    ] {
        assert_eq!(results[at]["error"]["code"], code);
        assert!(results[at]["error"]["message"].as_str().unwrap().contains(part), "{}", results[at]);
    }
    assert_eq!(answer.body["model_version"], "v1.0");
}

#[tokio::test]
async fn what_does_not_fit_the_schema_is_named_by_json_pointer() {
    let rig = Rig::open().await;
    let long = "a".repeat(20_001);
    let megabyte = "好".repeat(350_000);
    for (data, part) in [
        (json!({}), "data: /text: is missing"),
        (json!({ "text": 1 }), "data: /text: must be of type \"string\", not integer"),
        (json!({ "text": "" }), "data: /text: must not be empty"),
        (json!({ "text": " \u{3000}\n" }), "data: /text: must not be empty"),
        (json!({ "text": long }), "data: /text: must have at most 20000 characters, it has 20001"),
        (json!({ "text": megabyte }), "data: /text: must have at most 20000 characters, it has 350000"),
        (json!({ "text": "a", "top": 0 }), "/top: "),
        (json!({ "text": "a", "tags": ["a", "SECRET"] }), "/tags/1: "),
        (json!([]), "data: must be of type \"object\", not array"),
        (json!(5), "data: must be of type \"object\", not integer"),
        (json!(""), "data: must be a JSON document, and it is empty"),
        (json!("{"), "data: must be a JSON document in a string"),
        (json!("{\"text\":\"\\ud800\"}"), "surrogate"),
        (json!({ "text": "a\u{0}" }), "data: /text: must not contain the character NUL"),
    ] {
        let answer = rig.infer(&good_with(&[("data", data)])).await;
        answer.is_problem(422, part);
        assert!(answer.body["errors"]["data"].is_array(), "{answer:?}");
        assert_eq!(answer.body["code"], "bad_input");
        assert!(!answer.body.to_string().contains("SECRET"), "a caller's text is not repeated");
    }
    for text in ["👍🏽👨‍👩‍👧‍👦", "مرحبا Hello 你好", "\u{202e}x", "a\u{301}"] {
        assert_eq!(rig.infer(&good_with(&[("data", json!({ "text": text }))])).await.status, 200, "{text}");
    }
}

#[tokio::test]
async fn a_version_that_does_not_answer_is_refused_with_those_that_do() {
    let rig = Rig::open().await;
    rig.retire("v2.0");
    for (field, value, status, part) in [
        ("task_type", "x", 422, "task_type: \"x\" is not known; known are: sentiment_analysis"),
        (
            "model_version",
            "v9",
            422,
            "model_version: sentiment_analysis has no version \"v9\"; known are: v1.0, v3.0, stable, latest",
        ),
        ("model_version", "v2.0", 422, "is retired and answers nobody any more; known are: v1.0"),
        ("model_version", "candidate", 422, "has no candidate version now; known are: v1.0"),
        ("model_version", "v3.0", 503, "sentiment_analysis v3.0 is not served here at the moment"),
    ] {
        let answer = rig.infer(&good_with(&[(field, json!(value))])).await;
        answer.is_problem(status, part);
        assert_eq!(answer.header("retry-after").is_some(), status == 503);
    }
}

#[tokio::test]
async fn a_model_s_failure_is_told_by_status_and_code_and_the_next_is_answered() {
    let rig = Rig::open().await;
    for (text, status, code) in [
        ("panic", 500, "panic"),
        ("nan", 500, "bad_output"),
        ("crash", 502, "model_crashed"),
        ("full", 429, "overloaded"),
        ("late", 504, "timeout"),
    ] {
        let answer = rig.infer(&good_with(&[("data", json!({ "text": text }))])).await;
        answer.is_problem(status, "");
        assert_eq!(answer.body["code"], code);
        assert_eq!(answer.header("retry-after").is_some(), status == 429);
        assert_eq!(rig.infer(&good()).await.status, 200);
    }
}
