//! A model server that speaks the Open Inference Protocol v2 over HTTP: Triton, KServe, MLServer.
//!
//! ```toml
//! [oip]
//! url = "http://triton.internal:8000"     # the other fields of `http::Server` too
//! model = "sentiment"
//! model_version = "3"                      # absent: the server's choice
//! batch = true                             # the first dimension of every tensor counts the inputs; false: one by one
//!
//! [[oip.input]]
//! name = "text"
//! from = "/text"                           # JSON pointer: a value, or nested lists
//! datatype = "BYTES"                       # BYTES | BOOL | INT32 | INT64 | FP32 | FP64
//! shape = [1]                              # of one input, where it differs from how the value is nested
//!
//! [oip.answer]
//! kind = "labels"                          # labels | entities | document | tensors
//! output = "probabilities"                 # labels: a score a label (as in output.labels), or the label itself as BYTES
//! softmax = false                          # the scores are logits
//! label_field = "label"                    # what the result calls it
//! ```
//!
//! `entities` and `document` read each input's element of `output` as JSON text: a list of entities, or the whole result.
//! `tensors` gives all outputs as nested lists by name.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Answers;
use super::http::{Failure, Http, Server, refuse_unknown};
use super::tensor::{Datatype, Input, Item, Output, request};
use crate::manifest::ManifestError;
use crate::model::{InferError, Model, Payload, Prepared, RunsOn};
use crate::open::{OpenError, OpenOptions};
use crate::package::Package;

#[derive(Debug, Deserialize)]
struct Section {
    #[serde(flatten)]
    server: Server,
    model: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default = "yes")]
    batch: bool,
    #[serde(rename = "input")]
    inputs: Vec<InputSection>,
    answer: AnswerSection,
    #[serde(flatten)]
    unknown: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSection {
    name: String,
    from: String,
    datatype: Datatype,
    #[serde(default)]
    shape: Option<Vec<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerSection {
    kind: Kind,
    #[serde(default)]
    output: String,
    #[serde(default)]
    softmax: bool,
    #[serde(default = "label")]
    label_field: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Labels,
    Entities,
    Document,
    Tensors,
}

#[derive(Deserialize)]
struct Response {
    outputs: Vec<Output>,
}

pub(super) struct Oip {
    http: Http,
    batch: bool,
    inputs: Vec<InputSection>,
    answer: AnswerSection,
    labels: Vec<String>,
    model_info: String,
    answers: Answers,
}

type Answer = Result<String, InferError>;

impl Oip {
    pub(super) fn open(package: &Package, options: &OpenOptions) -> Result<Self, OpenError> {
        let manifest = &package.manifest;
        let Section { server, model, model_version, batch, inputs, answer, unknown } = manifest.section()?;
        refuse_unknown(&unknown)?;
        let wrong = |what: &str| Err(OpenError::Manifest(ManifestError(format!("[oip]: {what}"))));
        if inputs.is_empty() {
            return wrong("there must be an [[oip.input]]");
        }
        if !is_segment(&model) || model_version.as_ref().is_some_and(|version| !is_segment(version)) {
            return wrong("model and model_version may have letters, digits, dots, _ and - only");
        }
        if answer.kind != Kind::Tensors && answer.output.is_empty() {
            return wrong("answer.output must name an output");
        }
        let version = model_version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        let url = format!("{}/v2/models/{model}{version}/infer", server.url.trim_end_matches('/'));
        Ok(Self {
            http: Http::new(&server, &url, manifest, options)?,
            batch,
            inputs,
            answer,
            labels: manifest.output.labels.clone(),
            model_info: manifest.name.clone(),
            answers: Answers::of(package)?,
        })
    }

    /// One request for inputs of equal shapes.
    fn ask(&self, items: &[&[Item]]) -> Result<Vec<Answer>, Failure> {
        let tensors: Vec<Input> =
            self.inputs.iter().enumerate().map(|(place, input)| self.tensor(input, place, items)).collect();
        let wanted: &[String] =
            if self.answer.kind == Kind::Tensors { &[] } else { std::slice::from_ref(&self.answer.output) };
        let body = self.http.post(request(&tensors, wanted).to_string().as_bytes())?;
        let response: Response = serde_json::from_slice(&body).map_err(|_| {
            Failure::Refused(InferError::bad_output("the model server's answer is none of the Open Inference Protocol"))
        })?;
        self.read(response, items.len()).map_err(Failure::Refused)
    }

    fn tensor(&self, input: &InputSection, place: usize, items: &[&[Item]]) -> Input {
        let of_one = items.first().map(|item| item[place].shape.clone()).unwrap_or_default();
        let shape = if self.batch { [vec![items.len()], of_one].concat() } else { of_one };
        let data = items.iter().flat_map(|item| item[place].data.iter().cloned()).collect();
        Input { name: input.name.clone(), datatype: input.datatype, shape, data }
    }

    fn read(&self, response: Response, count: usize) -> Result<Vec<Answer>, InferError> {
        if self.answer.kind == Kind::Tensors {
            return self.tensors(response, count);
        }
        let name = &self.answer.output;
        let output = response.outputs.into_iter().find(|output| output.name == *name);
        let output = output.ok_or_else(|| InferError::bad_output(format!("the model server gave no output {name}")))?;
        let items = self.by_item(output).items(count)?;
        Ok(items.into_iter().map(|item| self.answers.judge(&self.result(item)?)).collect())
    }

    /// With a first dimension that counts the inputs. A server that has none answers for one.
    fn by_item(&self, output: Output) -> Output {
        if self.batch {
            return output;
        }
        Output { shape: [&[1], output.shape.as_slice()].concat(), ..output }
    }

    fn tensors(&self, response: Response, count: usize) -> Result<Vec<Answer>, InferError> {
        let mut results = vec![Map::new(); count];
        for output in response.outputs.into_iter().map(|output| self.by_item(output)) {
            for (result, item) in results.iter_mut().zip(output.items(count)?) {
                result.insert(output.name.clone(), output.nest(item));
            }
        }
        let whole = |outputs: Map<String, Value>| json!({ "outputs": outputs, "model_info": self.model_info });
        Ok(results.into_iter().map(|outputs| self.answers.judge(&whole(outputs))).collect())
    }

    fn result(&self, item: Vec<Value>) -> Result<Value, InferError> {
        match self.answer.kind {
            Kind::Labels => self.labels(&item),
            Kind::Entities => Ok(json!({ "entities": text(&item)?, "model_info": self.model_info })),
            Kind::Document | Kind::Tensors => text(&item),
        }
    }

    fn labels(&self, item: &[Value]) -> Result<Value, InferError> {
        let mut result = Map::new();
        if let [Value::String(label)] = item {
            if !self.labels.is_empty() && !self.labels.contains(label) {
                return Err(InferError::bad_output("the model server gave a label that output.labels does not name"));
            }
            result.insert(self.answer.label_field.clone(), json!(label));
        } else {
            let mut scores = numbers(item)?;
            if scores.len() != self.labels.len() {
                let (got, known) = (scores.len(), self.labels.len());
                return Err(InferError::bad_output(format!("the model server gave {got} scores to {known} labels")));
            }
            if self.answer.softmax {
                scores = softmax(&scores);
            }
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            let best = best.ok_or_else(|| InferError::bad_output("the model server gave no scores"))?;
            result.insert(self.answer.label_field.clone(), json!(self.labels[best]));
            result.insert("score".to_owned(), json!(rounded(scores[best])));
            let all = self.labels.iter().cloned().zip(scores.into_iter().map(|score| json!(rounded(score))));
            result.insert("scores".to_owned(), Value::Object(all.collect()));
        }
        result.insert("model_info".to_owned(), json!(self.model_info));
        Ok(Value::Object(result))
    }

    /// The document's tensors, in the order of `[[oip.input]]`.
    fn items(&self, document: &Value) -> Result<Vec<Item>, InferError> {
        let item = |input: &InputSection| {
            let value = document
                .pointer(&input.from)
                .ok_or_else(|| InferError::bad_input(format!("{}: the model needs it", input.from)))?;
            let item = Item::read(value, input.datatype, &input.from)?;
            match &input.shape {
                None => Ok(item),
                Some(shape) if shape.iter().product::<usize>() == item.data.len() => {
                    Ok(Item { shape: shape.clone(), data: item.data })
                }
                Some(shape) => {
                    let elements = item.data.len();
                    Err(InferError::bad_input(format!("{}: {elements} elements are not {shape:?}", input.from)))
                }
            }
        };
        self.inputs.iter().map(item).collect()
    }
}

impl Model for Oip {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "oip-v2".to_owned(), device: "remote".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let items = self.items(document)?;
        let elements: usize = items.iter().map(|item| item.data.len()).sum();
        Ok(Prepared {
            cost: u32::try_from(elements).unwrap_or(u32::MAX).max(1),
            payload: Payload::Document(document.clone()),
        })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Answer> {
        let read: Vec<Result<Vec<Item>, InferError>> = batch
            .iter()
            .map(|input| match &input.payload {
                Payload::Document(document) => self.items(document),
                Payload::Text(_) | Payload::Tokens { .. } | Payload::Tensors(_) => self.items(&Value::Null),
            })
            .collect();
        let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
        let mut at = 0;
        while at < read.len() {
            let Ok(first) = &read[at] else {
                answers.push(read[at].clone().map(|_| String::new()));
                at += 1;
                continue;
            };
            let alike = |item: &&Result<Vec<Item>, InferError>| {
                item.as_ref().is_ok_and(|items| shapes(items).eq(shapes(first)))
            };
            let most = if self.batch { usize::MAX } else { 1 };
            let group: Vec<&[Item]> =
                read[at..].iter().take_while(alike).take(most).flatten().map(Vec::as_slice).collect();
            at += group.len();
            answers.extend(self.group(&group));
        }
        answers
    }
}

impl Oip {
    /// A group that is refused is asked again one by one: one of them may be to blame.
    fn group(&self, items: &[&[Item]]) -> Vec<Answer> {
        match self.ask(items) {
            Ok(answers) => answers,
            Err(Failure::Refused(_)) if items.len() > 1 => items
                .iter()
                .map(|item| self.ask(std::slice::from_ref(item)).map_err(Failure::into_error)?.remove(0))
                .collect(),
            Err(failure) => vec![Err(failure.into_error()); items.len()],
        }
    }
}

fn shapes(items: &[Item]) -> impl Iterator<Item = &Vec<usize>> {
    items.iter().map(|item| &item.shape)
}

/// The one element, which is JSON text.
fn text(item: &[Value]) -> Result<Value, InferError> {
    let [Value::String(text)] = item else {
        return Err(InferError::bad_output("the model server's output is not one text an input"));
    };
    serde_json::from_str(text).map_err(|_| InferError::bad_output("the text of the model server's output is no JSON"))
}

fn numbers(item: &[Value]) -> Result<Vec<f64>, InferError> {
    let number = |value: &Value| value.as_f64().filter(|number| number.is_finite());
    item.iter()
        .map(number)
        .collect::<Option<_>>()
        .ok_or_else(|| InferError::bad_output("a score of the model server is no number"))
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Servers add up in different order; the last digits are theirs alone.
fn rounded(score: f64) -> f64 {
    (score * 1e6).round() / 1e6
}

/// One part of a path, which needs no escaping.
fn is_segment(text: &str) -> bool {
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn yes() -> bool {
    true
}

fn label() -> String {
    "label".to_owned()
}
