//! The classes of `ai.onnx.ml` classifiers, and what is made of their scores.

use super::attributes::Attributes;
use super::operator::shaped;
use crate::model::{Tensor, TensorData};

/// Labels, by whole numbers or by names.
pub(super) enum Classes {
    Numbers(Vec<i64>),
    Names(Vec<String>),
}

impl Classes {
    /// Reads `classlabels_strings`, or the attribute `numbers`.
    pub(super) fn read(attributes: &Attributes<'_>, numbers: &str) -> Result<Self, String> {
        let (names, numbers) = (attributes.texts("classlabels_strings"), attributes.ints(numbers));
        match (names.is_empty(), numbers.is_empty()) {
            (false, true) => Ok(Self::Names(names)),
            (true, false) => Ok(Self::Numbers(numbers.to_vec())),
            _ => Err("it names its classes twice, or not at all".to_owned()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.len(),
            Self::Names(names) => names.len(),
        }
    }

    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Numbers(numbers) => numbers.iter().map(ToString::to_string).collect(),
            Self::Names(names) => names.clone(),
        }
    }

    /// One label a row, by places.
    pub(super) fn labels(&self, places: &[usize]) -> Tensor {
        let data = match self {
            Self::Numbers(numbers) => TensorData::I64(places.iter().map(|place| numbers[*place]).collect()),
            Self::Names(names) => TensorData::Text(places.iter().map(|place| names[*place].clone()).collect()),
        };
        shaped(vec![places.len()], data)
    }

    /// The place of the greatest score among those that have one; the first of several alike.
    pub(super) fn best(scores: &[f32], voted: &[bool]) -> usize {
        let voted = (0..scores.len()).filter(|place| voted[*place]);
        voted.reduce(|best, place| if scores[place] > scores[best] { place } else { best }).unwrap_or(0)
    }
}

/// `post_transform`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    Nothing,
    Softmax,
    /// Softmax that leaves zeros alone.
    SoftmaxZero,
    Logistic,
    /// The inverse of the normal distribution's error function.
    Probit,
}

/// How one score becomes those of two classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// It is a share: the other class has what is missing to 1.
    Complement,
    /// It is a distance: the other class has its opposite.
    Opposite,
}

impl Transform {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        match attributes.text("post_transform", "NONE").as_str() {
            "NONE" => Ok(Self::Nothing),
            "SOFTMAX" => Ok(Self::Softmax),
            "SOFTMAX_ZERO" => Ok(Self::SoftmaxZero),
            "LOGISTIC" => Ok(Self::Logistic),
            "PROBIT" => Ok(Self::Probit),
            other => Err(format!("its post_transform is {other:?}")),
        }
    }

    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::Nothing => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax => softmax(scores, false),
            Self::SoftmaxZero => softmax(scores, true),
        }
    }

    /// Of one score for two classes.
    pub(super) fn two(self, score: f32, second: Second) -> Vec<f32> {
        match (self, second) {
            (Self::Probit, _) => vec![1.0 - probit(score), probit(score)],
            (_, Second::Complement) => vec![1.0 - score, score],
            (Self::Logistic, Second::Opposite) => vec![logistic(-score), logistic(score)],
            (_, Second::Opposite) => vec![-score, score],
        }
    }
}

pub(super) fn logistic(score: f32) -> f32 {
    let share = 1.0 / (1.0 + (-score.abs()).exp());
    if score < 0.0 { 1.0 - share } else { share }
}

pub(super) fn softmax(scores: &mut [f32], keep_zeros: bool) {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        // ONNX Runtime's own bound for "zero".
        if !keep_zeros || score.abs() > 1e-7 {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= (-largest).exp();
        }
    }
    if sum != 0.0 {
        scores.iter_mut().for_each(|score| *score /= sum);
    }
}

/// √2 · erf⁻¹(2x − 1), with Winitzki's approximation of erf⁻¹ (2008), which ONNX Runtime takes too.
fn probit(score: f32) -> f32 {
    let x = 2.0 * score - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let w = 1.0 / 0.147 * log;
    std::f32::consts::SQRT_2 * sign * (-v + (v * v - w).sqrt()).sqrt()
}
