//! Model packages made by a test.

use std::path::Path;

use insightforge_inference::native::linear::features::Features;
use insightforge_inference::native::linear::file::{Head, Header, Labels, LinearFile};
use insightforge_inference::native::linear::table::Table;
use sha2::{Digest, Sha256};

/// A package whose model says one word whatever it is asked.
pub(crate) fn put_package(models: &Path, task_type: &str, version: &str, word: &str) {
    put_package_isolated(models, task_type, version, word, "none");
}

/// As [`put_package`]; `isolation` is the manifest's.
pub(crate) fn put_package_isolated(models: &Path, task_type: &str, version: &str, word: &str, isolation: &str) {
    let labels = vec!["glad".to_owned(), "sad".to_owned(), "odd".to_owned()];
    let biases: Vec<f32> = labels.iter().map(|label| if label == word { 4.0 } else { 0.0 }).collect();
    let features = Features { rows: 8, words: 1, letters: (0, 0), han: 1, negation: false };
    let table = Table::compand(&[0.0; 24], biases.clone());
    let head = Head::Labels(Labels { temperature: 1.0, out_of_scope: None, threshold: 0.0 });
    let scales = table.scales().to_vec();
    let weights = LinearFile { header: Header { format: 1, features, labels, head, scales, biases }, table }.write();
    let manifest = format!(
        r#"
        format = 1
        task_type = "{task_type}"
        version = "{version}"
        name = "mood {version}"
        [runtime]
        backend = "linear"
        memory_mb = {memory}
        isolation = "{isolation}"
        [files]
        "weights.bin" = "{hash}"
        [input]
        schema = {{ type = "object", required = ["text"], properties = {{ text = {{ type = "string" }} }} }}
        text = "/text"
        [output]
        schema = {{ type = "object" }}
        draw = "labels"
        [linear]
        weights = "weights.bin"
        [[check]]
        input = '{{"text": "hello"}}'
        expect = {{ label = "{word}" }}
        "#,
        // A process of its own needs some for itself.
        memory = if isolation == "process" { 64 } else { 1 },
        hash = hex::encode(Sha256::digest(&weights)),
    );
    let folder = models.join(task_type).join(version);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("weights.bin"), weights).unwrap();
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
}
