//! What Chinese personal names are made of: a family name and one or two more characters, or the sounds of a foreign name.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::dictionary::{CUE, DICTIONARY};
use crate::model::fold::is_han;
use crate::model::words::{Words, lines};

/// A stretch of text that may be a name, and how far-fetched that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) length: usize,
    pub(super) cost: u16,
    pub(super) foreign: bool,
}

/// The names that may begin at a place.
pub(super) fn candidates(chars: &[char], at: usize) -> Vec<Candidate> {
    let mut found = Vec::new();
    let Some(parts) = PARTS.get(&chars[at..=at]) else { return found };
    if parts.surname.is_some() || parts.opens_compound {
        let pair: Option<[char; 2]> = chars.get(at..at + 2).and_then(|pair| pair.try_into().ok());
        if let Some(cost) = pair.and_then(|pair| COMPOUNDS.get(&pair)) {
            chinese(chars, at, 2, *cost, &mut found);
        }
        if let Some(cost) = parts.surname {
            chinese(chars, at, 1, cost, &mut found);
        }
    }
    foreign(chars, at, &mut found);
    found
}

/// A name is that much rarer than its parts, before its neighbours are looked at.
const CHINESE: u16 = 9;
const SHORT: u16 = 2;
const RARE: u16 = 12;
const FOREIGN: u16 = 12;
const DOTTED: u16 = 4;
/// What a neighbour that goes with names makes up for.
const TITLE_BEFORE: u16 = 4;
const CUE_AFTER: u16 = 3;
/// Together never more than this, so that costs stay positive.
const LONGEST_FOREIGN: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    surname: Option<u16>,
    opens_compound: bool,
    given: Option<u16>,
    first: Option<u16>,
    last: Option<u16>,
    foreign: Option<u16>,
}

static PARTS: LazyLock<Words<Parts>> = LazyLock::new(|| {
    let mut parts: HashMap<char, Parts> = HashMap::new();
    for (tag, cost, word) in entries() {
        let (Some(c), single) = (word.chars().next(), word.chars().nth(1).is_none()) else { continue };
        let part = parts.entry(c).or_default();
        match tag {
            "surname" if single => part.surname = Some(cost),
            "surname" => part.opens_compound = true,
            "given" => part.given = Some(cost),
            "first" => part.first = Some(cost),
            "last" => part.last = Some(cost),
            _ => part.foreign = Some(cost),
        }
    }
    Words::new(parts.into_iter().map(|(c, part)| (vec![c], part)))
});

static COMPOUNDS: LazyLock<HashMap<[char; 2], u16>> = LazyLock::new(|| {
    let surnames = entries().filter(|(tag, ..)| *tag == "surname");
    let pair = |word: &str| <[char; 2]>::try_from(word.chars().collect::<Vec<_>>()).ok();
    surnames.filter_map(|(_, cost, word)| Some((pair(word)?, cost))).collect()
});

fn entries() -> impl Iterator<Item = (&'static str, u16, &'static str)> {
    lines(include_str!("../words/names_zh.txt")).flat_map(|(tag, words)| {
        let (cost, words) = words.split_once(' ').expect("a line of name parts has a number");
        let cost = cost.parse().expect("a line of name parts has a number");
        words.split(' ').map(move |word| (tag, cost, word))
    })
}

fn chinese(chars: &[char], at: usize, surname: usize, cost: u16, found: &mut Vec<Candidate>) {
    let part = |at: usize| chars.get(at..=at).and_then(|c| PARTS.get(c));
    let before = title_before(chars, at);
    let mut add = |length: usize, cost: u16| {
        let cost = cost.saturating_sub(before + cue_after(chars, at + length));
        found.push(Candidate { length, cost, foreign: false });
    };
    // A character that no list has stands in names more than elsewhere.
    let rare = |at: usize| chars.get(at).filter(|c| is_han(**c) && DICTIONARY.get(&[**c]).is_none()).map(|_| RARE);
    if let Some(given) = part(at + surname).and_then(|part| part.given).or(rare(at + surname)) {
        add(surname + 1, CHINESE + SHORT + cost + given);
    }
    let first = part(at + surname).and_then(|part| part.first).or(rare(at + surname));
    let last = part(at + surname + 1).and_then(|part| part.last).or(rare(at + surname + 1));
    if let (Some(first), Some(last)) = (first, last) {
        add(surname + 2, CHINESE + cost + first + last);
    }
}

/// Three characters of foreign sound or more; dots between them make it likelier.
fn foreign(chars: &[char], at: usize, found: &mut Vec<Candidate>) {
    let (mut cost, mut dots) = (0, 0);
    for (length, c) in chars[at..].iter().take(LONGEST_FOREIGN).enumerate() {
        if is_dot(*c) && length > 0 && chars.get(at + length + 1).is_some_and(|c| is_han(*c)) {
            dots += 1;
            continue;
        }
        let Some(sound) = PARTS.get(&[*c]).and_then(|parts| parts.foreign) else { return };
        cost += sound;
        if length >= 2 {
            let cost = cost + if dots > 0 { DOTTED } else { FOREIGN };
            found.push(Candidate { length: length + 1, cost, foreign: true });
        }
    }
}

pub(super) fn is_dot(c: char) -> bool {
    matches!(c, '·' | '・' | '‧' | '•')
}

/// Whether a person stands between these neighbours more likely than a place.
pub(super) fn stands_as_person(chars: &[char], start: usize, end: usize) -> bool {
    title_before(chars, start) > 0 || cue_after(chars, end) > 0
}

fn title_before(chars: &[char], at: usize) -> u16 {
    let title = (1..=4.min(at)).any(|length| CUE.get(&chars[at - length..at]).is_some_and(|cue| cue.title));
    if title { TITLE_BEFORE } else { 0 }
}

fn cue_after(chars: &[char], at: usize) -> u16 {
    let mut cues = CUE.starting(&chars[at..chars.len().min(at + 4)]);
    if cues.any(|(_, cue)| cue.title || cue.speech) { CUE_AFTER } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(text: &str, foreign: bool) -> Vec<usize> {
        let found = candidates(&text.chars().collect::<Vec<_>>(), 0);
        found.iter().filter(|found| found.foreign == foreign).map(|found| found.length).collect()
    }

    #[test]
    fn names_are_a_family_name_and_one_or_two_characters() {
        assert_eq!(lengths("王小明说", false), [3]);
        assert_eq!(lengths("王强说", false), [2]);
        assert_eq!(lengths("欧阳文", false), [3, 2, 3], "of 欧阳, or of 欧");
        assert!(lengths("的小明", false).is_empty());
        assert!(lengths("王", false).is_empty());
    }

    #[test]
    fn foreign_names_are_sounds() {
        assert_eq!(lengths("巴拉克·奥巴马是", true), [3, 5, 6, 7]);
        assert!(lengths("巴士站", true).is_empty());
    }

    #[test]
    fn neighbours_make_a_name_likelier() {
        let cost = |text: &str, at| {
            let found = candidates(&text.chars().collect::<Vec<_>>(), at);
            found.iter().find(|found| found.length == 3).map(|found| found.cost)
        };
        assert!(cost("王小明说", 0) < cost("王小明跳", 0));
        assert!(cost("教授王小明跳", 2) < cost("王小明跳", 0));
    }
}
