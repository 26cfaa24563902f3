//! Chinese words and names to cut texts by, and the cues around names.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::model::words::{Words, lines};

/// What a word is to someone who looks for names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be part of an organisation's name.
    Noun,
    /// Verbs, pronouns, particles: the end of a name.
    Other,
    Place,
    Organisation,
    Person,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) kind: Kind,
    /// How rare it is: minus the binary logarithm of its share in running text.
    pub(super) cost: u16,
}

/// What a word says about names next to it. One word may say several things.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cue {
    /// Ends an organisation's name.
    pub(super) organisation: bool,
    /// Ends a place's name.
    pub(super) place: bool,
    /// Stands beside a person's name.
    pub(super) title: bool,
    /// Stands after a person's name.
    pub(super) speech: bool,
    /// Is no part of a name.
    pub(super) generic: bool,
}

pub(super) static DICTIONARY: LazyLock<Words<Word>> = LazyLock::new(|| {
    let mut dictionary: HashMap<&str, Word> = HashMap::new();
    for (tag, words) in lines(COMMON) {
        let mut words = words.split(' ');
        let cost = words.next().and_then(|cost| cost.parse().ok()).expect("a line of common words has a number");
        let kind = if tag == "b" { Kind::Other } else { Kind::Noun };
        dictionary.extend(words.map(|word| (word, Word { kind, cost })));
    }
    for word in lines(CUES).flat_map(|(_, words)| words.split(' ')).filter(|word| word.chars().nth(1).is_some()) {
        dictionary.entry(word).or_insert(Word { kind: Kind::Noun, cost: CUE_COST });
    }
    for (list, kind) in [(PLACES, Kind::Place), (ORGANISATIONS, Kind::Organisation), (PEOPLE, Kind::Person)] {
        for name in names(list) {
            let cost = dictionary.get(name).map_or(NAME_COST, |word| word.cost.min(NAME_COST));
            dictionary.insert(name, Word { kind, cost });
        }
    }
    Words::new(dictionary.into_iter().map(|(word, known)| (word.chars().collect(), known)))
});

pub(super) static CUE: LazyLock<Words<Cue>> = LazyLock::new(|| {
    let mut cues: HashMap<&str, Cue> = HashMap::new();
    for (tag, words) in lines(CUES) {
        for word in words.split(' ') {
            let cue = cues.entry(word).or_default();
            match tag {
                "org" => cue.organisation = true,
                "place" => cue.place = true,
                "title" => cue.title = true,
                "speech" => cue.speech = true,
                // Longer than the names inside them, that is all they are for.
                "whole" => {}
                _ => cue.generic = true,
            }
        }
    }
    Words::new(cues.into_iter().map(|(word, cue)| (word.chars().collect(), cue)))
});

const COMMON: &str = include_str!("../words/common.txt");
const CUES: &str = include_str!("../words/cues_zh.txt");
const PLACES: &str = include_str!("../words/places_zh.txt");
const ORGANISATIONS: &str = include_str!("../words/organisations_zh.txt");
const PEOPLE: &str = include_str!("../words/people_zh.txt");

/// The cost of a listed name and of a cue that no list of common words has.
const NAME_COST: u16 = 15;
const CUE_COST: u16 = 15;

fn names(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fold::fold;

    #[test]
    fn the_lists_are_folded() {
        for list in [COMMON, CUES, PLACES, ORGANISATIONS, PEOPLE] {
            for line in list.lines().filter(|line| !line.starts_with('#')) {
                assert!(line.chars().all(|c| fold(c) == c), "{line}");
            }
        }
    }

    #[test]
    fn a_cue_may_say_several_things() {
        let cue = CUE.get(&['汽', '车']).unwrap();
        assert!(cue.organisation && cue.generic && !cue.title);
        assert!(CUE.get(&['先', '生']).unwrap().title);
    }
}
