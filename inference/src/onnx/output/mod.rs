//! From a graph's outputs to the result document.
//!
//! | `kind` | result |
//! |---|---|
//! | `classification`, labels Positive and Negative, perhaps Neutral | `{"sentiment", "score", "probabilities": {label: p}}` |
//! | `classification`, other labels | `{"label", "score", "labels": [{"label", "score"}]}`, likeliest first |
//! | `multi_label` | `{"label", "score", "labels": […]}`: those from the threshold on; `label` is null when there is none |
//! | `entities` | `{"entities": [{"text", "type", "start", "end", "score"}]}`: places count characters |
//! | `embedding` | `{"embedding": […], "dimensions"}` |
//! | `regression` | `{"value"}`, or `{"values"}`: a list, or an object of the labels |
//! | `tensors` | `{"outputs": [{"name", "shape", "data"}]}` |
//!
//! Each has `model_info` too, and `truncated: true` when the text's end was not read. A document of rows has `{"rows":
//! [one of these each]}`.

mod classify;
mod embed;
mod entities;
mod numbers;
mod tags;

use serde_json::{Map, Value};

use self::classify::Classes;
use self::entities::EntityReader;
use crate::manifest::Manifest;
use crate::model::{InferError, Tensor, TensorData, Window};
use crate::onnx::engine::{Kind, Port};
use crate::onnx::section::{Overflow, Postprocess, Section};
use crate::open::OpenError;

/// What is made of the outputs.
pub(crate) struct Output {
    kind: Making,
    model_info: String,
    /// The outputs it needs, by place in the graph's.
    pub(crate) wanted: Vec<usize>,
}

enum Making {
    Classify(Classes),
    Entities(EntityReader),
    Embed(crate::onnx::section::Embedding),
    Regress { labels: Vec<String>, digits: u32 },
    Tensors,
}

/// One input with what the graph said to it.
pub(crate) struct Answered<'a> {
    /// Of a text model; else empty.
    pub(crate) text: &'a str,
    pub(crate) windows: &'a [Window],
    /// The text's end is in no window.
    pub(crate) truncated: bool,
    /// For each window, or once: the wanted outputs, without the batch dimension.
    pub(crate) parts: Vec<Vec<Tensor>>,
    /// The first dimension of the outputs counts the document's rows.
    pub(crate) rows: bool,
}

impl Output {
    /// Brings together what the manifest wants and what the graph gives.
    ///
    /// # Errors
    /// [`OpenError::Broken`] where they contradict each other.
    pub(crate) fn new(
        manifest: &Manifest,
        section: &Section,
        ports: &[Port],
        classes: &[String],
    ) -> Result<Self, OpenError> {
        let wanted = wanted(section, ports)?;
        let labels = if manifest.output.labels.is_empty() { classes } else { &manifest.output.labels };
        if !classes.is_empty() && classes.len() != labels.len() {
            return Err(broken(format!("output.labels are {}; the graph has {} classes", labels.len(), classes.len())));
        }
        let port = wanted.first().map(|place| &ports[*place]);
        let kind = match &section.postprocess {
            Postprocess::Classification(it) => Making::Classify(Classes::one(it, labels, port)?),
            Postprocess::MultiLabel(it) => Making::Classify(Classes::many(it, labels, port)?),
            Postprocess::Entities(it) => {
                if section.tokenizer.is_none() {
                    return Err(broken("postprocess: entities are found in texts; there is no tokenizer".to_owned()));
                }
                Making::Entities(EntityReader::new(it, labels, port)?)
            }
            Postprocess::Embedding(it) => Making::Embed(it.clone()),
            Postprocess::Regression(it) => Making::Regress { labels: labels.to_vec(), digits: it.digits },
            Postprocess::Tensors(_) if section.tokenizer.is_some() && section.overflow == Overflow::Windows => {
                return Err(broken("postprocess: tensors of several windows cannot be one; use truncate".to_owned()));
            }
            Postprocess::Tensors(_) => Making::Tensors,
        };
        Ok(Self { kind, model_info: manifest.name.clone(), wanted })
    }

    /// The result document.
    ///
    /// # Errors
    /// [`InferError`] `bad_output`.
    pub(crate) fn document(&self, answered: &Answered<'_>) -> Result<String, InferError> {
        let mut document = if answered.rows { self.rows(answered)? } else { self.one(answered)? };
        if answered.truncated {
            document.insert("truncated".to_owned(), Value::Bool(true));
        }
        document.insert("model_info".to_owned(), Value::String(self.model_info.clone()));
        Ok(Value::Object(document).to_string())
    }

    fn rows(&self, answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
        let outputs = answered.parts.first().ok_or_else(|| InferError::bad_output("the graph gave no output"))?;
        let count = outputs.first().and_then(|tensor| tensor.shape.first()).copied().unwrap_or(0);
        let mut rows = Vec::with_capacity(count);
        for row in 0..count {
            let part = outputs
                .iter()
                .map(|tensor| crate::onnx::gather::part(tensor, row..row + 1, count, true))
                .collect::<Result<Vec<_>, _>>()
                .map_err(InferError::bad_output)?;
            let one = Answered { text: "", windows: &[], truncated: false, parts: vec![part], rows: false };
            rows.push(Value::Object(self.one(&one).map_err(|mut error| {
                error.message = format!("row {row}: {}", error.message);
                error
            })?));
        }
        Ok(Map::from_iter([("rows".to_owned(), Value::Array(rows))]))
    }

    fn one(&self, answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
        match &self.kind {
            Making::Classify(classes) => classes.document(answered),
            Making::Entities(reader) => reader.document(answered),
            Making::Embed(how) => embed::document(how, answered),
            Making::Regress { labels, digits } => numbers::values(labels, *digits, answered),
            Making::Tensors => numbers::tensors(answered),
        }
    }
}

/// Which outputs are the answer.
fn wanted(section: &Section, ports: &[Port]) -> Result<Vec<usize>, OpenError> {
    let find = |name: &String| {
        let place = ports.iter().position(|port| port.name == *name).ok_or_else(|| {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            broken(format!("the graph has no output {name:?}; it has {}", names.join(", ")))
        })?;
        match &ports[place].kind {
            Kind::Other(kind) => Err(broken(format!("the output {name:?} cannot be had: it is {kind}"))),
            _ => Ok(place),
        }
    };
    if let Postprocess::Tensors(it) = &section.postprocess {
        let named = if it.outputs.is_empty() { section.output.as_slice() } else { &it.outputs };
        let can_be_had = |place: &usize| !matches!(ports[*place].kind, Kind::Other(_));
        let all: Vec<usize> = (0..ports.len()).filter(can_be_had).collect();
        return if named.is_empty() && !all.is_empty() { Ok(all) } else { named.iter().map(find).collect() };
    }
    match (&section.output, numeric(ports).as_slice()) {
        (Some(name), _) => Ok(vec![find(name)?]),
        (None, [only]) => Ok(vec![*only]),
        (None, []) if ports.len() == 1 => Ok(vec![find(&ports[0].name)?]),
        (None, _) => {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            Err(broken(format!("the graph has the outputs {}: name one as output", names.join(", "))))
        }
    }
}

/// The outputs with numbers, those with fractions alone if there are any.
fn numeric(ports: &[Port]) -> Vec<usize> {
    let of = |kinds: &[Kind]| -> Vec<usize> {
        (0..ports.len()).filter(|place| kinds.contains(&ports[*place].kind)).collect()
    };
    let floats = of(&[Kind::Float, Kind::Unknown]);
    if floats.is_empty() { of(&[Kind::Int]) } else { floats }
}

fn broken(reason: String) -> OpenError {
    OpenError::Broken(format!("model.toml: {reason}"))
}

/// A tensor's numbers, all of them finite.
fn finite(tensor: &Tensor) -> Result<Vec<f64>, InferError> {
    let numbers: Vec<f64> = match &tensor.data {
        TensorData::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 no answer depends on the last digit")]
        TensorData::I64(values) => values.iter().map(|value| *value as f64).collect(),
        TensorData::Text(_) => {
            return Err(InferError::bad_output(format!("the output {:?} has texts, not numbers", tensor.name)));
        }
    };
    if numbers.iter().all(|number| number.is_finite()) {
        Ok(numbers)
    } else {
        Err(InferError::bad_output(format!("the output {:?} has a number that is none (NaN or infinite)", tensor.name)))
    }
}

/// The first wanted output of each part, with its weight: the tokens of its window.
fn weighed<'a>(answered: &'a Answered<'_>) -> impl Iterator<Item = (f64, &'a Tensor)> {
    answered.parts.iter().enumerate().filter_map(|(place, outputs)| {
        #[expect(clippy::cast_precision_loss, reason = "a window has few tokens")]
        let weight = answered.windows.get(place).map_or(1.0, |window| window.ids.len() as f64);
        outputs.first().map(|tensor| (weight, tensor))
    })
}

/// The mean of vectors by weight.
fn mean(vectors: &[(f64, Vec<f64>)]) -> Result<Vec<f64>, InferError> {
    let Some((_, first)) = vectors.first() else {
        return Err(InferError::bad_output("the graph gave no output"));
    };
    let mut sum = vec![0.0; first.len()];
    for (weight, vector) in vectors {
        if vector.len() != sum.len() {
            return Err(InferError::bad_output("the output's length differs from window to window"));
        }
        for (sum, value) in sum.iter_mut().zip(vector) {
            *sum += weight * value;
        }
    }
    let total: f64 = vectors.iter().map(|(weight, _)| weight).sum();
    Ok(sum.into_iter().map(|value| value / total).collect())
}

fn round(number: f64, digits: u32) -> f64 {
    let unit = 10_f64.powi(digits.cast_signed());
    let rounded = (number * unit).round() / unit;
    if rounded.is_finite() { rounded } else { number }
}
