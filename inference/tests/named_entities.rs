//! The package that ships, asked as callers ask it.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use insightforge_inference::{Loaded, OpenOptions, Package, open};
use proptest::prelude::*;
use serde_json::{Value, json};

static MODEL: LazyLock<Loaded> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../analyzer/models/named_entity_recognition/v1.0");
    let package = Package::read(&folder).expect("the package is sound");
    open(Arc::new(package), &OpenOptions::default()).expect("its checks pass")
});

fn ask(text: &str) -> Value {
    let prepared = MODEL.prepare(&json!({ "text": text })).expect("a text is read");
    let answer = MODEL.infer(&[prepared]).remove(0).expect("a text is answered");
    serde_json::from_str(&answer).expect("an answer is JSON")
}

fn names(text: &str) -> Vec<(String, String)> {
    let answer = ask(text);
    let part = |entity: &Value, name: &str| entity[name].as_str().expect("a string").to_owned();
    answer["entities"].as_array().expect("a list").iter().map(|it| (part(it, "text"), part(it, "type"))).collect()
}

#[test]
fn everyday_sentences_give_up_their_names() {
    let (person, place, organisation) = ("PERSON", "LOCATION", "ORGANIZATION");
    for (text, expected) in [
        (
            "蘋果公司在台灣設有研發中心，張三是其員工。",
            vec![("蘋果公司", organisation), ("台灣", place), ("張三", person)],
        ),
        (
            "苹果公司在台湾设有研发中心，张三是其员工。",
            vec![("苹果公司", organisation), ("台湾", place), ("张三", person)],
        ),
        ("李明昨天從北京飛往上海。", vec![("李明", person), ("北京", place), ("上海", place)]),
        ("王小明在台北市的一家公司工作。", vec![("王小明", person), ("台北市", place)]),
        ("默克尔访问了巴黎。", vec![("默克尔", person), ("巴黎", place)]),
        ("今天天氣真好，我們去散步吧。", vec![]),
        ("這是一個非常正面的測試語句，我很喜歡！", vec![]),
        (
            "Angela Merkel met Emmanuel Macron in Paris.",
            vec![("Angela Merkel", person), ("Emmanuel Macron", person), ("Paris", place)],
        ),
        (
            "John works for Microsoft in Seattle.",
            vec![("John", person), ("Microsoft", organisation), ("Seattle", place)],
        ),
        ("The weather is nice today.", vec![]),
    ] {
        let found = names(text);
        let found: Vec<(&str, &str)> = found.iter().map(|(text, kind)| (text.as_str(), kind.as_str())).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn mixed_texts_are_read_by_both_taggers() {
    let found = names("Angela Merkel met Emmanuel Macron in Paris. 李明昨天從北京飛往上海。");
    for name in ["Angela Merkel", "Paris", "北京", "上海"] {
        assert!(found.iter().any(|(text, _)| text == name), "{name} is not in {found:?}");
    }
}

#[test]
fn the_language_is_what_the_characters_say() {
    for (text, language) in
        [("張三在台灣", "zh-Hant"), ("张三在台湾", "zh-Hans"), ("John is here", "en"), ("123 😀", "und")]
    {
        assert_eq!(ask(text)["language"], language, "{text}");
    }
}

#[test]
fn a_batch_answers_in_order_as_one_by_one() {
    let texts = ["李明在北京。", "no names here", "John lives in London.", "😀", "李明在北京。"];
    let batch: Vec<_> = texts.iter().map(|text| MODEL.prepare(&json!({ "text": text })).unwrap()).collect();
    for (answer, text) in MODEL.infer(&batch).into_iter().zip(texts) {
        assert_eq!(serde_json::from_str::<Value>(&answer.unwrap()).unwrap(), ask(text), "{text}");
    }
}

#[test]
fn the_longest_text_is_answered() {
    let text = "李明昨天從北京飛往上海".repeat(1_800);
    assert!(ask(&text)["entities"].as_array().unwrap().len() > 1_000);
    let text = "John Smith lives in London ".repeat(740);
    assert!(ask(&text)["entities"].as_array().unwrap().len() > 500);
}

#[test]
fn what_is_no_text_is_refused_by_its_place() {
    for document in [
        json!({}),
        json!({ "text": 1 }),
        json!({ "text": "" }),
        json!({ "text": " \n" }),
        json!({ "text": "好".repeat(20_001) }),
    ] {
        let error = MODEL.prepare(&document).unwrap_err();
        assert_eq!(error.code, "bad_input");
    }
}

/// Pieces of which hostile and everyday texts are made.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        Just("張三".to_owned()),
        Just("台灣大學".to_owned()),
        Just("John Smith".to_owned()),
        Just("New York".to_owned()),
        Just("👩‍👩‍👧 ".to_owned()),
        Just("e\u{301}".to_owned()),
        Just("\u{202e}abc".to_owned()),
        Just("\n".to_owned()),
        Just(". ".to_owned()),
        Just("。".to_owned()),
        Just("𠮷野家".to_owned()),
        Just("don't @you #tag http://a.b/c".to_owned()),
        Just("これは東京です".to_owned()),
    ]
}

proptest! {
    #[test]
    fn places_cut_the_text_to_the_entity_and_entities_do_not_overlap(pieces in proptest::collection::vec(piece(), 1..12)) {
        let text = pieces.concat();
        prop_assume!(!text.trim().is_empty());
        let Ok(prepared) = MODEL.prepare(&json!({ "text": text })) else { return Ok(()) };
        let answer: Value = serde_json::from_str(MODEL.infer(&[prepared])[0].as_ref().unwrap()).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let mut before = 0;
        for entity in answer["entities"].as_array().unwrap() {
            let start = entity["start"].as_u64().unwrap() as usize;
            let end = entity["end"].as_u64().unwrap() as usize;
            prop_assert!(before <= start && start < end && end <= chars.len());
            prop_assert_eq!(chars[start..end].iter().collect::<String>(), entity["text"].as_str().unwrap());
            let score = entity["score"].as_f64().unwrap();
            prop_assert!((0.0..=1.0).contains(&score));
            before = end;
        }
    }
}
