//! Labelled texts, and where they are read from.

use std::fs;
use std::path::{Path, PathBuf};

/// A text with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub text: String,
    pub label: String,
    /// How much it counts beside others.
    pub weight: f32,
    /// Whether it may be one of those that calibrate: a text as it comes, not a word of a list.
    pub calibrates: bool,
}

/// Why a file or a folder gives no examples.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}, record {record}: {reason}", path.display())]
    Malformed { path: PathBuf, record: usize, reason: String },
    #[error("{}: no labelled texts there (*.csv, *.tsv, *.jsonl)", .0.display())]
    Nothing(PathBuf),
}

impl Example {
    #[must_use]
    pub fn new(text: impl Into<String>, label: impl Into<String>) -> Self {
        Self { text: text.into(), label: label.into(), weight: 1.0, calibrates: true }
    }

    #[must_use]
    pub fn weighing(self, weight: f32) -> Self {
        Self { weight, ..self }
    }
}

/// Names a column with the text may have.
const TEXT: [&str; 7] = ["text", "text_a", "review", "sentence", "content", "query", "utterance"];
/// Names a column with the label may have.
const LABEL: [&str; 6] = ["label", "category", "sentiment", "intent", "class", "target"];

/// Reads one file of labelled texts, by its ending.
///
/// `.jsonl`: an object a line, with members such as `text` and `label`. `.csv`, `.tsv`: a header that names such columns; a
/// `.tsv` without one has the text first and the label second.
///
/// # Errors
/// [`ReadError`] names file and record.
pub fn read_file(path: &Path) -> Result<Vec<Example>, ReadError> {
    let bytes = fs::read(path).map_err(|error| ReadError::Unreadable { path: path.to_owned(), error })?;
    let content = String::from_utf8_lossy(&bytes);
    let content = content.strip_prefix('\u{feff}').unwrap_or(&content);
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("jsonl" | "ndjson") => json_lines(path, content),
        Some("tsv") => tab_separated(path, content),
        _ => comma_separated(path, content),
    }
}

/// Reads every labelled file of a folder, in the order of their names.
///
/// # Errors
/// [`ReadError`], also when there is none.
pub fn read_folder(folder: &Path) -> Result<Vec<Example>, ReadError> {
    let unreadable = |error| ReadError::Unreadable { path: folder.to_owned(), error };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if matches!(path.extension().and_then(|ending| ending.to_str()), Some("csv" | "tsv" | "jsonl" | "ndjson")) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut examples = Vec::new();
    for path in paths {
        examples.extend(read_file(&path)?);
    }
    if examples.is_empty() { Err(ReadError::Nothing(folder.to_owned())) } else { Ok(examples) }
}

/// Writes labels of sentiment as this program does; others stay as they are.
#[must_use]
pub fn sentiment_label(label: &str) -> String {
    match label.trim().to_lowercase().as_str() {
        "positive" | "pos" | "1" | "+1" | "正面" | "积极" | "積極" => "Positive",
        "negative" | "neg" | "-1" | "0" | "负面" | "負面" | "消极" | "消極" => "Negative",
        "neutral" | "中性" => "Neutral",
        other => return other.to_owned(),
    }
    .to_owned()
}

fn json_lines(path: &Path, content: &str) -> Result<Vec<Example>, ReadError> {
    let mut examples = Vec::new();
    for (at, line) in content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let malformed = |reason: String| ReadError::Malformed { path: path.to_owned(), record: at + 1, reason };
        let value: serde_json::Value = serde_json::from_str(line).map_err(|error| malformed(error.to_string()))?;
        let member = |names: &[&str]| names.iter().find_map(|name| value.get(name));
        let text = member(&TEXT).and_then(|text| text.as_str());
        let label = match member(&LABEL) {
            Some(serde_json::Value::String(label)) => Some(label.clone()),
            Some(serde_json::Value::Number(label)) => Some(label.to_string()),
            _ => None,
        };
        match (text, label) {
            (Some(text), Some(label)) => examples.push(Example::new(text, label)),
            _ => return Err(malformed("it must be an object with a \"text\" and a \"label\"".to_owned())),
        }
    }
    Ok(examples)
}

fn comma_separated(path: &Path, content: &str) -> Result<Vec<Example>, ReadError> {
    let malformed = |record: usize, reason: String| ReadError::Malformed { path: path.to_owned(), record, reason };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(content.as_bytes());
    let header = reader.headers().map_err(|error| malformed(0, error.to_string()))?.clone();
    let column = |names: &[&str], what: &str| {
        let place = names.iter().find_map(|name| header.iter().position(|column| column.trim() == *name));
        place.ok_or_else(|| malformed(0, format!("no column is named {what} ({})", names.join(", "))))
    };
    let (text, label) = (column(&TEXT, "as the text")?, column(&LABEL, "as the label")?);
    let mut examples = Vec::new();
    for (at, record) in reader.records().enumerate() {
        let record = record.map_err(|error| malformed(at + 1, error.to_string()))?;
        let field =
            |place: usize| record.get(place).ok_or_else(|| malformed(at + 1, "it has too few columns".to_owned()));
        let (text, label) = (field(text)?.trim(), field(label)?.trim());
        if !text.is_empty() {
            examples.push(Example::new(text, label));
        }
    }
    Ok(examples)
}

fn tab_separated(path: &Path, content: &str) -> Result<Vec<Example>, ReadError> {
    let mut lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let (mut text, mut label) = (0, 1);
    if let Some((_, first)) = lines.peek() {
        let place = |names: &[&str]| first.split('\t').position(|column| names.contains(&column.trim()));
        if let (Some(named_text), Some(named_label)) = (place(&TEXT), place(&LABEL)) {
            (text, label) = (named_text, named_label);
            lines.next();
        }
    }
    let mut examples = Vec::new();
    for (at, line) in lines {
        let columns: Vec<&str> = line.split('\t').collect();
        let (Some(text), Some(label)) = (columns.get(text), columns.get(label)) else {
            let reason = "it must have a text and a label, parted by a tab".to_owned();
            return Err(ReadError::Malformed { path: path.to_owned(), record: at + 1, reason });
        };
        examples.push(Example::new(text.trim(), label.trim()));
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), content).unwrap();
        read_folder(folder.path())
            .map(|examples| examples.into_iter().map(|example| (example.text, example.label)).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn labelled_texts_are_read_from_every_kind_of_file() {
        for (name, content) in [
            ("a.csv", "label,review\n1,\"很好, 喜歡\"\n0,差\n"),
            ("a.csv", "\u{feff}text,category\n\"很好, 喜歡\",1\n差,0\n"),
            ("a.tsv", "很好, 喜歡\t1\n差\t0\n"),
            ("a.tsv", "label\ttext_a\n1\t很好, 喜歡\n0\t差\n"),
            ("a.jsonl", "{\"text\":\"很好, 喜歡\",\"label\":1}\n\n{\"label\":\"0\",\"text\":\"差\"}\n"),
        ] {
            let expected = [("很好, 喜歡".to_owned(), "1".to_owned()), ("差".to_owned(), "0".to_owned())];
            assert_eq!(read(name, content).as_deref(), Ok(expected.as_slice()), "{content}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, content, named) in [
            ("a.csv", "a,b\n1,2\n", "as the text"),
            ("a.csv", "text,label\nx\n", "record 1"),
            ("a.tsv", "only a text\n", "record 1"),
            ("a.jsonl", "{\"text\":\"a\",\"label\":\"b\"}\n{\"text\":1}\n", "record 2"),
            ("a.txt", "x", "no labelled texts"),
        ] {
            let error = read(name, content).expect_err(named);
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
