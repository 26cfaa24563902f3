//! Words in a row of Chinese characters: the cut whose words are most likely together, each by its own frequency (a
//! unigram model, as in jieba), by dynamic programming from the end.

use super::chinese::LONGEST;
use super::hash::Hash;
use super::lexicon::{Entry, Lexicon};
use super::token::{Script, Token};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Word {
    pub(crate) from: usize,
    pub(crate) length: usize,
    pub(crate) hash: u64,
    pub(crate) entry: Entry,
    /// Its last character.
    pub(crate) last: u64,
}

/// Grades of dictionary words are steps of half an octave of frequency.
pub(crate) fn grade(count: u64) -> u8 {
    (((count.max(1) as f64).log2() * 1.4).round() as u8).clamp(1, 31)
}

/// What a word costs for standing at all: the logarithm of the dictionary's 60 million words, in grades.
const TOTAL: i32 = 36;

/// Cuts tokens into words; `found` hears of every dictionary word at any place.
pub(crate) fn segment(tokens: &[Token], lexicon: &Lexicon, mut found: impl FnMut(usize, usize, Entry)) -> Vec<Word> {
    let mut cost = vec![0_i32; tokens.len() + 1];
    let mut cut: Vec<Word> = Vec::with_capacity(tokens.len());
    for (from, token) in tokens.iter().enumerate().rev() {
        let mut best = Word { from, length: 1, hash: token.atom, entry: Entry::default(), last: token.atom };
        let mut best_cost = cost[from + 1] + TOTAL;
        let mut hash = Hash::new(1);
        for length in 1..=LONGEST.min(tokens.len() - from) {
            let last = &tokens[from + length - 1];
            if last.script != Script::Han {
                break;
            }
            hash = hash.and(last.atom);
            let full = hash.finish();
            let Some(entry) = lexicon.get(full) else { continue };
            found(from, length, entry);
            let here = cost[from + length] + TOTAL - i32::from(entry.grade);
            if entry.grade > 0 && here <= best_cost {
                best_cost = here;
                best = Word { from, length, hash: full, entry, last: last.atom };
            }
        }
        if best.length == 1 && best.entry == Entry::default() && token.script != Script::Han {
            best.entry.class = token.script as u16 + 1;
        }
        cost[from] = best_cost;
        cut.push(best);
    }
    let mut words = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let word = cut[tokens.len() - 1 - at];
        at += word.length;
        words.push(word);
    }
    words
}
