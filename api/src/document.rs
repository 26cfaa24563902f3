//! Looking through a task's `data`: a JSON document in a string. One pass finds everything that would make it ambiguous
//! or unfit for what comes later, and the outline that the model's input schema is held against.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The deepest nesting that is taken; MariaDB's JSON functions end at 32 levels.
pub(crate) const MAX_DEPTH: usize = 30;
/// Faults named of one document; more help nobody.
const MAX_FAULTS: usize = 10;
/// Longest part of a caller's own key that a message repeats, in characters.
const QUOTE_MAX: usize = 60;

/// A model's input schema, read once.
pub(crate) struct InputSchema {
    schema: Value,
    /// `None` when the one pass checks all there is, or somebody else does.
    rest: Option<jsonschema::Validator>,
}

impl InputSchema {
    /// For documents that are checked whole here.
    pub(crate) fn new(schema: &Value) -> Self {
        let rest = if is_outline(schema) {
            None
        } else {
            // Analyzers announce only what they could read themselves.
            jsonschema::validator_for(schema)
                .inspect_err(|error| tracing::warn!(%error, "an input schema is none"))
                .ok()
        };
        Self { schema: schema.clone(), rest }
    }

    /// For documents that the model itself checks afterwards.
    pub(crate) fn outline(schema: &Value) -> Self {
        Self { schema: schema.clone(), rest: None }
    }
}

/// Says everything that is wrong with `text` as an input that `schema` describes; nothing when it is fine. Each text
/// begins with a JSON pointer unless it concerns the whole document.
///
/// `required`, `type`, `minLength` and `maxLength` of the top level are held against it in the same pass: what a caller
/// gets wrong by oversight, in plain words. Only when nothing is wrong there, the whole schema is.
pub(crate) fn faults(text: &str, schema: Option<&InputSchema>) -> Vec<String> {
    let mut notes = Notes::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let walk = Walk { notes: &mut notes, path: &Path::Root, depth: 0 };
    let outcome = walk.deserialize(&mut json).and_then(|kind| json.end().map(|()| kind));
    match outcome {
        Err(_) if text.trim().is_empty() => vec!["must be a JSON document, and it is empty".to_owned()],
        Err(error) => {
            notes.faults.push(format!("must be a JSON document in a string: {}", explain(&error)));
            notes.faults
        }
        Ok(kind) => {
            if let Some(schema) = schema
                && notes.faults.is_empty()
            {
                notes.against(&schema.schema, kind);
                if let Some(validator) = &schema.rest
                    && notes.faults.is_empty()
                {
                    notes.whole(validator, text);
                }
            }
            notes.faults
        }
    }
}

/// Whether the one pass checks all that a schema says.
fn is_outline(schema: &Value) -> bool {
    let only = |schema: &Value, known: &[&str]| {
        let Some(schema) = schema.as_object() else { return false };
        schema.keys().all(|key| known.contains(&key.as_str()) || ABOUT.contains(&key.as_str()))
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    only(schema, &["type", "required", "properties"])
        && properties.into_iter().all(|(_, schema)| only(schema, &["type", "minLength", "maxLength"]))
}

/// Members of a schema that check nothing.
const ABOUT: [&str; 6] = ["$schema", "$id", "title", "description", "examples", "default"];

/// The parser's own words, which for half of a surrogate pair do not say what is meant.
pub(crate) fn explain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.contains("hex escape") { format!("{text} (a lone surrogate, or digits are missing)") } else { text }
}

/// What one pass finds.
#[derive(Default)]
struct Notes {
    faults: Vec<String>,
    /// Names and kinds of the top level's members.
    members: Vec<(String, Kind)>,
}

/// A value's kind, and of a string what `minLength` asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Boolean,
    Integer,
    Number,
    String { chars: u64, blank: bool },
    Array,
    Object,
}

impl Kind {
    /// Its name in JSON Schema.
    fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String { .. } => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    fn is(self, name: &str) -> bool {
        self.name() == name || (self == Self::Integer && name == "number")
    }
}

impl Notes {
    fn fault(&mut self, path: &Path<'_>, what: &str) {
        if self.faults.len() < MAX_FAULTS {
            let colon = if matches!(path, Path::Root) { "" } else { ": " };
            self.faults.push(format!("{path}{colon}{what}"));
        }
    }

    fn against(&mut self, schema: &Value, kind: Kind) {
        self.expect_type(&Path::Root, schema, kind);
        if kind != Kind::Object {
            return;
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !self.members.iter().any(|(member, _)| member == name) {
                self.fault(&Path::Key(&Path::Root, name), "is missing");
            }
        }
        for (name, kind) in std::mem::take(&mut self.members) {
            let Some(schema) = schema["properties"].get(&name) else { continue };
            let path = Path::Key(&Path::Root, &name);
            self.expect_type(&path, schema, kind);
            self.expect_length(&path, schema, kind);
        }
    }

    /// What the whole schema says. A value is never repeated: it may be anybody's text.
    fn whole(&mut self, validator: &jsonschema::Validator, text: &str) {
        let Ok(document) = serde_json::from_str(text) else { return };
        for error in validator.iter_errors(&document).take(MAX_FAULTS) {
            let place = error.instance_path().to_string();
            let colon = if place.is_empty() { "" } else { ": " };
            self.faults.push(format!("{place}{colon}{}", error.masked()));
        }
    }

    fn expect_type(&mut self, path: &Path<'_>, schema: &Value, kind: Kind) {
        let fits = match &schema["type"] {
            Value::String(name) => kind.is(name),
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(|name| kind.is(name)),
            _ => true,
        };
        if !fits {
            self.fault(path, &format!("must be of type {}, not {}", schema["type"], kind.name()));
        }
    }

    fn expect_length(&mut self, path: &Path<'_>, schema: &Value, kind: Kind) {
        let Kind::String { chars, blank } = kind else { return };
        let least = schema["minLength"].as_u64().unwrap_or(0);
        // White space alone says as little as nothing.
        if least > 0 && blank {
            self.fault(path, "must not be empty");
        } else if chars < least {
            self.fault(path, &format!("must have at least {least} characters"));
        }
        if let Some(most) = schema["maxLength"].as_u64()
            && chars > most
        {
            self.fault(path, &format!("must have at most {most} characters, it has {chars}"));
        }
    }
}

/// Where in the document a value stands. It lives on the stack of the pass and becomes text only for a fault.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

/// A JSON pointer (RFC 6901).
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, index) => write!(f, "{parent}/{index}"),
            Self::Key(parent, key) => {
                let key: String = key.chars().filter(|c| !c.is_control()).take(QUOTE_MAX).collect();
                write!(f, "{parent}/{}", key.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}

/// Visits one value and all within it.
struct Walk<'a> {
    notes: &'a mut Notes,
    path: &'a Path<'a>,
    depth: usize,
}

impl Walk<'_> {
    /// Whether one more level is too many; said once.
    fn is_too_deep(&mut self) -> bool {
        if self.depth < MAX_DEPTH {
            return false;
        }
        let what = format!("the document is nested deeper than {MAX_DEPTH} levels");
        if !self.notes.faults.contains(&what) {
            self.notes.fault(&Path::Root, &what);
        }
        true
    }

    fn text(self, text: &str) -> Kind {
        if text.contains('\0') {
            self.notes.fault(self.path, "must not contain the character NUL (\\u0000)");
        }
        Kind::String { chars: text.chars().count() as u64, blank: text.trim().is_empty() }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Kind;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Boolean)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Integer)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Integer)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(self.text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Kind, A::Error> {
        if self.is_too_deep() {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Kind::Array);
        }
        for index in 0.. {
            let path = Path::Index(self.path, index);
            let walk = Walk { notes: self.notes, path: &path, depth: self.depth + 1 };
            if seq.next_element_seed(walk)?.is_none() {
                break;
            }
        }
        Ok(Kind::Array)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Kind, A::Error> {
        if self.is_too_deep() {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Kind::Object);
        }
        let mut seen = HashSet::<String>::new();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let path = Path::Key(self.path, &key);
            if key.contains('\0') {
                self.notes.fault(&path, "a key must not contain the character NUL (\\u0000)");
            }
            let kind = map.next_value_seed(Walk { notes: self.notes, path: &path, depth: self.depth + 1 })?;
            if seen.contains(key.as_ref()) {
                self.notes.fault(&path, "is there twice");
                continue;
            }
            if self.depth == 0 {
                self.notes.members.push((key.clone().into_owned(), kind));
            }
            seen.insert(key.into_owned());
        }
        Ok(Kind::Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn schema() -> InputSchema {
        InputSchema::new(&json!({
            "type": "object",
            "required": ["text"],
            "properties": {
                "text": { "type": "string", "minLength": 1, "maxLength": 5 },
                "top": { "type": ["integer", "null"] },
            },
        }))
    }

    #[test]
    fn what_a_whole_schema_says_is_held_against_the_document() {
        let schema = json!({
            "type": "object",
            "required": ["rows"],
            "additionalProperties": false,
            "properties": { "rows": { "type": "array", "maxItems": 2, "items": {
                "type": "object",
                "required": ["x"],
                "properties": { "x": { "type": "number", "minimum": 0 } },
            } } },
        });
        assert!(InputSchema::outline(&schema).rest.is_none());
        let schema = InputSchema::new(&schema);
        for (text, parts) in [
            (r#"{"rows":[{"x":1}]}"#, &[][..]),
            (r#"{"rows":[{"x":"secret"},{}]}"#, &["/rows/0/x: ", "/rows/1: "]),
            (r#"{"rows":[{"x":-7}]}"#, &["/rows/0/x: "]),
            (r#"{"rows":[],"y":1}"#, &["y"]),
            (r#"{"rows":5}"#, &["/rows: must be of type \"array\", not integer"]),
            (r#"{"rows":[{"x":1},{"x":2},{"x":3}]}"#, &["/rows: "]),
        ] {
            let faults = faults(text, Some(&schema));
            assert_eq!(faults.len(), parts.len(), "{text}: {faults:?}");
            assert!(faults.iter().zip(parts).all(|(fault, part)| fault.contains(part)), "{text}: {faults:?}");
            assert!(!faults.join(" ").contains("secret"), "{faults:?}");
        }
    }

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn each_fault_is_named_with_its_place() {
        let cases: &[(&str, &[&str])] = &[
            (r#"{"text":"好消息!"}"#, &[]),
            (r#" {"text":"a", "other":[1,2.5,null,true,{"x":{}}]} "#, &[]),
            (r#"{"text":"a","top":null}"#, &[]),
            ("", &["must be a JSON document, and it is empty"]),
            ("{}", &["/text: is missing"]),
            ("[]", &["must be of type \"object\", not array"]),
            (r#""text""#, &["must be of type \"object\", not string"]),
            (r#"{"text":1}"#, &["/text: must be of type \"string\", not integer"]),
            (r#"{"text":"a","top":1.5}"#, &["/top: must be of type [\"integer\",\"null\"], not number"]),
            (r#"{"text":""}"#, &["/text: must not be empty"]),
            (r#"{"text":" \u3000\n"}"#, &["/text: must not be empty"]),
            (r#"{"text":"123456"}"#, &["/text: must have at most 5 characters, it has 6"]),
            (r#"{"text":"a","text":"b"}"#, &["/text: is there twice"]),
            (r#"{"text":"a","x":[{"k~/":1,"k~/":2}]}"#, &["/x/0/k~0~1: is there twice"]),
            (r#"{"text":"a\u0000"}"#, &["/text: must not contain the character NUL (\\u0000)"]),
            (r#"{"text":"a","\u0000":1}"#, &["/: a key must not contain the character NUL (\\u0000)"]),
        ];
        for (text, expected) in cases {
            assert_eq!(faults(text, Some(&schema())), *expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_said_with_line_and_column() {
        for (text, part) in [
            ("not json", "line 1 column 2"),
            ("{\"text\":\n  }", "line 2 column 3"),
            (r#"{"text":"a"} x"#, "trailing characters at line 1 column 14"),
            (r#"{"text":"\ud800"}"#, "surrogate"),
            (r#"{"text":"\udc00x"}"#, "surrogate"),
            ("{\"text\":\"a\nb\"}", "control character"),
        ] {
            let faults = faults(text, Some(&schema()));
            assert!(faults.len() == 1 && faults[0].contains(part), "{text}: {faults:?}");
        }
    }

    #[test]
    fn nesting_is_taken_to_the_limit_and_never_overflows() {
        assert_eq!(faults(&nested(MAX_DEPTH), None), Vec::<String>::new());
        for levels in [MAX_DEPTH + 1, 100] {
            assert_eq!(faults(&nested(levels), None), ["the document is nested deeper than 30 levels"]);
        }
        let objects = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        assert_eq!(faults(&objects, None), ["the document is nested deeper than 30 levels"]);
        assert!(!faults(&nested(100_000), None).is_empty());
        assert!(!faults(&"[".repeat(100_000), None).is_empty());
    }

    #[test]
    fn a_document_full_of_faults_names_some_of_them() {
        let text = format!("[{}]", vec![r#""\u0000""#; 1_000].join(","));
        assert_eq!(faults(&text, None).len(), MAX_FAULTS);
    }

    proptest! {
        #[test]
        fn any_text_has_an_answer(text in ".*") {
            faults(&text, Some(&schema()));
        }

        #[test]
        fn any_nearly_json_text_has_an_answer(text in r#"[\[\]{}",:0-9eu\\dDcC8 a.\-]{0,60}"#) {
            faults(&text, Some(&schema()));
        }
    }
}
