//! Names in Chinese text: the text is cut into words, then each name takes the words that belong to it.

use super::Entity;
use super::Type::{Location, Organisation, Person};
use super::cut::{Piece, Token, cut};
use super::dictionary::{CUE, Cue, Kind};
use super::names::{is_dot, stands_as_person};
use super::rule::Rule;
use crate::model::fold::is_han;

/// The names in a folded text, in order, none within another.
pub(super) fn find(chars: &[char]) -> Vec<Entity> {
    if !chars.iter().any(|c| is_han(*c)) {
        return Vec::new();
    }
    let tokens = Tokens { chars, tokens: cut(chars) };
    let mut found: Vec<Entity> = Vec::new();
    let mut at = 0;
    while at < tokens.tokens.len() {
        let ending = tokens.organisation_ending(at).or_else(|| tokens.place_ending(at));
        let (entity, next) = match ending {
            Some((entity, next)) => (Some(entity), next),
            None => (tokens.single(at), at + 1),
        };
        if let Some(entity) = entity {
            add(&mut found, entity);
            join_dotted(&mut found, chars);
        }
        at = next;
    }
    found
}

/// Adds a name that may take in the names it is made of, and a place that may go on from the one before it.
fn add(found: &mut Vec<Entity>, mut entity: Entity) {
    while let Some(last) = found.last() {
        let within = last.end > entity.start;
        // 台北市 and 信義區 are one place, 美國 and 亞利桑那州 are two.
        let goes_on = last.end == entity.start
            && (last.kind, entity.kind) == (Location, Location)
            && last.rule == Rule::PlaceByEndZh;
        if !within && !goes_on {
            break;
        }
        entity.start = entity.start.min(last.start);
        found.pop();
    }
    found.push(entity);
}

/// Makes one name of two that a dot joins: 巴拉克·歐巴馬.
fn join_dotted(found: &mut Vec<Entity>, chars: &[char]) {
    if let [.., first, second] = found[..]
        && (first.kind, second.kind) == (Person, Person)
        && first.end + 1 == second.start
        && is_dot(chars[first.end])
    {
        found.truncate(found.len() - 2);
        found.push(Entity { end: second.end, rule: Rule::DottedZh, ..first });
    }
}

/// Names of organisations have at most that many characters before their ends, places that many.
const LONGEST_ORGANISATION: usize = 14;
const LONGEST_PLACE: usize = 4;

struct Tokens<'a> {
    chars: &'a [char],
    tokens: Vec<Token>,
}

impl Tokens<'_> {
    /// A name that is one piece.
    fn single(&self, at: usize) -> Option<Entity> {
        let token = self.tokens[at];
        let (kind, rule) = match token.piece {
            Piece::Listed(Kind::Place) => (Location, Rule::ListedPlaceZh),
            Piece::Listed(Kind::Organisation) => (Organisation, Rule::ListedOrganisationZh),
            Piece::Listed(Kind::Person) => (Person, Rule::ListedPersonZh),
            Piece::Name => (Person, Rule::NameZh),
            Piece::Foreign if self.word(token).iter().any(|c| is_dot(*c)) => (Person, Rule::DottedZh),
            // Without a dot it may as well be a place or a thing.
            Piece::Foreign if stands_as_person(self.chars, token.start, token.end) => (Person, Rule::ForeignZh),
            _ => return None,
        };
        Some(Entity { start: token.start, end: token.end, kind, rule })
    }

    /// An organisation whose name ends with this piece, and where to go on.
    fn organisation_ending(&self, at: usize) -> Option<(Entity, usize)> {
        if !self.ends_organisation(self.tokens[at]) {
            return None;
        }
        let start = self.tokens[self.stem(at)?].start;
        let further = self.tokens[at + 1..].iter().take_while(|token| self.ends_organisation(**token));
        let next = at + 1 + further.count();
        let end = self.tokens[next - 1].end;
        Some((Entity { start, end, kind: Organisation, rule: Rule::OrganisationByEndZh }, next))
    }

    /// The piece where the name starts that the piece `end` ends. Common words alone are no name: 鐵路公司.
    fn stem(&self, end: usize) -> Option<usize> {
        let mut proper = None;
        for at in (0..end).rev() {
            let token = self.tokens[at];
            if self.tokens[end].start - token.start > LONGEST_ORGANISATION {
                break;
            }
            match token.piece {
                Piece::Listed(Kind::Noun) if self.is_pair(at) => proper = Some(at),
                Piece::Listed(Kind::Noun) => {}
                Piece::Listed(Kind::Other) | Piece::Sign => break,
                _ => proper = Some(at),
            }
        }
        // One character is the rest of a name that was cut wrongly.
        proper.filter(|first| self.tokens[end].start - self.tokens[*first].start > 1)
    }

    /// Whether a piece is 大學, or a word that ends so, as 師範大學.
    fn ends_organisation(&self, token: Token) -> bool {
        let word = self.word(token);
        let common = matches!(token.piece, Piece::Listed(Kind::Noun | Kind::Other));
        let mut ends = (0..word.len().saturating_sub(1)).map(|at| &word[at..]);
        common && ends.any(|end| CUE.get(end).is_some_and(|cue| cue.organisation))
    }

    /// A place whose name ends with this piece, and where to go on.
    fn place_ending(&self, at: usize) -> Option<(Entity, usize)> {
        if !self.cue(at).is_some_and(|cue| cue.place) {
            return None;
        }
        let ending = self.tokens[at];
        let mut first = at;
        while first > 0 && ending.start - self.tokens[first - 1].start <= LONGEST_PLACE {
            let token = self.tokens[first - 1];
            let part = match token.piece {
                Piece::Unknown | Piece::Name | Piece::Foreign | Piece::Listed(Kind::Person) => true,
                Piece::Listed(Kind::Place) => first == at,
                Piece::Listed(Kind::Noun) => first == at && (self.is_pair(first - 1) || self.follows_place(first - 1)),
                _ => false,
            };
            if !part {
                break;
            }
            first -= 1;
            if self.is_pair(first) {
                first -= 1;
            }
        }
        let entity =
            Entity { start: self.tokens[first].start, end: ending.end, kind: Location, rule: Rule::PlaceByEndZh };
        (first < at).then_some((entity, at + 1))
    }

    /// Whether a piece and the one before it are single characters that make no word together: likely a name.
    fn is_pair(&self, at: usize) -> bool {
        let single = |token: Token| token.piece == Piece::Listed(Kind::Noun) && token.end - token.start == 1;
        at > 0 && single(self.tokens[at]) && single(self.tokens[at - 1])
    }

    /// Whether a piece stands right after a place: the 信義 of 台北市信義區.
    fn follows_place(&self, at: usize) -> bool {
        let place = |at: usize| self.tokens[at].piece == Piece::Listed(Kind::Place);
        match at {
            0 => false,
            1 => place(0),
            _ => place(at - 1) || (place(at - 2) && self.cue(at - 1).is_some_and(|cue| cue.place)),
        }
    }

    fn cue_of(&self, token: Token) -> Option<Cue> {
        CUE.get(self.word(token))
    }

    fn cue(&self, at: usize) -> Option<Cue> {
        self.cue_of(self.tokens[at])
    }

    fn word(&self, token: Token) -> &[char] {
        &self.chars[token.start..token.end]
    }
}
