//! Files and manifests that cannot be: each is refused with its reason, and no panic gets out.

use crate::package::{BACKENDS, Draft};

const MLP: &str = "[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'features'\nfrom = '/features'\n\
                   [onnx.postprocess]\nkind = 'classification'\nscores = 'probabilities'";
const TEXT: &str = "[onnx]\nfile = 'model.onnx'\ntokenizer = 'tokenizer.json'\nmax_tokens = 32\n\
                    postprocess = { kind = 'classification' }";

fn mlp() -> Draft {
    Draft::new("mlp", MLP).labels(&["a", "b", "c"])
}

fn graph(fixture: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{fixture}/model.onnx", env!("CARGO_MANIFEST_DIR")))
        .expect("the fixture is there")
}

#[test]
fn a_file_that_is_no_graph_is_refused() {
    let whole = graph("mlp");
    for backend in BACKENDS {
        for content in [
            &b""[..],
            b"\x00",
            b"not a graph at all",
            &whole[..whole.len() / 2],
            &whole[..whole.len() - 3],
            &[0xff; 4096],
        ] {
            let reason = mlp().file("model.onnx", content).refusal(backend);
            assert!(reason.contains("model.onnx"), "{backend}: {reason}");
        }
    }
}

#[test]
fn a_file_broken_anywhere_is_refused_or_answers_and_never_panics() {
    let whole = graph("mlp");
    for backend in BACKENDS {
        for place in (0..whole.len()).step_by(7) {
            let mut content = whole.clone();
            content[place] ^= 0x41;
            if let Ok(loaded) = mlp().file("model.onnx", &content).open(backend) {
                let prepared = loaded.prepare(&serde_json::json!({"features": [1, 2, 3, 4, 5, 6, 7, 8]}));
                if let Ok(prepared) = prepared {
                    let answers = loaded.infer(&[prepared]);
                    assert_eq!(answers.len(), 1);
                }
            }
        }
    }
}

#[test]
fn a_tokenizer_that_is_none_is_refused() {
    for backend in BACKENDS {
        for content in [&b""[..], b"{}", b"[1", b"\xff\xff"] {
            let reason = Draft::new("bpe-classifier", TEXT)
                .labels(&["a", "b", "c"])
                .file("tokenizer.json", content)
                .refusal(backend);
            assert!(reason.contains("tokenizer.json"), "{backend}: {reason}");
        }
    }
}

#[test]
fn a_manifest_that_contradicts_its_graph_is_refused_with_the_place() {
    let text = |from: &str, to: &str| Draft::new("bpe-classifier", &TEXT.replace(from, to)).labels(&["a", "b", "c"]);
    let numbers = |from: &str, to: &str| Draft::new("mlp", &MLP.replace(from, to)).labels(&["a", "b", "c"]);
    for backend in BACKENDS {
        for (draft, named) in [
            (numbers("'features'", "'eatures'"), "\"eatures\""),
            (numbers("from = '/features'", "columns = ['/a', '/b']"), "shape"),
            (numbers("from = '/features'", "from = 'features'"), "JSON pointer"),
            (numbers("from = '/features'", ""), "from or columns"),
            (numbers("from = '/features'", "from = '/features'\nshape = ['batch', 8, 8]"), "shape"),
            (numbers("file = 'model.onnx'", "file = 'other.onnx'"), "other.onnx"),
            (numbers("file = 'model.onnx'", "file = 'model.onnx'\noutput = 'logits'"), "\"logits\""),
            (numbers("file = 'model.onnx'", "file = 'model.onnx'\ncolour = 'red'"), "colour"),
            (numbers("scores = 'probabilities'", "scores = 'wishes'"), "wishes"),
            (numbers("'classification'", "'poetry'"), "poetry"),
            (numbers("kind = 'classification'\nscores = 'probabilities'", "kind = 'entities'"), "tokenizer"),
            (mlp().labels(&[]), "labels"),
            (mlp().labels(&["a", "b"]), "labels"),
            (mlp().labels(&["a", "b", "c", "d"]), "labels"),
            (text("max_tokens = 32", "max_tokens = 2"), "max_tokens"),
            (text("max_tokens = 32", "max_tokens = 32\nstride = 31\noverflow = 'windows'"), "max_tokens"),
            (text("max_tokens = 32", "max_tokens = 32\nbind = { mask = 'nobody' }"), "nobody"),
            (text("tokenizer = 'tokenizer.json'", ""), "tokenizer"),
            (text("'classification'", "'classification', temperature = 0.0"), "temperature"),
            (text("'classification'", "'classification', neutral_band = 0.1"), "neutral_band"),
        ] {
            let reason = draft.refusal(backend);
            assert!(reason.contains(named), "{backend}: {named}: {reason}");
        }
    }
}

#[test]
fn token_ids_beyond_the_graph_s_vocabulary_fail_that_input_alone() {
    // The unigram graph knows 400 tokens; this tokenizer makes ids up to 600.
    let tokenizer =
        std::fs::read(format!("{}/tests/fixtures/bpe-classifier/tokenizer.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for backend in BACKENDS {
        let loaded = Draft::new("unigram-classifier", TEXT)
            .labels(&["a", "b"])
            .file("tokenizer.json", &tokenizer)
            .loaded(backend);
        let known = loaded.prepare(&serde_json::json!({"text": "a"})).unwrap();
        let unknown = loaded.prepare(&serde_json::json!({"text": "Terrible. Never again!"})).unwrap();
        let answers = loaded.infer(&[known.clone(), unknown, known]);
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{backend}: {answers:?}");
        assert_eq!(answers[1].as_ref().unwrap_err().code, "bad_output", "{backend}");
    }
}
