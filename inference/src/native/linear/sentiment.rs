//! The answer of a sentiment model. Two questions are asked apart: is there an opinion, and which way does it go? So that
//! sentences without one teach nothing about good and bad.

use serde::Serialize;

use super::file::{Sentiment, SentimentCurves};
use crate::text::language;
use crate::text::script::{Script, script};

/// In this order everywhere.
pub const LABELS: [&str; 3] = ["Negative", "Neutral", "Positive"];

/// How likely each label is; they add up to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    pub negative: f32,
    pub neutral: f32,
    pub positive: f32,
}

#[derive(Serialize)]
struct Answer<'a> {
    sentiment: &'static str,
    score: f64,
    probabilities: Probabilities,
    language: &'static str,
    model_info: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Probabilities {
    positive: f64,
    negative: f64,
    neutral: f64,
}

/// The result document; `None` when the sums are no numbers.
pub(super) fn answer(head: &Sentiment, text: &str, sums: &[f32], name: &str) -> Option<String> {
    let shares = shares(head, text, sums)?;
    let (sentiment, score) = shares.likeliest();
    let answer = Answer {
        sentiment,
        score: round(score),
        probabilities: Probabilities {
            positive: round(shares.positive),
            negative: round(shares.negative),
            neutral: round(shares.neutral),
        },
        language: language(text),
        model_info: name,
    };
    serde_json::to_string(&answer).ok()
}

/// The shares of the labels, from the sums of the two columns.
#[must_use]
pub fn shares(head: &Sentiment, text: &str, sums: &[f32]) -> Option<Shares> {
    let [polarity, neutrality] = *sums else { return None };
    let SentimentCurves { polarity: way, neutrality: none } = match script(text) {
        Script::Han => &head.han,
        Script::Latin | Script::Other => &head.latin,
    };
    let (positive, neutral) = (way.probability(polarity), none.probability(neutrality));
    let shares = Shares { negative: (1.0 - neutral) * (1.0 - positive), neutral, positive: (1.0 - neutral) * positive };
    (shares.negative + shares.positive + shares.neutral).is_finite().then_some(shares)
}

impl Shares {
    /// Of two alike, Neutral.
    #[must_use]
    pub fn likeliest(&self) -> (&'static str, f32) {
        if self.positive > self.negative && self.positive > self.neutral {
            ("Positive", self.positive)
        } else if self.negative > self.positive && self.negative > self.neutral {
            ("Negative", self.negative)
        } else {
            ("Neutral", self.neutral)
        }
    }
}

/// Four decimals say all that is known.
pub(super) fn round(share: f32) -> f64 {
    (f64::from(share) * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::super::file::Curve;
    use super::*;

    #[test]
    fn shares_follow_both_questions() {
        let curve = Curve { slope: 1.0, shift: 0.0 };
        let curves = SentimentCurves { polarity: curve, neutrality: curve };
        let head = Sentiment { han: curves.clone(), latin: curves };
        for (sums, label) in [
            ([3.0, -3.0], "Positive"),
            ([-3.0, -3.0], "Negative"),
            ([3.0, 3.0], "Neutral"),
            ([0.0, 0.0], "Neutral"),
            // A doubtful opinion is no opinion, unless there surely is one.
            ([0.1, -0.3], "Neutral"),
            ([0.1, -3.0], "Positive"),
        ] {
            let shares = shares(&head, "好", &sums).unwrap();
            assert_eq!(shares.likeliest().0, label, "{sums:?} {shares:?}");
            assert!((shares.negative + shares.neutral + shares.positive - 1.0).abs() < 1e-6);
        }
        assert_eq!(shares(&head, "好", &[f32::NAN, 0.0]), None);
    }
}
