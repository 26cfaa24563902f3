//! The fields of a request as they were sent: a JSON object, a form, or a form with parts. Nothing is judged here but
//! what makes a body unreadable or ambiguous.

use std::fmt;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::document::explain;
use crate::problem::{Fields, Problem};

/// Most fields of one request; ours have ten.
const MAX_FIELDS: usize = 64;
/// Longest part of a caller's own field name that is repeated, in characters.
const NAME_MAX: usize = 64;

/// What a body says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Form,
    /// With its boundary.
    Parts(String),
    /// JSON documents, one a line.
    Lines,
    Csv,
    Other(String),
    Missing,
}

/// One field's value. Without `Debug`: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    Text(String),
    /// As it was written.
    Number(String),
    Null,
    /// Another kind of JSON value.
    Other(&'static str),
    /// A text that is no text: a lone surrogate.
    Broken(String),
}

/// Named values, taken out one by one; what is left over is unknown.
#[derive(Default)]
pub(crate) struct SentFields {
    fields: Vec<(String, Sent)>,
    twice: Vec<String>,
}

impl Media {
    /// Reads `Content-Type`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Self::Missing;
        };
        let text = String::from_utf8_lossy(value.as_bytes());
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let essence = parts.next().unwrap_or("").to_ascii_lowercase();
        let charset = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_ascii_lowercase())
        });
        if charset.is_some_and(|charset| !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")) {
            return Self::Other(text.chars().take(NAME_MAX).collect());
        }
        match essence.as_str() {
            "application/json" | "text/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "multipart/form-data" => match multer::parse_boundary(text) {
                Ok(boundary) => Self::Parts(boundary),
                Err(_) => Self::Other("multipart/form-data without a boundary".to_owned()),
            },
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/json-lines"
            | "text/jsonl" => Self::Lines,
            "text/csv" | "application/csv" => Self::Csv,
            other if other.starts_with("application/") && other.ends_with("+json") => Self::Json,
            _ => Self::Other(text.chars().take(NAME_MAX).collect()),
        }
    }

    /// 415 with what would be taken.
    pub(crate) fn refuse(&self, known: &str) -> Problem {
        let detail = match self {
            Self::Missing => format!("Content-Type: is missing; this path takes {known}"),
            Self::Other(text) => format!("Content-Type: {text:?} is not taken here; this path takes {known}"),
            _ => format!("Content-Type: this path takes {known}"),
        };
        let mut problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Not supported", detail);
        problem.errors.insert("Content-Type".to_owned(), vec![format!("must be one of {known}")]);
        problem
    }
}

impl SentFields {
    /// Reads a whole body of any of the three kinds.
    pub(crate) async fn read(media: &Media, bytes: Bytes) -> Result<Self, Problem> {
        match media {
            Media::Json => Self::from_json(&bytes),
            Media::Form => Self::from_form(&bytes),
            Media::Parts(boundary) => Self::from_parts(boundary, bytes).await,
            other => Err(other.refuse("application/json, application/x-www-form-urlencoded, multipart/form-data")),
        }
    }

    /// A JSON object. 400 with line and column when it is no JSON.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Self, Problem> {
        let text = text(bytes)?;
        if text.trim().is_empty() {
            return Err(malformed("the body is empty; a JSON object was expected"));
        }
        Self::parse_json(text).map_err(|error| malformed(&format!("the body is no JSON object: {error}")))
    }

    /// [`Self::from_json`] for one document; the error says where it ends.
    pub(crate) fn parse_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// `application/x-www-form-urlencoded` (WHATWG URL §5.1), but strict about UTF-8.
    pub(crate) fn from_form(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii_start().starts_with(b"{") {
            let detail = "Content-Type: the body is JSON but is declared a form; send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Not supported", detail));
        }
        let mut fields = Self::default();
        for pair in bytes.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let name = decoded(&pair[..at]).ok_or_else(|| malformed("a field's name is no UTF-8"))?;
            let value = decoded(pair.get(at + 1..).unwrap_or_default())
                .ok_or_else(|| malformed(&format!("{}: is no UTF-8", short(&name))))?;
            fields.add(name, Sent::Text(value)).map_err(|error| malformed(&error))?;
        }
        Ok(fields.without_form_tokens())
    }

    async fn from_parts(boundary: &str, bytes: Bytes) -> Result<Self, Problem> {
        let whole = futures_util::stream::once(async move { Ok::<_, std::convert::Infallible>(bytes) });
        let mut parts = multer::Multipart::new(whole, boundary);
        let mut fields = Self::default();
        while let Some(part) = parts.next_field().await.map_err(|error| malformed(&error.to_string()))? {
            let name = part.name().unwrap_or("").to_owned();
            let value = part.bytes().await.map_err(|error| malformed(&error.to_string()))?;
            let value =
                String::from_utf8(value.into()).map_err(|_| malformed(&format!("{}: is no UTF-8", short(&name))))?;
            fields.add(name, Sent::Text(value)).map_err(|error| malformed(&error))?;
        }
        Ok(fields.without_form_tokens())
    }

    /// Adds a field; a name that is there already is noted.
    pub(crate) fn add(&mut self, name: String, value: Sent) -> Result<(), String> {
        if self.fields.len() + self.twice.len() >= MAX_FIELDS {
            return Err(format!("the request has more than {MAX_FIELDS} fields"));
        }
        if self.fields.iter().any(|(known, _)| *known == name) {
            self.twice.push(name);
        } else {
            self.fields.push((name, value));
        }
        Ok(())
    }

    /// Takes a field out. JSON's `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Sent> {
        let at = self.fields.iter().position(|(known, _)| known == name)?;
        Some(self.fields.swap_remove(at).1).filter(|value| *value != Sent::Null)
    }

    /// A text field's value, left in place.
    pub(crate) fn peek(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(known, _)| known == name)?;
        if let Sent::Text(text) = value { Some(text) } else { None }
    }

    /// Notes what is there twice and what nobody took.
    pub(crate) fn leftovers(self, known: &str, faults: &mut Fields) {
        self.duplicates(faults);
        for (name, _) in &self.fields {
            faults.add(short(name), format!("is not a field of this request; known are {known}"));
        }
    }

    /// Notes what is there twice; what nobody took is ignored.
    pub(crate) fn duplicates(&self, faults: &mut Fields) {
        for name in &self.twice {
            faults.add(short(name), "is there twice");
        }
    }

    /// Laravel's own forms carry these two.
    fn without_form_tokens(mut self) -> Self {
        self.fields.retain(|(name, _)| name != "_token" && name != "_method");
        self
    }
}

/// A JSON object's members, each value taken as it stands.
impl<'de> Deserialize<'de> for SentFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = SentFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SentFields, A::Error> {
                let mut fields = SentFields::default();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    fields.add(name, Sent::of(value)).map_err(A::Error::custom)?;
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Sent {
    fn of(value: &RawValue) -> Self {
        let json = value.get();
        match json.as_bytes().first() {
            Some(b'"') => match serde_json::from_str::<String>(json) {
                Ok(text) => Self::Text(text),
                Err(error) => Self::Broken(explain(&error)),
            },
            Some(b'{') => Self::Other("an object"),
            Some(b'[') => Self::Other("an array"),
            Some(b't' | b'f') => Self::Other("a boolean"),
            Some(b'n') => Self::Null,
            _ => Self::Number(json.to_owned()),
        }
    }
}

/// A caller's own name, fit to be repeated.
pub(crate) fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

/// The text of a body, without a byte order mark.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    std::str::from_utf8(bytes)
        .map_err(|error| malformed(&format!("the body is no UTF-8 from byte {} on", error.valid_up_to() + 1)))
}

/// 400: the body cannot be read.
pub(crate) fn malformed(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed", "The body cannot be read", detail)
}

/// Percent-decoding with `+` for a space; `None` when the result is no UTF-8.
fn decoded(bytes: &[u8]) -> Option<String> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        out.push(match byte {
            b'+' => b' ',
            b'%' => match (digit(at), digit(at + 1)) {
                (Some(high), Some(low)) => {
                    at += 2;
                    (high * 16 + low) as u8
                }
                _ => b'%',
            },
            byte => *byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(fields: Result<SentFields, Problem>, name: &str) -> Result<String, String> {
        match fields.map_err(|problem| problem.detail)?.take(name) {
            Some(Sent::Text(text)) => Ok(text),
            Some(Sent::Number(number)) => Ok(format!("number {number}")),
            Some(Sent::Other(kind)) => Ok(kind.to_owned()),
            Some(Sent::Broken(why)) => Ok(format!("broken: {why}")),
            Some(Sent::Null) | None => Ok("absent".to_owned()),
        }
    }

    #[test]
    fn a_json_object_gives_its_members_as_they_stand() {
        for (json, expected) in [
            (r#"{"x":"a\u0062"}"#, "ab"),
            ("\u{feff}{\"x\":\"BOM\"}", "BOM"),
            (r#"{"x":-12}"#, "number -12"),
            (r#"{"x":{"y":[1]}}"#, "an object"),
            (r#"{"x":[]}"#, "an array"),
            (r#"{"x":true}"#, "a boolean"),
            (r#"{"x":null}"#, "absent"),
            ("{}", "absent"),
        ] {
            assert_eq!(values(SentFields::from_json(json.as_bytes()), "x").unwrap(), expected, "{json}");
        }
        let broken = values(SentFields::from_json(br#"{"x":"\ud800"}"#), "x").unwrap();
        assert!(broken.starts_with("broken"), "{broken}");
    }

    #[test]
    fn an_unreadable_body_is_described_with_its_place() {
        for (bytes, part) in [
            (&b""[..], "is empty"),
            (b"[1]", "expected a JSON object"),
            (b"{\"x\":\n1,}", "line 2 column 3"),
            (b"{\"x\":1", "line 1 column 6"),
            (b"{\"x\":\"\xff\"}", "from byte 7 on"),
        ] {
            let error = values(SentFields::from_json(bytes), "x").unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_form_is_decoded_strictly() {
        for (form, expected) in [
            ("x=a+b%20c&y=1", Ok("a b c")),
            ("y=1&x=%E5%A5%BD", Ok("好")),
            ("x=%zz%", Ok("%zz%")),
            ("x", Ok("")),
            ("&&", Ok("absent")),
            ("x=%ff", Err("x: is no UTF-8")),
        ] {
            let value = values(SentFields::from_form(form.as_bytes()), "x");
            assert_eq!(value, expected.map(str::to_owned).map_err(str::to_owned), "{form}");
        }
        let json = values(SentFields::from_form(br#"{"x":1}"#), "x").unwrap_err();
        assert!(json.contains("application/json"), "{json}");
    }

    #[test]
    fn names_that_are_there_twice_or_unknown_are_named() {
        let mut fields = SentFields::from_json(br#"{"x":1,"x":2,"other":3}"#).ok().unwrap();
        fields.take("x");
        let mut faults = Fields::default();
        fields.leftovers("x", &mut faults);
        let expected = "other: is not a field of this request; known are x; x: is there twice";
        assert_eq!(faults.summary(), expected);
    }

    #[test]
    fn a_content_type_is_read_with_its_parameters() {
        for (text, media) in [
            ("application/json", Media::Json),
            ("Application/JSON; charset=UTF-8", Media::Json),
            ("application/vnd.api+json", Media::Json),
            ("application/x-www-form-urlencoded", Media::Form),
            ("multipart/form-data; boundary=\"x y\"", Media::Parts("x y".to_owned())),
            ("application/x-ndjson", Media::Lines),
            ("text/csv; header=present", Media::Csv),
            ("application/json; charset=big5", Media::Other("application/json; charset=big5".to_owned())),
            ("text/plain", Media::Other("text/plain".to_owned())),
            ("", Media::Other(String::new())),
        ] {
            assert_eq!(Media::parse(text), media, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SentFields::from_json(&bytes);
            let _ = SentFields::from_form(&bytes);
        }

        #[test]
        fn any_content_type_has_an_answer(text in ".*") {
            let _ = Media::parse(&text);
        }
    }
}
