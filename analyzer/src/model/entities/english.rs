//! Names in English text: words with a capital that stand together, told apart by lists, their first and last words, and
//! the words around them.

use std::sync::LazyLock;

use super::Entity;
use super::Type::{self, Location, Organisation, Person};
use super::capitals::{Cue, Word, words};
use super::rule::Rule;
use crate::model::fold::{Folded, fold, is_letter};
use crate::model::words::Words;

/// The names in a text, in order, none within another.
pub(super) fn find(folded: &Folded<'_>) -> Vec<Entity> {
    let words = words(folded);
    let shouted = words.iter().filter(|word| word.shouted && word.end - word.start > 1).count();
    let text = Text { folded, words: &words, shouting: words.len() > 3 && shouted * 2 > words.len() };
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        match text.name_at(at) {
            Some((entity, next)) => {
                found.push(entity);
                at = next;
            }
            None => at += 1,
        }
    }
    found
}

/// Names as they are written, by their folded characters.
static LISTED: LazyLock<Words<Type>> = LazyLock::new(|| {
    let lists = [
        (include_str!("../words/people_en.txt"), Person),
        (include_str!("../words/organisations_en.txt"), Organisation),
        (include_str!("../words/places_en.txt"), Location),
    ];
    Words::new(lists.into_iter().flat_map(|(names, kind)| {
        let lines = names.lines().filter(|line| !line.starts_with('#'));
        let names = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty());
        names.map(move |name| (name.chars().map(fold).collect(), kind))
    }))
});

/// More words with capitals than that are a headline, and no name.
const LONGEST: usize = 12;

struct Text<'a> {
    folded: &'a Folded<'a>,
    words: &'a [Word],
    /// Capitals say nothing here.
    shouting: bool,
}

impl Text<'_> {
    /// The name that begins with this word, and the word to go on at.
    fn name_at(&self, at: usize) -> Option<(Entity, usize)> {
        let word = &self.words[at];
        if !word.capital {
            return None;
        }
        let run = if self.shouting { at + 1 } else { self.run_end(at) };
        let listed = self.listed(at);
        if let Some((guess, next)) = self.by_ends(at, run)
            && listed.is_none_or(|(_, listed)| listed < next)
        {
            return Some((guess.entity(self, at, next), next));
        }
        if let Some((kind, next)) = listed {
            let rule = match kind {
                Location => Rule::ListedPlace,
                Organisation => Rule::ListedOrganisation,
                Person => Rule::ListedPerson,
            };
            return Some((Guess { kind, rule }.entity(self, at, next), next));
        }
        if self.shouting {
            return None;
        }
        let (guess, next) = self.person(at, run).or_else(|| self.lone(at, run))?;
        Some((guess.entity(self, at, next), next))
    }

    /// The word after the last of those with capitals that stand together.
    fn run_end(&self, at: usize) -> usize {
        let mut end = at + 1;
        while end < self.words.len().min(at + LONGEST)
            && self.words[end].joined
            && self.words[end].capital
            && !self.words[end].cue.no_name
        {
            end += 1;
        }
        end
    }

    /// The longest listed name here, if it is written like one.
    fn listed(&self, at: usize) -> Option<(Type, usize)> {
        let word = &self.words[at];
        let chars = &self.folded.chars;
        let (length, kind) = LISTED
            .starting(&chars[word.start..])
            .filter(|(length, _)| chars.get(word.start + length).is_none_or(|c| !is_letter(*c)))
            .last()?;
        let end = word.start + length;
        let next = at + self.words[at..].iter().take_while(|word| word.end <= end).count();
        let alone = next == at + 1;
        let doubtful = alone && ((word.opens && word.cue.common) || (word.end - word.start <= 3 && !word.shouted));
        (next > at && self.words[next - 1].end == end && !doubtful).then_some((kind, next))
    }

    /// By the last word, or the first.
    fn by_ends(&self, at: usize, run: usize) -> Option<(Guess, usize)> {
        let first = &self.words[at];
        if first.cue.organisation_of
            && let Some([of, name]) = self.words.get(run..run + 2).and_then(|two| two.first_chunk::<2>())
            && of.joined
            && name.joined
            && name.capital
            && matches!(self.folded.original(of.start..of.end), "of" | "for")
        {
            return Some((Guess { kind: Organisation, rule: Rule::OrganisationByEnd }, self.run_end(run + 1)));
        }
        let last = (at + 1..run).rev().find(|last| {
            let cue = self.words[*last].cue;
            cue.organisation || cue.place
        });
        if let Some(last) = last {
            let stem = &self.words[at..last];
            let says_nothing = |cue: Cue, opens| cue.no_name || cue.title || (cue.common && opens);
            if !stem.iter().all(|word| says_nothing(word.cue, word.opens)) {
                let kind = if self.words[last].cue.organisation { Organisation } else { Location };
                let rule = if kind == Location { Rule::PlaceByEnd } else { Rule::OrganisationByEnd };
                return Some((Guess { kind, rule }, last + 1));
            }
        }
        let named = first.cue.place_named && run > at + 1 && !self.words[at + 1].cue.common;
        named.then_some((Guess { kind: Location, rule: Rule::PlaceByEnd }, at + 2))
    }

    fn person(&self, at: usize, run: usize) -> Option<(Guess, usize)> {
        let word = &self.words[at];
        let before = at.checked_sub(1).map(|before| &self.words[before]).filter(|_| word.joined);
        let few = run - at <= 4;
        if word.cue.title || word.cue.no_name {
            return None;
        }
        if few && before.is_some_and(|before| before.cue.title && before.capital) {
            return Some((Guess { kind: Person, rule: Rule::Titled }, run));
        }
        let full = run - at >= 2 && few && !self.words[run - 1].cue.common;
        if word.cue.first_name && full && !(word.opens && word.cue.common) {
            return Some((Guess { kind: Person, rule: Rule::FullName }, run));
        }
        if word.cue.first_name && !word.cue.common && run == at + 1 {
            return Some((Guess { kind: Person, rule: Rule::FirstName }, run));
        }
        let said = self.words.get(run).is_some_and(|after| after.joined && after.cue.said);
        let known = word.cue.common || (word.opens && run == at + 1);
        (said && few && !known).then_some((Guess { kind: Person, rule: Rule::PersonByAfter }, run))
    }

    /// A name of which nothing is known but its neighbours and its capitals.
    fn lone(&self, at: usize, run: usize) -> Option<(Guess, usize)> {
        let word = &self.words[at];
        let before = at.checked_sub(1).map(|before| &self.words[before]).filter(|_| word.joined && !word.opens);
        if word.cue.no_name || word.cue.common || word.cue.title {
            return None;
        }
        let length = word.end - word.start;
        let within = before.is_some_and(|before| before.cue.within && !before.capital);
        (within && run - at <= 2 && !word.shouted && length > 3)
            .then_some((Guess { kind: Location, rule: Rule::PlaceByBefore }, run))
    }
}

#[derive(Clone, Copy)]
struct Guess {
    kind: Type,
    rule: Rule,
}

impl Guess {
    fn entity(self, text: &Text<'_>, first: usize, next: usize) -> Entity {
        Entity { start: text.words[first].start, end: text.words[next - 1].end, kind: self.kind, rule: self.rule }
    }
}
