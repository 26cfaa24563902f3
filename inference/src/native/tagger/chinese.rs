//! What the model looks at in a Chinese sentence, character by character: the characters around, the dictionary's words
//! and their classes as the most likely segmentation cuts them, lists of names, and how characters are used in names.

use super::features::{Emit, Features};
use super::hash::{Hash, word};
use super::lexicon::{Entry, Lexicon};
use super::segment::{Word, segment};
use super::token::{Script, Token};

/// Bits of [`Entry::flags`]: what lists say of a word.
pub(crate) mod list {
    pub(crate) const PERSON: u16 = 1;
    pub(crate) const FOREIGN_PERSON: u16 = 1 << 1;
    pub(crate) const PLACE: u16 = 1 << 2;
    pub(crate) const ORGANISATION: u16 = 1 << 3;
    pub(crate) const OTHER_NAME: u16 = 1 << 4;
    pub(crate) const RARE_PLACE: u16 = 1 << 5;
    pub(crate) const HISTORICAL_PERSON: u16 = 1 << 6;
    pub(crate) const WORLD_PLACE: u16 = 1 << 7;
    /// How many of these bits are looked up over the sentence as matches.
    pub(crate) const MATCHED: usize = 8;
    /// Words that end organisations, places: told by the last word of the names in training.
    pub(crate) const ENDS_ORGANISATION: u16 = 1 << 8;
    pub(crate) const ENDS_PLACE: u16 = 1 << 9;
    /// Words that stand before or after persons.
    pub(crate) const BY_PERSON: u16 = 1 << 10;
}

/// How a single character is used in names, each from 0 (never) to 3 (mostly), packed into [`Entry::class`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Use {
    pub(crate) surname: u16,
    pub(crate) given: u16,
    pub(crate) sound: u16,
    pub(crate) place: u16,
}

impl Use {
    pub(crate) fn pack(self) -> u16 {
        self.surname | self.given << 2 | self.sound << 4 | self.place << 6 | 1 << 8
    }

    fn unpack(class: u16) -> Self {
        Self { surname: class & 3, given: class >> 2 & 3, sound: class >> 4 & 3, place: class >> 6 & 3 }
    }
}

/// Under which hash a character's use is kept; words have another seed.
pub(crate) fn use_hash(c: char) -> u64 {
    Hash::new(2).and(c as u64).finish()
}

/// The longest word the dictionary is asked for, in characters.
pub(crate) const LONGEST: usize = 8;

/// Where a token stands in a word, a match: 0 none, then begin, inside, end, single; and how long that is.
#[derive(Debug, Clone, Copy, Default)]
struct Stand {
    place: u8,
    length: u8,
}

struct Sentence<'a> {
    tokens: &'a [Token],
    words: Vec<Word>,
    /// Of each token: the word that has it.
    word_at: Vec<usize>,
    matches: Vec<[Stand; list::MATCHED]>,
    uses: Vec<Use>,
    /// Of each token: how far the next word that ends an organisation, a place is, in tokens.
    ends: Vec<(u8, u8)>,
}

pub(crate) fn features(tokens: &[Token], lexicon: &Lexicon, out: &mut Features) {
    let sentence = Sentence::new(tokens, lexicon);
    for at in 0..tokens.len() {
        let mut emit = out.token();
        sentence.characters(at, &mut emit);
        sentence.dictionary(at, &mut emit);
        sentence.lists(at, &mut emit);
        sentence.names(at, &mut emit);
    }
}

impl<'a> Sentence<'a> {
    fn new(tokens: &'a [Token], lexicon: &Lexicon) -> Self {
        let mut matches = vec![[Stand::default(); list::MATCHED]; tokens.len()];
        let words = segment(tokens, lexicon, |from, length, entry| note(&mut matches, from, length, entry));
        let mut word_at = Vec::with_capacity(tokens.len());
        for (number, found) in words.iter().enumerate() {
            word_at.resize(found.from + found.length, number);
        }
        let uses = tokens
            .iter()
            .map(|token| match token.script {
                Script::Han => {
                    lexicon.get(use_hash(token.first)).map_or(Use::default(), |entry| Use::unpack(entry.class))
                }
                _ => Use::default(),
            })
            .collect();
        let ends = ends(tokens, &words);
        Self { tokens, words, word_at, matches, uses, ends }
    }

    fn atom(&self, at: usize, step: isize) -> u64 {
        match at.checked_add_signed(step) {
            Some(at) if at < self.tokens.len() => self.tokens[at].atom,
            Some(_) => 2,
            None => 1,
        }
    }

    fn script(&self, at: usize, step: isize) -> u64 {
        match at.checked_add_signed(step) {
            Some(at) if at < self.tokens.len() => self.tokens[at].script as u64 + 2,
            Some(_) => 1,
            None => 0,
        }
    }

    fn characters(&self, at: usize, emit: &mut Emit<'_>) {
        let [b2, b1, c, a1, a2] = [-2, -1, 0, 1, 2].map(|step| self.atom(at, step));
        emit.add(1, &[c]);
        emit.add(2, &[b1]);
        emit.add(3, &[a1]);
        emit.add(4, &[b2]);
        emit.add(5, &[a2]);
        emit.add(6, &[b1, c]);
        emit.add(7, &[c, a1]);
        emit.add(8, &[b2, b1]);
        emit.add(9, &[a1, a2]);
        emit.add(10, &[b1, a1]);
        emit.add(11, &[b1, c, a1]);
        emit.add(12, &[b2, b1, c]);
        emit.add(13, &[c, a1, a2]);
        let s = [-2, -1, 0, 1, 2].map(|step| self.script(at, step));
        emit.add(14, &s[1..4]);
        emit.add(15, &s);
    }

    fn word(&self, at: usize, step: isize) -> Word {
        let none = Word { from: 0, length: 0, hash: 1 + u64::from(step > 0), entry: Entry::default(), last: 0 };
        self.word_at[at].checked_add_signed(step).and_then(|number| self.words.get(number)).copied().unwrap_or(none)
    }

    fn dictionary(&self, at: usize, emit: &mut Emit<'_>) {
        let [b2, b1, w, a1, a2] = [-2, -1, 0, 1, 2].map(|step| self.word(at, step));
        let place = u64::from(place_in(at - w.from, w.length));
        let class = |word: Word| u64::from(word.entry.class);
        emit.add(20, &[place, w.hash]);
        emit.add(21, &[place, b1.hash]);
        emit.add(22, &[place, a1.hash]);
        emit.add(23, &[place, w.length.min(5) as u64, class(w)]);
        emit.add(24, &[place, class(b1), class(w)]);
        emit.add(25, &[place, class(w), class(a1)]);
        emit.add(26, &[place, class(b1), class(w), class(a1)]);
        emit.add(27, &[place, self.tokens[at].atom]);
        emit.add(28, &[place, w.last]);
        emit.add(29, &[place, w.last, class(w)]);
        emit.add(30, &[place, a1.last, class(w)]);
        emit.add(31, &[place, b1.hash, w.hash]);
        emit.add(32, &[place, w.hash, a1.hash]);
        emit.add(33, &[place, b2.hash]);
        emit.add(34, &[place, a2.hash]);
        emit.add(35, &[place, class(b2), class(b1)]);
        emit.add(36, &[place, class(a1), class(a2)]);
        emit.add(37, &[place, b1.hash, a1.hash]);
        emit.add(38, &[place, class(w), b1.hash]);
        emit.add(39, &[place, class(w), a1.hash]);
    }

    fn lists(&self, at: usize, emit: &mut Emit<'_>) {
        let here = &self.matches[at];
        let mut all = 0;
        for (kind, stand) in here.iter().enumerate() {
            all = all * 5 + u64::from(stand.place);
            if stand.place > 0 {
                emit.add(50, &[kind as u64, u64::from(stand.place), u64::from(stand.length.min(6))]);
            }
        }
        let w = self.word(at, 0);
        let place = u64::from(place_in(at - w.from, w.length));
        emit.add(51, &[all]);
        emit.add(52, &[all, place, u64::from(w.entry.class)]);
        if all > 0 {
            emit.add(53, &[all, self.atom(at, -1)]);
            emit.add(54, &[all, self.atom(at, 1)]);
        }
        let beside = |step: isize| {
            let near = at.checked_add_signed(step).and_then(|at| self.matches.get(at));
            near.map_or(1, |row| row.iter().fold(0, |all, stand| all * 5 + u64::from(stand.place)))
        };
        emit.add(55, &[beside(-1), all]);
        emit.add(56, &[all, beside(1)]);
        let flags = |word: Word| u64::from(word.entry.flags >> list::MATCHED);
        emit.add(57, &[flags(w), place]);
        emit.add(58, &[flags(self.word(at, -1)), flags(w), place]);
        emit.add(59, &[flags(self.word(at, 1)), flags(w), place]);
    }

    fn names(&self, at: usize, emit: &mut Emit<'_>) {
        let of =
            |step: isize| at.checked_add_signed(step).and_then(|at| self.uses.get(at)).copied().unwrap_or_default();
        let [b2, b1, u, a1, a2] = [-2, -1, 0, 1, 2].map(of);
        let n = |part: u16| u64::from(part);
        emit.add(60, &[n(u.surname), n(u.given), n(u.sound), n(u.place)]);
        emit.add(61, &[n(u.surname), n(a1.given), n(a2.given), self.script(at, 1), self.script(at, 2)]);
        emit.add(62, &[n(b1.surname), n(u.given), n(a1.given)]);
        emit.add(63, &[n(b2.surname), n(b1.given), n(u.given)]);
        emit.add(64, &[n(b1.sound), n(u.sound), n(a1.sound)]);
        emit.add(65, &[n(b2.sound), n(b1.sound), n(u.sound), n(a1.sound), n(a2.sound)]);
        emit.add(66, &[n(b1.place), n(u.place), n(a1.place)]);
        let (organisation, place) = self.ends[at];
        emit.add(67, &[u64::from(organisation)]);
        emit.add(68, &[u64::from(place)]);
        let w = self.word(at, 0);
        emit.add(69, &[u64::from(organisation), u64::from(w.entry.class), u64::from(place_in(at - w.from, w.length))]);
        emit.add(70, &[u64::from(organisation), self.word(at, -1).hash]);
    }
}

/// Notes a word of the lists where it stands; the longest that has a token counts, of equal ones the first.
fn note(matches: &mut [[Stand; list::MATCHED]], from: usize, length: usize, entry: Entry) {
    for kind in 0..list::MATCHED {
        if entry.flags & (1 << kind) == 0
            || matches[from..from + length].iter().any(|row| usize::from(row[kind].length) >= length)
        {
            continue;
        }
        for at in 0..length {
            matches[from + at][kind] = Stand { place: place_in(at, length) + 1, length: length as u8 };
        }
    }
}

fn ends(tokens: &[Token], words: &[Word]) -> Vec<(u8, u8)> {
    let mut ends = vec![(0, 0); tokens.len()];
    let (mut organisation, mut place) = (0_u8, 0_u8);
    for found in words.iter().rev() {
        if found.entry.flags & list::ENDS_ORGANISATION != 0 {
            organisation = 1;
        }
        if found.entry.flags & list::ENDS_PLACE != 0 {
            place = 1;
        }
        for at in (found.from..found.from + found.length).rev() {
            if tokens[at].script == Script::Mark {
                (organisation, place) = (0, 0);
            }
            ends[at] = (organisation.min(10), place.min(10));
            organisation += u8::from((1..11).contains(&organisation));
            place += u8::from((1..11).contains(&place));
        }
        organisation = if organisation > 10 { 0 } else { organisation };
        place = if place > 10 { 0 } else { place };
    }
    ends
}

fn place_in(at: usize, length: usize) -> u8 {
    match (at, length) {
        (_, 1) => 3,
        (0, _) => 0,
        (at, length) if at + 1 == length => 2,
        _ => 1,
    }
}

/// The hash of a dictionary word of one character.
pub(crate) fn word_hash(chars: impl IntoIterator<Item = char>) -> u64 {
    word(chars).finish()
}
