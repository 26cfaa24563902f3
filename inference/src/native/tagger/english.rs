//! What the model looks at in an English sentence, word by word: the words around and how they are written, clusters of
//! words that are used alike, lists of names, and the runs of capitalised words that names mostly are.

use super::features::{Emit, Features};
use super::hash::{Hash, word};
use super::lexicon::{Entry, Lexicon};
use super::token::{Token, script};

/// Bits of [`Entry::flags`]: what lists say of a word or phrase.
pub(crate) mod list {
    pub(crate) const GIVEN: u16 = 1;
    pub(crate) const SURNAME: u16 = 1 << 1;
    pub(crate) const RARE_SURNAME: u16 = 1 << 2;
    pub(crate) const CITY: u16 = 1 << 3;
    pub(crate) const SMALL_CITY: u16 = 1 << 4;
    pub(crate) const LAND: u16 = 1 << 5;
    pub(crate) const NATION: u16 = 1 << 6;
    /// How many of these bits are looked up as phrases.
    pub(crate) const MATCHED: usize = 7;
    /// Words that end organisations, places; that stand beside persons: told by the names in training.
    pub(crate) const ENDS_ORGANISATION: u16 = 1 << 7;
    pub(crate) const ENDS_PLACE: u16 = 1 << 8;
    pub(crate) const BY_PERSON: u16 = 1 << 9;
    /// Some phrase of the lists begins so.
    pub(crate) const GOES_ON: u16 = 1 << 10;
}

/// The longest phrase the lists are asked for, in words.
pub(crate) const LONGEST: usize = 4;

/// How a word is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Case {
    None,
    Lower,
    Title,
    Upper,
    /// A single capital, with or without a full stop.
    Initial,
    Mixed,
}

struct Seen {
    /// The word in lower case.
    atom: u64,
    exact: u64,
    shape: u64,
    case: Case,
    entry: Entry,
    /// Of the lists that have phrases here: begin, inside, end, single from 1 on.
    matched: [u8; list::MATCHED],
    /// The run of capitalised words that has it: from, to.
    run: (usize, usize),
}

struct Sentence<'a> {
    words: Vec<Seen>,
    lower: Vec<&'a [char]>,
    style: u64,
}

/// `folded` holds the text in lower case, `chars` as it was written.
pub(crate) fn features(tokens: &[Token], folded: &[char], chars: &[char], lexicon: &Lexicon, out: &mut Features) {
    let sentence = Sentence::new(tokens, folded, chars, lexicon);
    for at in 0..tokens.len() {
        let mut emit = out.token();
        sentence.words(at, &mut emit);
        sentence.form(at, &mut emit);
        sentence.clusters(at, &mut emit);
        sentence.lists(at, &mut emit);
        sentence.run(at, &mut emit);
    }
}

impl<'a> Sentence<'a> {
    fn new(tokens: &[Token], folded: &'a [char], chars: &[char], lexicon: &Lexicon) -> Self {
        let mut words = Vec::with_capacity(tokens.len());
        let mut lower = Vec::with_capacity(tokens.len());
        for token in tokens {
            let (from, to) = (token.from as usize, token.to as usize);
            lower.push(&folded[from..to]);
            let hash = word(folded[from..to].iter().copied()).finish();
            words.push(Seen {
                atom: normal(&folded[from..to], hash),
                exact: word(chars[from..to].iter().copied()).finish(),
                shape: shape(&chars[from..to]),
                case: case(&chars[from..to]),
                entry: lexicon.get(hash).unwrap_or_default(),
                matched: [0; list::MATCHED],
                run: (0, 0),
            });
        }
        let mut sentence = Self { words, lower, style: 0 };
        sentence.phrases(lexicon);
        sentence.runs();
        sentence.style = sentence.style();
        sentence
    }

    /// Notes the phrases of the lists where they stand; of one list the longest, from the left.
    fn phrases(&mut self, lexicon: &Lexicon) {
        for from in 0..self.words.len() {
            let mut hash = Hash::new(1);
            for length in 1..=LONGEST.min(self.words.len() - from) {
                if length > 1 {
                    hash = hash.and(u64::from(b' '));
                }
                hash = self.lower[from + length - 1].iter().fold(hash, |hash, &c| hash.and(c as u64));
                let entry =
                    if length == 1 { self.words[from].entry } else { lexicon.get(hash.finish()).unwrap_or_default() };
                for kind in 0..list::MATCHED {
                    if entry.flags & (1 << kind) != 0 && (length > 1 || self.words[from].matched[kind] == 0) {
                        for at in 0..length {
                            self.words[from + at].matched[kind] = place_in(at, length);
                        }
                    }
                }
                if entry.flags & list::GOES_ON == 0 {
                    break;
                }
            }
        }
    }

    /// Runs of words with capitals, over "of", "the", "and", "&" when capitals go on after them.
    fn runs(&mut self) {
        let capital = |word: &Seen| matches!(word.case, Case::Title | Case::Upper | Case::Initial | Case::Mixed);
        let mut at = 0;
        while at < self.words.len() {
            if !capital(&self.words[at]) {
                self.words[at].run = (at, at);
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < self.words.len() && capital(&self.words[end]) {
                end += 1;
            }
            for inside in at..end {
                self.words[inside].run = (at, end);
            }
            at = end;
        }
    }

    /// How the whole sentence is written: hardly any capitals, all capitals, as usual; and how many words, roughly.
    fn style(&self) -> u64 {
        let (mut lower, mut title, mut upper) = (0, 0, 0);
        for word in &self.words {
            match word.case {
                Case::Lower => lower += 1,
                Case::Title | Case::Mixed => title += 1,
                Case::Upper => upper += 1,
                _ => {}
            }
        }
        match (lower, title, upper) {
            (_, 0, 0) => 1,
            (l, t, u) if u > l + t => 2,
            (l, t, _) if t > l => 3,
            (l, t, u) if l > 8 * (t + u) => 4,
            _ => 5,
        }
    }

    fn atom(&self, at: usize, step: isize) -> u64 {
        at.checked_add_signed(step).map_or(1, |at| self.words.get(at).map_or(2, |word| word.atom))
    }

    fn case(&self, at: usize, step: isize) -> u64 {
        at.checked_add_signed(step).map_or(10, |at| self.words.get(at).map_or(11, |word| word.case as u64))
    }

    fn cluster(&self, at: usize, step: isize) -> u64 {
        at.checked_add_signed(step)
            .map_or(5000, |at| self.words.get(at).map_or(5001, |word| u64::from(word.entry.class)))
    }

    fn words(&self, at: usize, emit: &mut Emit<'_>) {
        let [b2, b1, w, a1, a2] = [-2, -1, 0, 1, 2].map(|step| self.atom(at, step));
        let case = self.case(at, 0);
        emit.add(1, &[w]);
        emit.add(2, &[b1, case]);
        emit.add(3, &[a1, case]);
        emit.add(4, &[b2, case]);
        emit.add(5, &[a2, case]);
        emit.add(6, &[b1, w]);
        emit.add(7, &[w, a1]);
        emit.add(8, &[b1, a1, case]);
        emit.add(9, &[self.words[at].exact, u64::from(at == 0)]);
        emit.add(10, &[b2, b1, case]);
        emit.add(11, &[a1, a2, case]);
    }

    fn form(&self, at: usize, emit: &mut Emit<'_>) {
        let word = &self.words[at];
        let chars = self.lower[at];
        let shape =
            |step: isize| at.checked_add_signed(step).map_or(1, |at| self.words.get(at).map_or(2, |word| word.shape));
        emit.add(15, &[word.shape]);
        emit.add(16, &[shape(-1), word.shape]);
        emit.add(17, &[word.shape, shape(1)]);
        emit.add(18, &[shape(-1), word.shape, shape(1)]);
        emit.add(19, &[self.case(at, -2), self.case(at, -1), self.case(at, 0), self.case(at, 1), self.case(at, 2)]);
        emit.add(20, &[self.style, self.case(at, 0), u64::from(at == 0)]);
        emit.add(21, &[chars.len().min(12) as u64, self.case(at, 0)]);
        let part = |chars: &[char]| self::word(chars.iter().copied()).finish();
        for length in 1..=4.min(chars.len()) {
            let case = self.case(at, 0);
            emit.add(21 + length as u64, &[part(&chars[chars.len() - length..]), case]);
            if length > 1 {
                emit.add(26 + length as u64, &[part(&chars[..length]), case]);
            }
        }
    }

    fn clusters(&self, at: usize, emit: &mut Emit<'_>) {
        let [b2, b1, w, a1, a2] = [-2, -1, 0, 1, 2].map(|step| self.cluster(at, step));
        let case = self.case(at, 0);
        let grade = u64::from(self.words[at].entry.grade);
        emit.add(40, &[w, case]);
        emit.add(41, &[w >> 3, case]);
        emit.add(42, &[w >> 5, case]);
        emit.add(43, &[b1, case]);
        emit.add(44, &[b1 >> 3, case]);
        emit.add(45, &[a1, case]);
        emit.add(46, &[a1 >> 3, case]);
        emit.add(47, &[b2 >> 3, case]);
        emit.add(48, &[a2 >> 3, case]);
        emit.add(49, &[b1 >> 3, w >> 3, case]);
        emit.add(50, &[w >> 3, a1 >> 3, case]);
        emit.add(51, &[b1 >> 3, a1 >> 3, case]);
        emit.add(52, &[b1 >> 4, w >> 4, a1 >> 4, case]);
        emit.add(53, &[grade, case]);
        emit.add(54, &[grade, case, u64::from(at == 0), self.style]);
        emit.add(55, &[grade, case, w >> 5]);
    }

    fn matched(&self, at: usize, step: isize) -> u64 {
        let near = at.checked_add_signed(step).and_then(|at| self.words.get(at));
        near.map_or(1, |word| word.matched.iter().fold(0, |all, &place| all * 5 + u64::from(place)))
    }

    fn lists(&self, at: usize, emit: &mut Emit<'_>) {
        let case = self.case(at, 0);
        let word = &self.words[at];
        for (kind, &place) in word.matched.iter().enumerate() {
            if place > 0 {
                emit.add(60, &[kind as u64, u64::from(place), case]);
            }
        }
        let all = self.matched(at, 0);
        emit.add(61, &[all, case]);
        emit.add(62, &[self.matched(at, -1), all, case]);
        emit.add(63, &[all, self.matched(at, 1), case]);
        emit.add(64, &[all, case, u64::from(word.entry.grade)]);
        emit.add(65, &[all, self.case(at, -1), case, self.case(at, 1)]);
        let learnt = |step: isize| {
            let near = at.checked_add_signed(step).and_then(|at| self.words.get(at));
            near.map_or(0, |word| u64::from(word.entry.flags >> list::MATCHED & 7))
        };
        emit.add(66, &[learnt(0), case]);
        emit.add(67, &[learnt(-1), case]);
        emit.add(68, &[learnt(1), case]);
        emit.add(69, &[learnt(-1), all, case]);
        emit.add(70, &[learnt(1), all, case]);
    }

    fn run(&self, at: usize, emit: &mut Emit<'_>) {
        let (from, to) = self.words[at].run;
        if from == to {
            return;
        }
        let place = u64::from(place_in(at - from, to - from));
        let (first, last) = (&self.words[from], &self.words[to - 1]);
        let before = from.checked_sub(1);
        let cluster = |step: Option<usize>| {
            step.and_then(|at| self.words.get(at)).map_or(5000, |word| u64::from(word.entry.class))
        };
        let atom = |step: Option<usize>| step.and_then(|at| self.words.get(at)).map_or(1, |word| word.atom);
        emit.add(80, &[place, (to - from).min(6) as u64]);
        emit.add(81, &[place, last.atom]);
        emit.add(82, &[place, first.atom]);
        emit.add(83, &[place, u64::from(last.entry.class)]);
        emit.add(84, &[place, u64::from(first.entry.class)]);
        emit.add(85, &[place, atom(before)]);
        emit.add(86, &[place, atom(Some(to))]);
        emit.add(87, &[place, cluster(before)]);
        emit.add(88, &[place, cluster(Some(to))]);
        emit.add(89, &[place, self.matched(from, 0), (to - from).min(4) as u64]);
        emit.add(90, &[place, self.matched(to - 1, 0), u64::from(last.entry.flags >> list::MATCHED & 7)]);
        emit.add(91, &[place, (to - from).min(4) as u64, self.style, u64::from(from == 0)]);
        emit.add(92, &[place, atom(before), u64::from(self.words[at].entry.class >> 4)]);
        emit.add(93, &[place, u64::from(first.entry.class >> 3), u64::from(last.entry.class >> 3)]);
    }
}

fn place_in(at: usize, length: usize) -> u8 {
    match (at, length) {
        (_, 1) => 4,
        (0, _) => 1,
        (at, length) if at + 1 == length => 3,
        _ => 2,
    }
}

/// A word for the features: numbers by their digits' count, links and mentions as such.
fn normal(folded: &[char], hash: u64) -> u64 {
    let digits = folded.iter().filter(|c| c.is_ascii_digit()).count();
    if digits == folded.len() {
        return 100 + digits.min(8) as u64;
    }
    if folded.starts_with(&['h', 't', 't', 'p']) || folded.starts_with(&['w', 'w', 'w', '.']) {
        return 90;
    }
    match folded {
        ['@', _, ..] => 91,
        _ => hash,
    }
}

fn case(chars: &[char]) -> Case {
    let upper = chars.iter().filter(|c| c.is_uppercase()).count();
    let lower = chars.iter().filter(|c| c.is_lowercase()).count();
    match (upper, lower) {
        (0, 0) => Case::None,
        (0, _) => Case::Lower,
        (1, 0) if chars.len() <= 2 => Case::Initial,
        (_, 0) => Case::Upper,
        (1, _) if chars[0].is_uppercase() => Case::Title,
        _ => Case::Mixed,
    }
}

/// The kinds of characters, each run of one kind as one or, from the third on, two.
fn shape(chars: &[char]) -> u64 {
    let mut hash = Hash::new(3);
    let (mut before, mut run) = ('\0', 0);
    for &c in chars {
        let kind = match c {
            c if c.is_uppercase() => 'X',
            c if c.is_lowercase() => 'x',
            c if c.is_ascii_digit() => 'd',
            c if c.is_alphabetic() => 'c',
            c => c,
        };
        run = if kind == before { run + 1 } else { 0 };
        before = kind;
        if run < 2 {
            hash = hash.and(kind as u64);
        }
    }
    hash.finish()
}

/// The hash of a word or phrase in lower case, words apart by a space.
pub(crate) fn phrase_hash(text: &str) -> u64 {
    word(text.chars()).finish()
}

/// English tokens of a stretch of text, cut as the training sets are (the Penn Treebank's way, and mentions, tags and links
/// in one piece).
pub(crate) fn tokens(folded: &[char], from: usize, to: usize) -> Vec<Token> {
    let mut tokens = Vec::with_capacity((to - from) / 4 + 1);
    let mut at = from;
    while at < to {
        if folded[at].is_whitespace() {
            at += 1;
            continue;
        }
        let mut end = at + 1;
        while end < to && !folded[end].is_whitespace() {
            end += 1;
        }
        cut(folded, at, end, &mut tokens);
        at = end;
    }
    tokens
}

/// Cuts what stands between two spaces.
fn cut(folded: &[char], mut from: usize, mut to: usize, tokens: &mut Vec<Token>) {
    let link = folded[from..to].windows(3).any(|three| three == [':', '/', '/'])
        || folded[from..to].starts_with(&['w', 'w', 'w', '.']);
    while from < to
        && opens(folded[from])
        && !(matches!(folded[from], '@' | '#') && from + 1 < to && is_word(folded[from + 1]))
    {
        tokens.push(Token::new(folded, from, from + 1));
        from += 1;
    }
    let mut behind = Vec::new();
    while to > from {
        let last = folded[to - 1];
        let abbreviation = last == '.' && is_abbreviation(&folded[from..to]);
        if is_word(last) || link && last == '/' || abbreviation {
            break;
        }
        to -= 1;
        behind.push(Token::new(folded, to, to + 1));
    }
    if from < to {
        inside(folded, from, to, link, tokens);
    }
    tokens.extend(behind.into_iter().rev());
}

/// Cuts off "n't", "'s" and their like, and at marks in the middle.
fn inside(folded: &[char], from: usize, to: usize, link: bool, tokens: &mut Vec<Token>) {
    let mut push = |from: usize, to: usize| {
        if from < to {
            tokens.push(Token::new(folded, from, to));
        }
    };
    let word = &folded[from..to];
    if link || word.contains(&'@') {
        return push(from, to);
    }
    let apostrophe = |c: char| matches!(c, '\'' | '\u{2019}');
    if word.len() > 3 && word[word.len() - 3] == 'n' && apostrophe(word[word.len() - 2]) && word[word.len() - 1] == 't'
    {
        push(from, to - 3);
        return push(to - 3, to);
    }
    for length in [2, 3] {
        if word.len() > length && apostrophe(word[word.len() - length]) {
            let ending: String = word[word.len() - length + 1..].iter().collect();
            if matches!(ending.as_str(), "s" | "m" | "d" | "re" | "ve" | "ll") {
                inside(folded, from, to - length, false, tokens);
                tokens.push(Token::new(folded, to - length, to));
                return;
            }
        }
    }
    let mut start = from;
    for at in from..to {
        let between_digits =
            at > from && at + 1 < to && folded[at - 1].is_ascii_digit() && folded[at + 1].is_ascii_digit();
        let breaks = match folded[at] {
            ',' | ':' | '/' => !between_digits,
            ';' | '!' | '?' | '(' | ')' | '[' | ']' | '"' | '“' | '”' | '…' | '—' | '–' | '<' | '>' | '=' | '|'
            | '~' => true,
            c => script(c) == super::token::Script::Other && !matches!(c, '-' | '·' | '•'),
        };
        if breaks {
            push(start, at);
            push(at, at + 1);
            start = at + 1;
        }
    }
    push(start, to);
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric()
}

fn opens(c: char) -> bool {
    !is_word(c) && !matches!(c, '\'' | '\u{2019}' | '&' | '-' | '.') || c == '"'
}

/// "U.S.", "J.", "Mr.", "Inc.": the stop belongs to the word.
fn is_abbreviation(word: &[char]) -> bool {
    const KNOWN: [&str; 21] = [
        "mr.", "mrs.", "ms.", "dr.", "st.", "inc.", "corp.", "co.", "ltd.", "jr.", "sr.", "vs.", "prof.", "gen.",
        "sen.", "rep.", "gov.", "no.", "mt.", "ft.", "u.s.",
    ];
    let body = &word[..word.len() - 1];
    let initials = body.len() % 2 == 1
        && body.iter().enumerate().all(|(at, &c)| if at % 2 == 0 { c.is_alphabetic() } else { c == '.' });
    initials && body.len() < 8 || KNOWN.iter().any(|known| known.chars().eq(word.iter().copied()))
}
