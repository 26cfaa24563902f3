//! The answer of a model with any labels: the likeliest ones, and whether the text belongs to any of them.

use serde::Serialize;

use super::file::Labels;
use super::sentiment::round;

#[derive(Serialize)]
struct Answer<'a> {
    label: &'a str,
    score: f64,
    labels: Vec<Share<'a>>,
    in_scope: bool,
    model_info: &'a str,
}

#[derive(Serialize)]
struct Share<'a> {
    label: &'a str,
    score: f64,
}

/// The result document; `None` when the sums are no numbers.
pub(super) fn answer(head: &Labels, labels: &[String], sums: &[f32], top: usize, name: &str) -> Option<String> {
    let shares = shares(head, sums)?;
    let mut order: Vec<usize> = (0..shares.len()).collect();
    let most = top.clamp(1, order.len());
    // Of two alike, the one that stands first.
    let by_share = |a: &usize, b: &usize| shares[*b].total_cmp(&shares[*a]).then(a.cmp(b));
    if most < order.len() {
        order.select_nth_unstable_by(most - 1, by_share);
        order.truncate(most);
    }
    order.sort_unstable_by(by_share);
    let (first, score) = (*order.first()?, shares[*order.first()?]);
    let answer = Answer {
        label: &labels[first],
        score: round(score),
        labels: order.iter().map(|at| Share { label: &labels[*at], score: round(shares[*at]) }).collect(),
        in_scope: in_scope(head, &labels[first], score),
        model_info: name,
    };
    serde_json::to_string(&answer).ok()
}

/// Shares of the labels, from the sums of their columns.
#[must_use]
pub fn shares(head: &Labels, sums: &[f32]) -> Option<Vec<f32>> {
    let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f32> = sums.iter().map(|sum| ((sum - most) / head.temperature).exp()).collect();
    let all: f32 = powers.iter().sum();
    (all.is_finite() && all > 0.0).then(|| powers.into_iter().map(|power| power / all).collect())
}

/// Whether a text whose likeliest label is this one belongs to any label.
#[must_use]
pub fn in_scope(head: &Labels, label: &str, score: f32) -> bool {
    score >= head.threshold && head.out_of_scope.as_deref() != Some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_labels_come_first_and_doubt_is_out_of_scope() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let head = Labels { temperature: 0.5, out_of_scope: Some("c".to_owned()), threshold: 0.5 };
        for (sums, label, in_scope, listed) in [
            ([0.0, 2.0, 1.0], "b", true, ["b", "c"]),
            ([0.0, 0.1, 0.0], "b", false, ["b", "a"]),
            ([0.0, 0.0, 3.0], "c", false, ["c", "a"]),
            ([1.0, 1.0, -9.0], "a", true, ["a", "b"]),
        ] {
            let answer: serde_json::Value =
                serde_json::from_str(&answer(&head, &labels, &sums, 2, "m").unwrap()).unwrap();
            assert_eq!(
                (answer["label"].as_str(), answer["in_scope"].as_bool()),
                (Some(label), Some(in_scope)),
                "{answer}"
            );
            let names: Vec<&str> =
                answer["labels"].as_array().unwrap().iter().filter_map(|l| l["label"].as_str()).collect();
            assert_eq!(names, listed);
        }
        assert_eq!(answer(&head, &labels, &[f32::NAN, 0.0, 0.0], 2, "m"), None);
    }
}
