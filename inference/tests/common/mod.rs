//! Packages on disk.

use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest, Sha256};

/// Writes a package whose one file is `salt`; `more` is appended to the section `[runtime]`, then to the manifest.
pub(crate) fn write_package(root: &Path, task_type: &str, version: &str, salt: &str, more: (&str, &str)) -> PathBuf {
    let folder = root.join(task_type).join(version);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("salt.txt"), salt).unwrap();
    std::fs::write(folder.join("model.toml"), manifest(task_type, version, salt, more)).unwrap();
    folder
}

pub(crate) fn manifest(task_type: &str, version: &str, salt: &str, (runtime, more): (&str, &str)) -> String {
    let hash = hex::encode(Sha256::digest(salt));
    format!(
        r#"
        format = 1
        task_type = "{task_type}"
        version = "{version}"
        name = "echo"
        [runtime]
        backend = "linear"
        memory_mb = 64
        {runtime}
        [files]
        "salt.txt" = "{hash}"
        [input]
        schema = {{ type = "object", required = ["text"], properties = {{ text = {{ type = "string" }} }} }}
        text = "/text"
        [output]
        schema = {{ type = "object" }}
        {more}
        [[check]]
        input = '{{"text": "hello"}}'
        expect = {{ echo = "hello" }}
        "#
    )
}

#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) fn document(text: &str) -> String {
    json!({ "text": text }).to_string()
}
