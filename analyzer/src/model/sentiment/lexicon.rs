//! The words that say how a text sounds, and those that turn, strengthen or weaken them.

use std::sync::LazyLock;

use crate::model::words::{Words, lines};

/// What a word does to the sentiment of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// Good (above zero) or bad (below).
    Tone(f32),
    /// Turns what follows: not, 不.
    Negation,
    /// Makes what follows stronger (above one) or weaker.
    Degree(f32),
    /// What follows counts more than what was before: but, 但是.
    Contrast,
    /// Its clause counts less: although, 雖然.
    Concession,
    /// What is asked or wished for counts less: if, 如果, 嗎.
    Question,
    /// Says nothing, and keeps a shorter word inside it from being seen.
    Plain,
}

/// The words of all languages, folded.
pub(super) static LEXICON: LazyLock<Words<Role>> = LazyLock::new(|| {
    let listed = || LISTS.into_iter().flat_map(entries).map(|(word, role)| (word.chars().map(space).collect(), role));
    let tones = Words::new(listed());
    let common = common_words().map(|word| word.chars().collect::<Vec<_>>()).filter(|word| !hides(&tones, word));
    Words::new(common.map(|word| (word, Role::Plain)).chain(listed()))
});

const LISTS: [&str; 2] = [include_str!("../words/sentiment_en.txt"), include_str!("../words/sentiment_zh.txt")];

fn entries(list: &'static str) -> impl Iterator<Item = (&'static str, Role)> {
    lines(list).flat_map(|(tag, words)| {
        let role = role(tag).expect("the lists are part of the program, and a test reads them");
        words.split(' ').map(move |word| (word, role))
    })
}

fn role(tag: &str) -> Option<Role> {
    Some(match tag {
        "not" => Role::Negation,
        "but" => Role::Contrast,
        "though" => Role::Concession,
        "ask" => Role::Question,
        "plain" => Role::Plain,
        _ => match tag.strip_prefix('x') {
            Some(factor) => Role::Degree(factor.parse().ok()?),
            None => Role::Tone(tag.parse().ok()?),
        },
    })
}

/// Common Chinese words, which are read as wholes: the 好 of 好像 is none.
fn common_words() -> impl Iterator<Item = &'static str> {
    let words = lines(include_str!("../words/common.txt")).flat_map(|(_, words)| words.split(' ').skip(1));
    words.filter(|word| word.chars().nth(1).is_some())
}

/// Whether a word ends in one of the lists after its first character: then the list knows better, as in 不美满 and 很漂亮.
fn hides(tones: &Words<Role>, word: &[char]) -> bool {
    let bends = matches!(tones.get(&word[..1]), Some(Role::Negation | Role::Degree(_)));
    (1..word.len() - 1).any(|at| tones.get(&word[at..]).is_some())
        || (bends && matches!(tones.get(&word[1..]), Some(Role::Tone(_))))
}

fn space(c: char) -> char {
    if c == '_' { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_lists_has_a_tag_and_folded_words() {
        let mut tones = 0;
        for (word, role) in LISTS.into_iter().flat_map(entries) {
            assert!(word.chars().all(|c| crate::model::fold::fold(c) == c), "{word} is not folded");
            tones += usize::from(matches!(role, Role::Tone(_)));
        }
        assert!(tones > 5_000, "{tones}");
    }

    #[test]
    fn words_inside_common_words_are_not_seen() {
        let longest = |text: &str| LEXICON.starting(&text.chars().collect::<Vec<_>>()).last();
        assert_eq!(longest("差别是"), Some((2, Role::Plain)));
        assert_eq!(longest("不断地"), Some((2, Role::Plain)));
        assert_eq!(longest("不是我"), Some((2, Role::Negation)));
        assert!(matches!(longest("很漂亮"), Some((1, Role::Degree(_))) | Some((3, Role::Tone(_)))));
        assert!(matches!(longest("worth it."), Some((8, Role::Tone(_)))));
    }
}
