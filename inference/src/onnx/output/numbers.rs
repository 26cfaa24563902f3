//! Numbers as they come: of a regression, or whole tensors.

use serde_json::{Map, Value, json};

use super::{Answered, finite, mean, round, weighed};
use crate::model::{InferError, TensorData};

pub(super) fn values(
    labels: &[String],
    digits: u32,
    answered: &Answered<'_>,
) -> Result<Map<String, Value>, InferError> {
    let parts = weighed(answered)
        .map(|(weight, tensor)| Ok((weight, finite(tensor)?)))
        .collect::<Result<Vec<_>, InferError>>()?;
    let values: Vec<f64> = mean(&parts)?.into_iter().map(|value| round(value, digits)).collect();
    let (name, value) = match (&values[..], labels) {
        ([], _) => return Err(InferError::bad_output("the graph's output is empty")),
        ([value], [] | [_]) => ("value", json!(value)),
        (values, []) => ("values", json!(values)),
        (values, labels) if values.len() == labels.len() => {
            let named = labels.iter().cloned().zip(values.iter().map(|value| json!(value)));
            ("values", Value::Object(named.collect()))
        }
        (values, labels) => {
            let (many, named) = (values.len(), labels.len());
            return Err(InferError::bad_output(format!("the graph gives {many} numbers for {named} labels")));
        }
    };
    Ok(Map::from_iter([(name.to_owned(), value)]))
}

pub(super) fn tensors(answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
    let outputs = answered.parts.first().map_or(&[][..], Vec::as_slice);
    let outputs = outputs
        .iter()
        .map(|tensor| {
            let data = match &tensor.data {
                TensorData::F32(values) => {
                    finite(tensor)?;
                    Value::from(values.clone())
                }
                TensorData::I64(values) => Value::from(values.clone()),
                TensorData::Text(values) => Value::from(values.clone()),
            };
            Ok(json!({ "name": tensor.name, "shape": tensor.shape, "data": data }))
        })
        .collect::<Result<Vec<_>, InferError>>()?;
    Ok(Map::from_iter([("outputs".to_owned(), Value::Array(outputs))]))
}
