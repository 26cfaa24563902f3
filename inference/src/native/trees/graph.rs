//! A file's graph, read once: its operators in order, and which of its outputs they can give.

use std::collections::HashMap;

use prost::bytes::Bytes;

use super::arithmetic::{MOST_ELEMENTS, Plain, sigmoid};
use super::attributes::{Attributes, constant};
use super::encode::{LabelEncoder, OneHotEncoder};
use super::linear::Rows;
use super::operator::Operator;
use super::{ensemble, linear};
use crate::model::{RunsOn, Tensor};
use crate::onnx::engine::{Engine, Kind, Port};
use crate::onnx::proto::{self, Graph, Node, Value, element};

/// Values are numbered: the constants, the inputs, then what nodes give.
pub(super) struct Trees {
    steps: Vec<Step>,
    constants: Vec<(usize, Tensor)>,
    values: usize,
    inputs: Vec<(Port, usize)>,
    input_ports: Vec<Port>,
    outputs: Vec<Option<usize>>,
    output_ports: Vec<Port>,
    classes: Vec<String>,
    bytes: u64,
}

struct Step {
    operator: Box<dyn Operator>,
    name: String,
    inputs: Vec<usize>,
    /// Where its outputs go, in order; `None` for those nobody has a name for.
    outputs: Vec<Option<usize>>,
}

/// What a name in the file stands for.
#[derive(Clone)]
enum Named {
    Value(usize),
    /// It cannot be computed here, and why.
    Lacking(String),
}

impl Trees {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is no graph this backend can run, for people.
    pub(super) fn read(file: Vec<u8>) -> Result<Self, String> {
        let model = proto::read(Bytes::from(file))?;
        let graph = model.graph.ok_or("it has no graph")?;
        let mut reading = Reading::default();
        for tensor in &graph.initializer {
            let tensor = constant(tensor)?;
            let place = reading.name(tensor.name.clone());
            reading.constants.push((place, tensor));
        }
        let mut inputs = Vec::new();
        for value in &graph.input {
            // Older files list their constants among the inputs.
            if !reading.names.contains_key(&value.name) {
                inputs.push((port(value, &graph), reading.name(value.name.clone())));
            }
        }
        for node in &graph.node {
            reading.node(node)?;
        }
        let (mut outputs, mut output_ports) = (Vec::new(), Vec::new());
        for value in &graph.output {
            let mut port = port(value, &graph);
            outputs.push(match reading.names.get(&value.name) {
                Some(Named::Value(place)) => {
                    // A map a class is answered as the table it was made of.
                    if matches!(port.kind, Kind::Other(_)) {
                        (port.kind, port.shape) = (Kind::Float, None);
                    }
                    Some(*place)
                }
                Some(Named::Lacking(reason)) => {
                    port.kind = Kind::Other(reason.clone());
                    None
                }
                None => return Err(format!("nothing gives the output {:?}", value.name)),
            });
            output_ports.push(port);
        }
        if let (true, Some(Kind::Other(reason))) =
            (outputs.iter().all(Option::is_none), output_ports.first().map(|port| port.kind.clone()))
        {
            return Err(format!("none of its outputs can be had: {reason}"));
        }
        let classes = reading.steps.iter().rev().find_map(|step| step.operator.classes());
        let bytes = reading.steps.iter().map(|step| step.operator.bytes()).sum();
        Ok(Self {
            classes: classes.map(super::classes::Classes::names).unwrap_or_default(),
            bytes,
            values: reading.count,
            steps: reading.steps,
            constants: reading.constants,
            input_ports: inputs.iter().map(|(port, _)| port.clone()).collect(),
            inputs,
            outputs,
            output_ports,
        })
    }
}

impl Engine for Trees {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "trees".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        self.bytes
    }

    fn inputs(&self) -> &[Port] {
        &self.input_ports
    }

    fn outputs(&self) -> &[Port] {
        &self.output_ports
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn run(&self, inputs: Vec<Tensor>, outputs: &[usize]) -> Result<Vec<Tensor>, String> {
        let wanted: Vec<usize> = outputs
            .iter()
            .map(|place| {
                self.outputs[*place]
                    .ok_or_else(|| format!("the output {:?} cannot be had", self.output_ports[*place].name))
            })
            .collect::<Result<_, _>>()?;
        let needed = self.needed(&wanted);
        let mut values: Vec<Option<Tensor>> = vec![None; self.values];
        for tensor in inputs {
            let found = self.inputs.iter().find(|(port, _)| port.name == tensor.name);
            let (_, at) = found.ok_or_else(|| format!("there is no input {:?}", tensor.name))?;
            values[*at] = Some(tensor);
        }
        let mut constants: Vec<Option<&Tensor>> = vec![None; self.values];
        for (place, tensor) in &self.constants {
            constants[*place] = Some(tensor);
        }
        let mut made = 0;
        for (step, _) in self.steps.iter().zip(needed).filter(|(_, needed)| *needed) {
            let inputs = step
                .inputs
                .iter()
                .map(|place| {
                    values[*place]
                        .as_ref()
                        .or(constants[*place])
                        .ok_or_else(|| format!("{}: an input did not come", step.name))
                })
                .collect::<Result<Vec<_>, _>>()?;
            let given = step.operator.run(&inputs).map_err(|reason| format!("{}: {reason}", step.name))?;
            for (place, tensor) in step.outputs.iter().zip(given) {
                // All of it is kept until the end.
                made += tensor.shape.iter().product::<usize>();
                if made > 2 * MOST_ELEMENTS {
                    return Err(format!("{}: the graph makes too much of this input", step.name));
                }
                if let Some(place) = place {
                    values[*place] = Some(tensor);
                }
            }
        }
        wanted
            .into_iter()
            .zip(outputs)
            .map(|(value, output)| {
                let tensor = values[value].clone().or_else(|| constants[value].cloned());
                let tensor = tensor.ok_or("an output did not come")?;
                Ok(Tensor { name: self.output_ports[*output].name.clone(), ..tensor })
            })
            .collect()
    }
}

impl Trees {
    /// Which steps the wanted values need.
    fn needed(&self, wanted: &[usize]) -> Vec<bool> {
        let mut values = vec![false; self.values];
        wanted.iter().for_each(|place| values[*place] = true);
        let mut needed = vec![false; self.steps.len()];
        for (at, step) in self.steps.iter().enumerate().rev() {
            if step.outputs.iter().flatten().any(|place| values[*place]) {
                needed[at] = true;
                step.inputs.iter().for_each(|place| values[*place] = true);
            }
        }
        needed
    }
}

#[derive(Default)]
struct Reading {
    names: HashMap<String, Named>,
    count: usize,
    steps: Vec<Step>,
    constants: Vec<(usize, Tensor)>,
}

impl Reading {
    fn name(&mut self, name: String) -> usize {
        let place = self.count;
        self.names.insert(name, Named::Value(place));
        self.count += 1;
        place
    }

    /// A node that is unknown, or has an unknown one before it, only makes its outputs lacking: they may not be wanted.
    fn node(&mut self, node: &Node) -> Result<(), String> {
        let known = operator(node);
        let mut inputs = Vec::with_capacity(node.input.len());
        let mut lacking = match &known {
            Err(reason) => Some(reason.clone()),
            Ok(_) => None,
        };
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            match self.names.get(input) {
                Some(Named::Value(place)) => inputs.push(*place),
                Some(Named::Lacking(reason)) => lacking = lacking.or_else(|| Some(reason.clone())),
                None => return Err(format!("{} asks for {input:?}, which nothing before it gives", node.op_type)),
            }
        }
        let mut outputs = Vec::with_capacity(node.output.len());
        for output in &node.output {
            if output.is_empty() {
                outputs.push(None);
                continue;
            }
            if self.names.contains_key(output) {
                return Err(format!("{output:?} is given twice"));
            }
            match &lacking {
                Some(reason) => {
                    self.names.insert(output.clone(), Named::Lacking(reason.clone()));
                }
                None => outputs.push(Some(self.name(output.clone()))),
            }
        }
        if let (None, Ok(operator)) = (lacking, known) {
            self.steps.push(Step { operator, name: node.op_type.clone(), inputs, outputs });
        }
        Ok(())
    }
}

/// The operator a node asks for.
fn operator(node: &Node) -> Result<Box<dyn Operator>, String> {
    let attributes = &Attributes::of(node);
    let read: Result<Box<dyn Operator>, String> = match (node.domain.as_str(), node.op_type.as_str()) {
        ("ai.onnx.ml", "TreeEnsembleClassifier") => ensemble::Classifier::read(attributes).map(boxed),
        ("ai.onnx.ml", "TreeEnsembleRegressor") => ensemble::Regressor::read(attributes).map(boxed),
        ("ai.onnx.ml", "LinearClassifier") => linear::Classifier::read(attributes).map(boxed),
        ("ai.onnx.ml", "LinearRegressor") => linear::Regressor::read(attributes).map(boxed),
        ("ai.onnx.ml", "Scaler") => Rows::scaler(attributes).map(boxed),
        ("ai.onnx.ml", "Normalizer") => Rows::normalizer(attributes).map(boxed),
        ("ai.onnx.ml", "Imputer") => Rows::imputer(attributes).map(boxed),
        ("ai.onnx.ml", "Binarizer") => Ok(boxed(Rows::binarizer(attributes))),
        ("ai.onnx.ml", "LabelEncoder") => LabelEncoder::read(attributes).map(boxed),
        ("ai.onnx.ml", "OneHotEncoder") => OneHotEncoder::read(attributes).map(boxed),
        ("ai.onnx.ml", "FeatureVectorizer") => Ok(boxed(Plain::Concat { axis: 1 })),
        ("ai.onnx.ml", "ArrayFeatureExtractor") => Ok(boxed(Plain::Columns)),
        ("ai.onnx.ml", "ZipMap") | ("" | "ai.onnx", "Identity") => Ok(boxed(Plain::Identity)),
        ("" | "ai.onnx", "Cast") => Plain::cast(attributes).map(boxed),
        ("" | "ai.onnx", "Add") => Ok(boxed(Plain::Two(|a, b| a + b))),
        ("" | "ai.onnx", "Sub") => Ok(boxed(Plain::Two(|a, b| a - b))),
        ("" | "ai.onnx", "Mul") => Ok(boxed(Plain::Two(|a, b| a * b))),
        ("" | "ai.onnx", "Div") => Ok(boxed(Plain::Two(|a, b| a / b))),
        ("" | "ai.onnx", "Neg") => Ok(boxed(Plain::One(|value| -value))),
        ("" | "ai.onnx", "Exp") => Ok(boxed(Plain::One(f32::exp))),
        ("" | "ai.onnx", "Relu") => Ok(boxed(Plain::One(|value| if value < 0.0 { 0.0 } else { value }))),
        ("" | "ai.onnx", "Tanh") => Ok(boxed(Plain::One(f32::tanh))),
        ("" | "ai.onnx", "Sigmoid") => Ok(boxed(Plain::One(sigmoid))),
        ("" | "ai.onnx", "Softmax") if [-1, 1].contains(&attributes.int("axis", -1)) => Ok(boxed(Plain::Softmax)),
        ("" | "ai.onnx", "MatMul") => Ok(boxed(Plain::MatMul)),
        ("" | "ai.onnx", "Gemm") => Plain::gemm(attributes).map(boxed),
        ("" | "ai.onnx", "Concat") => Ok(boxed(Plain::Concat { axis: attributes.int("axis", 1) })),
        ("" | "ai.onnx", "Gather") => Ok(boxed(Plain::Gather { axis: attributes.int("axis", 0) })),
        ("" | "ai.onnx", "Reshape") => Ok(boxed(Plain::Reshape)),
        ("" | "ai.onnx", "Flatten") => Ok(boxed(Plain::Flatten { axis: attributes.int("axis", 1) })),
        (domain, name) => Err(format!("the operator {name} of {domain:?} is not among those of this backend")),
    };
    read.map_err(|reason| format!("{}: {reason}", node.op_type))
}

fn boxed<T: Operator + 'static>(operator: T) -> Box<dyn Operator> {
    Box::new(operator)
}

fn port(value: &Value, graph: &Graph) -> Port {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let kind = match tensor.map(|tensor| tensor.elem_type) {
        Some(element::FLOAT | element::DOUBLE) => Kind::Float,
        Some(element::INT64 | element::INT32 | element::BOOL) => Kind::Int,
        Some(element::STRING) => Kind::Text,
        Some(other) => Kind::Other(format!("a tensor of the element type {other}")),
        None if graph.output.iter().any(|output| output.name == value.name) => Kind::Other("a map a row".to_owned()),
        None => Kind::Unknown,
    };
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
        let length =
            |dim: &proto::Dimension| dim.dim_value.and_then(|length| usize::try_from(length).ok()).filter(|it| *it > 0);
        shape.dim.iter().map(length).collect()
    });
    Port { name: value.name.clone(), kind, shape }
}
