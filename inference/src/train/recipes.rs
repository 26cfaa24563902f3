//! What the default models are trained with: the features and steps that did best on the parts to choose by.

use super::linear::{Config, Goal, Step};
use super::sets::intents::OUT_OF_SCOPE;
use crate::native::linear::features::Features;

/// Chinese and English sentiment.
#[must_use]
pub fn sentiment(seed: u64) -> Config {
    let han = Step { epochs: 8, rate: 0.5, dropout: 0.2, smoothing: 0.05, count_ratio: 0.5, balanced: true };
    let latin = Step { epochs: 8, rate: 0.5, dropout: 0.1, smoothing: 0.02, count_ratio: 1.0, balanced: false };
    let neutrality = Step { epochs: 5, rate: 0.5, dropout: 0.2, smoothing: 0.0, count_ratio: 0.5, balanced: true };
    let features = Features { rows: 1_800_000, words: 2, letters: (4, 5), han: 4, negation: true };
    Config {
        seed,
        features,
        goal: Goal::Sentiment { han, latin, neutrality, presumption: (4.0, 9.0), belief: (0.5, 1.0) },
    }
}

/// Any labels: as many rows as fit 4 MB. `out_of_scope` is the label of texts that belong to none of the others.
#[must_use]
pub fn classification(seed: u64, labels: usize, out_of_scope: Option<&str>) -> Config {
    let rows = (TABLE_BYTES / labels.max(1)).clamp(1 << 12, 1 << 17) as u32;
    let features = Features { rows, words: 2, letters: (3, 5), han: 3, negation: false };
    let step = Step { epochs: 16, rate: 0.5, dropout: 0.3, smoothing: 0.1, count_ratio: 0.0, balanced: false };
    let out_of_scope = out_of_scope.map(str::to_owned);
    Config { seed, features, goal: Goal::Labels { step, out_of_scope } }
}

const TABLE_BYTES: usize = 3_900_000;

/// The label by which a set says that a text belongs to none of the others.
#[must_use]
pub fn out_of_scope_label<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    labels.into_iter().any(|label| label == OUT_OF_SCOPE).then_some(OUT_OF_SCOPE)
}
