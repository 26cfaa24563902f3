//! From a text to the places of its features in a table of weights.
//!
//! Features are binary and hashed: words and pairs of words, n-grams of letters inside a word, n-grams of Chinese
//! characters, signs and emoji. Words in the scope of a negation are features of their own, after Das and Chen (2001) and
//! Pang, Lee and Vaithyanathan (2002); a Chinese double negation (不是不好) becomes one character before n-grams are taken.

mod negation;

use serde::{Deserialize, Serialize};

use self::negation::{Scope, double};
use crate::text::{Kind, Unit, cut, fold};

/// More features of one text than this are left out, so that sums fit their type.
pub const MAX_FEATURES: usize = 130_000;

/// What counts as a feature. It stands in the file beside the weights: both sides of training must see the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Features {
    /// Rows of the table: features are hashed into `0..rows`.
    pub rows: u32,
    /// Words in a row at most, 1 or more.
    pub words: usize,
    /// Letters of an n-gram inside a word, fewest and most; 0 and 0 for none.
    pub letters: (usize, usize),
    /// Chinese characters of an n-gram at most.
    pub han: usize,
    /// Whether what stands in the scope of a negation is marked.
    pub negation: bool,
}

/// Makes features of texts.
#[derive(Debug, Clone)]
pub struct Extractor {
    features: Features,
}

/// Memory that is used again from text to text.
#[derive(Debug, Default)]
pub struct Scratch {
    chars: Vec<char>,
    units: Vec<Unit>,
    word: Vec<char>,
    places: Vec<u32>,
}

impl Extractor {
    #[must_use]
    pub fn new(features: Features) -> Self {
        Self { features }
    }

    /// The places of a text's features, in order, each once.
    pub fn extract<'a>(&self, text: &str, scratch: &'a mut Scratch) -> &'a [u32] {
        let Scratch { chars, units, word, places } = scratch;
        chars.clear();
        chars.extend(text.chars().map(fold));
        if self.features.negation {
            double(chars);
        }
        cut(chars, units);
        let mut sink = Sink { rows: u64::from(self.features.rows), places };
        sink.places.clear();
        let mut run = Run::default();
        for unit in units.iter() {
            let part = &chars[unit.range.clone()];
            match unit.kind {
                Kind::Word => self.word(part, word, &mut run, &mut sink),
                Kind::Sign => sign(part, &mut run, &mut sink),
                Kind::Han => self.han(part, &mut run, &mut sink),
            }
        }
        places.sort_unstable();
        places.dedup();
        places.truncate(MAX_FEATURES);
        places
    }

    fn word(&self, part: &[char], word: &mut Vec<char>, run: &mut Run, sink: &mut Sink) {
        let is_number = normalise(part, word);
        let plain = hash(WORD, word);
        let negated = self.features.negation && run.scope.word(word);
        let marked = if negated { mix(plain, NEGATED) } else { plain };
        sink.put(marked);
        let mut tuple = plain;
        for before in run.before.iter().rev().take(self.features.words - 1) {
            tuple = mix(*before, tuple);
            sink.put(mix(tuple, TUPLE));
        }
        run.before.push(plain);
        let (fewest, most) = self.features.letters;
        if most == 0 || is_number {
            return;
        }
        word.insert(0, '<');
        word.push('>');
        let whole = word.len();
        for start in 0..whole {
            let mut gram = if negated { NEGATED } else { LETTERS };
            for (length, c) in word[start..].iter().take(most).enumerate().map(|(at, c)| (at + 1, c)) {
                gram = mix(gram, u64::from(u32::from(*c)));
                if length >= fewest && length < whole {
                    sink.put(gram);
                }
            }
        }
    }

    fn han(&self, part: &[char], run: &mut Run, sink: &mut Sink) {
        run.cut();
        grams(HAN, part, 1, self.features.han, sink);
        if self.features.negation {
            for scope in negation::han_scopes(part) {
                grams(HAN_NEGATED, scope, 2, 3, sink);
            }
        }
    }
}

/// What a word must know of those before it.
#[derive(Default)]
struct Run {
    before: Vec<u64>,
    scope: Scope,
}

impl Run {
    fn cut(&mut self) {
        self.before.clear();
        self.scope.end();
    }
}

struct Sink<'a> {
    rows: u64,
    places: &'a mut Vec<u32>,
}

impl Sink<'_> {
    fn put(&mut self, hash: u64) {
        // The high half, scaled to the number of rows: as even as the remainder, without a division.
        let place = ((finish(hash) >> 32) * self.rows) >> 32;
        self.places.push(place as u32);
    }
}

/// All n-grams of a stretch.
fn grams(kind: u64, part: &[char], fewest: usize, most: usize, sink: &mut Sink) {
    for start in 0..part.len() {
        let mut gram = kind;
        for (at, c) in part[start..].iter().take(most).enumerate() {
            gram = mix(gram, u64::from(u32::from(*c)));
            if at + 1 >= fewest {
                sink.put(gram);
            }
        }
    }
}

/// Signs are one feature a run; more than four alike in a row are four. A run ends what came before it, save for the
/// single dash or slash inside a phrase.
fn sign(part: &[char], run: &mut Run, sink: &mut Sink) {
    let (mut sum, mut last, mut times) = (SIGN, '\0', 0);
    for &c in part {
        if !c.is_ascii() {
            // An emoji says the same alone and among others.
            sink.put(mix(EMOJI, u64::from(u32::from(c))));
        }
        times = if c == last { times + 1 } else { 0 };
        last = c;
        if times < 4 {
            sum = mix(sum, u64::from(u32::from(c)));
        }
    }
    sink.put(sum);
    if part.iter().any(|c| matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '(' | ')')) {
        run.scope.end();
    }
    run.before.clear();
}

/// Numbers keep their length only, and letters stand twice in a row at most: soooo is soo.
fn normalise(part: &[char], word: &mut Vec<char>) -> bool {
    word.clear();
    let is_number = part.iter().all(char::is_ascii_digit);
    for &c in part {
        let c = if is_number && part.len() > 1 { '0' } else { c };
        let already = word.len();
        if already < 2 || is_number || word[already - 1] != c || word[already - 2] != c {
            word.push(c);
        }
    }
    is_number
}

const SIGN: u64 = 3;
const WORD: u64 = 5;
const LETTERS: u64 = 7;
const NEGATED: u64 = 8;
const HAN: u64 = 11;
const TUPLE: u64 = 13;
const HAN_NEGATED: u64 = 17;
const EMOJI: u64 = 19;

fn hash(kind: u64, part: &[char]) -> u64 {
    part.iter().fold(kind, |sum, c| mix(sum, u64::from(u32::from(*c))))
}

/// One round of MurmurHash3's finaliser (Appleby, public domain) over the sum so far and the next value.
fn mix(sum: u64, value: u64) -> u64 {
    let mixed = (sum ^ value).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}

fn finish(mut sum: u64) -> u64 {
    sum ^= sum >> 29;
    sum = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    sum ^ (sum >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extractor() -> Extractor {
        Extractor::new(Features { rows: 1 << 20, words: 2, letters: (4, 5), han: 4, negation: true })
    }

    fn places(text: &str) -> Vec<u32> {
        extractor().extract(text, &mut Scratch::default()).to_vec()
    }

    #[test]
    fn texts_that_mean_the_same_have_the_same_features() {
        for (one, other) in [
            ("這間餐廳很難吃", "这间餐厅很难吃"),
            ("GOOD  Movie", "good movie"),
            ("sooooo good", "soooooooo good"),
            ("paid 15 euros", "paid 99 euros"),
            ("好！", "好!"),
        ] {
            assert_eq!(places(one), places(other), "{one} {other}");
        }
    }

    #[test]
    fn a_word_after_a_negation_is_another_feature() {
        let plain = places("good");
        assert!(plain.iter().all(|place| places("it is good").contains(place)));
        assert!(plain.iter().all(|place| !places("not good").contains(place)));
        assert!(plain.iter().all(|place| places("not today, good").contains(place)));
        assert!(plain.iter().all(|place| !places("我 not good").contains(place)));
    }

    proptest::proptest! {
        #[test]
        fn places_are_in_the_table_in_order_and_only_once(text in "\\PC{0,60}", rows in 1_u32..5_000) {
            let features = Features { rows, words: 3, letters: (3, 5), han: 4, negation: true };
            let mut scratch = Scratch::default();
            let extractor = Extractor::new(features);
            let places = extractor.extract(&text, &mut scratch).to_vec();
            proptest::prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
            proptest::prop_assert!(places.iter().all(|place| *place < rows));
            proptest::prop_assert_eq!(places.as_slice(), extractor.extract(&text, &mut scratch));
        }
    }
}
