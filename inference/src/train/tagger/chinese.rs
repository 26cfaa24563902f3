//! The Chinese lexicon, made from a dictionary with frequencies and parts of speech (jieba's), lists of places and persons
//! (THUOCL), place names of the world (GeoNames), and the last words of the names in training.

use std::collections::{BTreeMap, HashMap};

use crate::native::tagger::Kind;
use crate::native::tagger::chinese::{LONGEST, Use, list, use_hash, word_hash};
use crate::native::tagger::lexicon::{Entry, Lexicon};
use crate::native::tagger::segment::{grade, segment};
use crate::native::tagger::token::{Script, characters, script};

use super::Weighted;

/// The lists, as text. All but the dictionary may be empty.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// A word, its frequency and its part of speech on a line.
    pub dictionary: String,
    /// A word and its frequency on a line.
    pub places: String,
    pub persons: String,
    /// A place on a line.
    pub world: String,
}

/// Classes of words: parts of speech as the dictionary writes them, the number is the class; 1 to 5 are scripts.
const CLASSES: [&str; 34] = [
    "n", "nr", "v", "i", "l", "ns", "m", "nz", "nrt", "zg", "nt", "a", "vn", "z", "d", "t", "j", "b", "g", "r", "s",
    "c", "nrfg", "x", "f", "ng", "o", "q", "vg", "p", "ad", "y", "u", "",
];

type Fold = fn(char) -> char;

pub(crate) fn lexicon(sources: &Sources, samples: &[Weighted], fold: Fold) -> Lexicon {
    let mut words: BTreeMap<u64, Entry> = BTreeMap::new();
    let mut uses = Uses::default();
    for line in sources.dictionary.lines() {
        let mut parts = line.split(' ');
        let (Some(text), Some(count), Some(speech)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let Ok(count) = count.parse::<u64>() else { continue };
        let Some(chars) = han(text, fold) else { continue };
        uses.see(&chars, speech);
        if count < 3 && !matches!(speech, "nr" | "ns" | "nt" | "nz" | "nrt" | "nrfg") {
            continue;
        }
        let entry = words.entry(word_hash(chars)).or_default();
        entry.grade = entry.grade.max(grade(count));
        entry.class = CLASSES.iter().position(|&class| class == speech).unwrap_or(CLASSES.len() - 1) as u16 + 6;
        entry.flags |= match speech {
            "nr" => list::PERSON,
            "nrt" | "nrfg" => list::FOREIGN_PERSON,
            "ns" => list::PLACE,
            "nt" => list::ORGANISATION,
            "nz" => list::OTHER_NAME,
            _ => 0,
        };
    }
    note_list(&mut words, &sources.places, list::RARE_PLACE, fold);
    note_list(&mut words, &sources.persons, list::HISTORICAL_PERSON, fold);
    note_list(&mut words, &sources.world, list::WORLD_PLACE, fold);
    uses.note(&mut words);
    let first = Lexicon::new(&words);
    note_ends(&mut words, &first, samples, fold);
    Lexicon::new(&words)
}

/// The folded characters of a word that is all Chinese and not too long.
fn han(text: &str, fold: Fold) -> Option<Vec<char>> {
    let chars: Vec<char> = text.chars().map(fold).collect();
    (!chars.is_empty() && chars.len() <= LONGEST && chars.iter().all(|&c| script(c) == Script::Han)).then_some(chars)
}

fn note_list(words: &mut BTreeMap<u64, Entry>, text: &str, flag: u16, fold: Fold) {
    for line in text.split(['\n', '\r']) {
        let word = line.trim_start_matches('\u{feff}').split(['\t', ' ']).next().unwrap_or("").trim();
        if let Some(chars) = han(word, fold).filter(|chars| chars.len() > 1) {
            words.entry(word_hash(chars)).or_default().flags |= flag;
        }
    }
}

/// How often each character is seen in which part of names, and in other words.
#[derive(Default)]
struct Uses {
    of: BTreeMap<char, [u32; 5]>,
}

impl Uses {
    fn see(&mut self, chars: &[char], speech: &str) {
        let mut add = |c: char, part: usize| self.of.entry(c).or_default()[part] += 1;
        match speech {
            "nr" if (2..=3).contains(&chars.len()) => {
                add(chars[0], 0);
                chars[1..].iter().for_each(|&c| add(c, 1));
            }
            "nrt" | "nrfg" if chars.len() > 1 => chars.iter().for_each(|&c| add(c, 2)),
            "ns" if chars.len() > 1 => chars.iter().for_each(|&c| add(c, 3)),
            "nr" | "nz" | "nt" => {}
            _ => chars.iter().for_each(|&c| add(c, 4)),
        }
    }

    fn note(&self, words: &mut BTreeMap<u64, Entry>) {
        for (&c, &[surname, given, sound, place, other]) in &self.of {
            let level = |seen: u32, scale: f32| {
                let share = seen as f32 * scale / (seen as f32 * scale + other as f32 + 3.0);
                u16::from(share > 0.2) + u16::from(share > 0.45) + u16::from(share > 0.7)
            };
            let used = Use {
                surname: if surname < 4 { 0 } else { level(surname, 1.0) },
                given: level(given, 1.0),
                sound: level(sound, 6.0),
                place: level(place, 3.0),
            };
            words.entry(use_hash(c)).or_default().class = used.pack();
        }
    }
}

/// Words that end the organisations and places of the training set more often than they stand elsewhere, and those that
/// stand beside persons.
fn note_ends(words: &mut BTreeMap<u64, Entry>, lexicon: &Lexicon, samples: &[Weighted], fold: Fold) {
    let mut counts: HashMap<u64, [u32; 4]> = HashMap::new();
    for (sample, _) in samples {
        let folded: Vec<char> = sample.text.chars().map(fold).collect();
        let tokens = characters(&folded, 0, folded.len());
        for word in segment(&tokens, lexicon, |_, _, _| {}) {
            let (from, to) = (tokens[word.from].from as usize, tokens[word.from + word.length - 1].to as usize);
            if script(folded[from]) != Script::Han {
                continue;
            }
            let count = counts.entry(word_hash(folded[from..to].iter().copied())).or_default();
            count[0] += 1;
            for &(start, end, kind) in &sample.names {
                match kind {
                    Kind::Organization if end == to && start < from => count[1] += 1,
                    Kind::Location if end == to && start < from => count[2] += 1,
                    Kind::Person if start == to || end == from => count[3] += 1,
                    _ => {}
                }
            }
        }
    }
    for (hash, [all, organisation, place, person]) in counts {
        let mut flag = |seen: u32, share: f32, flag: u16| {
            if seen >= 3 && seen as f32 > share * all as f32 {
                words.entry(hash).or_default().flags |= flag;
            }
        };
        flag(organisation, 0.3, list::ENDS_ORGANISATION);
        flag(place, 0.3, list::ENDS_PLACE);
        flag(person, 0.15, list::BY_PERSON);
    }
}
