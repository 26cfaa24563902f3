//! An inference request of the Open Inference Protocol, and the input documents it stands for.
//!
//! Each input tensor is a member of the input document, by its name; its first dimension counts the items. So the tensor
//! `text` of two elements is two documents `{"text": …}`. A tensor `document` holds whole documents as JSON texts, where
//! the model's input has no member of that name.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::shape::Shape;
use super::tensor::{Tensor, write_text};
use crate::problem::{Fields, Problem};

/// Says how many bytes of the body are JSON; binary data follow.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";
/// The tensor that holds whole documents.
pub(super) const DOCUMENT: &str = "document";
/// Most tensors of one request.
const MAX_TENSORS: usize = 64;

/// What is asked.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: Option<String>,
    /// JSON texts, one an item.
    pub(super) documents: Vec<String>,
    /// Names and whether the data are wanted as bytes; `None` for all there are.
    pub(super) outputs: Option<Vec<(String, bool)>>,
    /// For outputs that do not say it themselves.
    pub(super) binary: bool,
}

/// A request as it was sent, before it is known which model it is for.
pub(super) struct Sent<'a> {
    request: Request<'a>,
    binary: &'a [u8],
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(default, borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default, borrow)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize, Default)]
struct Parameters<'a> {
    #[serde(default)]
    binary_data_output: bool,
    #[serde(default, borrow)]
    key: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<InputParameters>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<u64>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

#[derive(Deserialize, Default)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
}

impl<'a> Sent<'a> {
    /// Reads a body whose JSON is as long as `json_length` says, or all of it.
    pub(super) fn read(json_length: Option<&HeaderValue>, body: &'a [u8]) -> Result<Self, Problem> {
        let (json, binary) = split(json_length, body)?;
        let request = serde_json::from_slice(json)
            .map_err(|error| malformed(format!("the request is not as the protocol describes it: {error}")))?;
        Ok(Self { request, binary })
    }

    /// Keeps a caller with one version while a canary runs.
    pub(super) fn key(&self) -> Option<&str> {
        self.request.parameters.as_ref()?.key.as_deref()
    }

    /// How many elements the tensors have by their shapes.
    pub(super) fn elements(&self) -> usize {
        let count = |input: &Input<'_>| input.shape.iter().fold(1_u64, |product, size| product.saturating_mul(*size));
        let all = self.request.inputs.iter().map(count).fold(0_u64, u64::saturating_add);
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    /// What it asks of a model whose documents have `shape`.
    pub(super) fn asked(&self, shape: &Shape) -> Result<Asked, Problem> {
        let Self { request, binary } = self;
        let tensors = tensors(&request.inputs, binary)?;
        let documents = documents(&tensors, shape)?;
        let binary = request.parameters.as_ref().is_some_and(|parameters| parameters.binary_data_output);
        let wants = |output: &Output<'_>| {
            let own = output.parameters.as_ref().and_then(|parameters| parameters.binary_data);
            (output.name.clone().into_owned(), own.unwrap_or(binary))
        };
        let outputs = request.outputs.as_ref().filter(|list| !list.is_empty());
        Ok(Asked {
            id: request.id.as_deref().map(str::to_owned),
            documents,
            outputs: outputs.map(|list| list.iter().map(wants).collect()),
            binary,
        })
    }
}

/// The JSON, and the binary data behind it.
fn split<'a>(json_length: Option<&HeaderValue>, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Problem> {
    let Some(length) = json_length else { return Ok((body, &[])) };
    let length = length.to_str().ok().and_then(|length| length.parse::<usize>().ok());
    length.and_then(|length| body.split_at_checked(length)).ok_or_else(|| {
        malformed(format!(
            "Inference-Header-Content-Length: must be a number of bytes within the body's {}",
            body.len()
        ))
    })
}

fn tensors<'a>(inputs: &'a [Input<'a>], mut binary: &'a [u8]) -> Result<Vec<Tensor<'a>>, Problem> {
    if inputs.is_empty() || inputs.len() > MAX_TENSORS {
        return Err(invalid("/inputs", format!("must have 1 to {MAX_TENSORS} tensors")));
    }
    let mut tensors: Vec<Tensor<'a>> = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        let wrong = |(place, why): (&str, String)| invalid(&format!("/inputs/{at}/{place}"), why);
        let size = input.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
        let name = Cow::Borrowed(&*input.name);
        let tensor = match (size, input.data) {
            (Some(size), None) => {
                let here = usize::try_from(size).ok().and_then(|size| binary.split_at_checked(size));
                let Some((here, rest)) = here else {
                    let left = binary.len();
                    return Err(wrong(("parameters/binary_data_size", format!("is {size}; {left} bytes are left"))));
                };
                binary = rest;
                Tensor::of_bytes(name, &input.datatype, &input.shape, here)
            }
            (None, Some(data)) => Tensor::of_json(name, &input.datatype, &input.shape, data),
            (Some(_), Some(_)) => Err(("data", "stands beside parameters/binary_data_size".to_owned())),
            (None, None) => Err(("data", "is missing".to_owned())),
        };
        let tensor = tensor.map_err(wrong)?;
        if tensors.iter().any(|other| other.name == tensor.name) {
            return Err(wrong(("name", "is there twice".to_owned())));
        }
        if tensors.first().is_some_and(|first| first.items != tensor.items) {
            return Err(wrong(("shape", "must count as many items as the first tensor".to_owned())));
        }
        tensors.push(tensor);
    }
    if binary.is_empty() {
        Ok(tensors)
    } else {
        Err(malformed(format!("{} bytes follow the data of the last tensor", binary.len())))
    }
}

fn documents(tensors: &[Tensor<'_>], shape: &Shape) -> Result<Vec<String>, Problem> {
    let items = tensors[0].items;
    if let [only] = tensors
        && only.name == DOCUMENT
        && !shape.has_member(DOCUMENT)
    {
        let text = |item| only.text(item).map(Cow::into_owned);
        return (0..items)
            .map(|item| text(item).map_err(|(place, why)| invalid(&format!("/inputs/0/{place}"), why)))
            .collect();
    }
    (0..items).map(|item| document(tensors, item, shape)).collect()
}

/// One item's document.
fn document(tensors: &[Tensor<'_>], item: u64, shape: &Shape) -> Result<String, Problem> {
    let mut document = String::from("{");
    for (at, tensor) in tensors.iter().enumerate() {
        if at > 0 {
            document.push(',');
        }
        write_text(&tensor.name, &mut document);
        document.push(':');
        let nested = !tensor.is_scalar() || shape.is_list(&tensor.name);
        tensor
            .write(item, nested, &mut document)
            .map_err(|(place, why)| invalid(&format!("/inputs/{at}/{place}"), why))?;
    }
    document.push('}');
    Ok(document)
}

fn invalid(pointer: &str, why: String) -> Problem {
    Problem::invalid(Fields::one(pointer, why))
}

fn malformed(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed", "The body cannot be read", detail)
}
