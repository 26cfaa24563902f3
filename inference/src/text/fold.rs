//! One form for characters that mean the same: Simplified, lower case, half width. One character stays one character, so
//! places in a folded text are places in the text.

use std::sync::LazyLock;

/// The folded form of a character.
#[must_use]
pub fn fold(c: char) -> char {
    match c {
        '\0'..='\x7f' => c.to_ascii_lowercase(),
        '’' | '‘' | '＇' => '\'',
        '“' | '”' => '"',
        '。' | '…' => '.',
        '、' => ',',
        '～' => '~',
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

/// Whether a character is a Chinese one.
#[must_use]
pub fn is_han(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' | '〇')
}

/// Whether no Traditional text has a character.
pub(super) fn is_simplified_only(c: char) -> bool {
    (c as usize).checked_sub(FIRST_HAN).and_then(|at| SIMPLIFIED_ONLY.get(at)).is_some_and(|only| *only)
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
    let lines = include_str!("traditional.txt").lines().filter(|line| !line.starts_with('#'));
    lines.flat_map(str::split_whitespace).filter_map(|pair| {
        let mut pair = pair.chars();
        Some((pair.next()?, pair.next()?))
    })
}

fn half_width(c: char) -> char {
    char::from_u32(c as u32 - 0xfee0).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_keeps_the_number_of_characters_and_unites_the_scripts() {
        for (text, folded) in [
            ("蘋果公司在台灣設有研發中心", "苹果公司在台湾设有研发中心"),
            ("ＡＢＣ！　It’s", "abc! it's"),
            ("「好」。", "「好」."),
            ("İstanbul ß 😀", "İstanbul ß 😀"),
        ] {
            assert_eq!(text.chars().map(fold).collect::<String>(), folded);
        }
    }

    proptest::proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in "\\PC{0,40}") {
            let once: String = text.chars().map(fold).collect();
            let twice: String = once.chars().map(fold).collect();
            proptest::prop_assert_eq!(once, twice);
        }
    }
}
