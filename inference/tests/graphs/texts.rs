//! Graphs that read texts: parity with the reference, padding, windows, the contract's shapes.

use serde_json::{Value, json};

use crate::package::{BACKENDS, Draft, ask, ask_all, assert_close, cases, numbers};

/// Of the requirement.
const TOLERANCE: f64 = 1e-4;
/// An int8 graph rounds each activation to one of 256 steps; where engines round the last digit differently before, a
/// value may fall on the next step.
const INT8_TOLERANCE: f64 = 0.05;

const TENSORS: &str = "[onnx]\nfile = 'model.onnx'\ntokenizer = 'tokenizer.json'\nmax_tokens = 32\n\
                       postprocess = { kind = 'tensors' }";

fn section(postprocess: &str, more: &str) -> String {
    format!(
        "[onnx]\nfile = 'model.onnx'\ntokenizer = 'tokenizer.json'\nmax_tokens = 32\n{more}\npostprocess = {postprocess}"
    )
}

fn documents(cases: &[Value]) -> Vec<Value> {
    cases.iter().map(|case| json!({ "text": case["text"] })).collect()
}

#[test]
fn every_tokenizer_and_exporter_answers_as_onnx_runtime_does_alone_and_padded() {
    for (fixture, output, tolerance, padded) in [
        ("bpe-classifier", "logits", TOLERANCE, true),
        ("unigram-classifier", "logits", TOLERANCE, true),
        ("wordpiece-tagger", "logits", TOLERANCE, true),
        ("embedding", "last_hidden_state", TOLERANCE, true),
        ("bpe-classifier-int8", "logits", INT8_TOLERANCE, false),
    ] {
        let cases = cases(fixture);
        let documents = documents(&cases);
        for backend in BACKENDS {
            let loaded = Draft::new(fixture, TENSORS).loaded(backend);
            let alone: Vec<Value> = documents.iter().map(|document| ask(&loaded, document)).collect();
            let together = if padded { ask_all(&loaded, &documents) } else { alone.clone() };
            for (case, answers) in cases.iter().zip(alone.iter().zip(&together)) {
                for answer in [answers.0, answers.1] {
                    let got = numbers(&answer["outputs"][0]["data"]);
                    // Tokens of padding come last; they are nobody's.
                    let expected = numbers(&case[output]);
                    let what = format!("{backend} {fixture} {}", case["text"]);
                    assert_close(&got[..expected.len()], &expected, tolerance, &what);
                }
            }
        }
    }
}

#[test]
fn a_batch_has_windows_of_very_different_lengths_and_padding_changes_no_answer() {
    let texts: Vec<Value> = (1..34)
        .step_by(3)
        .map(|many| {
            let words: Vec<&str> = ["coffee", "室", "naïve", "!"].into_iter().cycle().take(many).collect();
            json!({ "text": words.join(" ") })
        })
        .collect();
    for backend in BACKENDS {
        for fixture in ["bpe-classifier", "unigram-classifier"] {
            let loaded = Draft::new(fixture, TENSORS).loaded(backend);
            for (alone, together) in texts.iter().map(|it| ask(&loaded, it)).zip(ask_all(&loaded, &texts)) {
                let (alone, together) =
                    (numbers(&alone["outputs"][0]["data"]), numbers(&together["outputs"][0]["data"]));
                assert_close(&together, &alone, TOLERANCE, fixture);
            }
        }
    }
}

#[test]
fn labels_with_their_probabilities_are_the_softmax_of_the_reference() {
    for backend in BACKENDS {
        let labels = ["Negative", "Neutral", "Positive"];
        let draft = Draft::new("bpe-classifier", &section("{ kind = 'classification' }", "")).labels(&labels);
        let loaded = draft.loaded(backend);
        for case in cases("bpe-classifier") {
            let logits = numbers(&case["logits"]);
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let answer = ask(&loaded, &json!({ "text": case["text"] }));
            for (label, logit) in labels.iter().zip(&logits) {
                let probability = answer["probabilities"][label].as_f64().unwrap();
                assert_close(&[probability], &[logit.exp() / sum], TOLERANCE, label);
            }
            let best = logits.iter().zip(labels).max_by(|a, b| a.0.total_cmp(b.0)).unwrap().1;
            assert_eq!(answer["sentiment"], best);
            assert_eq!(answer["score"], answer["probabilities"][best]);
            assert_eq!(answer["model_info"], "Fixture");
        }
    }
}

#[test]
fn embeddings_are_the_reference_s_means_of_unit_length() {
    for backend in BACKENDS {
        for (postprocess, field) in
            [("{ kind = 'embedding' }", "unit_mean"), ("{ kind = 'embedding', normalize = false }", "mean")]
        {
            let loaded = Draft::new("embedding", &section(postprocess, "")).loaded(backend);
            let cases = cases("embedding");
            for (case, answer) in cases.iter().zip(ask_all(&loaded, &documents(&cases))) {
                assert_eq!(answer["dimensions"], 32);
                let what = format!("{field} {}", case["text"]);
                assert_close(&numbers(&answer["embedding"]), &numbers(&case[field]), TOLERANCE, &what);
            }
        }
    }
}

#[test]
fn entities_stand_where_the_text_has_them() {
    let labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];
    for backend in BACKENDS {
        let draft = Draft::new("wordpiece-tagger", &section("{ kind = 'entities' }", "")).labels(&labels);
        let loaded = draft.loaded(backend);
        let mut found = 0;
        for case in cases("wordpiece-tagger") {
            let text: Vec<char> = case["text"].as_str().unwrap().chars().collect();
            let answer = ask(&loaded, &json!({ "text": case["text"] }));
            for entity in answer["entities"].as_array().unwrap() {
                let (start, end) = (entity["start"].as_u64().unwrap(), entity["end"].as_u64().unwrap());
                let there: String = text[start as usize..end as usize].iter().collect();
                assert_eq!(entity["text"], there, "{answer}");
                assert!(["PERSON", "LOCATION", "ORGANIZATION"].contains(&entity["type"].as_str().unwrap()), "{answer}");
                found += 1;
            }
        }
        assert!(found > 5, "random weights find something: {found}");
    }
}

#[test]
fn a_text_longer_than_a_window_is_cut_and_says_so_or_read_in_windows() {
    let long = json!({ "text": "not bad at all, ".repeat(30) });
    let short = json!({ "text": "not bad at all" });
    for backend in BACKENDS {
        let open = |more: &str| {
            Draft::new("bpe-classifier", &section("{ kind = 'classification' }", more))
                .labels(&["a", "b", "c"])
                .loaded(backend)
        };
        let cut = open("");
        assert_eq!(ask(&cut, &long)["truncated"], true);
        assert_eq!(ask(&cut, &short).get("truncated"), None);
        assert_eq!(cut.prepare(&long).unwrap().cost, 32);
        let windows = open("overflow = 'windows'\nstride = 8");
        assert_eq!(ask(&windows, &long).get("truncated"), None);
        assert!(windows.prepare(&long).unwrap().cost >= 5 * 32, "{:?}", windows.prepare(&long).unwrap().cost);
        assert_eq!(ask(&windows, &short)["labels"], ask(&cut, &short)["labels"]);
    }
}

#[test]
fn windows_find_entities_beyond_the_first() {
    let labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];
    let text = json!({ "text": "The coffee was cold, the waiter was rude and the bill was wrong. ".repeat(8) });
    for backend in BACKENDS {
        let open = |more: &str| {
            Draft::new("wordpiece-tagger", &section("{ kind = 'entities' }", more)).labels(&labels).loaded(backend)
        };
        let last = |answer: &Value| answer["entities"].as_array().unwrap().last().unwrap()["end"].as_u64().unwrap();
        let cut = ask(&open(""), &text);
        let whole = ask(&open("overflow = 'windows'\nstride = 10"), &text);
        assert!(last(&cut) < 200 && last(&whole) > 400, "{} {}", last(&cut), last(&whole));
    }
}

#[test]
fn any_text_ends_in_an_answer_or_a_refusal_that_does_not_quote_it() {
    let texts = [
        "",
        " ",
        "\u{0}",
        "\u{200d}\u{fe0f}",
        "𠜎𠜱𠝹",
        "e\u{301}\u{301}\u{301}",
        "👩‍👩‍👧‍👦 سلام שלום สวัสดี",
        &"啊".repeat(300),
    ];
    for backend in BACKENDS {
        for fixture in ["bpe-classifier", "unigram-classifier"] {
            let labels = if fixture == "bpe-classifier" { &["a", "b", "c"][..] } else { &["a", "b"] };
            let draft =
                Draft::new(fixture, &section("{ kind = 'classification' }", "overflow = 'windows'")).labels(labels);
            let loaded = draft.loaded(backend);
            for text in texts {
                let answer = ask(&loaded, &json!({ "text": text }));
                assert!(answer["score"].as_f64().unwrap() > 0.0, "{answer}");
            }
            for document in [json!({}), json!({ "text": 5 }), json!({ "text": "secret ".repeat(1_000) })] {
                let error = loaded.prepare(&document).unwrap_err();
                assert!(error.code == "bad_input" && error.message.contains("/text"), "{error}");
                assert!(!error.message.contains("secret"), "{error}");
            }
        }
    }
}

#[test]
fn calls_side_by_side_answer_as_one_after_the_other() {
    for backend in BACKENDS {
        let draft = Draft::new("bpe-classifier", TENSORS).runtime("instances = 2");
        let loaded = draft.loaded(backend);
        let cases = cases("bpe-classifier");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for case in &cases {
                        let answer = ask(&loaded, &json!({ "text": case["text"] }));
                        let got = numbers(&answer["outputs"][0]["data"]);
                        assert_close(&got, &numbers(&case["logits"]), TOLERANCE, backend);
                    }
                });
            }
        });
    }
}
