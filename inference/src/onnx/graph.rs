//! A package's graph as a [`Model`]: documents in, result documents out, whatever engine runs it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::TextReader;
use super::engine::{Engine, Port};
use super::gather::{self, TextInputs};
use super::output::{Answered, Output};
use super::section::{Bind, Section};
use super::tensors::{Batching, Reader};
use crate::manifest::{Batch, Cost};
use crate::model::{InferError, Model, Payload, Prepared, RunsOn, Tensor, Window};
use crate::open::OpenError;
use crate::package::Package;

pub(crate) struct GraphModel {
    engine: Box<dyn Engine>,
    input: Input,
    output: Output,
    batch: Batch,
    tokenizer_bytes: u64,
}

enum Input {
    Text { reader: Box<TextReader>, names: TextInputs, pointer: String, max_chars: usize, max_tokens: usize },
    Tensors { readers: Vec<Reader>, batching: Batching },
}

/// What one input's part of a run's outputs is: a tensor for each wanted output.
type Parts = Result<Vec<Tensor>, InferError>;

impl GraphModel {
    /// Opens a package's graph with `engine`.
    ///
    /// # Errors
    /// [`OpenError`] when the section, the graph and the files do not fit together. An engine that panics over a file
    /// counts as one that refuses it.
    pub(crate) fn open(
        package: &Package,
        section: &Section,
        section_name: &str,
        engine: impl FnOnce() -> Result<Box<dyn Engine>, OpenError>,
    ) -> Result<Self, OpenError> {
        section.judge(section_name)?;
        let engine = catch_unwind(AssertUnwindSafe(engine)).unwrap_or_else(|_| {
            Err(OpenError::Broken(format!("{}: the engine panics over this file", section.file)))
        })?;
        let manifest = &package.manifest;
        let output = Output::new(manifest, section, engine.outputs(), engine.classes())?;
        let mut tokenizer_bytes = 0;
        let input = match &section.tokenizer {
            Some(name) => {
                let json = package.file(name)?;
                tokenizer_bytes = json.len() as u64;
                Input::Text {
                    reader: Box::new(TextReader::new(&json, name, section)?),
                    names: text_inputs(&section.bind, engine.inputs())?,
                    pointer: manifest.input.text.clone().unwrap_or_else(|| "/text".to_owned()),
                    max_chars: manifest.input.max_chars,
                    max_tokens: section.max_tokens,
                }
            }
            None => tensor_inputs(section, engine.inputs())?,
        };
        Ok(Self { engine, input, output, batch: manifest.batch.clone(), tokenizer_bytes })
    }

    /// The answers of some inputs; an error is of the whole run.
    fn ask(&self, batch: &[&Prepared]) -> Result<Vec<Vec<Parts>>, InferError> {
        match &self.input {
            Input::Text { names, .. } => self.ask_windows(batch, names),
            Input::Tensors { batching, .. } => self.ask_tensors(batch, *batching),
        }
    }

    fn ask_windows(&self, batch: &[&Prepared], names: &TextInputs) -> Result<Vec<Vec<Parts>>, InferError> {
        let (mut windows, mut owners) = (Vec::new(), Vec::new());
        for (owner, prepared) in batch.iter().enumerate() {
            let Payload::Tokens { windows: own, .. } = &prepared.payload else { return Err(foreign()) };
            windows.extend(own);
            owners.extend(std::iter::repeat_n(owner, own.len()));
        }
        let mut parts: Vec<Option<Parts>> = windows.iter().map(|_| None).collect();
        let most = usize::try_from(self.batch.max_cost).unwrap_or(usize::MAX);
        for group in gather::by_length(&windows, self.batch.max_items, most, names.mask.is_some()) {
            let together: Vec<&Window> = group.iter().map(|place| windows[*place]).collect();
            let outputs = self.run(gather::pad(&together, names))?;
            for (number, place) in group.iter().enumerate() {
                parts[*place] = Some(cut(&outputs, number..number + 1, group.len(), true));
            }
        }
        let mut answers: Vec<Vec<Parts>> = batch.iter().map(|_| Vec::new()).collect();
        for (owner, part) in owners.into_iter().zip(parts) {
            answers[owner].push(part.unwrap_or_else(|| Err(InferError::bad_output("the graph gave no output"))));
        }
        Ok(answers)
    }

    fn ask_tensors(&self, batch: &[&Prepared], batching: Batching) -> Result<Vec<Vec<Parts>>, InferError> {
        let items = batch
            .iter()
            .map(|prepared| match &prepared.payload {
                Payload::Tensors(tensors) if !tensors.is_empty() => Ok(tensors.as_slice()),
                _ => Err(foreign()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let rows = batching == Batching::Rows;
        let most = if batching == Batching::Alone { 1 } else { self.batch.max_items };
        let mut answers: Vec<Vec<Parts>> = batch.iter().map(|_| Vec::new()).collect();
        for group in gather::by_shape(&items, rows, most) {
            if batching == Batching::Alone {
                let outputs = self.run(items[group[0]].to_vec())?;
                answers[group[0]].push(Ok(outputs));
                continue;
            }
            let inputs = (0..items[group[0]].len()).map(|input| {
                let tensors: Vec<&Tensor> = group.iter().map(|place| &items[*place][input]).collect();
                gather::stack(&tensors, rows)
            });
            let outputs = self.run(inputs.collect())?;
            let lengths: Vec<usize> =
                group.iter().map(|place| if rows { items[*place][0].shape[0] } else { 1 }).collect();
            let count = lengths.iter().sum();
            let mut start = 0;
            for (place, length) in group.iter().zip(lengths) {
                answers[*place].push(cut(&outputs, start..start + length, count, !rows));
                start += length;
            }
        }
        Ok(answers)
    }

    fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let outputs = self
            .engine
            .run(inputs, &self.output.wanted)
            .map_err(|reason| InferError::bad_output(format!("the graph could not be run on this input: {reason}")))?;
        let sound = |tensor: &Tensor| {
            let count = match &tensor.data {
                crate::model::TensorData::F32(values) => values.len(),
                crate::model::TensorData::I64(values) => values.len(),
                crate::model::TensorData::Text(values) => values.len(),
            };
            tensor.shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length)) == Some(count)
        };
        if outputs.len() == self.output.wanted.len() && outputs.iter().all(sound) {
            Ok(outputs)
        } else {
            Err(InferError::bad_output("the engine's outputs are not what the graph says"))
        }
    }

    fn document(&self, prepared: &Prepared, parts: Vec<Parts>) -> Result<String, InferError> {
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let answered = match (&prepared.payload, &self.input) {
            (Payload::Tokens { text, windows }, Input::Text { max_tokens, .. }) => {
                Answered { text, windows, truncated: truncated(text, windows, *max_tokens), parts, rows: false }
            }
            (_, Input::Tensors { batching: Batching::Rows, .. }) => {
                Answered { text: "", windows: &[], truncated: false, parts, rows: true }
            }
            _ => Answered { text: "", windows: &[], truncated: false, parts, rows: false },
        };
        self.output.document(&answered)
    }
}

impl Model for GraphModel {
    fn runs_on(&self) -> RunsOn {
        self.engine.runs_on()
    }

    fn resident_bytes(&self) -> u64 {
        // A vocabulary in memory is several maps over strings: about eight times its JSON.
        self.engine.resident_bytes() + 8 * self.tokenizer_bytes
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        match &self.input {
            Input::Text { reader, pointer, max_chars, .. } => {
                let text = text(document, pointer, *max_chars)?;
                let windows = reader.read(text)?;
                let longest = windows.iter().map(|window| window.ids.len()).max().unwrap_or(1);
                let cost = match self.batch.cost {
                    Cost::Tokens => longest * windows.len(),
                    Cost::Chars => text.chars().count(),
                    Cost::Rows | Cost::Items => 1,
                };
                Ok(Prepared { cost: at_least_one(cost), payload: Payload::Tokens { text: text.to_owned(), windows } })
            }
            Input::Tensors { readers, batching } => {
                let tensors = readers.iter().map(|reader| reader.read(document)).collect::<Result<Vec<_>, _>>()?;
                let rows = if *batching == Batching::Rows { rows_of(&tensors)? } else { 1 };
                let cost = match self.batch.cost {
                    Cost::Tokens | Cost::Chars => {
                        tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
                    }
                    Cost::Rows => rows,
                    Cost::Items => 1,
                };
                Ok(Prepared { cost: at_least_one(cost), payload: Payload::Tensors(tensors) })
            }
        }
    }

    /// Runs the batch in groups; where one fails, or answers what is no answer, its inputs are asked again one by one:
    /// quantised graphs share their scale over a batch, so that one input's NaN can be another's.
    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        let alone = |prepared: &Prepared| {
            let mut parts = self.ask(&[prepared])?;
            self.document(prepared, parts.swap_remove(0))
        };
        let all: Vec<&Prepared> = batch.iter().collect();
        match self.ask(&all) {
            Ok(answers) => {
                let documents = batch.iter().zip(answers).map(|(prepared, parts)| self.document(prepared, parts));
                let again = |(prepared, document): (&Prepared, Result<String, InferError>)| match document {
                    Err(_) if batch.len() > 1 => alone(prepared),
                    document => document,
                };
                batch.iter().zip(documents).map(again).collect()
            }
            Err(_) if batch.len() > 1 => batch.iter().map(alone).collect(),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }
}

fn text<'a>(document: &'a Value, pointer: &str, max_chars: usize) -> Result<&'a str, InferError> {
    let place = if pointer.is_empty() { "the document" } else { pointer };
    let text = document.pointer(pointer).and_then(Value::as_str);
    let text = text.ok_or_else(|| InferError::bad_input(format!("{place}: must be a text")))?;
    // Bytes are an upper bound of characters, and cheap to ask for.
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(InferError::bad_input(format!("{place}: has more than {max_chars} characters")));
    }
    Ok(text)
}

fn rows_of(tensors: &[Tensor]) -> Result<usize, InferError> {
    let rows = tensors.first().and_then(|tensor| tensor.shape.first()).copied().unwrap_or(1);
    if tensors.iter().all(|tensor| tensor.shape.first() == Some(&rows)) {
        Ok(rows)
    } else {
        Err(InferError::bad_input("the document's tables have different numbers of rows"))
    }
}

fn cut(outputs: &[Tensor], range: std::ops::Range<usize>, count: usize, single: bool) -> Parts {
    outputs
        .iter()
        .map(|tensor| gather::part(tensor, range.clone(), count, single))
        .collect::<Result<_, _>>()
        .map_err(InferError::bad_output)
}

/// A full last window that ends before the text does.
fn truncated(text: &str, windows: &[Window], max_tokens: usize) -> bool {
    let end = windows.iter().flat_map(|window| &window.offsets).map(|(_, end)| *end as usize).max().unwrap_or(0);
    windows.iter().any(|window| window.ids.len() >= max_tokens) && end < text.trim_end().len()
}

fn text_inputs(bind: &Bind, ports: &[Port]) -> Result<TextInputs, OpenError> {
    let find = |bound: &Option<String>, usual: &[&str]| match bound {
        Some(name) if ports.iter().any(|port| port.name == *name) => Ok(Some(name.clone())),
        Some(name) => Err(OpenError::Broken(format!("model.toml: bind: the graph has no input {name:?}"))),
        None => Ok(ports.iter().find(|port| usual.contains(&port.name.as_str())).map(|port| port.name.clone())),
    };
    let ids = find(&bind.ids, &["input_ids", "ids", "tokens", "token_ids", "input"])?;
    let mask = find(&bind.mask, &["attention_mask", "mask", "input_mask"])?;
    let type_ids = find(&bind.type_ids, &["token_type_ids", "type_ids", "segment_ids"])?;
    let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
    let Some(ids) = ids else {
        let names = names.join(", ");
        return Err(OpenError::Broken(format!(
            "model.toml: bind.ids: none of the graph's inputs ({names}) has a usual name"
        )));
    };
    let known = [Some(&ids), mask.as_ref(), type_ids.as_ref()];
    match names.iter().find(|name| !known.contains(&Some(&(**name).to_owned()))) {
        Some(name) => {
            Err(OpenError::Broken(format!("the graph has an input {name:?} that no text can give; see bind")))
        }
        None => Ok(TextInputs { ids, mask, type_ids }),
    }
}

fn tensor_inputs(section: &Section, ports: &[Port]) -> Result<Input, OpenError> {
    let readers = section
        .inputs
        .iter()
        .map(|input| match ports.iter().find(|port| port.name == input.name) {
            Some(port) => Reader::new(input, port),
            None => {
                let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
                let (name, names) = (&input.name, names.join(", "));
                Err(OpenError::Broken(format!("model.toml: the graph has no input {name:?}; it has {names}")))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(port) = ports.iter().find(|port| !section.inputs.iter().any(|input| input.name == port.name)) {
        return Err(OpenError::Broken(format!("model.toml: nothing is said of the graph's input {:?}", port.name)));
    }
    let batching = readers.first().map_or(Batching::Alone, Reader::batching);
    if readers.iter().any(|reader| reader.batching() != batching) {
        return Err(OpenError::Broken(
            "model.toml: either all inputs have batch first, or all have rows, or none has either".to_owned(),
        ));
    }
    Ok(Input::Tensors { readers, batching })
}

fn at_least_one(cost: usize) -> u32 {
    u32::try_from(cost).unwrap_or(u32::MAX).max(1)
}

/// Prepared by another model; only a fault of the caller leads here.
fn foreign() -> InferError {
    InferError::bad_input("this input was prepared for another model")
}
