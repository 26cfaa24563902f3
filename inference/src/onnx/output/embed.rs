//! Vectors.

use serde_json::{Map, Value, json};

use super::{Answered, finite, mean, weighed};
use crate::model::InferError;
use crate::onnx::section::{Embedding, Pooling};

pub(super) fn document(how: &Embedding, answered: &Answered<'_>) -> Result<Map<String, Value>, InferError> {
    let mut parts = Vec::with_capacity(answered.parts.len());
    for (place, (weight, tensor)) in weighed(answered).enumerate() {
        let numbers = finite(tensor)?;
        let vector = match (&tensor.shape[..], answered.windows.get(place)) {
            ([_], _) => numbers,
            ([tokens, width], Some(window)) if *width > 0 && *tokens >= window.ids.len() => {
                pool(how.pooling, &numbers, window.ids.len(), *width)
            }
            (shape, _) => {
                return Err(InferError::bad_output(format!("the output {:?} is no vector: {shape:?}", tensor.name)));
            }
        };
        parts.push((weight, vector));
    }
    let mut vector = mean(&parts)?;
    if how.normalize {
        let length = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|value| *value /= length);
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "graphs compute in single precision")]
    let vector: Vec<f32> = vector.into_iter().map(|value| value as f32).collect();
    Ok(Map::from_iter([("dimensions".to_owned(), json!(vector.len())), ("embedding".to_owned(), Value::from(vector))]))
}

/// Padding comes after a window's own tokens and takes no part.
fn pool(pooling: Pooling, numbers: &[f64], tokens: usize, width: usize) -> Vec<f64> {
    match pooling {
        Pooling::Cls => numbers[..width].to_vec(),
        Pooling::Mean => {
            let rows: Vec<(f64, Vec<f64>)> =
                numbers.chunks_exact(width).take(tokens).map(|row| (1.0, row.to_vec())).collect();
            mean(&rows).unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Tensor, TensorData, Window};

    #[test]
    fn padding_has_no_part_in_a_mean_and_windows_weigh_by_their_tokens() {
        let window = |many: usize| Window {
            ids: vec![1; many],
            type_ids: vec![0; many],
            offsets: vec![(0, 0); many],
            words: vec![None; many],
        };
        let tensor = |values: &[f32]| Tensor {
            name: "y".to_owned(),
            shape: vec![values.len() / 2, 2],
            data: TensorData::F32(values.to_vec()),
        };
        let windows = [window(2), window(1)];
        let answered = Answered {
            text: "",
            windows: &windows,
            truncated: false,
            parts: vec![
                vec![tensor(&[1.0, 0.0, 3.0, 0.0, 99.0, 99.0])],
                vec![tensor(&[0.0, 3.0, 99.0, 99.0, 9.0, 9.0])],
            ],
            rows: false,
        };
        let ask = |toml: &str| {
            let document = document(&toml::from_str(toml).unwrap(), &answered).unwrap();
            serde_json::from_value::<Vec<f32>>(document["embedding"].clone()).unwrap()
        };
        let close = |got: &[f32], expected: &[f32]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {expected:?}");
        };
        close(&ask("normalize = false"), &[4.0 / 3.0, 1.0]);
        close(&ask(""), &[0.8, 0.6]);
        close(&ask("pooling = 'cls'\nnormalize = false"), &[2.0 / 3.0, 1.0]);
    }
}
