//! `insightforge train` and `evaluate` on somebody's own labelled texts.

use std::path::Path;
use std::process::{Command, Output};

fn insightforge(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_insightforge"));
    command.args(arguments).current_dir(folder).output().expect("the program starts")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).expect("the program speaks UTF-8")
}

#[test]
fn a_model_is_trained_of_a_csv_the_same_for_the_same_seed_and_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut csv = "text,label\n".to_owned();
    for at in 0..40 {
        csv += &format!("where is parcel {at},delivery\nI want my money back for order {at},refund\n");
    }
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    std::fs::write(folder.path().join("data/requests.csv"), csv).expect("a file");
    for version in ["v1", "v2"] {
        let out = insightforge(&["train", "classification", "--data", "data", "--out", version], folder.path());
        assert!(out.status.success(), "{}", said(&out));
    }
    let weights = |version: &str| std::fs::read(folder.path().join(version).join("linear.bin")).expect("weights");
    assert!(weights("v1") == weights("v2"));
    let arguments = ["evaluate", "labels", "--package", "v1", "--data", "data/requests.csv", "--json"];
    let out = insightforge(&arguments, folder.path());
    assert!(out.status.success(), "{}", said(&out));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!((&report["report"]["texts"], &report["report"]["accuracy"]), (&80.into(), &1.0.into()), "{report}");
}

#[test]
fn what_cannot_be_learnt_from_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("bad.csv"), "a,b\n1,2\n").expect("a file");
    let out = insightforge(&["train", "classification", "--data", ".", "--out", "v1"], folder.path());
    assert!(!out.status.success());
    assert!(said(&out).contains("bad.csv") && said(&out).contains("as the text"), "{}", said(&out));
    assert!(!folder.path().join("v1").exists());
}
