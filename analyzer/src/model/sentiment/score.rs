//! From clues to how likely each label is.

use super::clues::Clue;
use super::lexicon::Role;

/// What speaks for and against, both at least zero.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Evidence {
    pub(super) good: f32,
    pub(super) bad: f32,
}

/// How likely each label is; they add up to one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Probabilities {
    pub(super) positive: f32,
    pub(super) negative: f32,
    pub(super) neutral: f32,
}

/// Weighs the clues of a text.
pub(super) fn weigh(clues: &[Clue]) -> Evidence {
    let mut evidence = Evidence::default();
    for sentence in clues.split_inclusive(|clue| matches!(clue, Clue::End { .. })) {
        for tone in sentence_tones(sentence) {
            if tone > 0.0 { evidence.good += tone } else { evidence.bad -= tone }
        }
    }
    evidence
}

/// What has no evidence is neutral; the more there is, and the more of one kind, the surer the label.
/// The constants were fitted on held-out texts, see the card's limits.
pub(super) fn judge(evidence: Evidence) -> Probabilities {
    let Evidence { good, bad } = evidence;
    let lean = SLOPE * (good - bad) / (1.0 + DAMPING * (good + bad)).sqrt();
    let weights = [lean.exp(), (-lean).exp(), (NEUTRAL - FADING * (good + bad).sqrt()).exp()];
    let sum: f32 = weights.iter().sum();
    Probabilities { positive: weights[0] / sum, negative: weights[1] / sum, neutral: weights[2] / sum }
}

const SLOPE: f32 = 0.59;
const DAMPING: f32 = 0.59;
const NEUTRAL: f32 = 1.2;
const FADING: f32 = 0.75;

/// How many words a negation reaches, and a word of degree.
const NEGATION_REACH: usize = 4;
const DEGREE_REACH: usize = 2;
/// Not good is less bad than bad, and not bad is less good than good.
const TURNED_GOOD: f32 = -0.7;
const TURNED_BAD: f32 = -0.5;
const TURNED_TWICE: f32 = 0.5;
const LOUD: f32 = 1.25;
const BEFORE_CONTRAST: f32 = 0.6;
const AFTER_CONTRAST: f32 = 1.3;
const CONCEDED: f32 = 0.6;
const ASKED: f32 = 0.6;
const EXCLAIMED: f32 = 0.1;

/// The tones of a sentence as they count.
fn sentence_tones(sentence: &[Clue]) -> Vec<f32> {
    let mut tones: Vec<f32> = Vec::new();
    let mut scope = Scope::default();
    let (mut contrast, mut conceding, mut asking) = (1.0, false, false);
    for clue in sentence {
        match clue {
            Clue::Word { role: Role::Tone(tone), loud } => {
                let mut tone = tone * contrast * scope.factor(*tone);
                tone *= if *loud { LOUD } else { 1.0 };
                tone *= if conceding { CONCEDED } else { 1.0 };
                tones.push(tone);
                scope.degree = None;
                scope.step();
            }
            Clue::Word { role: Role::Negation, .. } => scope.negate(),
            Clue::Word { role: Role::Degree(factor), .. } => scope.degree = Some((*factor, 0)),
            Clue::Word { role: Role::Contrast, .. } => {
                tones.iter_mut().for_each(|tone| *tone *= BEFORE_CONTRAST);
                (contrast, conceding, scope) = (AFTER_CONTRAST, false, Scope::default());
            }
            Clue::Word { role: Role::Concession, .. } => conceding = true,
            Clue::Word { role: Role::Question, .. } => asking = true,
            Clue::Word { role: Role::Plain, .. } | Clue::Other => scope.step(),
            Clue::Comma => (conceding, scope) = (false, Scope::default()),
            Clue::End { exclamations, asks } => {
                let stress = 1.0 + EXCLAIMED * f32::from(*exclamations);
                tones.iter_mut().for_each(|tone| *tone *= stress);
                asking |= asks;
            }
        }
    }
    if asking {
        tones.iter_mut().for_each(|tone| *tone *= ASKED);
    }
    tones
}

/// What words before do to the next tone.
#[derive(Default)]
struct Scope {
    negations: usize,
    /// Words since the last negation.
    since: usize,
    /// A factor, and the words since.
    degree: Option<(f32, usize)>,
}

impl Scope {
    fn negate(&mut self) {
        self.negations += 1;
        self.since = 0;
    }

    fn step(&mut self) {
        self.since += 1;
        if self.since > NEGATION_REACH {
            self.negations = 0;
        }
        self.degree =
            self.degree.map(|(factor, since)| (factor, since + 1)).filter(|(_, since)| *since <= DEGREE_REACH);
    }

    fn factor(&self, tone: f32) -> f32 {
        let degree = self.degree.map_or(1.0, |(factor, _)| factor);
        degree
            * match (self.negations, tone > 0.0) {
                (0, _) => 1.0,
                (negations, _) if negations % 2 == 0 => TURNED_TWICE,
                (_, true) => TURNED_GOOD,
                (_, false) => TURNED_BAD,
            }
    }
}
