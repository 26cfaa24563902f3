//! Text that goes into JSON columns and webhook bodies.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// The deepest document stored as such; MariaDB's JSON functions refuse more than 32 levels.
const MAX_DEPTH: usize = 30;

/// `text` when it is a JSON document that both servers accept, else the text as a JSON string.
#[must_use]
pub(crate) fn document(text: &str) -> Cow<'_, str> {
    if depth(text) <= MAX_DEPTH && is_json(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(serde_json::to_string(text).expect("text can always be written as a JSON string"))
    }
}

fn is_json(text: &str) -> bool {
    // Skipping a string does not look at surrogates; MySQL refuses a lone one, and so does a full parse.
    if text.contains("\\u") {
        serde_json::from_str::<serde_json::Value>(text).is_ok()
    } else {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }
}

/// The greatest number of brackets open at once outside strings.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_document_stays_as_it_is_and_anything_else_becomes_a_string() {
        let deep = format!("{}{}", "[".repeat(31), "]".repeat(31));
        let cases: [(&str, bool); 9] = [
            (r#"{"text":"好"}"#, true),
            (r#"{"text":"[[[["}"#, true),
            (r#"{"text":"\ud83d\ude00"}"#, true),
            ("17", true),
            ("", false),
            ("{", false),
            ("not json", false),
            (r#"{"text":"\ud800"}"#, false),
            (&deep, false),
        ];
        for (text, stays) in cases {
            let document = document(text);
            assert_eq!(document == text, stays, "{text}");
            if !stays {
                assert_eq!(serde_json::from_str::<String>(&document).unwrap(), text);
            }
        }
    }
}
