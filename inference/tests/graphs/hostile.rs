//! Graphs made byte by byte to be what no exporter writes.

use serde_json::json;

use crate::package::{BACKENDS, Draft};

const SECTION: &str = "[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'x'\nfrom = '/x'\nshape = ['batch', 2]\n\
                       [onnx.postprocess]\nkind = 'classification'";

/// `y = x · w` over two columns, with whatever the constant and the operator are made to be.
struct Graph {
    operator: &'static str,
    dims: Vec<i64>,
    weights: Vec<u8>,
}

impl Graph {
    fn sound() -> Self {
        let weights = [1.0_f32, 0.0, 0.0, 1.0].into_iter().flat_map(f32::to_le_bytes).collect();
        Self { operator: "MatMul", dims: vec![2, 2], weights }
    }

    /// `onnx.proto`: ModelProto { ir_version, graph, opset_import }.
    fn file(&self) -> Vec<u8> {
        let weights: Vec<Vec<u8>> = self.dims.iter().map(|dim| number(1, dim.cast_unsigned())).collect();
        let constant = [weights.concat(), number(2, 1), bytes(8, b"w"), bytes(9, &self.weights)].concat();
        let node = [bytes(1, b"x"), bytes(1, b"w"), bytes(2, b"y"), bytes(4, self.operator.as_bytes())].concat();
        let graph = [bytes(1, &node), bytes(5, &constant), bytes(11, &value(b"x")), bytes(12, &value(b"y"))].concat();
        [number(1, 9), bytes(7, &graph), bytes(8, &number(2, 18))].concat()
    }
}

/// ValueInfoProto of a tensor of floats, two free dimensions.
fn value(name: &[u8]) -> Vec<u8> {
    let dims = [bytes(1, &bytes(2, b"a")), bytes(1, &bytes(2, b"b"))].concat();
    let tensor = [number(1, 1), bytes(2, &dims)].concat();
    [bytes(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut written = Vec::new();
    while value > 0x7f {
        written.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    written.push(value as u8);
    written
}

fn draft(file: &[u8]) -> Draft {
    Draft::new("none", SECTION).labels(&["a", "b"]).file("model.onnx", file)
}

#[test]
fn the_sound_one_answers() {
    for backend in BACKENDS {
        let loaded = draft(&Graph::sound().file()).loaded(backend);
        let answers = loaded.infer(&[loaded.prepare(&json!({"x": [1, 3]})).unwrap()]);
        assert!(answers[0].as_ref().unwrap().contains("\"label\":\"b\""), "{backend}: {answers:?}");
    }
}

#[test]
fn what_no_engine_can_run_is_refused() {
    let nested = (0..5_000).fold(Vec::new(), |inner, _| bytes(1, &bytes(5, &bytes(6, &inner))));
    for backend in BACKENDS {
        for (file, what) in [
            (Graph { operator: "Nonsense", ..Graph::sound() }.file(), "an operator there is not"),
            (Graph { dims: vec![1 << 40, 1 << 40], ..Graph::sound() }.file(), "dimensions beyond all memory"),
            (Graph { dims: vec![i64::MAX, 2], ..Graph::sound() }.file(), "dimensions whose product overflows"),
            (Graph { dims: vec![-2, -2], ..Graph::sound() }.file(), "negative dimensions"),
            (Graph { weights: vec![0; 3], ..Graph::sound() }.file(), "weights that end too early"),
            ([number(1, 9), bytes(7, &nested)].concat(), "graphs in graphs in graphs"),
            ([number(1, 9), vec![0xff; 64]].concat(), "a number that does not end"),
        ] {
            let reason = draft(&file).refusal(backend);
            assert!(reason.contains("model.onnx"), "{backend}: {what}: {reason}");
        }
    }
}

#[test]
fn weights_that_are_no_numbers_make_no_answer() {
    let weights = f32::NAN.to_le_bytes().repeat(4);
    for backend in BACKENDS {
        let loaded = draft(&Graph { weights: weights.clone(), ..Graph::sound() }.file()).loaded(backend);
        let answers = loaded.infer(&[loaded.prepare(&json!({"x": [1, 3]})).unwrap()]);
        let error = answers[0].as_ref().unwrap_err();
        assert!(error.code == "bad_output" && error.permanent, "{backend}: {error}");
    }
}

#[test]
fn more_numbers_than_labels_are_seen_at_once_or_make_no_answer() {
    for backend in BACKENDS {
        // The graph does not say how many numbers come out; an engine may know all the same.
        let three = Draft::new("none", SECTION).labels(&["a", "b", "c"]).file("model.onnx", &Graph::sound().file());
        match three.open(backend) {
            Err(refused) => assert!(refused.to_string().contains("output.labels"), "{backend}: {refused}"),
            Ok(loaded) => {
                let answers = loaded.infer(&[loaded.prepare(&json!({"x": [1, 3]})).unwrap()]);
                let error = answers[0].as_ref().unwrap_err();
                assert!(error.code == "bad_output" && error.message.contains("labels"), "{backend}: {error}");
            }
        }
    }
}
