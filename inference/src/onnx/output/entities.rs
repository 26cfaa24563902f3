//! Stretches of the text from a label a token.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::classify::{fits, softmax};
use super::tags::{Grammar, Tag};
use super::{Answered, finite, round};
use crate::model::InferError;
use crate::onnx::engine::Port;
use crate::onnx::section::{Entities, Words};
use crate::open::OpenError;

/// The contract's names for what most models shorten.
const TYPES: [(&str, &str); 3] = [("PER", "PERSON"), ("LOC", "LOCATION"), ("ORG", "ORGANIZATION")];
const DIGITS: u32 = 6;

pub(super) struct EntityReader {
    grammar: Grammar,
    labels: usize,
    words: Words,
    types: BTreeMap<String, String>,
}

/// A token of the text with its labels' probabilities.
struct Token {
    /// In bytes.
    start: usize,
    end: usize,
    word: Option<u32>,
    probabilities: Vec<f64>,
}

/// An entity, in bytes.
struct Span<'a> {
    start: usize,
    end: usize,
    kind: &'a str,
    scores: Vec<f64>,
}

impl EntityReader {
    pub(super) fn new(how: &Entities, labels: &[String], port: Option<&Port>) -> Result<Self, OpenError> {
        fits(labels, port, false)?;
        Ok(Self { grammar: Grammar::new(labels), labels: labels.len(), words: how.words, types: how.types.clone() })
    }

    pub(super) fn document(&self, answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
        let tokens = self.tokens(answered)?;
        let words = words(self.words, answered.text, tokens);
        let logs: Vec<Vec<f64>> =
            words.iter().map(|word| word.probabilities.iter().map(|p| p.max(1e-12).ln()).collect()).collect();
        let path = self.grammar.likeliest(&logs);
        let spans = self.spans(&words, &path);
        let mut places = Places { text: answered.text, byte: 0, character: 0 };
        let entities = spans.iter().filter_map(|span| self.entity(span, &mut places)).collect();
        Ok(Map::from_iter([("entities".to_owned(), Value::Array(entities))]))
    }

    /// The text's tokens in order. One that stands in several windows is taken from where it is farthest from an edge:
    /// there the model sees most of what is around it.
    fn tokens(&self, answered: &Answered<'_>) -> Result<Vec<Token>, InferError> {
        let mut chosen: HashMap<(u32, u32), (usize, usize, Token)> = HashMap::new();
        for (place, (window, outputs)) in answered.windows.iter().zip(&answered.parts).enumerate() {
            let tensor = outputs.first().ok_or_else(|| InferError::bad_output("the graph gave no output"))?;
            let length = window.ids.len();
            match tensor.shape[..] {
                [tokens, labels] if tokens >= length && labels == self.labels => {}
                _ => {
                    let (name, shape, labels) = (&tensor.name, &tensor.shape, self.labels);
                    return Err(InferError::bad_output(format!(
                        "the output {name:?} is {shape:?} for {length} tokens and {labels} labels"
                    )));
                }
            }
            let logits = finite(tensor)?;
            for (number, row) in logits.chunks_exact(self.labels).take(length).enumerate() {
                let (start, end) = window.offsets.get(number).copied().unwrap_or_default();
                if start >= end {
                    continue;
                }
                let edge = number.min(length - 1 - number);
                // Within a window the first of several tokens of one character stands for all.
                let better = |before: &(usize, usize, Token)| before.0 != place && before.1 < edge;
                if chosen.get(&(start, end)).is_none_or(better) {
                    let word = window.words.get(number).copied().flatten();
                    let (from, to) = (start as usize, end as usize);
                    let token = Token { start: from, end: to, word, probabilities: softmax(row, 1.0) };
                    chosen.insert((start, end), (place, edge, token));
                }
            }
        }
        let mut tokens: Vec<Token> = chosen.into_values().map(|(_, _, token)| token).collect();
        tokens.sort_by_key(|token| (token.start, token.end));
        Ok(tokens)
    }

    fn spans<'a>(&'a self, words: &[Token], path: &[usize]) -> Vec<Span<'a>> {
        let mut spans: Vec<Span<'a>> = Vec::new();
        let mut open = false;
        for (word, place) in words.iter().zip(path) {
            let tag = self.grammar.tag(*place);
            let score = word.probabilities[*place];
            match (tag, tag.kind()) {
                (_, None) => open = false,
                (Tag::Inside(_) | Tag::End(_), Some(kind))
                    if open && spans.last().is_some_and(|it| it.kind == kind) =>
                {
                    if let Some(span) = spans.last_mut() {
                        span.end = word.end;
                        span.scores.push(score);
                    }
                    open = !matches!(tag, Tag::End(_));
                }
                (_, Some(kind)) => {
                    spans.push(Span { start: word.start, end: word.end, kind, scores: vec![score] });
                    open = !matches!(tag, Tag::End(_) | Tag::Single(_));
                }
            }
        }
        spans
    }

    fn entity(&self, span: &Span<'_>, places: &mut Places<'_>) -> Option<Value> {
        let text = places.text;
        let (start, end) = (text.floor_char_boundary(span.start), text.ceil_char_boundary(span.end));
        let found = text.get(start..end)?;
        let start = start + (found.len() - found.trim_start().len());
        let found = found.trim();
        if found.is_empty() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an entity has few words")]
        let score = span.scores.iter().sum::<f64>() / span.scores.len() as f64;
        Some(json!({
            "text": found,
            "type": self.name(span.kind),
            "start": places.character(start),
            "end": places.character(start + found.len()),
            "score": round(score, DIGITS),
        }))
    }

    fn name<'a>(&'a self, kind: &'a str) -> &'a str {
        let usual = || TYPES.iter().find(|(short, _)| *short == kind).map(|(_, long)| *long);
        self.types.get(kind).map(String::as_str).or_else(usual).unwrap_or(kind)
    }
}

/// Joins tokens to words; a word has its first token's probabilities, since that is the one models are trained on.
fn words(how: Words, text: &str, tokens: Vec<Token>) -> Vec<Token> {
    let mut words: Vec<Token> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let joined = words.last().is_some_and(|last| match how {
            Words::Tokens => false,
            Words::Tokenizer => token.word.is_some() && last.word == token.word && !parts(text, last.end, token.start),
            Words::Spaces => {
                text.get(last.end..token.start).is_some_and(|gap| !gap.contains(char::is_whitespace))
                    && !text.get(token.start..token.end).is_some_and(|it| it.starts_with(char::is_whitespace))
            }
        });
        match words.last_mut() {
            Some(last) if joined => last.end = last.end.max(token.end),
            _ => words.push(token),
        }
    }
    words
}

/// Whether two tokens part by script: tokenizers that split at spaces take a whole Chinese sentence for one word.
fn parts(text: &str, left: usize, right: usize) -> bool {
    let before = text.get(..left).and_then(|text| text.chars().next_back());
    let after = text.get(right..).and_then(|text| text.chars().next());
    before.is_some_and(is_ideographic) || after.is_some_and(is_ideographic)
}

fn is_ideographic(c: char) -> bool {
    matches!(u32::from(c), 0x3040..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7AF | 0xF900..=0xFAFF
        | 0x20000..=0x323AF)
}

/// Counts characters up to ascending places, going over the text once.
struct Places<'a> {
    text: &'a str,
    byte: usize,
    character: usize,
}

impl Places<'_> {
    fn character(&mut self, byte: usize) -> usize {
        if byte < self.byte {
            (self.byte, self.character) = (0, 0);
        }
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.character
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tensor, TensorData, Window};

    const LABELS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

    fn window(tokens: &[(u32, u32, Option<u32>)]) -> Window {
        Window {
            ids: vec![1; tokens.len()],
            type_ids: vec![0; tokens.len()],
            offsets: tokens.iter().map(|(start, end, _)| (*start, *end)).collect(),
            words: tokens.iter().map(|(_, _, word)| *word).collect(),
        }
    }

    /// Logits that speak for these labels, and rows of nonsense as padding.
    fn output(labels: &[usize], padding: usize) -> Tensor {
        let row = |best: usize| (0..LABELS.len()).map(move |label| if label == best { 8.0 } else { 0.0 });
        let data: Vec<f32> = labels.iter().copied().chain(std::iter::repeat_n(1, padding)).flat_map(row).collect();
        Tensor {
            name: "logits".to_owned(),
            shape: vec![labels.len() + padding, LABELS.len()],
            data: TensorData::F32(data),
        }
    }

    fn ask(toml: &str, text: &str, windows: &[Window], parts: Vec<Tensor>) -> Vec<(String, String, u64, u64)> {
        let labels: Vec<String> = LABELS.iter().map(ToString::to_string).collect();
        let reader = EntityReader::new(&toml::from_str(toml).unwrap(), &labels, None).unwrap();
        let parts = parts.into_iter().map(|part| vec![part]).collect();
        let answered = Answered { text, windows, truncated: false, parts, rows: false };
        let document = reader.document(&answered).unwrap();
        let field = |entity: &Value, name: &str| entity[name].as_str().unwrap().to_owned();
        let entities = document["entities"].as_array().unwrap();
        let one = |it: &Value| {
            (field(it, "text"), field(it, "type"), it["start"].as_u64().unwrap(), it["end"].as_u64().unwrap())
        };
        entities.iter().map(one).collect()
    }

    fn found(text: &str, kind: &str, start: u64, end: u64) -> (String, String, u64, u64) {
        (text.to_owned(), kind.to_owned(), start, end)
    }

    #[test]
    fn places_count_characters_whatever_their_bytes() {
        // 張三在台灣: one token a character, between two special ones.
        let text = "😀張三在台灣";
        let tokens = [
            (0, 0, None),
            (0, 4, Some(0)),
            (4, 7, Some(1)),
            (7, 10, Some(2)),
            (10, 13, Some(3)),
            (13, 16, Some(4)),
            (16, 19, Some(5)),
            (0, 0, None),
        ];
        let got = ask("", text, &[window(&tokens)], vec![output(&[1, 0, 1, 2, 0, 3, 4, 1], 3)]);
        assert_eq!(got, [found("張三", "PERSON", 1, 3), found("台灣", "LOCATION", 4, 6)]);
    }

    #[test]
    fn a_word_has_its_first_token_s_label() {
        let text = "Mr Hopkins left";
        let tokens = [(0, 2, Some(0)), (3, 6, Some(1)), (6, 10, Some(1)), (11, 15, Some(2))];
        let labels = [0, 1, 0, 0];
        let windows = [window(&tokens)];
        assert_eq!(ask("", text, &windows, vec![output(&labels, 0)]), [found("Hopkins", "PERSON", 3, 10)]);
        let by_token = ask("words = 'tokens'", text, &windows, vec![output(&labels, 0)]);
        assert_eq!(by_token, [found("Hop", "PERSON", 3, 6)]);
        let spaces = ask("words = 'spaces'\ntypes = { PER = 'HUMAN' }", text, &windows, vec![output(&labels, 0)]);
        assert_eq!(spaces, [found("Hopkins", "HUMAN", 3, 10)]);
    }

    #[test]
    fn a_sentence_without_spaces_is_not_one_word() {
        let text = "張三在台灣";
        let tokens = [(0, 6, Some(0)), (6, 9, Some(0)), (9, 15, Some(0))];
        let got = ask("", text, &[window(&tokens)], vec![output(&[1, 0, 3], 0)]);
        assert_eq!(got, [found("張三", "PERSON", 0, 2), found("台灣", "LOCATION", 3, 5)]);
    }

    #[test]
    fn where_windows_overlap_the_one_that_sees_more_around_decides() {
        let text = "a b c d";
        let first = window(&[(0, 1, Some(0)), (2, 3, Some(1)), (4, 5, Some(2))]);
        let second = window(&[(2, 3, Some(1)), (4, 5, Some(2)), (6, 7, Some(3))]);
        // b: the first says PER from its middle, the second O at its edge. c: the second says LOC from its middle.
        let got = ask("", text, &[first, second], vec![output(&[0, 1, 0], 0), output(&[0, 3, 0], 0)]);
        assert_eq!(got, [found("b", "PERSON", 2, 3), found("c", "LOCATION", 4, 5)]);
    }

    #[test]
    fn an_output_of_another_shape_or_without_numbers_is_no_answer() {
        let labels: Vec<String> = LABELS.iter().map(ToString::to_string).collect();
        let reader = EntityReader::new(&toml::from_str("").unwrap(), &labels, None).unwrap();
        let windows = [window(&[(0, 1, Some(0)), (2, 3, Some(1))])];
        let mut nan = output(&[0, 1], 0);
        nan.data = TensorData::F32(vec![f32::NAN; 10]);
        let mut wide = output(&[0, 1], 0);
        (wide.shape, wide.data) = (vec![2, 6], TensorData::F32(vec![0.0; 12]));
        for part in [output(&[0], 0), nan, wide] {
            let answered =
                Answered { text: "a b", windows: &windows, truncated: false, parts: vec![vec![part]], rows: false };
            assert_eq!(reader.document(&answered).unwrap_err().code, "bad_output");
        }
    }
}
