//! Fitting weights: logistic regression over binary features, one text at a time, with a step of its own for every weight
//! (AdaGrad: Duchi, Hazan and Singer 2011).

use super::Step;
use crate::train::random::Random;

/// A text's features with what they should lead to.
#[derive(Debug, Clone)]
pub struct Point<T> {
    /// Sorted places, each once.
    pub places: Vec<u32>,
    pub target: T,
    /// How much it counts.
    pub weight: f32,
}

/// A fitted column.
#[derive(Debug, Clone)]
pub struct Column {
    pub weights: Vec<f32>,
    pub bias: f32,
}

impl Column {
    /// The sum over features divided by the root of their number, and the bias.
    #[must_use]
    pub fn sum(&self, places: &[u32]) -> f32 {
        let sum: f32 = places.iter().map(|place| self.weights[*place as usize]).sum();
        sum / root(places.len()) + self.bias
    }
}

/// Fits one column: `target` is true or false.
#[must_use]
pub fn binary(points: &[Point<bool>], rows: usize, step: &Step, random: &mut Random) -> Column {
    let ratio = count_ratios(points, rows, step.count_ratio);
    let mut weights = vec![0.0_f32; rows];
    let mut squares = vec![FIRST_SQUARE; rows];
    let (mut bias, mut bias_squares) = (0.0_f32, 1.0_f32);
    let mut order: Vec<usize> = (0..points.len()).collect();
    let mut kept = Vec::new();
    for _ in 0..step.epochs {
        random.shuffle(&mut order);
        for at in &order {
            let point = &points[*at];
            drop_out(&point.places, step.dropout, random, &mut kept);
            if kept.is_empty() {
                continue;
            }
            let scale = 1.0 / root(kept.len());
            let sum: f32 = kept.iter().map(|place| weights[*place as usize] * ratio[*place as usize]).sum();
            let share = 1.0 / (1.0 + (-(sum * scale + bias)).exp());
            let target = f32::from(u8::from(point.target)) * (1.0 - 2.0 * step.smoothing) + step.smoothing;
            let slope = (share - target) * point.weight;
            for place in &kept {
                let place = *place as usize;
                let slope = slope * scale * ratio[place];
                squares[place] += slope * slope;
                weights[place] -= step.rate * slope / squares[place].sqrt();
            }
            bias_squares += slope * slope;
            bias -= step.rate * BIAS_RATE * slope / bias_squares.sqrt();
        }
    }
    for (weight, ratio) in weights.iter_mut().zip(&ratio) {
        *weight *= ratio;
    }
    Column { weights, bias }
}

/// Fits a column a label: `target` is the label's number. Weights are row-major.
#[must_use]
pub fn softmax(
    points: &[Point<usize>],
    rows: usize,
    labels: usize,
    step: &Step,
    random: &mut Random,
) -> (Vec<f32>, Vec<f32>) {
    let mut weights = vec![0.0_f32; rows * labels];
    let mut squares = vec![FIRST_SQUARE; rows * labels];
    let (mut biases, mut bias_squares) = (vec![0.0_f32; labels], vec![1.0_f32; labels]);
    let mut order: Vec<usize> = (0..points.len()).collect();
    let (mut kept, mut shares) = (Vec::new(), vec![0.0_f32; labels]);
    for _ in 0..step.epochs {
        random.shuffle(&mut order);
        for at in &order {
            let point = &points[*at];
            drop_out(&point.places, step.dropout, random, &mut kept);
            if kept.is_empty() {
                continue;
            }
            let scale = 1.0 / root(kept.len());
            shares.fill(0.0);
            for place in &kept {
                let start = *place as usize * labels;
                for (share, weight) in shares.iter_mut().zip(&weights[start..start + labels]) {
                    *share += weight;
                }
            }
            for (share, bias) in shares.iter_mut().zip(&biases) {
                *share = *share * scale + bias;
            }
            to_shares(&mut shares);
            // What is left of `shares` are the slopes.
            let even = step.smoothing / labels as f32;
            for (label, share) in shares.iter_mut().enumerate() {
                let target = f32::from(u8::from(label == point.target)) * (1.0 - step.smoothing) + even;
                *share = (*share - target) * point.weight;
            }
            for place in &kept {
                let start = *place as usize * labels;
                let row = weights[start..start + labels].iter_mut().zip(&mut squares[start..start + labels]);
                for ((weight, square), slope) in row.zip(&shares) {
                    let slope = slope * scale;
                    *square += slope * slope;
                    *weight -= step.rate * slope / square.sqrt();
                }
            }
            for ((bias, square), slope) in biases.iter_mut().zip(&mut bias_squares).zip(&shares) {
                *square += slope * slope;
                *bias -= step.rate * BIAS_RATE * slope / square.sqrt();
            }
        }
    }
    (weights, biases)
}

/// What every weight's sum of squares starts from: the first steps are not too long.
const FIRST_SQUARE: f32 = 0.1;
/// A bias sees every text, a weight few: it moves more slowly.
const BIAS_RATE: f32 = 0.1;

fn root(features: usize) -> f32 {
    (features.max(1) as f32).sqrt()
}

fn to_shares(sums: &mut [f32]) {
    let most = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut all = 0.0;
    for sum in sums.iter_mut() {
        *sum = (*sum - most).exp();
        all += *sum;
    }
    for sum in sums {
        *sum /= all;
    }
}

/// Leaves out features by chance, so that none alone decides.
fn drop_out(places: &[u32], share: f32, random: &mut Random, kept: &mut Vec<u32>) {
    kept.clear();
    if share <= 0.0 {
        kept.extend(places);
    } else {
        kept.extend(places.iter().filter(|_| random.share() >= share));
    }
}

/// How unevenly each feature is spread over the two sides: the log-count ratio of naive Bayes, by which its weight is
/// scaled (Wang and Manning 2012), mixed with 1.
fn count_ratios(points: &[Point<bool>], rows: usize, mix: f32) -> Vec<f32> {
    if mix <= 0.0 {
        return vec![1.0; rows];
    }
    let mut counts = [vec![1.0_f32; rows], vec![1.0_f32; rows]];
    let mut all = [0.0_f32; 2];
    for point in points {
        let side = usize::from(point.target);
        all[side] += point.weight;
        for place in &point.places {
            counts[side][*place as usize] += point.weight;
        }
    }
    let [no, yes] = counts;
    no.iter().zip(&yes).map(|(no, yes)| 1.0 - mix + mix * ((yes / all[1]) / (no / all[0])).ln().abs()).collect()
}
