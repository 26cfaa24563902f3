//! A text as a row of clues: words of the lexicon, and the signs between them.

use super::lexicon::{LEXICON, Role};
use crate::model::fold::{Folded, is_han, is_letter};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Clue {
    Word {
        role: Role,
        /// Written in capitals.
        loud: bool,
    },
    /// A word that no list has.
    Other,
    /// The end of a clause.
    Comma,
    /// The end of a sentence; how many exclamation marks it has, and whether it asks.
    End { exclamations: u8, asks: bool },
}

/// The clues of a text, in order. At every place the longest word of the lexicon counts.
pub(super) fn clues(folded: &Folded<'_>) -> Vec<Clue> {
    let chars = &folded.chars;
    let shouting = is_shouting(folded);
    let mut clues = Vec::with_capacity(chars.len() / 2 + 1);
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if let Some((length, role)) = longest(chars, at) {
            let mut letters = (at..at + length).take_while(|at| chars[*at] != ' ');
            let loud = !shouting && length > 1 && letters.all(|at| folded.is_upper(at));
            clues.push(Clue::Word { role, loud });
            at += length;
        } else if is_letter(c) {
            at = word_end(chars, at);
            clues.push(Clue::Other);
        } else if matches!(c, '!' | '?' | '。' | '.' | '…' | '\n' | '~' | '～') {
            let (end, length) = sentence_end(&chars[at..]);
            // The point of 3.5 or of a host name ends nothing.
            let inside = c == '.' && length == 1 && chars.get(at + 1).is_some_and(|next| is_letter(*next));
            if !inside {
                clues.push(end);
            }
            at += length;
        } else {
            if is_han(c) {
                clues.push(Clue::Other);
            } else if matches!(c, ',' | ';' | ':' | '、' | '(' | ')' | '—' | '「' | '」' | '“' | '”') {
                clues.push(Clue::Comma);
            }
            at += 1;
        }
    }
    clues
}

/// The longest word of the lexicon at a place. Words of letters begin and end where words do.
fn longest(chars: &[char], at: usize) -> Option<(usize, Role)> {
    if is_letter(chars[at]) && at > 0 && is_letter(chars[at - 1]) {
        return None;
    }
    LEXICON
        .starting(&chars[at..])
        .filter(|(length, _)| {
            let last = chars[at + length - 1];
            let next = chars.get(at + length);
            !is_letter(last) || !next.is_some_and(|next| is_letter(*next))
        })
        .last()
}

/// Where the word of letters ends that begins at a place.
fn word_end(chars: &[char], at: usize) -> usize {
    let inside = |at: usize| {
        is_letter(chars[at]) || (chars[at] == '\'' && chars.get(at + 1).is_some_and(|next| is_letter(*next)))
    };
    (at..chars.len()).find(|at| !inside(*at)).unwrap_or(chars.len())
}

fn sentence_end(chars: &[char]) -> (Clue, usize) {
    let length = chars.iter().take_while(|c| matches!(c, '!' | '?' | '。' | '.' | '…' | '\n' | '~' | '～')).count();
    let exclamations = chars[..length].iter().filter(|c| **c == '!').count().min(3);
    let exclamations = u8::try_from(exclamations).expect("at most three");
    (Clue::End { exclamations, asks: chars[..length].contains(&'?') }, length)
}

/// Whether the whole text is in capitals: then capitals stress nothing.
fn is_shouting(folded: &Folded<'_>) -> bool {
    let letters = folded.chars.iter().enumerate().filter(|(_, c)| c.is_ascii_alphabetic());
    let (mut upper, mut all) = (0, 0);
    for (at, _) in letters {
        all += 1;
        upper += usize::from(folded.is_upper(at));
    }
    upper * 2 > all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> String {
        let clues = clues(&Folded::new(text));
        let letter = |clue: &Clue| match clue {
            Clue::Word { role: Role::Tone(tone), loud } => match (*tone > 0.0, loud) {
                (true, false) => "+",
                (true, true) => "++",
                (false, false) => "-",
                (false, true) => "--",
            },
            Clue::Word { role: Role::Negation, .. } => "not",
            Clue::Word { role: Role::Degree(_), .. } => "x",
            Clue::Word { role: Role::Contrast, .. } => "but",
            Clue::Word { role: Role::Concession, .. } => "though",
            Clue::Word { role: Role::Question, .. } => "ask",
            Clue::Word { role: Role::Plain, .. } | Clue::Other => "_",
            Clue::Comma => ",",
            Clue::End { .. } => ".",
        };
        clues.iter().map(letter).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn texts_become_rows_of_clues() {
        for (text, expected) in [
            ("This is not good.", "_ _ not + ."),
            ("I don't LOVE it!!", "_ not ++ ."),
            ("lovesick goodness3", "_ _"),
            ("版本 3.5 很好，但是慢", "_ _ _ + , but -"),
            ("雖然貴，不過好用", "though - , but +"),
            ("好像不錯嗎？", "x + ask ."),
            ("😀😡", "+ -"),
            ("so good :)", "x + +"),
        ] {
            assert_eq!(row(text), expected, "{text}");
        }
    }
}
