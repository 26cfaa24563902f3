//! How good a model is on labelled texts: any package whose results name a label and how likely it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::loaded::Loaded;
use crate::model::InferError;
use crate::train::examples::Example;

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Texts that were asked; those that got no answer count as wrong.
    pub texts: usize,
    /// The share whose first label was the right one.
    pub accuracy: f64,
    /// The same when only labels that occur in the set may be answered, by their probabilities: what a set with two labels
    /// says of a model with three. Only where results list `probabilities` or `labels`.
    pub accuracy_among_its_labels: Option<f64>,
    /// The mean of the labels' F1.
    pub macro_f1: f64,
    /// Expected calibration error over ten bins: how far scores are from the shares that are right (Naeini et al. 2015).
    pub calibration_error: f64,
    /// The share that a model with an `in_scope` answer places out of scope.
    pub out_of_scope: Option<f64>,
    /// Of each label of the set: how many texts, and what they were answered.
    pub answers: BTreeMap<String, BTreeMap<String, usize>>,
    /// How many texts had no answer.
    pub failed: usize,
    /// One thread's time in the model, reading of documents included.
    #[serde(skip)]
    pub took: Duration,
}

/// Texts a call.
const BATCH: usize = 32;
const BINS: usize = 10;

struct Answer {
    label: String,
    score: f64,
    shares: BTreeMap<String, f64>,
    in_scope: Option<bool>,
}

/// Asks a model every example's text, `{"text": …}`, and compares.
#[must_use]
pub fn evaluate(model: &Loaded, examples: &[Example]) -> Report {
    let started = Instant::now();
    let mut answers = Vec::with_capacity(examples.len());
    for batch in examples.chunks(BATCH) {
        answers.extend(ask(model, batch));
    }
    let took = started.elapsed();
    Report { took, ..compare(examples, &answers) }
}

fn ask(model: &Loaded, batch: &[Example]) -> Vec<Option<Answer>> {
    let read: Vec<_> = batch.iter().map(|example| model.prepare(&json!({ "text": example.text }))).collect();
    let prepared: Vec<_> = read.iter().filter_map(|read| read.as_ref().ok().cloned()).collect();
    let mut results: std::vec::IntoIter<Result<String, InferError>> = model.infer(&prepared).into_iter();
    read.iter()
        .map(|read| read.as_ref().ok().and_then(|_| results.next()?.ok()).and_then(|result| answer(&result)))
        .collect()
}

fn answer(result: &str) -> Option<Answer> {
    let result: Value = serde_json::from_str(result).ok()?;
    let label = result.get("sentiment").or_else(|| result.get("label"))?.as_str()?.to_owned();
    let score = result.get("score").and_then(Value::as_f64).unwrap_or(0.0);
    let mut shares = BTreeMap::new();
    for (label, share) in result.get("probabilities").and_then(Value::as_object).into_iter().flatten() {
        shares.insert(label.clone(), share.as_f64()?);
    }
    for share in result.get("labels").and_then(Value::as_array).into_iter().flatten() {
        shares.insert(share.get("label")?.as_str()?.to_owned(), share.get("score")?.as_f64()?);
    }
    Some(Answer { label, score, shares, in_scope: result.get("in_scope").and_then(Value::as_bool) })
}

fn compare(examples: &[Example], answers: &[Option<Answer>]) -> Report {
    let labels: BTreeSet<&str> = examples.iter().map(|example| example.label.as_str()).collect();
    let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let (mut right, mut right_among, mut has_shares, mut out, mut has_scope) = (0, 0, false, 0, false);
    let mut bins = [(0_usize, 0.0_f64, 0_usize); BINS];
    for (example, answer) in examples.iter().zip(answers) {
        let truth = example.label.as_str();
        let Some(answer) = answer else { continue };
        *counts.entry(truth.to_owned()).or_default().entry(answer.label.clone()).or_default() += 1;
        let is_right = answer.label == truth;
        right += usize::from(is_right);
        let bin = &mut bins[((answer.score * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + 1, bin.1 + answer.score, bin.2 + usize::from(is_right));
        has_shares |= !answer.shares.is_empty();
        let among = answer.shares.iter().filter(|(label, _)| labels.contains(label.as_str()));
        let likeliest = among.max_by(|one, other| one.1.total_cmp(other.1)).map(|(label, _)| label.as_str());
        right_among += usize::from(likeliest == Some(truth));
        has_scope |= answer.in_scope.is_some();
        out += usize::from(answer.in_scope == Some(false));
    }
    let answered = answers.iter().flatten().count();
    let share = |part: usize| part as f64 / examples.len().max(1) as f64;
    let error: f64 = bins.iter().map(|(_, scores, right)| (scores - *right as f64).abs()).sum();
    Report {
        texts: examples.len(),
        accuracy: share(right),
        accuracy_among_its_labels: has_shares.then(|| share(right_among)),
        macro_f1: macro_f1(&labels, &counts, examples),
        calibration_error: error / answered.max(1) as f64,
        out_of_scope: has_scope.then(|| share(out)),
        answers: counts,
        failed: examples.len() - answered,
        took: Duration::ZERO,
    }
}

fn macro_f1(labels: &BTreeSet<&str>, counts: &BTreeMap<String, BTreeMap<String, usize>>, examples: &[Example]) -> f64 {
    let of = |label: &str| {
        let right = counts.get(label).and_then(|row| row.get(label)).copied().unwrap_or(0);
        let said: usize = counts.values().filter_map(|row| row.get(label)).sum();
        let true_ones = examples.iter().filter(|example| example.label == label).count();
        2.0 * right as f64 / (said + true_ones).max(1) as f64
    };
    labels.iter().map(|label| of(label)).sum::<f64>() / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(label: &str, score: f64, shares: &[(&str, f64)]) -> Option<Answer> {
        let shares = shares.iter().map(|(label, share)| ((*label).to_owned(), *share)).collect();
        Some(Answer { label: label.to_owned(), score, shares, in_scope: None })
    }

    #[test]
    fn answers_are_counted() {
        let examples = [("a", "Positive"), ("b", "Positive"), ("c", "Negative"), ("d", "Negative")]
            .map(|(text, label)| Example::new(text, label));
        let answers = [
            said("Positive", 0.9, &[("Positive", 0.9), ("Negative", 0.1)]),
            said("Neutral", 0.5, &[("Positive", 0.3), ("Negative", 0.2), ("Neutral", 0.5)]),
            said("Positive", 0.7, &[("Positive", 0.7), ("Negative", 0.3)]),
            None,
        ];
        let report = compare(&examples, &answers);
        assert_eq!((report.texts, report.failed, report.out_of_scope), (4, 1, None));
        assert!((report.accuracy - 0.25).abs() < 1e-9);
        assert_eq!(report.accuracy_among_its_labels, Some(0.5));
        // F1 of Positive is 2·1/(2 said + 2 true), of Negative 0.
        assert!((report.macro_f1 - 0.25).abs() < 1e-9);
        // Off by 0.1, 0.5 and 0.7 in three bins.
        assert!((report.calibration_error - 1.3 / 3.0).abs() < 1e-9, "{}", report.calibration_error);
        assert_eq!(report.answers["Positive"], BTreeMap::from([("Neutral".to_owned(), 1), ("Positive".to_owned(), 1)]));
    }
}
