//! scikit-learn's models on the native backend, held against what ONNX Runtime answered.

use serde_json::{Value, json};

use crate::package::{Draft, ask, ask_all, assert_close, cases, expected, numbers};

const TOLERANCE: f64 = 1e-4;

/// Fixtures with the output that is the answer.
const CLASSIFIERS: [(&str, &str); 4] = [
    ("logistic-regression", "output_probability"),
    ("random-forest", "probabilities"),
    ("scaled-logistic-regression", "probabilities"),
    ("binary-logistic-regression", "probabilities"),
];

fn section(output: &str, postprocess: &str) -> String {
    format!(
        "[trees]\nfile = 'model.onnx'\noutput = '{output}'\n[[trees.input]]\nname = 'X'\nfrom = '/row'\npostprocess = {postprocess}"
    )
    .replace("postprocess = ", "[trees.postprocess]\n")
}

#[test]
fn classifiers_give_onnx_runtime_s_labels_and_probabilities() {
    for (fixture, output) in CLASSIFIERS {
        let draft = Draft::new(fixture, &section(output, "kind = 'classification'\nscores = 'probabilities'"));
        let loaded = draft.loaded("trees");
        assert_eq!(loaded.runs_on().engine, "trees");
        let classes: Vec<String> = expected(fixture)["classes"].as_array().unwrap().iter().map(plain).collect();
        let cases = cases(fixture);
        let documents: Vec<Value> = cases.iter().map(|case| json!({ "row": case["row"] })).collect();
        for (case, answer) in cases.iter().zip(ask_all(&loaded, &documents)) {
            let listed = answer["labels"].as_array().unwrap();
            let share =
                |class: &String| listed.iter().find(|it| it["label"] == **class).unwrap()["score"].as_f64().unwrap();
            let got: Vec<f64> = classes.iter().map(share).collect();
            assert_close(&got, &numbers(&case["probabilities"]), TOLERANCE, fixture);
            assert_eq!(answer["label"], plain(&case["label"]), "{fixture}");
        }
    }
}

#[test]
fn regressors_give_onnx_runtime_s_numbers_in_rows_and_alone() {
    let loaded = Draft::new("gradient-boosting", &section("variable", "kind = 'regression'")).loaded("trees");
    let cases = cases("gradient-boosting");
    for case in &cases {
        let value = ask(&loaded, &json!({ "row": case["row"] }))["value"].as_f64().unwrap();
        assert_close(&[value], &numbers(&case["value"]), TOLERANCE, "gradient-boosting");
    }
    let table =
        section("variable", "kind = 'regression'").replace("from = '/row'", "from = '/rows'\nshape = ['rows', 10]");
    let loaded = Draft::new("gradient-boosting", &table).loaded("trees");
    let rows: Vec<&Value> = cases.iter().map(|case| &case["row"]).collect();
    let answer = ask(&loaded, &json!({ "rows": rows }));
    for (case, row) in cases.iter().zip(answer["rows"].as_array().unwrap()) {
        assert_close(&numbers(&row["value"]), &numbers(&case["value"]), TOLERANCE, "rows");
    }
}

#[test]
fn labels_come_out_as_the_graph_gives_them() {
    let draft = Draft::new("random-forest", &section("label", "kind = 'tensors'"));
    let loaded = draft.loaded("trees");
    for case in cases("random-forest") {
        let answer = ask(&loaded, &json!({ "row": case["row"] }));
        assert_eq!(answer["outputs"][0]["data"], json!([case["label"]]));
    }
}

#[test]
fn a_graph_that_needs_other_operators_is_refused_by_their_name() {
    let section = "[trees]\nfile = 'model.onnx'\n[[trees.input]]\nname = 'input_ids'\nfrom = '/row'\n\
                   [trees.postprocess]\nkind = 'tensors'";
    let reason = Draft::new("unigram-classifier", section).refusal("trees");
    assert!(reason.contains("the operator ") && reason.contains("none of its outputs"), "{reason}");
}

#[test]
fn a_tree_file_broken_anywhere_is_refused_or_answers_and_never_panics_or_loops() {
    let draft =
        || Draft::new("random-forest", &section("probabilities", "kind = 'classification'\nscores = 'probabilities'"));
    let whole =
        std::fs::read(format!("{}/tests/fixtures/random-forest/model.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut answered = 0;
    for place in (0..whole.len()).step_by(53) {
        for flip in [0x01, 0xff] {
            let mut content = whole.clone();
            content[place] ^= flip;
            if let Ok(loaded) = draft().file("model.onnx", &content).open("trees")
                && let Ok(prepared) = loaded.prepare(&json!({ "row": [5.1, 3.5, 1.4, 0.2] }))
            {
                answered += usize::from(loaded.infer(&[prepared])[0].is_ok());
            }
        }
    }
    assert!(answered > 100, "most flips only change a number: {answered}");
    for length in (0..whole.len()).step_by(501) {
        assert!(draft().file("model.onnx", &whole[..length]).open("trees").is_err());
    }
}

/// Every output a file has, of estimators and pipelines of many kinds (`fixtures/scikit`).
#[test]
fn every_kind_of_scikit_learn_model_gives_every_output_as_onnx_runtime_does() {
    let expected = expected("scikit");
    let mut compared = 0;
    for (name, expected) in expected.as_object().unwrap() {
        let inputs = expected["inputs"].as_object().unwrap();
        let file = format!("{}/tests/fixtures/scikit/{name}.onnx", env!("CARGO_MANIFEST_DIR"));
        let content = std::fs::read(file).unwrap();
        let read: String = inputs
            .keys()
            .map(|input| format!("[[trees.input]]\nname = '{input}'\nfrom = '/{input}'\nmissing = nan\n"))
            .collect();
        for (output, wanted) in expected["outputs"].as_object().unwrap() {
            if name.starts_with("perceptron") && output == "label" {
                continue;
            }
            let section = format!(
                "[trees]\nfile = 'model.onnx'\noutput = '{output}'\n{read}[trees.postprocess]\nkind = 'tensors'"
            );
            let loaded = Draft::new("none", &section).file("model.onnx", &content).loaded("trees");
            for (row, wanted) in wanted.as_array().unwrap().iter().enumerate() {
                let document: serde_json::Map<String, Value> =
                    inputs.iter().map(|(input, rows)| (input.clone(), rows[row].clone())).collect();
                let answer = ask(&loaded, &Value::Object(document));
                let got = &answer["outputs"][0]["data"];
                let what = format!("{name} {output} {row}");
                if wanted.is_string() || got[0].is_string() {
                    assert_eq!(got[0], *wanted, "{what}");
                } else {
                    assert_close(&numbers(got), &numbers(wanted), TOLERANCE, &what);
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn an_output_that_needs_another_operator_is_refused_while_the_others_are_served() {
    let content =
        std::fs::read(format!("{}/tests/fixtures/scikit/perceptron.onnx", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let reason =
        Draft::new("none", &section("label", "kind = 'tensors'")).file("model.onnx", &content).refusal("trees");
    assert!(reason.contains("ArgMax"), "{reason}");
}

/// Without quotation marks.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
