//! Texts of strangers on a terminal: what it would obey (colours, titles, cursor, direction of writing) is shown as a
//! replacement character, or escaped where the text is JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// At most `most` characters on one line.
pub(crate) fn line(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).map(|c| if is_obeyed(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

/// `1 event`, `2 events`.
pub(crate) fn count(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// One line of JSON: the same document, with escapes for what a terminal would obey.
pub(crate) fn json(value: &impl Serialize) -> String {
    escape(&serde_json::to_string(value).expect("answers and reports have string keys"))
}

/// The same over several lines.
pub(crate) fn pretty_json(value: &impl Serialize) -> String {
    escape(&serde_json::to_string_pretty(value).expect("answers and reports have string keys"))
}

/// In JSON such characters stand in strings only; its writer has escaped those below the space already.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_obeyed(c) {
            escaped.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                write!(escaped, "\\u{unit:04x}").expect("a string takes everything");
            }
        }
    }
    escaped
}

/// Control characters, and those that turn the direction of writing or end a line.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left_of_a_line() {
        assert_eq!(line("a\x1b[31mb\u{9b}2Jc\nd\u{202e}e", 99), "a�[31mb�2Jc�d�e");
        assert_eq!(line("好消息!", 2), "好消…");
        assert_eq!(line("好消息!", 4), "好消息!");
    }

    #[test]
    fn one_thing_is_told_of_in_the_singular() {
        assert_eq!([0, 1, 2].map(|it| count(it, "event")), ["0 events", "1 event", "2 events"]);
    }

    #[test]
    fn json_stays_the_document_it_was() {
        let value = json!({ "text": "a\x1b]0;title\x07\u{9b}\u{7f}\u{202e}好" });
        let shown = super::json(&value);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        assert_eq!(shown, r#"{"text":"a\u001b]0;title\u0007\u009b\u007f\u202e好"}"#);
        assert_eq!(pretty_json(&json!({ "a": 1 })), "{\n  \"a\": 1\n}");
    }

    proptest! {
        #[test]
        fn any_text_is_shown_without_what_a_terminal_obeys(text in any::<String>()) {
            prop_assert!(!line(&text, 50).chars().any(is_obeyed));
            let shown = super::json(&text);
            prop_assert!(!shown.chars().any(is_obeyed));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
