//! The folder that shows how a model of one's own is added is a package as it stands.

use std::path::Path;
use std::sync::Arc;

use insightforge_inference::{OpenOptions, Package, open};
use serde_json::json;

use crate::package::{ask, ask_all};

#[test]
fn the_example_folder_opens_and_answers_its_own_checks() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/iris_species/v1");
    let loaded = open(Arc::new(Package::read(&folder).unwrap()), &OpenOptions::default()).unwrap();
    let flower = json!({"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2});
    let answer = ask(&loaded, &flower);
    assert_eq!((&answer["label"], &answer["labels"][0]["label"]), (&json!("setosa"), &json!("setosa")));
    let many = vec![flower; 40];
    assert!(ask_all(&loaded, &many).iter().all(|other| *other == answer));
    let error = loaded.prepare(&json!({"sepal_length": 5.1, "sepal_width": "wide"})).unwrap_err();
    assert_eq!(error.code, "bad_input");
}
