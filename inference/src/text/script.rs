//! Which script a text is written in, judged by its characters.

use super::fold::{fold, is_han, is_simplified_only};

/// What most of a text is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Script {
    Han,
    Latin,
    /// Neither: another script, or signs and digits alone.
    Other,
}

/// The script of a text. A Chinese character says about as much as three letters.
#[must_use]
pub fn script(text: &str) -> Script {
    Counts::of(text).script()
}

/// A BCP 47 tag: `zh-Hant`, `zh-Hans`, `zh` (either), `en` (any text of the Latin alphabet) or `und`. It is what the
/// characters say, which is the script more than the language.
#[must_use]
pub fn language(text: &str) -> &'static str {
    let counts = Counts::of(text);
    match counts.script() {
        Script::Latin => "en",
        Script::Other => "und",
        Script::Han if counts.traditional > counts.simplified => "zh-Hant",
        Script::Han if counts.simplified > 0 => "zh-Hans",
        Script::Han => "zh",
    }
}

#[derive(Default)]
struct Counts {
    han: usize,
    latin: usize,
    other: usize,
    traditional: usize,
    simplified: usize,
}

impl Counts {
    fn of(text: &str) -> Self {
        let mut counts = Self::default();
        for c in text.chars() {
            if c.is_ascii() {
                counts.latin += usize::from(c.is_ascii_alphabetic());
                continue;
            }
            let folded = fold(c);
            if is_han(folded) {
                counts.han += 1;
                counts.traditional += usize::from(c != folded);
                counts.simplified += usize::from(c == folded && is_simplified_only(c));
            } else if folded.is_ascii_alphabetic() {
                counts.latin += 1;
            } else if folded.is_alphabetic() {
                counts.other += 1;
            }
        }
        counts
    }

    fn script(&self) -> Script {
        let han = self.han * 3;
        match (han, self.latin) {
            (0, 0) => Script::Other,
            _ if self.other > han + self.latin => Script::Other,
            (han, latin) if han < latin => Script::Latin,
            _ if self.other > han => Script::Other,
            _ => Script::Han,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_recognised_by_the_script() {
        for (text, expected) in [
            ("這是測試", "zh-Hant"),
            ("这是测试", "zh-Hans"),
            ("今天天氣好", "zh-Hant"),
            ("台北", "zh"),
            ("你好", "zh"),
            ("I love it", "en"),
            ("iPhone 很好用，我喜歡", "zh-Hant"),
            ("The word 好 means good", "en"),
            ("これはとてもいいです", "und"),
            ("12345 !!!", "und"),
            ("😀", "und"),
            ("", "und"),
        ] {
            assert_eq!(language(text), expected, "{text}");
        }
    }
}
