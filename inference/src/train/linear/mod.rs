//! Training of linear models: [`fit`] finds weights, [`calibrate`] makes their sums mean what they say, [`package`] writes
//! what serves. A share of the examples is kept out of a first fit to calibrate on; the weights that ship are fitted on all.

pub mod calibrate;
pub mod fit;
pub mod package;

use std::collections::BTreeMap;

use self::fit::{Column, Point};
use super::examples::Example;
use super::random::Random;
use crate::native::linear::features::{Extractor, Features, Scratch};
use crate::native::linear::file::{Curve, Head, Header, Labels, LinearFile, Sentiment, SentimentCurves};
use crate::native::linear::sentiment::LABELS;
use crate::native::linear::table::Table;
use crate::text::script::{Script, script};

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub seed: u64,
    pub features: Features,
    pub goal: Goal,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Goal {
    /// Examples are labelled Negative, Neutral or Positive.
    Sentiment {
        /// For texts of Chinese characters.
        han: Step,
        /// For all others.
        latin: Step,
        /// For telling opinions from the rest.
        neutrality: Step,
        /// How many times likelier an opinion is than none before anything is read: a text that is given to be judged mostly
        /// has one. For texts of Chinese characters and for others.
        presumption: (f32, f32),
        /// How far the share of positive texts among those that calibrate is believed, from 0 to 1, likewise: reviews of one
        /// shop say little of how many are content elsewhere.
        belief: (f32, f32),
    },
    /// Examples have any labels.
    Labels {
        step: Step,
        /// The label of texts that belong to none of the others, if there is one.
        out_of_scope: Option<String>,
    },
}

/// How weights are fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How often every example is seen.
    pub epochs: usize,
    pub rate: f32,
    /// The share of a text's features that is left out, by chance, each time it is seen.
    pub dropout: f32,
    /// The share that is taken from the truth and spread over all answers.
    pub smoothing: f32,
    /// How far features are scaled by naive Bayes's log-count ratio, from 0 to 1; for two answers only.
    pub count_ratio: f32,
    /// Whether both answers count the same in all, however many examples have them; for two answers only.
    pub balanced: bool,
}

/// Why nothing was trained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    #[error("there are no examples labelled {0}")]
    NoExamples(String),
    #[error("an example is labelled {0:?}; a sentiment is one of Negative, Neutral and Positive")]
    UnknownSentiment(String),
    #[error("one label is not enough to choose from")]
    OneLabel,
    #[error("{0} labels; {MAX_LABELS} at most")]
    TooManyLabels(usize),
}

/// Of so many texts that belong to a label, one may be turned away as too doubtful.
const TURNED_AWAY: usize = 50;
/// A label that is likelier than all others together is never turned away.
const MOST_DOUBT: f32 = 0.5;
/// More labels than that make a table too large to be small.
pub const MAX_LABELS: usize = 2_000;
/// Of every ten examples one calibrates.
const CALIBRATION: u64 = 10;

/// Trains a model. The same examples in the same order and the same seed give the same file.
///
/// # Errors
/// [`TrainError`] when the examples cannot teach what is asked.
pub fn train(config: &Config, examples: &[Example]) -> Result<LinearFile, TrainError> {
    let (labels, head, table) = match &config.goal {
        Goal::Sentiment { han, latin, neutrality, presumption, belief } => {
            let steps = [han, latin, neutrality];
            let (head, table) = sentiment(config, steps, *presumption, *belief, examples)?;
            (LABELS.map(str::to_owned).to_vec(), Head::Sentiment(head), table)
        }
        Goal::Labels { step, out_of_scope } => {
            let (labels, head, table) = classification(config, step, out_of_scope.as_deref(), examples)?;
            (labels, Head::Labels(head), table)
        }
    };
    let (scales, biases) = (table.scales().to_vec(), table.biases().to_vec());
    let header = Header { format: 1, features: config.features.clone(), labels, head, scales, biases };
    Ok(LinearFile { header, table })
}

/// One text, read once.
struct Read {
    places: Vec<u32>,
    weight: f32,
    script: Script,
    /// -1, 0, 1.
    side: i8,
    calibrates: bool,
}

fn sentiment(
    config: &Config,
    [han, latin, neutrality]: [&Step; 3],
    presumption: (f32, f32),
    belief: (f32, f32),
    examples: &[Example],
) -> Result<(Sentiment, Table), TrainError> {
    let mut random = Random::new(config.seed);
    let extractor = Extractor::new(config.features.clone());
    let mut scratch = Scratch::default();
    let mut texts = Vec::with_capacity(examples.len());
    for example in examples {
        let side = match example.label.as_str() {
            "Negative" => -1,
            "Neutral" => 0,
            "Positive" => 1,
            other => return Err(TrainError::UnknownSentiment(other.to_owned())),
        };
        texts.push(Read {
            places: extractor.extract(&example.text, &mut scratch).to_vec(),
            weight: example.weight,
            script: script(&example.text),
            side,
            calibrates: random.number().is_multiple_of(CALIBRATION) && example.calibrates,
        });
    }
    for (label, side) in LABELS.iter().zip([-1, 0, 1]) {
        if side != 0 && !texts.iter().any(|text| text.side == side) {
            return Err(TrainError::NoExamples((*label).to_owned()));
        }
    }
    let rows = config.features.rows as usize;
    let mut weights = vec![0.0_f32; rows * 2];
    let mut curves = Vec::new();
    for (is_han, step, presumption, belief) in
        [(true, han, presumption.0, belief.0), (false, latin, presumption.1, belief.1)]
    {
        let texts: Vec<&Read> = texts.iter().filter(|text| (text.script == Script::Han) == is_han).collect();
        let polarity = Question { about: |text| (text.side != 0).then_some(text.side > 0) };
        let neutral = Question { about: |text| Some(text.side == 0) };
        let mut of_script = Vec::new();
        for (column, (question, step)) in [(polarity, step), (neutral, neutrality)].into_iter().enumerate() {
            let (fitted, curve) = question.answer(&texts, rows, step, &mut random);
            for (row, weight) in fitted.weights.iter().enumerate() {
                weights[row * 2 + column] += weight;
            }
            of_script.push(Curve { slope: curve.slope, shift: curve.shift + curve.slope * fitted.bias });
        }
        of_script[0].shift *= belief;
        of_script[1].shift -= presumption.ln();
        curves.push(SentimentCurves { polarity: of_script[0], neutrality: of_script[1] });
    }
    let latin = curves.pop().expect("two scripts");
    let han = curves.pop().expect("two scripts");
    Ok((Sentiment { han, latin }, Table::compand(&weights, vec![0.0, 0.0])))
}

/// A question with two answers, asked of texts.
struct Question {
    /// `None`: the text does not count.
    about: fn(&Read) -> Option<bool>,
}

impl Question {
    /// A fitted column, and the curve of a column fitted without the texts that calibrate.
    fn answer(&self, texts: &[&Read], rows: usize, step: &Step, random: &mut Random) -> (Column, Curve) {
        let points = |of: &dyn Fn(&Read) -> bool| -> Vec<Point<bool>> {
            let mut points: Vec<Point<bool>> = texts
                .iter()
                .filter(|text| of(text))
                .filter_map(|text| {
                    let target = (self.about)(text)?;
                    Some(Point { places: text.places.clone(), target, weight: text.weight })
                })
                .collect();
            if step.balanced {
                balance(&mut points);
            }
            points
        };
        let (some, rest) = (points(&|text| !text.calibrates), points(&|text| text.calibrates));
        let column = fit::binary(&some, rows, step, random);
        let sums: Vec<(f32, bool, f32)> =
            rest.iter().map(|point| (column.sum(&point.places), point.target, point.weight)).collect();
        let curve = calibrate::curve(&sums);
        (fit::binary(&points(&|_| true), rows, step, random), curve)
    }
}

/// Gives both answers the same weight in all.
fn balance(points: &mut [Point<bool>]) {
    let all =
        |target: bool| points.iter().filter(|point| point.target == target).map(|point| point.weight).sum::<f32>();
    let (no, yes) = (all(false), all(true));
    if no > 0.0 && yes > 0.0 {
        let mean = f32::midpoint(no, yes);
        for point in points {
            point.weight *= mean / if point.target { yes } else { no };
        }
    }
}

fn classification(
    config: &Config,
    step: &Step,
    out_of_scope: Option<&str>,
    examples: &[Example],
) -> Result<(Vec<String>, Labels, Table), TrainError> {
    let numbers: BTreeMap<&str, usize> = {
        let mut names: Vec<&str> = examples.iter().map(|example| example.label.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().enumerate().map(|(number, name)| (name, number)).collect()
    };
    match numbers.len() {
        0 | 1 => return Err(TrainError::OneLabel),
        many if many > MAX_LABELS => return Err(TrainError::TooManyLabels(many)),
        _ => {}
    }
    if let Some(name) = out_of_scope.filter(|name| !numbers.contains_key(name)) {
        return Err(TrainError::NoExamples(name.to_owned()));
    }
    let mut random = Random::new(config.seed);
    let extractor = Extractor::new(config.features.clone());
    let mut scratch = Scratch::default();
    let points: Vec<Point<usize>> = examples
        .iter()
        .map(|example| Point {
            places: extractor.extract(&example.text, &mut scratch).to_vec(),
            target: numbers[example.label.as_str()],
            weight: example.weight,
        })
        .collect();
    let calibrates: Vec<bool> =
        examples.iter().map(|example| random.number().is_multiple_of(CALIBRATION) && example.calibrates).collect();
    let (rows, labels) = (config.features.rows as usize, numbers.len());
    let some: Vec<Point<usize>> = points
        .iter()
        .zip(&calibrates)
        .filter(|(_, calibrates)| !**calibrates)
        .map(|(point, _)| point.clone())
        .collect();
    let (weights, biases) = fit::softmax(&some, rows, labels, step, &mut random);
    let table = Table::compand(&weights, biases);
    let mut sums = Vec::new();
    let kept: Vec<(Vec<f32>, usize)> = points
        .iter()
        .zip(&calibrates)
        .filter(|(_, calibrates)| **calibrates)
        .map(|(point, _)| {
            table.sums(&point.places, &mut sums);
            (sums.clone(), point.target)
        })
        .collect();
    let temperature = if kept.is_empty() { 1.0 } else { calibrate::temperature(&kept) };
    let names: Vec<String> = numbers.keys().map(|name| (*name).to_owned()).collect();
    let mut head = Labels { temperature, out_of_scope: out_of_scope.map(str::to_owned), threshold: 0.0 };
    head.threshold = threshold(&head, &names, &kept);
    let (weights, biases) = fit::softmax(&points, rows, labels, step, &mut random);
    Ok((names, head, Table::compand(&weights, biases)))
}

/// The likeliest label's least probability: so high that one in [`TURNED_AWAY`] of the texts that belong to a label is turned away.
fn threshold(head: &Labels, names: &[String], kept: &[(Vec<f32>, usize)]) -> f32 {
    let mut best: Vec<f32> = kept
        .iter()
        .filter(|(_, truth)| head.out_of_scope.as_deref() != Some(names[*truth].as_str()))
        .filter_map(|(sums, _)| crate::native::linear::labels::shares(head, sums))
        .map(|shares| shares.into_iter().fold(0.0, f32::max))
        .collect();
    best.sort_unstable_by(f32::total_cmp);
    best.get(best.len() / TURNED_AWAY).copied().unwrap_or(0.0).min(MOST_DOUBT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::linear::labels;
    use crate::native::linear::sentiment::shares;
    use crate::train::recipes;

    fn reviews() -> Vec<Example> {
        let mut examples = Vec::new();
        for at in 0..60 {
            for (text, label) in [
                (format!("很好吃，第{at}次來了"), "Positive"),
                (format!("很難吃，第{at}次失望"), "Negative"),
                (format!("第{at}次會議在三樓"), "Neutral"),
                (format!("visit {at} was lovely, great food"), "Positive"),
                (format!("visit {at} was awful, terrible food"), "Negative"),
                (format!("visit {at} is on monday"), "Neutral"),
            ] {
                examples.push(Example::new(text, label));
            }
        }
        examples
    }

    fn small(seed: u64) -> Config {
        let mut config = recipes::sentiment(seed);
        config.features.rows = 4_096;
        config
    }

    #[test]
    fn the_same_seed_gives_the_same_file_and_another_another() {
        let file = |seed| train(&small(seed), &reviews()).unwrap().write();
        assert_eq!(file(1), file(1));
        assert_ne!(file(1), file(2));
    }

    #[test]
    fn a_sentiment_is_learnt_of_few_texts() {
        let file = train(&small(1), &reviews()).unwrap();
        let extractor = Extractor::new(file.header.features.clone());
        let Head::Sentiment(head) = &file.header.head else { panic!("{:?}", file.header.head) };
        let (mut scratch, mut sums) = (Scratch::default(), Vec::new());
        for (text, label) in [
            ("真的很好吃", "Positive"),
            ("真的很难吃", "Negative"),
            ("lovely, great", "Positive"),
            ("awful food", "Negative"),
        ] {
            file.table.sums(extractor.extract(text, &mut scratch), &mut sums);
            assert_eq!(shares(head, text, &sums).unwrap().likeliest().0, label, "{text}");
        }
    }

    #[test]
    fn labels_are_learnt_of_few_texts_and_the_rest_is_out_of_scope() {
        let mut examples = Vec::new();
        for at in 0..40 {
            examples.push(Example::new(format!("where is card number {at}"), "card"));
            examples.push(Example::new(format!("wake me at {at}"), "alarm"));
            examples.push(Example::new(format!("tell a joke of {at} words"), "oos"));
        }
        let mut config = recipes::classification(1, 3, Some("oos"));
        config.features.rows = 4_096;
        let file = train(&config, &examples).unwrap();
        assert_eq!(file.header.labels, ["alarm", "card", "oos"]);
        let Head::Labels(head) = &file.header.head else { panic!("{:?}", file.header.head) };
        let extractor = Extractor::new(file.header.features.clone());
        let (mut scratch, mut sums) = (Scratch::default(), Vec::new());
        for (text, label, in_scope) in
            [("my card, where is it", "card", true), ("wake me up", "alarm", true), ("a joke please", "oos", false)]
        {
            file.table.sums(extractor.extract(text, &mut scratch), &mut sums);
            let shares = labels::shares(head, &sums).unwrap();
            let (best, share) = shares.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1)).unwrap();
            assert_eq!(file.header.labels[best], label, "{text}");
            assert!(!in_scope || labels::in_scope(head, label, *share), "{text}: {share}");
            assert!(in_scope || !labels::in_scope(head, label, *share), "{text}: {share}");
        }
    }

    #[test]
    fn what_cannot_teach_is_refused() {
        let only = |label: &str| vec![Example::new("a b c", label)];
        assert_eq!(train(&small(1), &only("Positive")), Err(TrainError::NoExamples("Negative".to_owned())));
        assert_eq!(train(&small(1), &only("happy")), Err(TrainError::UnknownSentiment("happy".to_owned())));
        assert_eq!(train(&recipes::classification(1, 1, None), &only("a")), Err(TrainError::OneLabel));
    }
}
