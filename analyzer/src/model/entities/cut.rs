//! Cuts Chinese text into words and names: of all ways, the one whose words together are the least rare.

use super::dictionary::{DICTIONARY, Kind};
use super::names::candidates;
use crate::model::fold::{is_han, is_letter};

/// A piece of the text, by its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) piece: Piece,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    Listed(Kind),
    /// A name by its parts.
    Name,
    /// A foreign name by its sounds.
    Foreign,
    /// A Chinese character that no list has.
    Unknown,
    /// A word of letters or digits.
    Letters,
    Sign,
}

pub(super) fn cut(chars: &[char]) -> Vec<Token> {
    // From the end to the start: what the rest costs from each place on, and the first piece of it.
    let mut best: Vec<(u32, Token)> = Vec::with_capacity(chars.len() + 1);
    let nothing = Token { start: chars.len(), end: chars.len(), piece: Piece::Sign };
    best.push((0, nothing));
    let mut letters_end = chars.len();
    for start in (0..chars.len()).rev() {
        let c = chars[start];
        if !is_letter(c) {
            letters_end = start;
        }
        let rest = |end: usize| best[chars.len() - end].0;
        let mut choice: Option<(u32, Token)> = None;
        let mut offer = |length: usize, cost: u16, piece: Piece| {
            let end = start + length;
            let cost = u32::from(cost) + rest(end);
            if choice.is_none_or(|(cheapest, _)| cost < cheapest) {
                choice = Some((cost, Token { start, end, piece }));
            }
        };
        if is_han(c) {
            offer(1, UNKNOWN, Piece::Unknown);
            for (length, word) in DICTIONARY.starting(&chars[start..]) {
                offer(length, word.cost, Piece::Listed(word.kind));
            }
            for name in candidates(chars, start) {
                offer(name.length, name.cost, if name.foreign { Piece::Foreign } else { Piece::Name });
            }
        } else if is_letter(c) {
            offer(letters_end - start, 0, Piece::Letters);
        } else {
            offer(1, 0, Piece::Sign);
        }
        best.push(choice.expect("every character has an offer"));
    }
    let mut tokens = Vec::with_capacity(chars.len() / 2 + 1);
    let mut at = 0;
    while at < chars.len() {
        let token = best[chars.len() - at].1;
        at = token.end;
        tokens.push(token);
    }
    tokens
}

/// Rarer than any listed character.
const UNKNOWN: u16 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_into_the_likeliest_words() {
        for (text, expected) in [
            ("他来到北京大学", "他 来到 北京 大学"),
            ("研究生命的起源", "研究 生命 的 起源"),
            ("张三是其员工", "张三 是 其 员工"),
            ("iphone很好", "iphone 很 好"),
            ("，。", "， 。"),
            ("", ""),
        ] {
            let chars: Vec<char> = text.chars().collect();
            let words: Vec<String> =
                cut(&chars).iter().map(|token| chars[token.start..token.end].iter().collect()).collect();
            assert_eq!(words.join(" "), expected);
        }
    }
}
