//! The English lexicon: given names, surnames, places, nations, clusters of words, how words are written in running text,
//! and the last words of the names in training.

use std::collections::{BTreeMap, HashMap};

use crate::native::tagger::Kind;
use crate::native::tagger::english::{LONGEST, list, phrase_hash};
use crate::native::tagger::lexicon::{Entry, Lexicon};

use super::Weighted;

#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// A name on a line.
    pub given: String,
    /// Most frequent first: a name first on each line.
    pub surnames: String,
    /// A place, a tab, its population on a line.
    pub cities: String,
    /// Countries, states, provinces.
    pub lands: String,
    pub nations: String,
    /// A word and its cluster, a number from 1 on, on a line.
    pub clusters: String,
    /// Running text with capitals as people write them.
    pub text: String,
}

pub(crate) fn lexicon(sources: &Sources, samples: &[Weighted]) -> Lexicon {
    let mut words: BTreeMap<u64, Entry> = BTreeMap::new();
    for line in sources.given.lines() {
        note(&mut words, line, list::GIVEN);
    }
    for (rank, line) in sources.surnames.lines().enumerate().take(30_000) {
        let name = line.split_whitespace().next().unwrap_or("");
        note(&mut words, name, if rank < 3000 { list::SURNAME } else { list::RARE_SURNAME });
    }
    for line in sources.cities.lines() {
        let Some((name, people)) = line.split_once('\t') else { continue };
        let big = people.trim().parse::<u64>().is_ok_and(|people| people >= 150_000);
        note(&mut words, name, if big { list::CITY } else { list::SMALL_CITY });
    }
    sources.lands.lines().for_each(|line| note(&mut words, line, list::LAND));
    sources.nations.lines().for_each(|line| note(&mut words, line, list::NATION));
    for line in sources.clusters.lines() {
        let Some((word, cluster)) = line.split_once(' ') else { continue };
        if let Ok(cluster) = cluster.trim().parse() {
            words.entry(phrase_hash(word)).or_default().class = cluster;
        }
    }
    note_writing(&mut words, &sources.text, samples);
    note_ends(&mut words, samples);
    Lexicon::new(&words)
}

fn note(words: &mut BTreeMap<u64, Entry>, text: &str, flag: u16) {
    let text = text.trim().to_lowercase();
    let parts: Vec<&str> = text.split_whitespace().collect();
    if text.chars().count() < 2 || parts.len() > LONGEST {
        return;
    }
    for length in 1..=parts.len() {
        let entry = words.entry(phrase_hash(&parts[..length].join(" "))).or_default();
        entry.flags |= if length == parts.len() { flag } else { list::GOES_ON };
    }
}

/// How words are written in running text, not counting the first of a sentence: how often (0 to 7) above how large the
/// share with a capital (0 to 3).
fn note_writing(words: &mut BTreeMap<u64, Entry>, text: &str, samples: &[Weighted]) {
    let mut counts: HashMap<String, [u32; 2]> = HashMap::new();
    for line in text.lines().chain(samples.iter().map(|(sample, _)| sample.text.as_str())) {
        let upper = line.chars().filter(|c| c.is_uppercase()).count();
        if upper * 3 > line.len() {
            continue;
        }
        for word in line.split_whitespace().skip(1) {
            let word = word.trim_matches(|c: char| !c.is_alphanumeric());
            let Some(first) = word.chars().next().filter(|c| c.is_alphabetic()) else { continue };
            counts.entry(word.to_lowercase()).or_default()[usize::from(first.is_uppercase())] += 1;
        }
    }
    for (word, [lower, upper]) in counts {
        let all = lower + upper;
        if all < 3 {
            continue;
        }
        let often = (all as f32).log2().min(14.0) / 2.0;
        let share = upper as f32 / all as f32;
        let share = u8::from(share > 0.05) + u8::from(share > 0.35) + u8::from(share > 0.8);
        words.entry(phrase_hash(&word)).or_default().grade = (often as u8).min(7) << 2 | share;
    }
}

fn note_ends(words: &mut BTreeMap<u64, Entry>, samples: &[Weighted]) {
    let mut counts: HashMap<String, [u32; 4]> = HashMap::new();
    for (sample, _) in samples {
        let chars: Vec<char> = sample.text.chars().collect();
        for &(from, to) in &sample.tokens {
            let word: String = chars[from..to].iter().collect::<String>().to_lowercase();
            let count = counts.entry(word).or_default();
            count[0] += 1;
            for &(start, end, kind) in &sample.names {
                match kind {
                    Kind::Organization if end == to && start < from => count[1] += 1,
                    Kind::Location if end == to && start < from => count[2] += 1,
                    Kind::Person if start == to + 1 || end + 1 == from => count[3] += 1,
                    _ => {}
                }
            }
        }
    }
    for (word, [all, organisation, place, person]) in counts {
        let mut flag = |seen: u32, share: f32, flag: u16| {
            if seen >= 3 && seen as f32 > share * all as f32 {
                words.entry(phrase_hash(&word)).or_default().flags |= flag;
            }
        };
        flag(organisation, 0.25, list::ENDS_ORGANISATION);
        flag(place, 0.25, list::ENDS_PLACE);
        flag(person, 0.15, list::BY_PERSON);
    }
}
