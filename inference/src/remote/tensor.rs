//! Tensors as the Open Inference Protocol v2 writes them in JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model::InferError;

/// A named tensor of a request: data flat, in row-major order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<Value>,
}

/// A named tensor of an answer.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) data: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Datatype {
    #[serde(rename = "BYTES")]
    Bytes,
    #[serde(rename = "BOOL")]
    Bool,
    #[serde(rename = "INT32")]
    Int32,
    #[serde(rename = "INT64")]
    Int64,
    #[serde(rename = "FP32")]
    Fp32,
    #[serde(rename = "FP64")]
    Fp64,
}

/// One item's part of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// Without the batch's dimension.
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<Value>,
}

impl Item {
    /// Reads nested lists, or one value; `pointer` is for the message.
    pub(super) fn read(value: &Value, datatype: Datatype, pointer: &str) -> Result<Self, InferError> {
        let mut shape = Vec::new();
        let mut level = value;
        while let Value::Array(items) = level {
            shape.push(items.len());
            let Some(first) = items.first() else { break };
            level = first;
        }
        let mut data = Vec::new();
        flatten(value, &shape, datatype, &mut data)
            .map_err(|what| InferError::bad_input(format!("{pointer}: {what}")))?;
        Ok(Self { shape, data })
    }
}

fn flatten(value: &Value, shape: &[usize], datatype: Datatype, data: &mut Vec<Value>) -> Result<(), String> {
    match (value, shape) {
        (Value::Array(items), [length, inner @ ..]) if items.len() == *length => {
            items.iter().try_for_each(|item| flatten(item, inner, datatype, data))
        }
        (Value::Array(_), _) => Err("its rows differ in length".to_owned()),
        (_, [_, ..]) => Err("its rows differ in length".to_owned()),
        (value, []) => {
            let fits = match datatype {
                Datatype::Bytes => value.is_string(),
                Datatype::Bool => value.is_boolean(),
                Datatype::Int32 => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
                Datatype::Int64 => value.is_i64(),
                Datatype::Fp32 | Datatype::Fp64 => value.is_number(),
            };
            if !fits {
                return Err(format!("an element cannot be {}", json!(datatype)));
            }
            data.push(value.clone());
            Ok(())
        }
    }
}

impl Output {
    /// Its elements item by item, flat. Servers may nest `data` or not.
    pub(super) fn items(&self, count: usize) -> Result<Vec<Vec<Value>>, InferError> {
        let mut flat = Vec::new();
        spread(&self.data, &mut flat);
        let elements = self.shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let wrong = |what: String| Err(InferError::bad_output(format!("the output {}: {what}", self.name)));
        if elements != Some(flat.len()) {
            return wrong(format!("its shape {:?} does not hold {} elements", self.shape, flat.len()));
        }
        match self.shape.first() {
            Some(items) if *items == count && count > 0 => {
                let size = flat.len() / count;
                if size == 0 {
                    return Ok(vec![Vec::new(); count]);
                }
                let mut flat = flat.into_iter();
                Ok((0..count).map(|_| flat.by_ref().take(size).collect()).collect())
            }
            _ => wrong(format!("its shape {:?} begins with no {count}, the number of inputs", self.shape)),
        }
    }

    /// An item's elements in the shape they have, the batch's dimension left out.
    pub(super) fn nest(&self, item: Vec<Value>) -> Value {
        let mut level = item;
        for size in self.shape.iter().skip(2).rev() {
            if *size == 0 {
                return Value::Array(Vec::new());
            }
            level = level.chunks(*size).map(|chunk| Value::Array(chunk.to_vec())).collect();
        }
        if self.shape.len() < 2 { level.pop().unwrap_or(Value::Null) } else { Value::Array(level) }
    }
}

fn spread(value: &Value, flat: &mut Vec<Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| spread(item, flat)),
        value => flat.push(value.clone()),
    }
}

/// The body of a request.
pub(super) fn request(inputs: &[Input], outputs: &[String]) -> Value {
    let mut body = Map::new();
    body.insert("inputs".to_owned(), json!(inputs));
    if !outputs.is_empty() {
        let outputs: Vec<Value> = outputs.iter().map(|name| json!({ "name": name })).collect();
        body.insert("outputs".to_owned(), Value::Array(outputs));
    }
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_become_flat_data_with_a_shape() {
        for (value, datatype, expected) in [
            (json!("text"), Datatype::Bytes, Ok((vec![], 1))),
            (json!([[1, 2, 3], [4, 5.5, 6]]), Datatype::Fp32, Ok((vec![2, 3], 6))),
            (json!([]), Datatype::Fp32, Ok((vec![0], 0))),
            (json!([[1], [2, 3]]), Datatype::Fp32, Err("differ")),
            (json!([[1], 2]), Datatype::Fp32, Err("differ")),
            (json!([1, "a"]), Datatype::Fp32, Err("FP32")),
            (json!([1.5]), Datatype::Int64, Err("INT64")),
            (json!(i64::MAX), Datatype::Int32, Err("INT32")),
            (json!(null), Datatype::Bytes, Err("BYTES")),
        ] {
            match (Item::read(&value, datatype, "/x"), expected) {
                (Ok(item), Ok((shape, elements))) => {
                    assert_eq!((item.shape, item.data.len()), (shape, elements), "{value}")
                }
                (Err(error), Err(named)) => assert!(error.message.starts_with("/x") && error.message.contains(named)),
                (got, _) => panic!("{value}: {got:?}"),
            }
        }
    }

    #[test]
    fn an_output_is_cut_into_items_or_refused() {
        let output = |shape: Value, data: Value| -> Output {
            serde_json::from_value(json!({"name": "o", "datatype": "FP32", "shape": shape, "data": data})).unwrap()
        };
        let flat = output(json!([2, 2]), json!([1, 2, 3, 4]));
        assert_eq!(flat.items(2).unwrap(), [vec![json!(1), json!(2)], vec![json!(3), json!(4)]]);
        let nested = output(json!([2, 1, 2]), json!([[[1, 2]], [[3, 4]]]));
        let items = nested.items(2).unwrap();
        assert_eq!(nested.nest(items[1].clone()), json!([[3, 4]]));
        assert_eq!(output(json!([1]), json!(["x"])).nest(vec![json!("x")]), json!("x"));
        for (shape, data) in [
            (json!([3, 2]), json!([1, 2, 3, 4])),
            (json!([1, 4]), json!([1, 2, 3, 4])),
            (json!([]), json!([1])),
            (json!([usize::MAX, usize::MAX]), json!([1])),
        ] {
            assert_eq!(output(shape.clone(), data).items(2).unwrap_err().code, "bad_output", "{shape}");
        }
    }
}
