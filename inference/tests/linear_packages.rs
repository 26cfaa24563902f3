//! The linear packages that ship answer what their cards promise.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use insightforge_inference::{Loaded, OpenOptions, Package, open};
use serde_json::{Value, json};

fn package(path: &str) -> Loaded {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../analyzer/models").join(path);
    let package = Package::read(&folder).unwrap_or_else(|error| panic!("{path}: {error}"));
    open(Arc::new(package), &OpenOptions::default()).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn ask(model: &Loaded, texts: &[&str]) -> Vec<Value> {
    let prepared: Vec<_> = texts.iter().map(|text| model.prepare(&json!({ "text": text })).expect(text)).collect();
    let answers = model.infer(&prepared).into_iter();
    answers.map(|answer| serde_json::from_str(&answer.expect("an answer")).expect("JSON")).collect()
}

#[test]
fn negations_and_sentences_without_an_opinion_are_understood() {
    let model = package("sentiment_analysis/v1.0");
    let table: [(&str, &[&str]); 3] = [
        (
            "Neutral",
            &[
                "今天下午三點開會",
                "今天下午三点开会",
                "我明天去台北",
                "公司總部位於台北",
                "他昨天買了一本書",
                "請把文件寄給我",
                "台灣的首都是台北",
                "The meeting is at 3pm",
                "The train leaves at noon.",
                "Paris is the capital of France.",
                "What time does the store open?",
                "Please send the report by Friday.",
            ],
        ),
        (
            "Positive",
            &[
                "好消息!",
                "這是一個非常正面的測試語句，我很喜歡！",
                "不是不好",
                "沒有不喜歡",
                "这家店还不错",
                "並不難吃",
                "一點也不失望",
                "not bad at all",
                "It's not bad",
                "never been happier",
                "I have never been happier",
                "Couldn't be better",
                "I can't complain",
                "works perfectly",
                "这个app真的很nice，推荐",
                "😍😍",
            ],
        ),
        (
            "Negative",
            &[
                "不好",
                "一点都不好",
                "我不喜歡",
                "没有想象中的好",
                "服務態度很差，不會再來",
                "等了一个小时还没送到",
                "I don't like it",
                "I do not like this movie",
                "not good",
                "not worth the money",
                "I wouldn't recommend this to anyone",
                "never buying from them again",
                "這個 app 一直 crash，很爛",
                "😡😡",
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (label, texts) in table {
        for (text, answer) in texts.iter().zip(ask(&model, texts)) {
            if answer["sentiment"] != label {
                wrong.push(format!("{text}: {answer}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn traditional_and_simplified_are_judged_alike() {
    let model = package("sentiment_analysis/v1.0");
    let pairs = [
        ("這間餐廳很難吃，服務員態度惡劣", "这间餐厅很难吃，服务员态度恶劣"),
        ("電腦運行流暢，螢幕漂亮", "电脑运行流畅，萤幕漂亮"),
        ("會議將於週三舉行", "会议将于周三举行"),
    ];
    for (traditional, simplified) in pairs {
        let answers = ask(&model, &[traditional, simplified]);
        assert_eq!(answers[0]["probabilities"], answers[1]["probabilities"], "{traditional}");
    }
}

#[test]
fn intents_come_with_a_way_out_of_scope() {
    for (path, text, label) in [
        ("text_classification/clinc150-v1", "what is my account balance", Some("balance")),
        ("text_classification/clinc150-v1", "please set an alarm for seven in the morning", Some("alarm")),
        ("text_classification/clinc150-v1", "who won the chess championship of 1985", None),
        ("text_classification/banking77-v1", "My card still has not arrived", Some("card_arrival")),
    ] {
        let answer = ask(&package(path), &[text]).remove(0);
        assert_eq!(answer["in_scope"].as_bool(), Some(label.is_some()), "{text}: {answer}");
        assert!(label.is_none_or(|label| answer["label"] == label), "{text}: {answer}");
        assert_eq!(answer["labels"].as_array().map(Vec::len), Some(5));
    }
}

#[test]
fn odd_texts_are_refused_with_the_place_or_answered() {
    let model = package("sentiment_analysis/v1.0");
    let long = "好".repeat(20_001);
    for bad in [
        json!({}),
        json!({ "text": "" }),
        json!({ "text": " \u{200b}" }),
        json!({ "text": 7 }),
        json!({ "text": long }),
    ] {
        let error = model.prepare(&bad).expect_err("bad input");
        assert!(error.permanent && error.message.contains("text"), "{error}");
    }
    for text in ["1", "?", "\u{0}a", "これは本です", "𠮷", "e\u{301}", &"不是不".repeat(6_000), &"a ".repeat(10_000)]
    {
        let answer = ask(&model, &[text]).remove(0);
        let shares = &answer["probabilities"];
        let sum: f64 = ["Positive", "Negative", "Neutral"].iter().filter_map(|label| shares[label].as_f64()).sum();
        assert!((sum - 1.0).abs() < 1e-3, "{answer}");
    }
}

/// Not a measurement, which a busy machine would spoil; a guard against a model that is a hundred times too slow.
#[test]
fn a_short_text_costs_little() {
    let model = package("sentiment_analysis/v1.0");
    let prepared: Vec<_> =
        (0..64).map(|at| model.prepare(&json!({ "text": format!("這個很好用，推薦 {at}") })).unwrap()).collect();
    let started = Instant::now();
    for _ in 0..20 {
        assert!(model.infer(&prepared).iter().all(Result::is_ok));
    }
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
