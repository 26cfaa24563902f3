//! A package that is trained again: what its manifest said of the old weights goes, and files are put in place whole.

use std::io::Result;
use std::path::Path;

/// The manifest without what was measured of other weights (quality, speed) and how they were made; `training`, if known,
/// stands in its place. Everything else stays as people wrote it.
#[must_use]
pub(super) fn without_claims(manifest: &str, training: Option<&str>) -> String {
    let (mut renewed, mut section, mut open) = (String::with_capacity(manifest.len()), String::new(), false);
    for line in manifest.lines() {
        let trimmed = line.trim();
        if open {
            // The rest of a value of several lines.
            open = !trimmed.ends_with("\"\"\"");
            continue;
        }
        if trimmed.starts_with('[') && trimmed.ends_with(']') {
            trimmed.clone_into(&mut section);
        }
        if section == "[[card.quality]]" {
            continue;
        }
        let name = trimmed.split('=').next().unwrap_or_default().trim();
        if section == "[card]" && matches!(name, "training" | "speed") {
            open = trimmed.matches("\"\"\"").count() == 1;
            continue;
        }
        renewed.push_str(line);
        renewed.push('\n');
        if let ("[card]", Some(training)) = (trimmed, training.filter(|it| !it.is_empty())) {
            let training = toml::Value::String(training.to_owned());
            renewed.push_str(&format!("training = {training}\n"));
        }
    }
    renewed
}

/// Writes a file beside its place and puts it there whole.
///
/// # Errors
/// The system's.
pub(super) fn put(path: &Path, content: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&beside, content)?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_other_weights_go_and_the_words_of_people_stay() {
        let manifest = r#"# ours
name = "n"
[card]
license = "MIT" # by us
training = "insightforge train --seed 1"
speed = """
fast,
very"""
weaknesses = ["speed = 1"]
[[card.data]]
name = "d"
[[card.quality]]
set = "s"
value = 0.9
[[card.quality]]
set = "t"
[linear]
weights = "linear.bin"
"#;
        let expected = r#"# ours
name = "n"
[card]
training = "insightforge train --seed \"2\""
license = "MIT" # by us
weaknesses = ["speed = 1"]
[[card.data]]
name = "d"
[linear]
weights = "linear.bin"
"#;
        let renewed = without_claims(manifest, Some("insightforge train --seed \"2\""));
        let (renewed, expected): (toml::Table, toml::Table) = (renewed.parse().unwrap(), expected.parse().unwrap());
        assert_eq!(renewed, expected);
        assert!(without_claims(manifest, None).starts_with("# ours\n"));
    }
}
