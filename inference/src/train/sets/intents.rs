//! What people ask of a service.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::examples::{Example, ReadError, read_file};
use super::{Part, Set, malformed, read};

/// The label of questions that belong to none of the 150 intents.
pub const OUT_OF_SCOPE: &str = "oos";

/// CLINC150 (Larson et al. 2019): 150 intents, and questions beyond them.
///
/// # Errors
/// [`ReadError`] when `data_full.json` is not there or is another file.
pub fn clinc150(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let path = folder.join("data_full.json");
    let parts: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&read(&path)?).map_err(|error| malformed(&path, error.line(), error.to_string()))?;
    let set = |name: &'static str, part: Part, keys: &[&str]| {
        let pairs = keys.iter().filter_map(|key| parts.get(*key)).flatten();
        Set { name, part, examples: pairs.map(|(text, label)| Example::new(text, label)).collect() }
    };
    Ok(vec![
        set("clinc150", Part::Train, &["train", "oos_train"]),
        set("clinc150", Part::Choose, &["val", "oos_val"]),
        set("clinc150", Part::Measure, &["test"]),
        set("clinc150 out of scope", Part::Measure, &["oos_test"]),
    ])
}

/// Banking77 (Casanueva et al. 2020): questions to a bank, 77 intents.
///
/// # Errors
/// [`ReadError`] when a file is not there or is another.
pub fn banking77(folder: &Path) -> Result<Vec<Set>, ReadError> {
    let set = |part: Part, file: &str| {
        let examples = read_file(&folder.join(file))?;
        Ok(Set { name: "banking77", part, examples })
    };
    Ok(vec![set(Part::Train, "train.csv")?, set(Part::Measure, "test.csv")?])
}
