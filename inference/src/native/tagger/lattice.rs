//! The best sequence of labels, and how sure the model is of it: Viterbi, and the forward-backward sums of a linear-chain
//! conditional random field (Lafferty, McCallum, Pereira 2001), both over the valid sequences only.

use super::label::{LABELS, Label, may_begin, may_end, may_follow};

/// What every label of one token weighs.
pub(crate) type Scores = [f32; LABELS];

/// What it weighs for a label to follow another; pairs that may not be are minus infinity.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    /// `[after][before]`, so that the labels before one are side by side.
    weight: [Scores; LABELS],
    /// The same, exponentiated; nothing for forbidden pairs.
    factor: [Scores; LABELS],
    /// The labels that may stand before each, to skip what cannot be.
    before: [([u8; LABELS], usize); LABELS],
}

impl Steps {
    /// `weight[before][after]`; what is said of forbidden pairs is not looked at.
    pub(crate) fn new(weight: &[Scores; LABELS]) -> Self {
        let mut steps = Self {
            weight: [[f32::NEG_INFINITY; LABELS]; LABELS],
            factor: [[0.0; LABELS]; LABELS],
            before: [([0; LABELS], 0); LABELS],
        };
        for (before, row) in weight.iter().enumerate() {
            for (after, &weight) in row.iter().enumerate() {
                if may_follow(before as Label, after as Label) {
                    steps.weight[after][before] = weight;
                    steps.factor[after][before] = exp(weight);
                    let (list, count) = &mut steps.before[after];
                    list[*count] = before as u8;
                    *count += 1;
                }
            }
        }
        steps
    }

    fn before(&self, after: usize) -> impl Iterator<Item = usize> + '_ {
        let (list, count) = &self.before[after];
        list[..*count].iter().map(|&before| usize::from(before))
    }
}

/// The heaviest valid sequence of labels. Equal ones: the one with the smaller label numbers, from the end on.
pub(crate) fn best(scores: &[Scores], steps: &Steps) -> Vec<Label> {
    let Some(first) = scores.first() else { return Vec::new() };
    let mut total: Scores = std::array::from_fn(|l| if may_begin(l as Label) { first[l] } else { f32::NEG_INFINITY });
    let mut came: Vec<[u8; LABELS]> = Vec::with_capacity(scores.len());
    for here in &scores[1..] {
        let mut next = [f32::NEG_INFINITY; LABELS];
        let mut from = [0_u8; LABELS];
        for after in 0..LABELS {
            for before in steps.before(after) {
                let weight = total[before] + steps.weight[after][before];
                if weight > next[after] {
                    next[after] = weight;
                    from[after] = before as u8;
                }
            }
            next[after] += here[after];
        }
        came.push(from);
        total = next;
    }
    let mut last = 0;
    for l in 1..LABELS {
        if may_end(l as Label) && total[l] > total[last] {
            last = l;
        }
    }
    let mut labels = vec![0; scores.len()];
    for at in (0..scores.len()).rev() {
        labels[at] = last as Label;
        if at > 0 {
            last = usize::from(came[at - 1][last]);
        }
    }
    labels
}

/// e to the power of x, to 1 part in a million, of numbers that are not above 80: the same on every machine, which the
/// system's own is not, and on whole registers.
#[inline]
fn exp(x: f32) -> f32 {
    let power = x.clamp(-80.0, 80.0) * std::f32::consts::LOG2_E;
    let whole = (power + 12_582_912.0) - 12_582_912.0;
    let part = (power - whole) * std::f32::consts::LN_2;
    let near = 1.0
        + part * (1.0 + part * (0.5 + part * (1.0 / 6.0 + part * (1.0 / 24.0 + part * (1.0 / 120.0 + part / 720.0)))));
    near * f32::from_bits(((whole as i32 + 127) << 23) as u32)
}

/// The sums over all valid sequences, scaled at each token so that long texts neither overflow nor vanish.
pub(crate) struct Sums {
    forward: Vec<Scores>,
    backward: Vec<Scores>,
    /// Each token's factors: its scores, exponentiated after taking off the largest.
    factor: Vec<Scores>,
    /// What each token's sum was divided by.
    scale: Vec<f32>,
    step: [Scores; LABELS],
}

impl Sums {
    pub(crate) fn new(scores: &[Scores], steps: &Steps) -> Self {
        let factor: Vec<Scores> = scores
            .iter()
            .map(|row| {
                let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.map(|score| exp(score - top))
            })
            .collect();
        let mut sums = Self {
            forward: Vec::with_capacity(scores.len()),
            backward: vec![[0.0; LABELS]; scores.len()],
            factor,
            scale: vec![1.0; scores.len()],
            step: steps.factor,
        };
        sums.go_forward(steps);
        sums.go_backward(steps);
        sums
    }

    fn go_forward(&mut self, steps: &Steps) {
        for at in 0..self.factor.len() {
            let mut row = self.factor[at];
            for (l, weight) in row.iter_mut().enumerate() {
                *weight *= match at.checked_sub(1) {
                    None => f32::from(u8::from(may_begin(l as Label))),
                    Some(before) => steps.before(l).map(|b| self.forward[before][b] * self.step[l][b]).sum(),
                };
            }
            self.scale[at] = row.iter().sum::<f32>().max(f32::MIN_POSITIVE);
            let scale = self.scale[at];
            self.forward.push(row.map(|weight| weight / scale));
        }
    }

    fn go_backward(&mut self, steps: &Steps) {
        let Some(last) = self.backward.len().checked_sub(1) else { return };
        self.backward[last] = std::array::from_fn(|l| f32::from(u8::from(may_end(l as Label))));
        for at in (0..last).rev() {
            let mut row = [0.0; LABELS];
            for after in 0..LABELS {
                let ahead = self.backward[at + 1][after] * self.factor[at + 1][after] / self.scale[at + 1];
                for before in steps.before(after) {
                    row[before] += ahead * self.step[after][before];
                }
            }
            self.backward[at] = row;
        }
    }

    /// The share of all sequences, by weight, that end as they may (the rest leave a name open).
    fn closed(&self) -> f32 {
        let Some(last) = self.forward.last() else { return 1.0 };
        (0..LABELS).filter(|&l| may_end(l as Label)).map(|l| last[l]).sum::<f32>().max(f32::MIN_POSITIVE)
    }

    /// How likely each label is at a token.
    pub(crate) fn likely(&self, at: usize) -> Scores {
        let closed = self.closed();
        std::array::from_fn(|l| self.forward[at][l] * self.backward[at][l] / closed)
    }

    /// How likely each step is from the token before `at` to it: `[before][after]`.
    pub(crate) fn likely_steps(&self, at: usize, steps: &Steps, mut each: impl FnMut(usize, usize, f32)) {
        let closed = self.closed();
        for after in 0..LABELS {
            let ahead = self.backward[at][after] * self.factor[at][after] / self.scale[at] / closed;
            for before in steps.before(after) {
                each(before, after, self.forward[at - 1][before] * self.step[after][before] * ahead);
            }
        }
    }

    /// How likely it is that just these labels stand from token `from` on.
    pub(crate) fn likely_run(&self, from: usize, labels: &[Label]) -> f32 {
        let Some(&first) = labels.first() else { return 1.0 };
        let mut share = self.forward[from][usize::from(first)];
        for (at, pair) in labels.windows(2).enumerate() {
            let (before, after) = (usize::from(pair[0]), usize::from(pair[1]));
            let at = from + at + 1;
            share *= self.step[after][before] * self.factor[at][after] / self.scale[at];
        }
        let last = labels[labels.len() - 1];
        share *= self.backward[from + labels.len() - 1][usize::from(last)] / self.closed();
        // Weights that no training gives can go beyond what numbers hold; then nothing can be said for these labels.
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}
