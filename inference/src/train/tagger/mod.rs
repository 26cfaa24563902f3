//! Making a tagger: sentences with names marked and lists of words in, one file a language out; and measuring it.
//!
//! 1. [`folder`] – what a folder of data sets holds, and what each file is used for; [`sample`] reads them.
//! 2. [`chinese`], [`english`] – the lexicon of each language; [`clusters`] – words that are used alike.
//! 3. [`learn`] – the weights.
//! 4. [`measure`] – how well names are found.

pub mod chinese;
pub mod clusters;
pub mod english;
pub mod folder;
pub mod learn;
pub mod measure;
pub mod package;
pub mod sample;
mod shuffle;

use crate::native::tagger::features::Features;
use crate::native::tagger::label::{Label, Span, labels_of};
use crate::native::tagger::language::{Text, extract, write};
use crate::native::tagger::lattice::Scores;
use crate::native::tagger::lexicon::Lexicon;
use crate::native::tagger::token::{Token, characters};
use crate::native::tagger::weights::Pressed;
use crate::native::tagger::{Language, fold};

use learn::{Example, Numbers, Recipe, learn, only_possible};
use sample::Sample;

/// A sentence to learn from, and how much it counts.
pub type Weighted = (Sample, f32);

/// How a language's tagger is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub recipe: Recipe,
    /// The file may have this many bytes: the features that weigh least are left out.
    pub largest: usize,
    /// Single weights smaller than this are left out.
    pub least_weight: f32,
    /// How much more than learnt a name must weigh against none; below 0, fewer are missed and more are wrong.
    pub shy: f32,
}

/// A tagger's file, and what it took.
pub struct Trained {
    pub file: Vec<u8>,
    pub sentences: usize,
    /// Names that do not begin and end where tokens do, and so were not learnt.
    pub off_tokens: usize,
    pub words: usize,
    pub features: usize,
    pub kept: usize,
}

/// Makes the Chinese tagger.
pub fn train_chinese(sources: &chinese::Sources, samples: &[Weighted], plan: &Plan) -> Trained {
    let lexicon = chinese::lexicon(sources, samples, fold);
    train(Language::Chinese, &lexicon, samples, plan)
}

/// Makes the English tagger.
pub fn train_english(sources: &english::Sources, samples: &[Weighted], plan: &Plan) -> Trained {
    let lexicon = english::lexicon(sources, samples);
    train(Language::English, &lexicon, samples, plan)
}

fn train(language: Language, lexicon: &Lexicon, samples: &[Weighted], plan: &Plan) -> Trained {
    let mut off_tokens = 0;
    let seen: Vec<(Features, Vec<Label>)> =
        samples.iter().map(|(sample, _)| see(language, lexicon, sample, &mut off_tokens)).collect();
    let numbers = Numbers::new(seen.iter().flat_map(|(features, _)| features.tokens()), plan.recipe.least);
    let examples: Vec<Example> = seen
        .iter()
        .zip(samples)
        .map(|((features, labels), &(_, weight))| Example {
            features: features.tokens().map(|token| numbers.of(token)).collect(),
            labels: labels.clone(),
            weight,
        })
        .collect();
    drop(seen);
    let learnt = learn(&examples, &numbers, plan.recipe);
    let mut steps = only_possible(&learnt.steps);
    be_shy(&mut steps, plan.shy);
    let all = learnt.features.len();
    let (file, kept) = fit(language, &steps, lexicon, learnt.features, plan);
    Trained { file, sentences: samples.len(), off_tokens, words: lexicon.len(), features: all, kept }
}

fn see(language: Language, lexicon: &Lexicon, sample: &Sample, off_tokens: &mut usize) -> (Features, Vec<Label>) {
    let chars: Vec<char> = sample.text.chars().collect();
    let folded: Vec<char> = chars.iter().map(|&c| fold(c)).collect();
    let tokens: Vec<Token> = match language {
        Language::Chinese => characters(&folded, 0, folded.len()),
        Language::English => sample.tokens.iter().map(|&(from, to)| Token::new(&folded, from, to)).collect(),
    };
    let mut spans = Vec::new();
    for &(start, end, kind) in &sample.names {
        let from = tokens.iter().position(|token| token.from as usize == start);
        let to = tokens.iter().position(|token| token.to as usize == end);
        match (from, to) {
            (Some(from), Some(to)) => spans.push(Span { from, to: to + 1, kind }),
            _ => *off_tokens += 1,
        }
    }
    let mut features = Features::default();
    extract(language, &tokens, &Text { chars: &chars, folded: &folded }, lexicon, &mut features);
    (features, labels_of(tokens.len(), &spans))
}

/// Every token outside takes a step to outside, but for the first, which hardly matters.
fn be_shy(steps: &mut [Scores], shy: f32) {
    steps.iter_mut().for_each(|step| step[0] += shy);
}

/// The file with as many features as there is room for, the weightiest first.
fn fit(
    language: Language,
    steps: &[Scores; 13],
    lexicon: &Lexicon,
    mut features: Vec<(u64, Scores)>,
    plan: &Plan,
) -> (Vec<u8>, usize) {
    for (_, row) in &mut features {
        for weight in row.iter_mut().filter(|weight| weight.abs() < plan.least_weight) {
            *weight = 0.0;
        }
    }
    let weightiest = |row: &Scores| row.iter().fold(0.0_f32, |top, weight| top.max(weight.abs()));
    features.sort_by(|(a_hash, a), (b_hash, b)| weightiest(b).total_cmp(&weightiest(a)).then(a_hash.cmp(b_hash)));
    let file = |keep: usize| write(language, steps, lexicon, &Pressed::new(&features[..keep]));
    let (mut least, mut most) = (0, features.len());
    if file(most).len() <= plan.largest {
        return (file(most), most);
    }
    while most - least > 1 + features.len() / 2_000 {
        let middle = usize::midpoint(least, most);
        if file(middle).len() <= plan.largest {
            least = middle;
        } else {
            most = middle;
        }
    }
    (file(least), least)
}

impl Plan {
    /// What was found best on the development sets.
    pub fn chinese(seed: u64) -> Self {
        let recipe = Recipe { rounds: 12, averaged: 6, rate: 0.1, decay: 0.0, dropout: 0.2, least: 2, seed };
        Self { recipe, largest: 2_600_000, least_weight: 0.03, shy: -0.2 }
    }

    /// What was found best on the development sets.
    pub fn english(seed: u64) -> Self {
        let recipe = Recipe { rounds: 12, averaged: 6, rate: 0.1, decay: 0.0, dropout: 0.2, least: 2, seed };
        Self { recipe, largest: 1_400_000, least_weight: 0.03, shy: -0.2 }
    }
}

#[cfg(test)]
mod tests;
