//! The operator's ONNX Runtime library.

use crate::package::Draft;

const MLP: &str = "[onnx]\nfile = 'model.onnx'\n[[onnx.input]]\nname = 'features'\nfrom = '/features'\n\
                   [onnx.postprocess]\nkind = 'classification'\nscores = 'probabilities'";

fn mlp() -> Draft {
    Draft::new("mlp", MLP).labels(&["a", "b", "c"])
}

#[test]
fn results_say_which_library_ran() {
    let runs_on = mlp().loaded("onnxruntime").runs_on();
    assert!(runs_on.engine.starts_with("onnxruntime 1."), "{runs_on:?}");
    assert_eq!(runs_on.device, "cpu");
}

#[test]
fn a_package_that_wants_a_gpu_is_refused_where_there_is_none_and_one_that_takes_either_says_what_it_got() {
    if std::path::Path::new("/dev/nvidia0").exists() {
        assert_eq!(mlp().runtime("device = \"cuda\"").loaded("onnxruntime").runs_on().device, "cuda:0");
        return;
    }
    let reason = mlp().runtime("device = \"cuda\"").refusal("onnxruntime");
    assert!(reason.contains("cannot run on a GPU here"), "{reason}");
    assert_eq!(mlp().runtime("device = \"auto\"").loaded("onnxruntime").runs_on().device, "cpu");
}
