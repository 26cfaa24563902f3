//! Texts as the word lists see them: Simplified, lower case, half width. One character stays one character, so places in
//! a folded text are places in the text.

use std::ops::Range;
use std::sync::LazyLock;

/// A text and its folded characters.
pub(super) struct Folded<'a> {
    text: &'a str,
    pub(super) chars: Vec<char>,
    /// Where each character starts in the text, in bytes, and where the text ends.
    starts: Vec<u32>,
}

impl<'a> Folded<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut chars = Vec::with_capacity(text.len());
        let mut starts = Vec::with_capacity(text.len() + 1);
        for (start, c) in text.char_indices() {
            chars.push(fold(c));
            starts.push(offset(start));
        }
        starts.push(offset(text.len()));
        Self { text, chars, starts }
    }

    /// The text as it was written, from character to character.
    pub(super) fn original(&self, range: Range<usize>) -> &'a str {
        &self.text[self.starts[range.start] as usize..self.starts[range.end] as usize]
    }

    pub(super) fn is_upper(&self, at: usize) -> bool {
        let c = self.original(at..at + 1).chars().next();
        c.is_some_and(|c| if c.is_ascii() { c.is_ascii_uppercase() } else { !is_han(c) && c.is_uppercase() })
    }

    /// A BCP 47 tag: what the characters say, which is the script more than the language.
    pub(super) fn language(&self) -> &'static str {
        let (mut han, mut latin, mut other) = (0_usize, 0_usize, 0_usize);
        let (mut traditional, mut simplified) = (0_usize, 0_usize);
        for (&folded, c) in self.chars.iter().zip(self.text.chars()) {
            if is_han(folded) {
                han += 1;
                traditional += usize::from(c != folded);
                simplified += usize::from(c == folded && is_simplified_only(c));
            } else if folded.is_ascii_alphabetic() {
                latin += 1;
            } else if folded.is_alphabetic() {
                other += 1;
            }
        }
        // A Chinese character says about as much as three letters.
        match (han * 3, latin) {
            (0, 0) => "und",
            _ if other > han * 3 + latin => "und",
            (han, latin) if han < latin => "en",
            _ if other > han => "und",
            _ if traditional > simplified => "zh-Hant",
            _ if simplified > 0 => "zh-Hans",
            _ => "zh",
        }
    }
}

pub(super) fn is_han(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' | '〇')
}

/// What words of an alphabet are made of.
pub(super) fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || (!c.is_ascii() && c.is_alphanumeric() && !is_han(c))
}

pub(super) fn fold(c: char) -> char {
    match c {
        '\0'..='\x7f' => c.to_ascii_lowercase(),
        '’' | '‘' | '＇' => '\'',
        '\u{3000}' => ' ',
        '\u{ff01}'..='\u{ff5e}' => half_width(c).to_ascii_lowercase(),
        '\u{3400}'..='\u{9fff}' => SIMPLIFIED[c as usize - FIRST_HAN],
        _ => {
            // Where lower case takes two characters, the character stays as it is.
            let mut lower = c.to_lowercase();
            match (lower.next(), lower.next()) {
                (Some(lower), None) => lower,
                _ => c,
            }
        }
    }
}

const FIRST_HAN: usize = 0x3400;

/// The Simplified form of each Chinese character, from U+3400 on.
static SIMPLIFIED: LazyLock<Vec<char>> = LazyLock::new(|| {
    let mut table: Vec<char> = ('\u{3400}'..='\u{9fff}').collect();
    for (traditional, simplified) in pairs() {
        table[traditional as usize - FIRST_HAN] = simplified;
    }
    table
});

/// Whether no Traditional text has a character.
fn is_simplified_only(c: char) -> bool {
    (c as usize).checked_sub(FIRST_HAN).and_then(|at| SIMPLIFIED_ONLY.get(at)).is_some_and(|only| *only)
}

static SIMPLIFIED_ONLY: LazyLock<Vec<bool>> = LazyLock::new(|| {
    let mut table = vec![false; SIMPLIFIED.len()];
    for (_, simplified) in pairs().filter(|(_, simplified)| !IN_BOTH.contains(*simplified)) {
        table[simplified as usize - FIRST_HAN] = true;
    }
    table
});

/// Simplified forms that are Traditional characters too, of another meaning.
const IN_BOTH: &str = "后里台干几谷面丑斗松制周症欲致吁只于余云征郁折准着卷板表别布采岳才冬范丰杆伙家据克困蜡累咸向御愿占志注借仆朴曲舍沈涂托系咽佣游秋千升它咏回荐哗淀恶合汇扎札吊虫抵栖凄毁沾迹秘群裙贊岩灶晒唇杯泪床尸背艳厘雇熏咽吃愈核你裊蔑巨沓戚憩剩胡困捆刹抬挽仿佛恒";

fn pairs() -> impl Iterator<Item = (char, char)> {
    let lines = include_str!("words/traditional.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).filter_map(|pair| {
        let mut pair = pair.chars();
        Some((pair.next()?, pair.next()?))
    })
}

fn half_width(c: char) -> char {
    char::from_u32(c as u32 - 0xfee0).unwrap_or(c)
}

/// Texts are bounded far below 4 GiB; should one not be, its end is cut off from no index that is used.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_keeps_the_number_of_characters_and_unites_the_scripts() {
        for (text, folded) in [
            ("蘋果公司在台灣設有研發中心", "苹果公司在台湾设有研发中心"),
            ("ＡＢＣ！　It’s", "abc! it's"),
            ("İstanbul ß 😀", "İstanbul ß 😀"),
        ] {
            assert_eq!(Folded::new(text).chars.iter().collect::<String>(), folded);
        }
    }

    #[test]
    fn the_script_is_recognised() {
        for (text, language) in [
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
        ] {
            assert_eq!(Folded::new(text).language(), language, "{text}");
        }
    }

    #[test]
    fn a_folded_text_gives_back_what_was_written() {
        let folded = Folded::new("aİ蘋果😀");
        assert_eq!(folded.original(0..5), "aİ蘋果😀");
        assert_eq!(folded.original(2..4), "蘋果");
        assert!(folded.is_upper(1) && !folded.is_upper(0) && !folded.is_upper(4));
    }
}
