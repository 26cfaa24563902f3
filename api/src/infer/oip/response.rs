//! An inference response of the Open Inference Protocol: JSON, with the data of outputs in it or as bytes behind it.

use axum::http::HeaderValue;
use bytes::Bytes;
use serde_json::Value;

use super::request::Asked;
use super::shape::{Member, RESULT, Shape};
use super::tensor::{Datatype, write_text};
use crate::problem::{Fields, Problem};

/// Who answered; it stands in every response.
pub(super) struct Answered<'a> {
    pub(super) task_type: &'a str,
    pub(super) version: &'a str,
    /// JSON object.
    pub(super) parameters: &'a str,
}

/// A response's body.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Length of the JSON, when binary data follow.
    pub(super) json_length: Option<HeaderValue>,
}

/// One output's data: in JSON, or as bytes.
#[derive(Default)]
struct Data {
    json: String,
    binary: Vec<u8>,
}

/// Which outputs a request gets, each with whether as bytes.
pub(super) struct Wanted<'a> {
    outputs: Vec<(Option<&'a Member>, bool)>,
}

impl<'a> Wanted<'a> {
    /// # Errors
    /// 422 when one is asked for that there is not.
    pub(super) fn of(asked: &Asked, shape: &'a Shape) -> Result<Self, Problem> {
        let Some(names) = &asked.outputs else {
            let all = std::iter::once(None).chain(shape.outputs().iter().map(Some));
            return Ok(Self { outputs: all.map(|member| (member, asked.binary)).collect() });
        };
        let mut outputs = Vec::new();
        for (at, (name, binary)) in names.iter().enumerate() {
            let member = shape.outputs().iter().find(|member| member.name == *name);
            if member.is_none() && name != RESULT {
                let known = std::iter::once(RESULT).chain(shape.outputs().iter().map(|member| &*member.name));
                let what = format!("is no output of this model; it has {}", known.collect::<Vec<_>>().join(", "));
                return Err(Problem::invalid(Fields::one(format!("/outputs/{at}/name"), what)));
            }
            if outputs.iter().any(|(other, _)| *other == member) {
                return Err(Problem::invalid(Fields::one(format!("/outputs/{at}/name"), "is there twice")));
            }
            outputs.push((member, *binary));
        }
        Ok(Self { outputs })
    }

    /// The response to `results`, one JSON text an item.
    ///
    /// # Errors
    /// The name of an output that a result does not have as its schema says.
    pub(super) fn write(&self, asked: &Asked, answered: &Answered<'_>, results: &[String]) -> Result<Body, String> {
        let parsed: Vec<Value> = if self.outputs.iter().any(|(member, _)| member.is_some()) {
            results.iter().map(|result| serde_json::from_str(result).unwrap_or_default()).collect()
        } else {
            Vec::new()
        };
        let mut json = String::with_capacity(256 + results.iter().map(|result| 2 * result.len()).sum::<usize>());
        json.push_str("{\"model_name\":");
        write_text(answered.task_type, &mut json);
        json.push_str(",\"model_version\":");
        write_text(answered.version, &mut json);
        if let Some(id) = &asked.id {
            json.push_str(",\"id\":");
            write_text(id, &mut json);
        }
        json.push_str(",\"parameters\":");
        json.push_str(answered.parameters);
        json.push_str(",\"outputs\":[");
        let mut binary = Vec::new();
        for (at, (member, as_bytes)) in self.outputs.iter().enumerate() {
            if at > 0 {
                json.push(',');
            }
            let data = match member {
                None => whole(results, *as_bytes),
                Some(member) => part(member, &parsed, *as_bytes).ok_or_else(|| member.name.clone())?,
            };
            write_head(*member, results.len(), &mut json);
            if *as_bytes {
                json.push_str(&format!(",\"parameters\":{{\"binary_data_size\":{}}}}}", data.binary.len()));
                binary.extend_from_slice(&data.binary);
            } else {
                json.push_str(",\"data\":[");
                json.push_str(&data.json);
                json.push_str("]}");
            }
        }
        json.push_str("]}");
        let json_length = self.outputs.iter().any(|(_, as_bytes)| *as_bytes).then(|| HeaderValue::from(json.len()));
        let mut bytes = json.into_bytes();
        bytes.extend_from_slice(&binary);
        Ok(Body { bytes: bytes.into(), json_length })
    }
}

/// Name, datatype and shape; the object stays open.
fn write_head(member: Option<&Member>, items: usize, json: &mut String) {
    json.push_str("{\"name\":");
    write_text(member.map_or(RESULT, |member| &member.name), json);
    let datatype = member.and_then(|member| member.datatype).unwrap_or(Datatype::Bytes);
    json.push_str(&format!(",\"datatype\":\"{}\",\"shape\":[{items}", datatype.name()));
    for size in member.into_iter().flat_map(Member::sizes) {
        json.push_str(&format!(",{size}"));
    }
    json.push(']');
}

/// The results themselves.
fn whole(results: &[String], as_bytes: bool) -> Data {
    let mut data = Data::default();
    for result in results {
        data.text(result, as_bytes);
    }
    data
}

/// A member of each result; `None` when one has it not, or of another kind.
fn part(member: &Member, results: &[Value], as_bytes: bool) -> Option<Data> {
    let mut data = Data::default();
    let sizes: Vec<usize> = member.sizes().collect();
    for result in results {
        data.put(&result[&member.name], member.datatype?, &sizes, as_bytes)?;
    }
    Some(data)
}

impl Data {
    fn put(&mut self, value: &Value, datatype: Datatype, sizes: &[usize], as_bytes: bool) -> Option<()> {
        if let Some((size, rest)) = sizes.split_first() {
            let list = value.as_array().filter(|list| list.len() == *size)?;
            return list.iter().try_for_each(|value| self.put(value, datatype, rest, as_bytes).ok_or(())).ok();
        }
        match datatype {
            Datatype::Bytes => self.text(value.as_str()?, as_bytes),
            Datatype::Bool => self.number(value.as_bool()?.to_string(), &[u8::from(value.as_bool()?)], as_bytes),
            Datatype::Int64 => {
                let whole = value.as_i64()?;
                self.number(whole.to_string(), &whole.to_le_bytes(), as_bytes);
            }
            _ => {
                let single = value.as_f64()? as f32;
                self.number(value.to_string(), &single.to_le_bytes(), as_bytes);
            }
        }
        Some(())
    }

    fn text(&mut self, text: &str, as_bytes: bool) {
        if as_bytes {
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            self.binary.extend_from_slice(&length.to_le_bytes());
            self.binary.extend_from_slice(text.as_bytes());
        } else {
            self.comma();
            write_text(text, &mut self.json);
        }
    }

    fn number(&mut self, json: String, bytes: &[u8], as_bytes: bool) {
        if as_bytes {
            self.binary.extend_from_slice(bytes);
        } else {
            self.comma();
            self.json.push_str(&json);
        }
    }

    fn comma(&mut self) {
        if !self.json.is_empty() {
            self.json.push(',');
        }
    }
}
