//! The words of a text in an alphabet, how they are written, and what each says about names beside it.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::model::fold::{Folded, fold, is_han, is_letter};
use crate::model::words::{Words, lines};

/// What a word does to names beside it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cue {
    pub(super) organisation: bool,
    pub(super) organisation_of: bool,
    pub(super) place: bool,
    pub(super) place_named: bool,
    pub(super) title: bool,
    pub(super) within: bool,
    pub(super) said: bool,
    pub(super) no_name: bool,
    pub(super) first_name: bool,
    pub(super) common: bool,
}

/// A word of letters, digits and what stands inside such words.
pub(super) struct Word {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) capital: bool,
    /// All its letters are capitals.
    pub(super) shouted: bool,
    /// Nothing but a space stands between it and the word before.
    pub(super) joined: bool,
    /// The first of a sentence.
    pub(super) opens: bool,
    pub(super) cue: Cue,
}

pub(super) fn words(folded: &Folded<'_>) -> Vec<Word> {
    let chars = &folded.chars;
    let mut words: Vec<Word> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if !is_letter(chars[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < chars.len() && (is_letter(chars[at]) || joins(chars, at)) {
            at += 1;
        }
        let mut end = at;
        if chars[start..end].ends_with(&['\'', 's']) {
            end -= 2;
        }
        let gap = &chars[words.last().map_or(0, |word| word.end)..start];
        let letters = || (start..end).filter(|at| chars[*at].is_alphabetic());
        words.push(Word {
            start,
            end,
            capital: folded.is_upper(start),
            shouted: letters().next().is_some() && letters().all(|at| folded.is_upper(at)),
            joined: !words.is_empty() && matches!(gap, [' '] | ['.', ' '] | [' ', '&', ' '] | ['-']),
            opens: opens(gap, words.is_empty()),
            cue: CUES.get(&chars[start..end]).unwrap_or_default(),
        });
    }
    words
}

static CUES: LazyLock<Words<Cue>> = LazyLock::new(|| {
    let mut cues: HashMap<Vec<char>, Cue> = HashMap::new();
    for (tag, words) in lines(include_str!("../words/cues_en.txt")) {
        for word in words.split(' ') {
            let cue = cues.entry(word.chars().collect()).or_default();
            match tag {
                "org" => cue.organisation = true,
                "of" => cue.organisation_of = true,
                "place" => cue.place = true,
                "named" => cue.place_named = true,
                "title" => cue.title = true,
                "in" => cue.within = true,
                "said" => cue.said = true,
                _ => cue.no_name = true,
            }
        }
    }
    for name in list(include_str!("../words/names_en.txt")) {
        cues.entry(name.chars().map(fold).collect()).or_default().first_name = true;
    }
    for word in list(include_str!("../words/common_en.txt")) {
        cues.entry(word.chars().collect()).or_default().common = true;
    }
    Words::new(cues)
});

fn list(words: &'static str) -> impl Iterator<Item = &'static str> {
    words.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

/// Whether a word after this gap begins a sentence, where every word has a capital. Chinese before it begins none.
fn opens(gap: &[char], first: bool) -> bool {
    let after_chinese = gap.iter().rposition(|c| is_han(*c));
    let gap = &gap[after_chinese.map_or(0, |at| at + 1)..];
    let signs = ['.', '!', '?', '\n', ':', '"', '“', '(', '*', '-'];
    (first && after_chinese.is_none()) || gap.iter().any(|c| signs.contains(c))
}

/// Whether a character inside a word belongs to it: rock'n'roll, U.S.
fn joins(chars: &[char], at: usize) -> bool {
    let between = at > 0 && is_letter(chars[at - 1]) && chars.get(at + 1).is_some_and(|c| is_letter(*c));
    between && (chars[at] == '\'' || (chars[at] == '.' && chars.get(at + 2).is_none_or(|c| !is_letter(*c))))
}
