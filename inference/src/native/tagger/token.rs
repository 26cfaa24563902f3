//! Texts as the tagger reads them: sentences of tokens, each with its place in the text, in characters (Unicode scalar
//! values). A Chinese character is a token, and so is a word of letters or digits.

use super::hash::word;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    Han,
    Latin,
    Digit,
    Mark,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    /// From this character of the text to the one before that.
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) script: Script,
    /// The first character, folded.
    pub(crate) first: char,
    /// What the token is to the features: a folded character, the hash of a word in lower case, digits by their number.
    pub(crate) atom: u64,
}

impl Token {
    /// Of the folded characters between two places.
    pub(crate) fn new(folded: &[char], from: usize, to: usize) -> Self {
        let chars = &folded[from..to];
        let first = chars.first().copied().unwrap_or(' ');
        let script = script(first);
        let atom = match script {
            Script::Latin => word(chars.iter().copied()).finish() | 1 << 63,
            Script::Digit => 0x4000_0000 + chars.len().min(9) as u64,
            _ if chars.len() == 1 => first as u64,
            _ => word(chars.iter().copied()).finish() | 1 << 63,
        };
        Self { from: from as u32, to: to as u32, script, first, atom }
    }
}

pub(crate) fn script(c: char) -> Script {
    match c {
        '0'..='9' => Script::Digit,
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{52f}' => Script::Latin,
        '〇'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' => Script::Han,
        '·' | '•' | '‧' | '・' | '-' => Script::Other,
        c if c.is_ascii()
            || c.is_whitespace()
            || matches!(c, '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}' | '\u{ff00}'..='\u{ff65}') =>
        {
            Script::Mark
        }
        c if c.is_alphabetic() => Script::Latin,
        _ => Script::Other,
    }
}

/// Chinese tokens of a stretch of folded text: words of letters, of digits, and every other character that is no space.
pub(crate) fn characters(folded: &[char], from: usize, to: usize) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(to - from);
    let mut at = from;
    while at < to {
        let kind = script(folded[at]);
        let mut end = at + 1;
        if matches!(kind, Script::Latin | Script::Digit) {
            while end < to && script(folded[end]) == kind {
                end += 1;
            }
        }
        if !folded[at].is_whitespace() {
            tokens.push(Token::new(folded, at, end));
        }
        at = end;
    }
    tokens
}
