//! Learning the weights: a linear-chain conditional random field, by stochastic gradient with a step size of its own for
//! each weight (AdaGrad, Duchi, Hazan, Singer 2011). Of the weights after each of the last rounds the mean is kept, which
//! smooths as averaging does for a perceptron. Everything follows from the seed: the same data give the same bytes.

use std::collections::HashMap;

use crate::native::tagger::label::{LABELS, Label, may_follow};
use crate::native::tagger::lattice::{Scores, Steps, Sums};

use super::shuffle::shuffle;
use crate::train::random::Random;

/// A sentence: the features of each token, by number, and the labels.
#[derive(Debug, Default)]
pub(crate) struct Example {
    pub(crate) features: Vec<Vec<u32>>,
    pub(crate) labels: Vec<Label>,
    pub(crate) weight: f32,
}

#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub rounds: usize,
    /// The mean is over this many last rounds.
    pub averaged: usize,
    pub rate: f32,
    /// How much every weight is pulled to zero (the square penalty), in units of one round.
    pub decay: f32,
    /// Of a token's features, the share left out at random each time, so that no single one is relied on.
    pub dropout: f32,
    /// Features seen fewer times are left out.
    pub least: u32,
    pub seed: u64,
}

pub(crate) struct Learnt {
    pub(crate) features: Vec<(u64, Scores)>,
    pub(crate) steps: [Scores; LABELS],
}

/// Numbers for features that occur often enough.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    numbers: HashMap<u64, u32>,
    hashes: Vec<u64>,
}

impl Numbers {
    /// Of features in order of first sight, so that numbers do not depend on a map's order.
    pub(crate) fn new<'a>(features: impl Iterator<Item = &'a [u64]>, least: u32) -> Self {
        let mut counts: HashMap<u64, u32> = HashMap::new();
        let mut order = Vec::new();
        for token in features {
            for &hash in token {
                let count = counts.entry(hash).or_insert(0);
                *count += 1;
                if *count == least {
                    order.push(hash);
                }
            }
        }
        let numbers = order.iter().enumerate().map(|(number, &hash)| (hash, number as u32)).collect();
        Self { numbers, hashes: order }
    }

    pub(crate) fn of(&self, token: &[u64]) -> Vec<u32> {
        token.iter().filter_map(|hash| self.numbers.get(hash).copied()).collect()
    }
}

pub(crate) fn learn(examples: &[Example], numbers: &Numbers, recipe: Recipe) -> Learnt {
    let mut state = State::new(numbers.hashes.len());
    let mut random = Random::new(recipe.seed);
    let mut order: Vec<usize> = (0..examples.len()).collect();
    let mut sum = vec![[0.0_f32; LABELS]; numbers.hashes.len()];
    let mut sum_steps = [[0.0_f32; LABELS]; LABELS];
    for round in 0..recipe.rounds {
        shuffle(&mut order, &mut random);
        for &number in &order {
            state.learn_from(&examples[number], recipe, &mut random);
        }
        state.decay(recipe);
        if round + recipe.averaged >= recipe.rounds {
            for (sum, row) in sum.iter_mut().zip(&state.weight) {
                for (sum, weight) in sum.iter_mut().zip(row) {
                    *sum += weight / recipe.averaged as f32;
                }
            }
            for (sum, row) in sum_steps.iter_mut().zip(&state.step) {
                for (sum, weight) in sum.iter_mut().zip(row) {
                    *sum += weight / recipe.averaged as f32;
                }
            }
        }
    }
    Learnt { features: numbers.hashes.iter().copied().zip(sum).collect(), steps: sum_steps }
}

struct State {
    weight: Vec<Scores>,
    /// The sum of squared gradients of each weight.
    slope: Vec<Scores>,
    step: [Scores; LABELS],
    step_slope: [Scores; LABELS],
}

const START: f32 = 1.0;

impl State {
    fn new(features: usize) -> Self {
        Self {
            weight: vec![[0.0; LABELS]; features],
            slope: vec![[START; LABELS]; features],
            step: [[0.0; LABELS]; LABELS],
            step_slope: [[START; LABELS]; LABELS],
        }
    }

    fn learn_from(&mut self, example: &Example, recipe: Recipe, random: &mut Random) {
        let kept: Vec<Vec<u32>> = example
            .features
            .iter()
            .map(|token| {
                token.iter().copied().filter(|_| recipe.dropout == 0.0 || random.share() >= recipe.dropout).collect()
            })
            .collect();
        let swell = 1.0 / (1.0 - recipe.dropout);
        let scores: Vec<Scores> = kept
            .iter()
            .map(|token| {
                let mut scores = [0.0; LABELS];
                for &feature in token {
                    for (score, weight) in scores.iter_mut().zip(&self.weight[feature as usize]) {
                        *score += weight * swell;
                    }
                }
                scores
            })
            .collect();
        let steps = Steps::new(&self.step);
        let sums = Sums::new(&scores, &steps);
        let mut step_gradient = [[0.0_f32; LABELS]; LABELS];
        for at in 0..kept.len() {
            let mut gradient = sums.likely(at);
            gradient[usize::from(example.labels[at])] -= 1.0;
            gradient.iter_mut().for_each(|g| *g *= example.weight);
            if gradient.iter().all(|g| g.abs() < 1e-3) {
                continue;
            }
            for &feature in &kept[at] {
                descend(&mut self.weight[feature as usize], &mut self.slope[feature as usize], &gradient, recipe.rate);
            }
        }
        for at in 1..kept.len() {
            sums.likely_steps(at, &steps, |before, after, share| {
                step_gradient[before][after] += share * example.weight
            });
            step_gradient[usize::from(example.labels[at - 1])][usize::from(example.labels[at])] -= example.weight;
        }
        for ((step, slope), gradient) in self.step.iter_mut().zip(&mut self.step_slope).zip(&step_gradient) {
            descend(step, slope, gradient, recipe.rate);
        }
    }

    fn decay(&mut self, recipe: Recipe) {
        if recipe.decay == 0.0 {
            return;
        }
        for (row, slope) in self.weight.iter_mut().zip(&self.slope) {
            for (weight, slope) in row.iter_mut().zip(slope) {
                *weight /= 1.0 + recipe.decay * recipe.rate / slope.sqrt();
            }
        }
    }
}

fn descend(weight: &mut Scores, slope: &mut Scores, gradient: &Scores, rate: f32) {
    for ((weight, slope), g) in weight.iter_mut().zip(slope).zip(gradient) {
        *slope += g * g;
        *weight -= rate * g / slope.sqrt();
    }
}

/// The steps that cannot be taken weigh nothing in the file.
pub(crate) fn only_possible(steps: &[Scores; LABELS]) -> [Scores; LABELS] {
    std::array::from_fn(|before| {
        std::array::from_fn(
            |after| if may_follow(before as Label, after as Label) { steps[before][after] } else { 0.0 },
        )
    })
}
