//! Labels with their probabilities.

use serde_json::{Map, Value, json};

use super::{Answered, broken, finite, mean, round, weighed};
use crate::model::{InferError, Tensor};
use crate::onnx::engine::Port;
use crate::onnx::section::{Classification, MultiLabel, Scores};
use crate::open::OpenError;

/// Of probabilities in results.
const DIGITS: u32 = 6;

pub(super) struct Classes {
    labels: Vec<String>,
    how: How,
}

enum How {
    One(Classification),
    Many(MultiLabel),
}

impl Classes {
    /// # Errors
    /// [`OpenError::Broken`] when labels and graph do not fit.
    pub(super) fn one(how: &Classification, labels: &[String], port: Option<&Port>) -> Result<Self, OpenError> {
        if how.neutral_band > 0.0 && labels.len() != 2 {
            return Err(broken("postprocess: neutral_band is for two labels".to_owned()));
        }
        fits(labels, port, how.scores == Scores::Logits)?;
        Ok(Self { labels: labels.to_vec(), how: How::One(how.clone()) })
    }

    /// # Errors
    /// As [`Classes::one`].
    pub(super) fn many(how: &MultiLabel, labels: &[String], port: Option<&Port>) -> Result<Self, OpenError> {
        fits(labels, port, false)?;
        Ok(Self { labels: labels.to_vec(), how: How::Many(how.clone()) })
    }

    pub(super) fn document(&self, answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
        let parts = weighed(answered)
            .map(|(weight, tensor)| Ok((weight, self.probabilities(tensor)?)))
            .collect::<Result<Vec<_>, InferError>>()?;
        let probabilities = mean(&parts)?;
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let document = match &self.how {
            How::One(how) => self.likeliest(how, &probabilities, &order),
            How::Many(how) => {
                order.retain(|place| probabilities[*place] >= how.threshold);
                let first = order.first();
                json!({
                    "label": first.map(|place| &self.labels[*place]),
                    "score": first.map_or(0.0, |place| round(probabilities[*place], DIGITS)),
                    "labels": self.list(&probabilities, &order),
                })
            }
        };
        match document {
            Value::Object(document) => Ok(document),
            _ => unreachable!("it was made as an object"),
        }
    }

    fn likeliest(&self, how: &Classification, probabilities: &[f64], order: &[usize]) -> Value {
        let best = order[0];
        let top = probabilities[best];
        let (label, score) = if how.neutral_band > 0.0 && top < 0.5 + how.neutral_band {
            // How undecided the two are: 1 when they are alike.
            (&how.neutral, 1.0 - (probabilities[0] - probabilities[1]).abs())
        } else {
            match &how.out_of_scope {
                Some(unknown) if top < unknown.below => (&unknown.label, 1.0 - top),
                _ => (&self.labels[best], top),
            }
        };
        let score = round(score, DIGITS);
        if is_sentiment(&self.labels) {
            let shares =
                self.labels.iter().zip(probabilities).map(|(label, p)| (label.clone(), json!(round(*p, DIGITS))));
            json!({ "sentiment": label, "score": score, "probabilities": shares.collect::<Map<_, _>>() })
        } else {
            let listed = &order[..order.len().min(how.top)];
            json!({ "label": label, "score": score, "labels": self.list(probabilities, listed) })
        }
    }

    fn list(&self, probabilities: &[f64], order: &[usize]) -> Vec<Value> {
        let one =
            |place: &usize| json!({ "label": self.labels[*place], "score": round(probabilities[*place], DIGITS) });
        order.iter().map(one).collect()
    }

    fn probabilities(&self, tensor: &Tensor) -> Result<Vec<f64>, InferError> {
        let numbers = finite(tensor)?;
        let labels = self.labels.len();
        match &self.how {
            // One logit for two labels is the second one's.
            How::One(how) if numbers.len() == 1 && labels == 2 && how.scores == Scores::Logits => {
                let second = sigmoid(numbers[0] / how.temperature);
                Ok(vec![1.0 - second, second])
            }
            _ if numbers.len() != labels => {
                let many = numbers.len();
                Err(InferError::bad_output(format!(
                    "the output {:?} has {many} numbers for {labels} labels",
                    tensor.name
                )))
            }
            How::One(how) => match how.scores {
                Scores::Logits => Ok(softmax(&numbers, how.temperature)),
                Scores::Probabilities => shares(numbers, &tensor.name),
            },
            How::Many(how) => match how.scores {
                Scores::Logits => Ok(numbers.into_iter().map(sigmoid).collect()),
                Scores::Probabilities => shares(numbers, &tensor.name),
            },
        }
    }
}

/// `e^(x/t)` over their sum.
pub(super) fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| ((logit - largest) / temperature).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn shares(numbers: Vec<f64>, name: &str) -> Result<Vec<f64>, InferError> {
    // Engines round: a probability may be past 1 by the last digit.
    if numbers.iter().all(|number| (-1e-4..=1.0001).contains(number)) {
        Ok(numbers.into_iter().map(|number| number.clamp(0.0, 1.0)).collect())
    } else {
        Err(InferError::bad_output(format!("the output {name:?} has a number that is no probability")))
    }
}

fn is_sentiment(labels: &[String]) -> bool {
    let has = |name: &str| labels.iter().any(|label| label == name);
    has("Positive") && has("Negative") && labels.len() == 2 + usize::from(has("Neutral"))
}

pub(super) fn fits(labels: &[String], port: Option<&Port>, one_for_two: bool) -> Result<(), OpenError> {
    if labels.is_empty() {
        return Err(broken("output.labels must name the labels, in the order of the graph's output".to_owned()));
    }
    let last = port.and_then(|port| port.shape.as_ref()).and_then(|shape| shape.last().copied().flatten());
    match last {
        Some(many) if many != labels.len() && !(one_for_two && many == 1 && labels.len() == 2) => {
            Err(broken(format!("output.labels are {}; the graph's output has {many} numbers", labels.len())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TensorData;

    fn answer(toml: &str, labels: &[&str], numbers: &[f32]) -> Result<Value, InferError> {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let classes = Classes::one(&toml::from_str(toml).unwrap(), &labels, None).unwrap();
        let tensor =
            Tensor { name: "y".to_owned(), shape: vec![numbers.len()], data: TensorData::F32(numbers.to_vec()) };
        let parts = vec![vec![tensor]];
        let answered = Answered { text: "", windows: &[], truncated: false, parts, rows: false };
        classes.document(&answered).map(Value::Object)
    }

    #[test]
    fn labels_are_answered_in_the_contract_s_shapes() {
        let sentiment = ["Negative", "Neutral", "Positive"];
        let two = ["Negative", "Positive"];
        let intents = ["a", "b", "c"];
        for (toml, labels, numbers, expected) in [
            (
                "",
                &sentiment[..],
                &[0.0, 0.0, 2.0][..],
                json!({"sentiment": "Positive", "score": 0.786_986,
                "probabilities": {"Negative": 0.106_507, "Neutral": 0.106_507, "Positive": 0.786_986}}),
            ),
            (
                "neutral_band = 0.2",
                &two,
                &[0.1, 0.2],
                json!({"sentiment": "Neutral", "score": 0.950_042,
                "probabilities": {"Negative": 0.475_021, "Positive": 0.524_979}}),
            ),
            (
                "temperature = 2",
                &two,
                &[1.0],
                json!({"sentiment": "Positive", "score": 0.622_459,
                "probabilities": {"Negative": 0.377_541, "Positive": 0.622_459}}),
            ),
            (
                "top = 2",
                &intents,
                &[0.0, 3.0, 1.0],
                json!({"label": "b", "score": 0.843_795,
                "labels": [{"label": "b", "score": 0.843_795}, {"label": "c", "score": 0.114_195}]}),
            ),
            (
                "out_of_scope = { below = 0.5 }\ntop = 1",
                &intents,
                &[0.0, 0.0, 0.0],
                json!({"label": "out_of_scope",
                "score": 0.666_667, "labels": [{"label": "a", "score": 0.333_333}]}),
            ),
            (
                "scores = 'probabilities'\ntop = 1",
                &intents,
                &[0.1, 0.2, 0.7],
                json!({"label": "c", "score": 0.7,
                "labels": [{"label": "c", "score": 0.7}]}),
            ),
        ] {
            assert_eq!(answer(toml, labels, numbers).unwrap(), expected, "{toml}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for (toml, numbers) in [
            ("", &[1.0, f32::NAN, 0.0][..]),
            ("", &[1.0, f32::INFINITY, 0.0]),
            ("", &[1.0, 2.0]),
            ("", &[1.0, 2.0, 3.0, 4.0]),
            ("", &[]),
            ("scores = 'probabilities'", &[0.1, 0.2, 1.7]),
        ] {
            assert_eq!(answer(toml, &["a", "b", "c"], numbers).unwrap_err().code, "bad_output", "{numbers:?}");
        }
    }

    #[test]
    fn large_logits_overflow_nowhere() {
        let probabilities = softmax(&[1e30, -1e30, 1e30], 1e-3);
        assert_eq!(probabilities, [0.5, 0.0, 0.5]);
    }

    #[test]
    fn labels_that_do_not_fit_the_graph_are_refused_at_once() {
        let port =
            Port { name: "y".to_owned(), kind: crate::onnx::engine::Kind::Float, shape: Some(vec![None, Some(3)]) };
        let of = |many: usize| vec!["a".to_owned(); many];
        let how: Classification = toml::from_str("").unwrap();
        assert!(Classes::one(&how, &of(3), Some(&port)).is_ok());
        for many in [0, 1, 2, 4] {
            assert!(Classes::one(&how, &of(many), Some(&port)).is_err(), "{many}");
        }
    }
}
