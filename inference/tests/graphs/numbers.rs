//! Graphs of numbers: rows, tables, any batch.

use serde_json::{Value, json};

use crate::package::{BACKENDS, Draft, ask, ask_all, assert_close, cases, numbers};

const TOLERANCE: f64 = 1e-4;

#[test]
fn a_dense_network_answers_as_onnx_runtime_does_one_by_one_together_and_in_tables() {
    let labels = ["a", "b", "c"];
    let postprocess = "[onnx.postprocess]\nkind = 'classification'\nscores = 'probabilities'";
    let one =
        format!("[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'features'\nfrom = '/features'\n{postprocess}");
    let columns: Vec<String> = (0..8).map(|column| format!("/f{column}")).collect();
    let table = format!(
        "[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'features'\nfrom = '/table'\ncolumns = {columns:?}\n{postprocess}"
    );
    let cases = cases("mlp");
    let shares = |answer: &Value| -> Vec<f64> {
        let listed = answer["labels"].as_array().unwrap();
        let of = |label: &str| listed.iter().find(|it| it["label"] == label).unwrap()["score"].as_f64().unwrap();
        labels.iter().map(|label| of(label)).collect()
    };
    for backend in BACKENDS {
        let loaded = Draft::new("mlp", &one).labels(&labels).loaded(backend);
        let documents: Vec<Value> = cases.iter().map(|case| json!({ "features": case["features"] })).collect();
        let together = ask_all(&loaded, &documents);
        for ((case, document), together) in cases.iter().zip(&documents).zip(&together) {
            let expected = numbers(&case["probabilities"]);
            assert_close(&shares(&ask(&loaded, document)), &expected, TOLERANCE, backend);
            assert_close(&shares(together), &expected, TOLERANCE, backend);
        }

        let loaded = Draft::new("mlp", &table).labels(&labels).loaded(backend);
        let row = |case: &Value| -> Value {
            let named = numbers(&case["features"]).into_iter().enumerate();
            Value::Object(named.map(|(column, value)| (format!("f{column}"), json!(value))).collect())
        };
        let document = |cases: &[Value]| json!({ "table": cases.iter().map(row).collect::<Vec<_>>() });
        let answers = ask_all(&loaded, &[document(&cases[..1]), document(&cases[1..])]);
        let rows: Vec<&Value> = answers.iter().flat_map(|answer| answer["rows"].as_array().unwrap()).collect();
        assert_eq!(rows.len(), cases.len());
        for (case, row) in cases.iter().zip(rows) {
            assert_close(&shares(row), &numbers(&case["probabilities"]), TOLERANCE, backend);
        }
    }
}

#[test]
fn one_input_that_is_no_number_fails_alone() {
    let section = "[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'features'\nfrom = '/features'\n\
                   [onnx.postprocess]\nkind = 'classification'\nscores = 'probabilities'";
    for backend in BACKENDS {
        let loaded = Draft::new("mlp", section).labels(&["a", "b", "c"]).loaded(backend);
        let documents = [
            json!({"features": [1, 2, 3, 4, 5, 6, 7, 8]}),
            json!({"features": [3e38, 3e38, 3e38, -3e38, 3e38, 3e38, -3e38, 3e38]}),
        ];
        let prepared: Vec<_> = documents.iter().map(|document| loaded.prepare(document).unwrap()).collect();
        let answers = loaded.infer(&prepared);
        assert!(answers[0].is_ok(), "{backend}: {:?}", answers[0]);
        let error = answers[1].as_ref().unwrap_err();
        assert!(error.code == "bad_output" && error.permanent && error.message.contains("NaN"), "{backend}: {error}");
    }
}
