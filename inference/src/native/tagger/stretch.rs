//! Which stretch of a text is read by which tagger. Lines that are mostly Chinese go to the Chinese one, sentence by
//! sentence, and what they quote of another language, two words or more, to the English one as well; lines that are mostly
//! Latin the other way round. A Chinese character says about as much as three letters.

use super::english;
use super::features::Features;
use super::label::Kind;
use super::language::{Tagger, Text};
use super::token::{Script, Token, characters, script};

/// A name in a text: from one character to before another (Unicode scalar values).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Name {
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
    /// How likely it is that just this is a name of this kind.
    pub score: f32,
}

/// The taggers of a package: one, or both.
#[derive(Default)]
pub struct Taggers {
    pub chinese: Option<Tagger>,
    pub english: Option<Tagger>,
}

/// Sentences are cut here if no end comes, in tokens: what a sum over all labels may take in memory stays small.
const LONGEST_SENTENCE: usize = 400;

impl Taggers {
    /// The names in a text, in order; they do not overlap.
    pub fn names(&self, text: &str) -> Vec<Name> {
        let chars: Vec<char> = text.chars().collect();
        let folded: Vec<char> = chars.iter().map(|&c| super::fold(c)).collect();
        let text = Text { chars: &chars, folded: &folded };
        let mut found = Found { text: &text, features: Features::default(), names: Vec::new() };
        let mut from = 0;
        for line in folded.split(|&c| c == '\n' || c == '\r') {
            self.line(from, from + line.len(), &mut found);
            from += line.len() + 1;
        }
        let mut names = found.names;
        names.sort_by_key(|name| name.from);
        names
    }

    fn line(&self, from: usize, to: usize, found: &mut Found<'_>) {
        let line = &found.text.folded[from..to];
        let han = line.iter().filter(|&&c| script(c) == Script::Han).count();
        let latin = line.iter().filter(|&&c| script(c) == Script::Latin).count();
        let kana = line.iter().filter(|c| matches!(c, '\u{3041}'..='\u{30fa}' | '\u{ac00}'..='\u{d7a3}')).count();
        if kana > han / 3 {
            // Japanese or Korean, which nothing here has learnt.
            return;
        }
        let mainly_chinese = han > 0 && han * 3 >= latin;
        let first = if mainly_chinese { &self.chinese } else { &self.english };
        let second = if mainly_chinese { &self.english } else { &self.chinese };
        if let Some(tagger) = first.as_ref().filter(|_| han + latin > 0) {
            found.tag(tagger, from, to, mainly_chinese);
        }
        if let Some(tagger) = second.as_ref().filter(|_| han > 0 && latin > 0) {
            for (from, to) in quotes(found.text.folded, from, to, mainly_chinese) {
                found.tag(tagger, from, to, !mainly_chinese);
            }
        }
    }
}

struct Found<'a> {
    text: &'a Text<'a>,
    features: Features,
    names: Vec<Name>,
}

impl Found<'_> {
    fn tag(&mut self, tagger: &Tagger, from: usize, to: usize, chinese: bool) {
        let folded = self.text.folded;
        let tokens = if chinese { characters(folded, from, to) } else { english::tokens(folded, from, to) };
        let mut rest = &tokens[..];
        while !rest.is_empty() {
            let (sentence, after) = rest.split_at(sentence_length(rest, folded));
            rest = after;
            for (span, score) in tagger.tag(sentence, self.text, &mut self.features) {
                let (from, to) = (sentence[span.from].from as usize, sentence[span.to - 1].to as usize);
                if self.names.iter().all(|name| name.to <= from || to <= name.from) {
                    self.names.push(Name { from, to, kind: span.kind, score });
                }
            }
        }
    }
}

/// How many tokens the first sentence has: up to its last mark of an end.
fn sentence_length(tokens: &[Token], folded: &[char]) -> usize {
    let is_end = |token: &Token| {
        token.to - token.from == 1
            && matches!(folded[token.from as usize], '。' | '！' | '？' | '!' | '?' | '.' | ';' | '；')
    };
    let end = tokens.iter().position(is_end).unwrap_or(tokens.len());
    let after = tokens[end..].iter().take_while(|token| is_end(token)).count();
    (end + after).clamp(1, LONGEST_SENTENCE).min(tokens.len())
}

/// The stretches of the other language in a line: words of letters with what stands between them, at least two; or
/// Chinese characters in a row, at least two.
fn quotes(folded: &[char], from: usize, to: usize, latin: bool) -> Vec<(usize, usize)> {
    let mut quotes = Vec::new();
    let mut at = from;
    let other = |c: char| {
        if latin {
            script(c) != Script::Han && !matches!(c, '\u{3000}'..='\u{303f}' | '\u{ff01}'..='\u{ff5e}')
        } else {
            script(c) == Script::Han
        }
    };
    while at < to {
        let end = (at..to).find(|&end| !other(folded[end])).unwrap_or(to);
        if latin {
            let words = folded[at..end]
                .split(|c| c.is_whitespace())
                .filter(|word| word.iter().any(|&c| script(c) == Script::Latin))
                .count();
            if words >= 2 {
                quotes.push((at, end));
            }
        } else if end - at >= 2 {
            quotes.push((at, end));
        }
        at = end.max(at + 1);
    }
    quotes
}
