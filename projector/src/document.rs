//! Text that goes into JSON columns and webhook bodies.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// The deepest document stored as such; MariaDB's JSON functions refuse more than 32 levels.
const MAX_DEPTH: usize = 30;
/// The longest key, in bytes as it is written; MySQL refuses more (error 3151).
const MAX_KEY_BYTES: usize = 65_535;
/// Digits before a number's point, its exponent taken in; MySQL refuses what no double holds (error 3140), 309 or more.
const MAX_DIGITS: u64 = 300;

/// `text` when it is a JSON document that both servers accept, else the text as a JSON string.
#[must_use]
pub(crate) fn document(text: &str) -> Cow<'_, str> {
    if fits(text) && is_json(text) {
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

/// Whether nothing in `text`, if it is JSON, is deeper, longer or greater than the servers take.
fn fits(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut open, mut string) = (0, 0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => end_of_string(bytes, at),
            b'0'..=b'9' => end_of_number(bytes, at),
            _ => at + 1,
        };
        match byte {
            b'"' => string = end - at,
            b':' if string > MAX_KEY_BYTES => return false,
            b'0'..=b'9' if digits(&text[at..end]) > MAX_DIGITS => return false,
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > MAX_DEPTH {
            return false;
        }
        at = end;
    }
    true
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn end_of_number(bytes: &[u8], start: usize) -> usize {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    start + bytes[start..].iter().take_while(|byte| part(byte)).count()
}

/// Digits before the point of a number without its sign, as if it had no exponent.
fn digits(number: &str) -> u64 {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let whole = mantissa.split('.').next().unwrap_or_default().len() as u64;
    let exponent = match exponent.strip_prefix('-') {
        Some(_) => 0,
        // More digits than a number of 64 bits has: more than any bound, too.
        None => exponent.trim_start_matches('+').parse().unwrap_or(u64::MAX),
    };
    whole.saturating_add(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_document_stays_as_it_is_and_anything_else_becomes_a_string() {
        let deep = format!("{}{}", "[".repeat(31), "]".repeat(31));
        let long = |bytes: usize| "k".repeat(bytes);
        let (long_key, longest_key) = (format!("{{\"{}\" :1}}", long(65_536)), format!("{{\"{}\":1}}", long(65_533)));
        let (long_value, many_digits) = (format!("[\"{}\"]", long(70_000)), "1".repeat(310));
        let cases: [(&str, bool); 21] = [
            (r#"{"n":1e999}"#, false),
            (r#"{"n":[-2E+0400]}"#, false),
            ("1e18446744073709551616", false),
            (&many_digits, false),
            (&long_key, false),
            (&longest_key, true),
            (&long_value, true),
            (r#"{"n":[1e200,-1.5E-999,0.1,true,false,null]}"#, true),
            (r#"{"1e999":"1e999 [[["}"#, true),
            (r#"{"a\"":"\\"}"#, true),
            ("\"", false),
            ("\"\\", false),
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
