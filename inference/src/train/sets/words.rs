//! Words and phrases written for this program, each a short text with a label: what collections say too rarely.

use super::super::examples::Example;

/// Words of a list such as [`CHINESE`]: the word, and how good (above 0) or bad it sounds.
pub(super) fn chinese_words() -> Vec<(String, f32)> {
    let lines = include_str!("../words/sentiment_zh.txt").lines().filter(|line| line.starts_with(['+', '-']));
    lines
        .flat_map(|line| {
            let mut fields = line.split_whitespace();
            let tone: f32 = fields.next().and_then(|tag| tag.parse().ok()).unwrap_or(0.0);
            fields.map(move |word| (word.replace('_', " "), tone))
        })
        .filter(|(_, tone)| tone.abs() >= LEAST_TONE)
        .collect()
}

/// Fainter words say little.
const LEAST_TONE: f32 = 0.5;

/// Whole phrases: a line is a label and phrases parted by `|`.
pub(super) fn phrases() -> Vec<Example> {
    let lines = include_str!("../words/phrases.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .filter_map(|line| line.split_once(':'))
        .flat_map(|(label, phrases)| {
            phrases
                .split('|')
                .map(str::trim)
                .filter(|phrase| !phrase.is_empty())
                .map(move |phrase| listed(phrase, label, PHRASE))
        })
        .collect()
}

const PHRASE: f32 = 4.0;

/// An example that is no text as it comes.
pub(super) fn listed(text: impl Into<String>, label: &str, weight: f32) -> Example {
    Example { calibrates: false, ..Example::new(text, label).weighing(weight) }
}
