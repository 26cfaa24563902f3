//! A query's text, read word by word.
//!
//! ```text
//! query = { space } [ word { space word } ]
//! word  = [ "-" ] ( name ":" value { "," value } | value )
//! value = { character without space, comma and quote } | '"' { character | '\"' | '\\' } '"'
//! ```
//!
//! A word without a name is an id, or the beginning of one, when it looks like that; else a text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{IdPrefix, MAX_BYTES, MAX_WORDS, Query, Standing, Term, Word};
use crate::params;
use crate::shape::TaskStatus;

/// The names a word can have.
const NAMES: &str = "status, type, model, error, batch, id, age, from, to, text";
/// The fewest hexadecimal digits that are taken for the beginning of an id.
const ID_DIGITS: usize = 4;
/// The longest text that is looked for, in characters.
const TEXT_CHARS: usize = 200;
/// A word is repeated in an error no longer than this, in characters.
const SHOWN_CHARS: usize = 40;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// In characters, from 1.
    pub(crate) at: usize,
    /// The word, or its beginning.
    pub(crate) word: String,
    pub(crate) what: String,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}, `{}`: {}", self.at, self.word, self.what)
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_BYTES {
            let what = format!("a query has {MAX_BYTES} bytes at most");
            return Err(QueryError { at: 1, word: shown(text), what });
        }
        let words = split(text)?;
        if let Some(beyond) = words.get(MAX_WORDS) {
            return Err(beyond.error(format!("a query has {MAX_WORDS} words at most")));
        }
        Ok(Self { words: words.iter().map(Raw::read).collect::<Result<_, _>>()? })
    }
}

/// A word whose quotes are resolved.
struct Raw {
    at: usize,
    negated: bool,
    name: Option<String>,
    values: Vec<String>,
    /// Whether the first value was quoted: then it is never taken for an id.
    quoted: bool,
    shown: String,
}

/// Cuts a query into words.
fn split(text: &str) -> Result<Vec<Raw>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let mut words = Vec::new();
    let mut next = 0;
    while let Some(start) = (next..chars.len()).find(|at| !chars[*at].is_whitespace()) {
        let (word, end) = cut(&chars, start)?;
        words.push(word);
        next = end;
    }
    Ok(words)
}

/// The word that begins at `start`, and where it ends.
fn cut(chars: &[char], start: usize) -> Result<(Raw, usize), QueryError> {
    let negated = chars[start] == '-';
    let mut at = start + usize::from(negated);
    let (mut name, mut values, mut value, mut quoted) = (None, Vec::new(), String::new(), false);
    let rest = || shown(&chars[start..].iter().collect::<String>());
    while at < chars.len() && !chars[at].is_whitespace() {
        match chars[at] {
            '"' => {
                let (inside, end) = quote(chars, at).ok_or_else(|| QueryError {
                    at: at + 1,
                    word: rest(),
                    what: "a quote is opened and not closed".to_owned(),
                })?;
                quoted |= values.is_empty();
                value.push_str(&inside);
                at = end;
                continue;
            }
            ':' if name.is_none() && values.is_empty() && !quoted => name = Some(std::mem::take(&mut value)),
            ',' if name.is_some() => values.push(std::mem::take(&mut value)),
            other => value.push(other),
        }
        at += 1;
    }
    values.push(value);
    let shown = shown(&chars[start..at].iter().collect::<String>());
    Ok((Raw { at: start + 1, negated, name, values, quoted, shown }, at))
}

/// What stands between the quote at `at` and the one that closes it, and where that ends.
fn quote(chars: &[char], at: usize) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut next = at + 1;
    loop {
        match *chars.get(next)? {
            '"' => return Some((inside, next + 1)),
            '\\' if matches!(chars.get(next + 1), Some('"' | '\\')) => {
                inside.push(chars[next + 1]);
                next += 2;
            }
            other => {
                inside.push(other);
                next += 1;
            }
        }
    }
}

impl Raw {
    fn error(&self, what: impl Into<String>) -> QueryError {
        QueryError { at: self.at, word: self.shown.clone(), what: what.into() }
    }

    fn read(&self) -> Result<Word, QueryError> {
        let term = match self.name.as_deref() {
            Some(name) => self.named(name),
            None => self.bare(),
        };
        Ok(Word { negated: self.negated, at: self.at, term: term.map_err(|what| self.error(what))? })
    }

    fn named(&self, name: &str) -> Result<Term, String> {
        match name {
            "status" => self.each(standing).map(Term::Status),
            "type" => self.each(filled).map(Term::Type),
            "model" => self.each(filled).map(Term::Model),
            "error" => self.each(filled).map(Term::Error),
            "batch" => self.each(|value| params::uuid(value).map_err(str::to_owned)).map(Term::Batch),
            "id" => self.each(id_prefix).map(Term::Id),
            "age" => age(self.only()?),
            "from" => params::time(self.only()?).map(Term::From).map_err(str::to_owned),
            "to" => params::time(self.only()?).map(Term::To).map_err(str::to_owned),
            "text" => text(&self.values.join(",")),
            _ => Err(format!("`{}` is not a word of a query; known: {NAMES}", shown(name))),
        }
    }

    fn bare(&self) -> Result<Term, String> {
        let value = self.values.join(",");
        match id_prefix(&value) {
            Ok(prefix) if !self.quoted => Ok(Term::Id(vec![prefix])),
            _ => text(&value),
        }
    }

    fn each<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        if self.values.len() > MAX_WORDS {
            return Err(format!("has {MAX_WORDS} values at most"));
        }
        self.values.iter().map(|value| read(value)).collect()
    }

    fn only(&self) -> Result<&str, String> {
        match &self.values[..] {
            [one] => Ok(one),
            _ => Err("takes one value".to_owned()),
        }
    }
}

fn standing(value: &str) -> Result<Standing, String> {
    match value {
        "open" => Ok(Standing::Open),
        "dead" => Ok(Standing::Dead),
        other => TaskStatus::parse(other)
            .map(Standing::Is)
            .map_err(|_| "must be pending, processing, completed, failed, cancelled, open or dead".to_owned()),
    }
}

fn filled(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Err("has no value".to_owned());
    }
    params::name(value).map_err(str::to_owned)
}

/// Hexadecimal digits with or without the dashes of an id, as the tables write them.
fn id_prefix(value: &str) -> Result<IdPrefix, String> {
    let digits: String = value.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    let fine = (ID_DIGITS..=32).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit());
    if !fine {
        return Err(format!("must be an id or its beginning, {ID_DIGITS} hexadecimal digits at least"));
    }
    let mut written = String::with_capacity(IdPrefix::WHOLE);
    for (at, digit) in digits.chars().enumerate() {
        if [8, 12, 16, 20].contains(&at) {
            written.push('-');
        }
        written.push(digit);
    }
    Ok(IdPrefix(written))
}

fn age(value: &str) -> Result<Term, String> {
    let wrong = || "must be > or < and a time such as 30s, 5m, 2h or 7d".to_owned();
    let (older, span) = match value.split_at_checked(1) {
        Some((">", span)) => (true, span),
        Some(("<", span)) => (false, span),
        _ => return Err(wrong()),
    };
    let unit = span.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    // Nine digits of days are longer than anything has been running.
    let count: u64 = span[..span.len() - 1].parse::<u32>().map_err(|_| wrong())?.into();
    let span = Duration::from_secs(count * seconds);
    if span > Duration::from_secs(100 * 366 * 86_400) {
        return Err("is longer than a hundred years".to_owned());
    }
    Ok(if older { Term::Older(span) } else { Term::Younger(span) })
}

fn text(value: &str) -> Result<Term, String> {
    match value.chars().count() {
        0 => Err("has no value".to_owned()),
        1..=TEXT_CHARS => Ok(Term::Text(value.to_owned())),
        _ => Err(format!("a text has {TEXT_CHARS} characters at most")),
    }
}

fn shown(word: &str) -> String {
    let mut shown: String = word.chars().take(SHOWN_CHARS).collect();
    if shown.len() < word.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn term(text: &str) -> Term {
        let query: Query = text.parse().unwrap();
        assert_eq!(query.words.len(), 1, "{text}: {query:?}");
        query.words.into_iter().next().unwrap().term
    }

    fn names(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn every_word_of_the_grammar_is_read() {
        let id = "0190a6f0-0000-7000-8000-000000000001";
        for (text, expected) in [
            ("status:failed", Term::Status(vec![Standing::Is(TaskStatus::Failed)])),
            ("status:open,dead", Term::Status(vec![Standing::Open, Standing::Dead])),
            ("type:a,b", Term::Type(names(&["a", "b"]))),
            (r#"type:"a,b""#, Term::Type(names(&["a,b"]))),
            ("model:v1.0", Term::Model(names(&["v1.0"]))),
            (r#"error:"timeout""#, Term::Error(names(&["timeout"]))),
            (&format!("batch:{id}"), Term::Batch(vec![id.parse().unwrap()])),
            (&format!("id:{id}"), Term::Id(vec![IdPrefix(id.to_owned())])),
            ("id:0190A6F00", Term::Id(vec![IdPrefix("0190a6f0-0".to_owned())])),
            ("0190a6f0-0000", Term::Id(vec![IdPrefix("0190a6f0-0000".to_owned())])),
            ("age:>5m", Term::Older(Duration::from_secs(300))),
            ("age:<2h", Term::Younger(Duration::from_secs(7_200))),
            ("from:2026-11-25", Term::From("2026-11-25T00:00:00Z".parse().unwrap())),
            ("to:2026-11-25T08:30:00Z", Term::To("2026-11-25T08:30:00Z".parse().unwrap())),
            (r#"text:"no \"answer\" \\ yet""#, Term::Text(r#"no "answer" \ yet"#.to_owned())),
            ("text:a,b:c", Term::Text("a,b:c".to_owned())),
            ("好消息", Term::Text("好消息".to_owned())),
            // What could be an id and is quoted is a text.
            (r#""beef""#, Term::Text("beef".to_owned())),
            ("bee", Term::Text("bee".to_owned())),
        ] {
            assert_eq!(term(text), expected, "{text}");
        }
    }

    #[test]
    fn words_are_joined_and_turned_round() {
        let query: Query = "  status:failed -type:a\u{3000}-\"no answer\" ".parse().unwrap();
        let told: Vec<_> = query.words.iter().map(|word| (word.at, word.negated)).collect();
        assert_eq!(told, [(3, false), (17, true), (25, true)]);
        assert_eq!("".parse::<Query>(), Ok(Query::default()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_word() {
        for (text, at, part) in [
            ("type:a statsu:failed", 8, "`statsu:failed`: `statsu` is not a word"),
            ("status:fialed", 1, "must be pending"),
            ("好 type:", 3, "has no value"),
            ("type:a,", 1, "has no value"),
            ("type:a text:\"open", 13, "opened and not closed"),
            ("age:5m", 1, "must be > or <"),
            ("age:>5", 1, "must be > or <"),
            ("age:>é", 1, "must be > or <"),
            ("age:>4294967295d", 1, "hundred years"),
            ("id:xyz1", 1, "hexadecimal"),
            ("id:abc", 1, "hexadecimal"),
            ("batch:7", 1, "UUID"),
            ("from:yesterday", 1, "must be a time"),
            ("from:2026-01-01,2026-01-02", 1, "one value"),
            ("text:", 1, "has no value"),
            ("-", 1, "has no value"),
        ] {
            let error = text.parse::<Query>().unwrap_err();
            assert!(error.at == at && error.to_string().contains(part), "{text}: {error}");
        }
        let many = "a:b ".repeat(MAX_BYTES);
        assert!(many.parse::<Query>().unwrap_err().what.contains("bytes at most"));
        let many = "x ".repeat(MAX_WORDS + 1);
        assert_eq!(many.parse::<Query>().unwrap_err().at, 2 * MAX_WORDS + 1);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic_and_every_error_points_into_it(text in "\\PC{0,80}") {
            if let Err(error) = text.parse::<Query>() {
                prop_assert!(error.at >= 1 && error.at <= text.chars().count());
            }
        }

        #[test]
        fn words_of_the_grammars_own_characters_make_no_panic(text in "[a-z:,\\-\"\\\\<>0-9 ]{0,60}") {
            let _ = text.parse::<Query>();
        }

        #[test]
        fn any_text_can_be_asked_for_when_it_is_quoted(text in "\\PC{1,60}") {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let query: Query = format!("text:\"{quoted}\"").parse().unwrap();
            prop_assert_eq!(&query.words[0].term, &Term::Text(text));
        }
    }
}
