//! A folded text in units: words of an alphabet, stretches of Chinese characters, runs of signs. Blanks part units and are
//! none themselves.

use std::ops::Range;

use super::fold::is_han;

/// A stretch of a folded text, as places of its characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub kind: Kind,
    pub range: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Letters and digits, with apostrophes inside.
    Word,
    /// Chinese characters.
    Han,
    /// Punctuation, emoticons, emoji.
    Sign,
}

/// Cuts folded characters into units, in order.
pub fn cut(chars: &[char], units: &mut Vec<Unit>) {
    units.clear();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let Some(kind) = kind(c) else {
            at += 1;
            continue;
        };
        let start = at;
        at += 1;
        while at < chars.len() && goes_on(kind, chars, at) {
            at += 1;
        }
        units.push(Unit { kind, range: start..at });
    }
}

fn kind(c: char) -> Option<Kind> {
    if is_han(c) {
        Some(Kind::Han)
    } else if c.is_alphanumeric() {
        Some(Kind::Word)
    } else if c.is_whitespace() || c.is_control() {
        None
    } else {
        Some(Kind::Sign)
    }
}

fn goes_on(of: Kind, chars: &[char], at: usize) -> bool {
    let next = kind(chars[at]);
    match of {
        Kind::Han => next == Some(Kind::Han),
        Kind::Word => {
            next == Some(Kind::Word)
                || (chars[at] == '\'' && chars.get(at + 1).is_some_and(|c| kind(*c) == Some(Kind::Word)))
        }
        Kind::Sign => next == Some(Kind::Sign) || ends_emoticon(chars, at),
    }
}

/// The letter of `:D`, `;P`, `=O`.
fn ends_emoticon(chars: &[char], at: usize) -> bool {
    matches!(chars[at], 'd' | 'p' | 'o')
        && matches!(chars[at - 1], ':' | ';' | '=' | '-')
        && chars.get(at + 1).is_none_or(|c| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::super::fold::fold;
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let chars: Vec<char> = text.chars().map(fold).collect();
        let mut units = Vec::new();
        cut(&chars, &mut units);
        units.into_iter().map(|unit| chars[unit.range].iter().collect()).collect()
    }

    #[test]
    fn a_text_is_cut_into_words_stretches_and_signs() {
        let table: [(&str, &[&str]); 6] = [
            ("I don't like it!!", &["i", "don't", "like", "it", "!!"]),
            ("這個app很好用，推薦", &["这个", "app", "很好用", ",", "推荐"]),
            ("so happy :D", &["so", "happy", ":d"]),
            ("ok:do it", &["ok", ":", "do", "it"]),
            ("'tis good'", &["'", "tis", "good", "'"]),
            (" \t\u{0}", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn units_stand_in_order_and_leave_out_only_blanks(text in "[a-c'好不。:d \\t😀]{0,30}") {
            let chars: Vec<char> = text.chars().map(fold).collect();
            let mut units = Vec::new();
            cut(&chars, &mut units);
            let mut at = 0;
            for unit in &units {
                proptest::prop_assert!(unit.range.start >= at && unit.range.start < unit.range.end);
                proptest::prop_assert!(chars[at..unit.range.start].iter().all(|c| c.is_whitespace()));
                at = unit.range.end;
            }
            proptest::prop_assert!(chars[at..].iter().all(|c| c.is_whitespace()));
        }
    }
}
