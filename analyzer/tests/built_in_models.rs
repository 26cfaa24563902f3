//! The models that come with the program, as callers meet them: documents in, results out.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use insightforge_analyzer::model::{InferError, Registry};
use insightforge_schema::keys::Lane;
use proptest::prelude::*;
use serde_json::{Value, json};

const SENTIMENT: &str = "sentiment_analysis";
const ENTITIES: &str = "named_entity_recognition";

fn infer(task_type: &str, documents: &[&str]) -> Vec<Result<Value, InferError>> {
    let model = Registry::built_in().get(&Lane::new(task_type, "v1.0")).unwrap();
    let answers = model.infer(documents);
    answers.into_iter().map(|answer| answer.map(|json| serde_json::from_str(&json).unwrap())).collect()
}

fn ask(task_type: &str, text: &str) -> Value {
    infer(task_type, &[&json!({ "text": text }).to_string()]).remove(0).unwrap()
}

fn sentiment(text: &str) -> String {
    ask(SENTIMENT, text)["sentiment"].as_str().unwrap().to_owned()
}

/// The entities as `text/TYPE`, joined by spaces.
fn entities(text: &str) -> String {
    let answer = ask(ENTITIES, text);
    let one = |entity: &Value| format!("{}/{}", entity["text"].as_str().unwrap(), entity["type"].as_str().unwrap());
    answer["entities"].as_array().unwrap().iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn texts_get_the_label_a_reader_would_give() {
    for (text, label) in [
        // What callers have relied on.
        ("好消息!", "Positive"),
        ("這是一個非常正面的測試語句，我很喜歡！", "Positive"),
        // Plain words, in three scripts and in emoji.
        ("这家店不错", "Positive"),
        ("這家店不錯", "Positive"),
        ("垃圾", "Negative"),
        ("This product is amazing!!!", "Positive"),
        ("I hate you", "Negative"),
        ("👍👍", "Positive"),
        ("😡😡😡", "Negative"),
        ("so nice :)", "Positive"),
        // Negation.
        ("不好吃", "Negative"),
        ("我沒有很喜歡這家餐廳", "Negative"),
        ("完全不推薦", "Negative"),
        ("The food was not good.", "Negative"),
        ("I don't think this is a good idea", "Negative"),
        ("not bad at all", "Positive"),
        ("Never disappointed!", "Positive"),
        ("沒問題", "Positive"),
        // Contrast and concession.
        ("手機很好用，但是電池太爛", "Negative"),
        ("雖然貴，但是品質很好", "Positive"),
        ("I love it but the battery is terrible", "Negative"),
        // Nothing to go by.
        ("今天下午三點開會", "Neutral"),
        ("The meeting is at 3pm", "Neutral"),
        ("台積電今天宣布在高雄設廠", "Neutral"),
        ("差不多就這樣", "Neutral"),
        ("12345", "Neutral"),
        ("\u{0}\u{1} ☃", "Neutral"),
    ] {
        assert_eq!(sentiment(text), label, "{text}");
    }
}

#[test]
fn two_negations_are_not_bad_and_a_forbidden_evil_is_not_good() {
    for text in ["不是不好", "我不讨厌他", "没有不满意"] {
        assert_ne!(sentiment(text), "Negative", "{text}");
    }
    assert_ne!(sentiment("別浪費錢了"), "Positive");
}

#[test]
fn degree_and_exclamation_make_an_answer_surer() {
    let positive = |text: &str| ask(SENTIMENT, text)["probabilities"]["Positive"].as_f64().unwrap();
    for [weaker, stronger] in [
        ["还算满意", "满意"],
        ["满意", "非常满意"],
        ["nice", "very nice"],
        ["somewhat nice", "nice"],
        ["nice", "nice!!!"],
        ["This is nice", "This is NICE"],
        ["Is it nice?", "It is nice."],
    ] {
        assert!(positive(weaker) < positive(stronger), "{weaker} {stronger}");
    }
}

#[test]
fn a_sentiment_result_has_what_callers_read() {
    let answer = ask(SENTIMENT, "好消息!");
    let card = card(SENTIMENT);
    assert_eq!(answer["model_info"], card.name.as_str());
    assert_eq!(answer["language"], "zh");
    let shares = ["Positive", "Negative", "Neutral"].map(|label| answer["probabilities"][label].as_f64().unwrap());
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 0.001);
    assert_eq!(answer["score"].as_f64().unwrap(), shares[0]);
    assert!(shares[0] > shares[1] && shares[0] > shares[2]);
}

#[test]
fn names_are_found_with_their_types() {
    for (text, expected) in [
        // What callers have relied on.
        ("「蘋果公司在台灣設有研發中心，張三是其員工。」", "蘋果公司/ORGANIZATION 台灣/LOCATION 張三/PERSON"),
        ("台積電董事長魏哲家昨天在新竹表示", "台積電/ORGANIZATION 魏哲家/PERSON 新竹/LOCATION"),
        ("王小明先生任職於國立台灣大學醫院。", "王小明/PERSON 台灣大學醫院/ORGANIZATION"),
        ("李雷和韩梅梅去了北京。", "李雷/PERSON 韩梅梅/PERSON 北京/LOCATION"),
        ("我住在台北市信義區松仁路。", "台北市信義區/LOCATION"),
        ("阿里巴巴创始人马云在杭州师范大学演讲", "阿里巴巴/ORGANIZATION 马云/PERSON 杭州师范大学/ORGANIZATION"),
        ("美國總統巴拉克·歐巴馬訪問日本東京", "美國/LOCATION 巴拉克·歐巴馬/PERSON 日本/LOCATION 東京/LOCATION"),
        ("Tim Cook said Apple will open a store in Taipei.", "Tim Cook/PERSON Apple/ORGANIZATION Taipei/LOCATION"),
        (
            "Dr. Smithson works at Stanford University near Palo Alto",
            "Smithson/PERSON Stanford University/ORGANIZATION Palo Alto/LOCATION",
        ),
        ("The Bank of Elsewhere was founded by Mary Poppins.", "Bank of Elsewhere/ORGANIZATION Mary Poppins/PERSON"),
        ("Acme Widgets Inc. sued him on Monday", "Acme Widgets Inc/ORGANIZATION"),
        ("我在Google上班，住台北", "Google/ORGANIZATION 台北/LOCATION"),
        // What only looks like a name.
        ("今天天氣很好，我很高興", ""),
        ("苹果很好吃", ""),
        ("Yesterday I ate an apple", ""),
        ("12345 !!!", ""),
    ] {
        assert_eq!(entities(text), expected, "{text}");
    }
}

#[test]
fn offsets_count_characters_not_bytes() {
    let answer = ask(ENTITIES, "😀張三在台灣");
    assert_eq!(answer["entities"][1]["text"], "台灣");
    assert_eq!((&answer["entities"][1]["start"], &answer["entities"][1]["end"]), (&json!(4), &json!(6)));
    assert_eq!(answer["language"], "zh-Hant");
}

#[test]
fn traditional_and_simplified_texts_get_the_same_answer() {
    for (traditional, simplified) in [
        ("服務很差，再也不會來了", "服务很差，再也不会来了"),
        ("這個產品雖然貴，但是質量非常好", "这个产品虽然贵，但是质量非常好"),
        ("張偉在廣州的華為公司擔任經理", "张伟在广州的华为公司担任经理"),
        ("陳水扁總統訪問巴拉圭，受到熱烈歡迎", "陈水扁总统访问巴拉圭，受到热烈欢迎"),
        ("臺灣大學與復旦大學簽署協議", "台湾大学与复旦大学签署协议"),
    ] {
        let (one, other) = (ask(SENTIMENT, traditional), ask(SENTIMENT, simplified));
        assert_eq!(one["probabilities"], other["probabilities"], "{traditional}");
        assert_eq!((&one["language"], &other["language"]), (&json!("zh-Hant"), &json!("zh-Hans")));
        let places = |text| {
            let answer = ask(ENTITIES, text);
            let entities = answer["entities"].as_array().unwrap();
            entities.iter().map(|entity| json!([entity["type"], entity["start"], entity["end"]])).collect::<Vec<_>>()
        };
        assert_eq!(places(traditional), places(simplified), "{traditional}");
    }
}

#[test]
fn a_bad_input_fails_alone_and_for_good() {
    for task_type in [SENTIMENT, ENTITIES] {
        let answers = infer(task_type, &[r#"{"text":"好"}"#, r#"{"text":7}"#, "[]", r#"{"text":"bad"}"#]);
        let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(|error| error.code)).collect();
        assert_eq!(codes, [None, Some("bad_input"), Some("bad_input"), None]);
        let error = answers[1].clone().unwrap_err();
        assert!(error.permanent);
        assert_eq!(error.message, "/text must be a string, not a number");
    }
}

#[test]
fn every_card_says_what_it_takes_gives_and_gets_wrong() {
    let cards = Registry::built_in().cards();
    let lanes: Vec<_> = cards.iter().map(|card| card.lane().to_string()).collect();
    assert_eq!(lanes, ["named_entity_recognition:v1.0", "sentiment_analysis:v1.0"]);
    for card in cards {
        assert!(!card.name.is_empty() && !card.description.is_empty() && !card.limits.is_empty());
        assert_eq!(card.languages, ["zh-Hant", "zh-Hans", "en"]);
        assert_eq!(card.input_schema["required"], json!(["text"]));
        let answer = ask(&card.task_type, "張三很好");
        let properties = card.output_schema["properties"].as_object().unwrap();
        for member in answer.as_object().unwrap().keys() {
            assert!(properties.contains_key(member), "{member} is not in the schema");
        }
        for required in card.output_schema["required"].as_array().unwrap() {
            assert!(answer.get(required.as_str().unwrap()).is_some(), "{required}");
        }
    }
}

fn card(task_type: &str) -> insightforge_schema::catalogue::ModelCard {
    Registry::built_in().get(&Lane::new(task_type, "v1.0")).unwrap().card().clone()
}

/// Texts of pieces that the rules look at, and of anything at all.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "不", "沒有", "好", "但是", "王", "小明", "先生", "台北", "市", "大學", "公司", "·", "巴", "拉", "克", " ",
        "。", "!", "?", ".", "'", "n't", "not", "Bad", "GOOD", "Mr", "John", "of", "Bank", "in", "Inc", "U.S", "&",
        "-", "😀", "\u{0}", "İ", "ß", "Ａ", "\u{301}", "7",
    ]);
    prop_oneof![prop::collection::vec(pieces, 1..40).prop_map(|pieces| pieces.concat()), any::<String>()]
}

proptest! {
    #[test]
    fn any_document_gets_exactly_one_answer(documents in prop::collection::vec(any::<String>(), 0..5), text in texts()) {
        let valid = json!({ "text": text, "more": documents }).to_string();
        let mut inputs: Vec<&str> = documents.iter().map(String::as_str).collect();
        inputs.push(&valid);
        for task_type in [SENTIMENT, ENTITIES] {
            prop_assert_eq!(infer(task_type, &inputs).len(), inputs.len());
        }
    }

    #[test]
    fn the_likeliest_label_is_given_with_its_share(text in texts()) {
        let Ok(answer) = infer(SENTIMENT, &[&json!({ "text": text }).to_string()]).remove(0) else { return Ok(()) };
        let share = |label: &str| answer["probabilities"][label].as_f64().unwrap();
        let label = answer["sentiment"].as_str().unwrap();
        prop_assert_eq!(answer["score"].as_f64().unwrap(), share(label));
        // What speaks for both sides alike is Neutral, however much it is.
        let undecided = label == "Neutral" && share("Positive") == share("Negative");
        for other in ["Positive", "Negative", "Neutral"] {
            prop_assert!((0.0..=1.0).contains(&share(other)) && (undecided || share(other) <= share(label)));
        }
    }

    #[test]
    fn offsets_give_back_the_names_which_are_in_order_and_apart(text in texts()) {
        let Ok(answer) = infer(ENTITIES, &[&json!({ "text": text }).to_string()]).remove(0) else { return Ok(()) };
        let chars: Vec<char> = text.chars().collect();
        let mut end = 0;
        for entity in answer["entities"].as_array().unwrap() {
            let (from, to) = (entity["start"].as_u64().unwrap() as usize, entity["end"].as_u64().unwrap() as usize);
            prop_assert!(end <= from && from < to && to <= chars.len());
            prop_assert_eq!(chars[from..to].iter().collect::<String>(), entity["text"].as_str().unwrap());
            end = to;
        }
    }
}
