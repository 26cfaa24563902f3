//! The lattice against all sequences, written out.

use proptest::prelude::*;

use super::label::{LABELS, Label, may_begin, may_end, may_follow};
use super::lattice::{Scores, Steps, Sums, best};

fn is_valid(labels: &[Label]) -> bool {
    let first = labels.first().is_none_or(|&label| may_begin(label));
    let last = labels.last().is_none_or(|&label| may_end(label));
    first && last && labels.windows(2).all(|pair| may_follow(pair[0], pair[1]))
}

fn weight(labels: &[Label], scores: &[Scores], steps: &[Scores; LABELS]) -> f32 {
    let own: f32 = labels.iter().zip(scores).map(|(&label, row)| row[usize::from(label)]).sum();
    own + labels.windows(2).map(|pair| steps[usize::from(pair[0])][usize::from(pair[1])]).sum::<f32>()
}

fn all(length: usize) -> Vec<Vec<Label>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all =
            all.iter().flat_map(|before| (0..LABELS as Label).map(|label| [&before[..], &[label]].concat())).collect();
    }
    all.retain(|labels| is_valid(labels));
    all
}

fn scores(length: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Scores>> {
    proptest::collection::vec(proptest::array::uniform13(-9.0_f32..9.0), length)
}

fn steps() -> impl Strategy<Value = [Scores; LABELS]> {
    proptest::array::uniform13(proptest::array::uniform13(-3.0_f32..3.0))
}

proptest! {
    #[test]
    fn no_sequence_is_ever_invalid(scores in scores(0..60), steps in steps(), shift in -1e6_f32..1e6) {
        let scores: Vec<Scores> = scores.iter().map(|row| row.map(|score| score * shift)).collect();
        let labels = best(&scores, &Steps::new(&steps));
        prop_assert_eq!(labels.len(), scores.len());
        prop_assert!(is_valid(&labels), "{:?}", labels);
    }

    #[test]
    fn the_best_sequence_is_the_heaviest_of_all(scores in scores(1..4), steps in steps()) {
        let found = weight(&best(&scores, &Steps::new(&steps)), &scores, &steps);
        let heaviest = all(scores.len()).iter().map(|labels| weight(labels, &scores, &steps)).fold(f32::MIN, f32::max);
        prop_assert!((found - heaviest).abs() < 1e-3, "{found} {heaviest}");
    }

    #[test]
    fn the_sums_are_those_over_all_sequences(scores in scores(1..4), steps in steps()) {
        let table = Steps::new(&steps);
        let sums = Sums::new(&scores, &table);
        let all = all(scores.len());
        let each: Vec<f64> = all.iter().map(|labels| f64::from(weight(labels, &scores, &steps)).exp()).collect();
        let total: f64 = each.iter().sum();
        for at in 0..scores.len() {
            let mut likely = [0.0; LABELS];
            all.iter().zip(&each).for_each(|(labels, weight)| likely[usize::from(labels[at])] += weight / total);
            for (ours, theirs) in sums.likely(at).into_iter().zip(likely) {
                prop_assert!((f64::from(ours) - theirs).abs() < 1e-4, "{ours} {theirs}");
            }
        }
        let likeliest = best(&scores, &table);
        let share: f64 = all.iter().zip(&each).filter(|(labels, _)| **labels == likeliest).map(|(_, weight)| weight / total).sum();
        prop_assert!((f64::from(sums.likely_run(0, &likeliest)) - share).abs() < 1e-4);
    }

    #[test]
    fn long_sentences_neither_overflow_nor_vanish(row in proptest::array::uniform13(-12.0_f32..12.0), steps in steps()) {
        let scores = vec![row; 400];
        let sums = Sums::new(&scores, &Steps::new(&steps));
        for at in [0, 200, 399] {
            let total: f32 = sums.likely(at).iter().sum();
            prop_assert!((total - 1.0).abs() < 1e-2, "{total}");
        }
    }
}
