//! What the built-in models read: a document `{"text": "..."}`, checked once.
//!
//! Nothing here depends on a model, so that whoever wants to refuse a bad document early can ask the same question.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::InferError;

/// Longer texts are refused. In characters (Unicode scalar values).
pub const MAX_CHARS: usize = 20_000;

/// The text of a document: not blank, and at most [`MAX_CHARS`] long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Reads the text out of a document (JSON text). Members other than `text` are ignored: callers send some.
    ///
    /// # Errors
    /// A permanent `bad_input` that names the place by a JSON pointer and does not repeat what stands there.
    pub fn parse(document: &'a str) -> Result<Self, InferError> {
        if !document.trim_start().starts_with('{') {
            return Err(match serde_json::from_str::<&RawValue>(document) {
                Ok(other) => bad_input("", &format!("must be an object with a member \"text\", not {}", kind(other))),
                Err(error) => not_json(&error),
            });
        }
        let members: Members<'a> = serde_json::from_str(document).map_err(|error| not_json(&error))?;
        let Some(value) = members.text else { return Err(bad_input(POINTER, "is missing")) };
        let text: Cow<'a, str> = match kind(value) {
            "a string" => read_string(value.get())?,
            other => return Err(bad_input(POINTER, &format!("must be a string, not {other}"))),
        };
        if text.trim_matches(is_blank).is_empty() {
            return Err(bad_input(POINTER, "must not be empty or blank"));
        }
        // A character has at most four bytes: most texts need no count.
        if text.len() > MAX_CHARS && text.chars().count() > MAX_CHARS {
            return Err(bad_input(POINTER, &format!("must have at most {MAX_CHARS} characters")));
        }
        Ok(Self(text))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The JSON Schema of the documents that [`Text::parse`] takes.
#[must_use]
pub fn input_schema() -> serde_json::Value {
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["text"],
        "properties": {
            "text": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_CHARS,
                "pattern": "\\S",
                "description": "What to analyse: Chinese (Traditional or Simplified) or English. Not blank."
            }
        },
        "additionalProperties": true,
        "description": "Members other than \"text\" are accepted and ignored."
    })
}

/// The JSON Schema of the `language` of a result.
#[must_use]
pub fn language_schema() -> serde_json::Value {
    serde_json::json!({
        "enum": ["zh-Hant", "zh-Hans", "zh", "en", "und"],
        "description": "A BCP 47 tag, judged by the characters: Chinese in Traditional, Simplified or either script, English or another language of the Latin alphabet, or none of these."
    })
}

const POINTER: &str = "/text";

/// `text` is kept as it is written, so that its kind can be named.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<&'a RawValue>,
}

/// Keeps `null` apart from a member that is not there.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(value: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

fn read_string(json: &str) -> Result<Cow<'_, str>, InferError> {
    if json.contains('\\') {
        // Escapes may stand for half a character, which no string can hold.
        let text: String = serde_json::from_str(json).map_err(|_| bad_input(POINTER, "is not valid Unicode"))?;
        return Ok(Cow::Owned(text));
    }
    let text: &str = serde_json::from_str(json).map_err(|_| bad_input(POINTER, "is not valid Unicode"))?;
    Ok(Cow::Borrowed(text))
}

fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// The parser's words name a line and a column and never repeat the text, save for the names of members.
fn not_json(error: &serde_json::Error) -> InferError {
    if error.to_string().starts_with("duplicate field") {
        return bad_input(POINTER, "stands there twice");
    }
    bad_input("", &format!("is not valid JSON (line {}, column {})", error.line(), error.column()))
}

fn bad_input(pointer: &str, problem: &str) -> InferError {
    let place = if pointer.is_empty() { "the document" } else { pointer };
    InferError { code: "bad_input", message: format!("{place} {problem}"), permanent: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gives_its_text() {
        for (document, text) in [
            (r#"{"text":"好消息!"}"#, "好消息!"),
            (" {\"text\" : \"a\\nb\"} ", "a\nb"),
            (r#"{"text":"\u597d"}"#, "好"),
            (r#"{"text":"😀"}"#, "😀"),
            (r#"{"text":"a\u0000b"}"#, "a\0b"),
            (r#"{"source":"line","nested":{"text":1},"text":"x","odd":"\ud800"}"#, "x"),
            (r#"{"te\u0078t":"x"}"#, "x"),
        ] {
            assert_eq!(Text::parse(document).map(|text| text.as_str().to_owned()).as_deref(), Ok(text), "{document}");
        }
    }

    #[test]
    fn a_bad_document_is_told_what_is_wrong_and_where() {
        let long = format!(r#"{{"text":"{}"}}"#, "好".repeat(MAX_CHARS + 1));
        let deep = format!(r#"{{"text":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        for (document, message) in [
            ("", "the document is not valid JSON (line 1, column 0)"),
            ("{", "the document is not valid JSON (line 1, column 1)"),
            ("nonsense", "the document is not valid JSON (line 1, column 2)"),
            ("\"x\"", "the document must be an object with a member \"text\", not a string"),
            ("[\"x\"]", "the document must be an object with a member \"text\", not an array"),
            ("null", "the document must be an object with a member \"text\", not null"),
            ("-1", "the document must be an object with a member \"text\", not a number"),
            ("{}", "/text is missing"),
            (r#"{"Text":"x"}"#, "/text is missing"),
            (r#"{"text":null}"#, "/text must be a string, not null"),
            (r#"{"text":7}"#, "/text must be a string, not a number"),
            (r#"{"text":true}"#, "/text must be a string, not a boolean"),
            (r#"{"text":["x"]}"#, "/text must be a string, not an array"),
            (r#"{"text":{"text":"x"}}"#, "/text must be a string, not an object"),
            (r#"{"text":""}"#, "/text must not be empty or blank"),
            (r#"{"text":"  \u0000\u3000\u200b\t "}"#, "/text must not be empty or blank"),
            (r#"{"text":"a\ud800b"}"#, "/text is not valid Unicode"),
            (r#"{"text":"a","text":"b"}"#, "/text stands there twice"),
            (&long, "/text must have at most 20000 characters"),
            (&deep, "/text must be a string, not an array"),
        ] {
            let error = Text::parse(document).expect_err(document);
            assert_eq!((error.code, error.permanent), ("bad_input", true));
            assert_eq!(error.message, message);
        }
    }

    #[test]
    fn a_text_as_long_as_allowed_and_a_document_as_deep_as_may_be_are_taken() {
        assert!(Text::parse(&format!(r#"{{"text":"{}"}}"#, "好".repeat(MAX_CHARS))).is_ok());
        assert!(
            Text::parse(&format!(r#"{{"text":"x","deep":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000))).is_ok()
        );
    }
}
