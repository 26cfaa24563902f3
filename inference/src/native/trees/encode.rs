//! `LabelEncoder` and `OneHotEncoder`: categories to numbers and back.

use std::collections::HashMap;

use super::arithmetic::count;
use super::attributes::Attributes;
use super::operator::{Operator, input, shaped};
use crate::model::{Tensor, TensorData};

/// A category; numbers with a fraction are compared by their bits, as the reference does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Number(i64),
    Fraction(u32),
    Text(String),
}

fn keys(data: &TensorData) -> Vec<Key> {
    match data {
        TensorData::I64(values) => values.iter().map(|value| Key::Number(*value)).collect(),
        TensorData::F32(values) => values.iter().map(|value| fraction(*value)).collect(),
        TensorData::Text(values) => values.iter().cloned().map(Key::Text).collect(),
    }
}

/// All NaNs are one, and so are both zeros.
fn fraction(value: f32) -> Key {
    Key::Fraction(if value.is_nan() { f32::NAN.to_bits() } else { (value + 0.0).to_bits() })
}

pub(super) struct LabelEncoder {
    places: HashMap<Key, usize>,
    values: TensorData,
    /// One value of the same type.
    default: TensorData,
}

impl LabelEncoder {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let list = |kind: &str| -> Option<TensorData> {
            let name = |of: &str| format!("{kind}_{of}");
            if attributes.has(&name("int64s")) {
                Some(TensorData::I64(attributes.ints(&name("int64s")).to_vec()))
            } else if attributes.has(&name("floats")) {
                Some(TensorData::F32(attributes.floats(&name("floats")).to_vec()))
            } else if attributes.has(&name("strings")) {
                Some(TensorData::Text(attributes.texts(&name("strings"))))
            } else {
                None
            }
        };
        let (from, values) = (list("keys").ok_or("it has no keys")?, list("values").ok_or("it has no values")?);
        let from = keys(&from);
        let many = keys(&values).len();
        if from.len() != many {
            return Err(format!("it has {} keys and {many} values", from.len()));
        }
        let default = match &values {
            TensorData::I64(_) => TensorData::I64(vec![attributes.int("default_int64", -1)]),
            TensorData::F32(_) => TensorData::F32(vec![attributes.float("default_float", -0.0)]),
            TensorData::Text(_) => TensorData::Text(vec![attributes.text("default_string", "_Unused")]),
        };
        Ok(Self { places: from.into_iter().enumerate().map(|(place, key)| (key, place)).collect(), values, default })
    }
}

impl Operator for LabelEncoder {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let tensor = input(inputs, 0)?;
        let found: Vec<Option<usize>> = keys(&tensor.data).iter().map(|key| self.places.get(key).copied()).collect();
        let data = match (&self.values, &self.default) {
            (TensorData::I64(values), TensorData::I64(default)) => TensorData::I64(pick(&found, values, default)),
            (TensorData::F32(values), TensorData::F32(default)) => TensorData::F32(pick(&found, values, default)),
            (TensorData::Text(values), TensorData::Text(default)) => TensorData::Text(pick(&found, values, default)),
            _ => return Err("its default has another type than its values".to_owned()),
        };
        Ok(vec![shaped(tensor.shape.clone(), data)])
    }
}

fn pick<T: Clone>(places: &[Option<usize>], values: &[T], default: &[T]) -> Vec<T> {
    places.iter().map(|place| place.map_or_else(|| default[0].clone(), |place| values[place].clone())).collect()
}

pub(super) struct OneHotEncoder {
    places: HashMap<Key, usize>,
    /// An unknown category is all zeros; else it is an error.
    zeros: bool,
}

impl OneHotEncoder {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let categories = match (attributes.ints("cats_int64s"), attributes.texts("cats_strings")) {
            ([], texts) if !texts.is_empty() => TensorData::Text(texts),
            (numbers, texts) if texts.is_empty() && !numbers.is_empty() => TensorData::I64(numbers.to_vec()),
            _ => return Err("it names its categories twice, or not at all".to_owned()),
        };
        let categories = keys(&categories);
        let many = categories.len();
        let places: HashMap<Key, usize> = categories.into_iter().enumerate().map(|(place, key)| (key, place)).collect();
        if places.len() < many {
            return Err("it names a category twice".to_owned());
        }
        Ok(Self { places, zeros: attributes.int("zeros", 1) != 0 })
    }
}

impl Operator for OneHotEncoder {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let tensor = input(inputs, 0)?;
        let found = match &tensor.data {
            #[expect(clippy::cast_possible_truncation, reason = "the reference casts so too")]
            TensorData::F32(values) => keys(&TensorData::I64(values.iter().map(|value| *value as i64).collect())),
            data => keys(data),
        };
        let width = self.places.len();
        let mut data = vec![0.0; count(&[found.len(), width])?];
        for (row, key) in found.iter().enumerate() {
            match self.places.get(key) {
                Some(place) => data[row * width + place] = 1.0,
                None if self.zeros => {}
                None => return Err(format!("element {row} is none of its {width} categories")),
            }
        }
        let mut shape = tensor.shape.clone();
        shape.push(width);
        Ok(vec![shaped(shape, TensorData::F32(data))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_s_own_word_takes_no_memory_beyond_bounds() {
        let wide = OneHotEncoder { places: (0..5_000).map(|it| (Key::Number(it), it as usize)).collect(), zeros: true };
        let many = shaped(vec![5_000], TensorData::I64(vec![1; 5_000]));
        assert!(wide.run(&[&many]).unwrap_err().contains("too large"));
        let few = shaped(vec![2], TensorData::I64(vec![1, 7]));
        assert_eq!(wide.run(&[&few]).unwrap()[0].shape, [2, 5_000]);
    }
}
