//! A node's attributes and a file's constants, read as what they should be.

use crate::model::{Tensor, TensorData};
use crate::onnx::proto::{Attribute, Constant, Node, element};

/// A node's attributes by name.
pub(super) struct Attributes<'a>(&'a [Attribute]);

impl<'a> Attributes<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        Self(&node.attribute)
    }

    fn find(&self, name: &str) -> Option<&'a Attribute> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn floats(&self, name: &str) -> &'a [f32] {
        self.find(name).map_or(&[], |attribute| &attribute.floats)
    }

    /// As [`Attributes::floats`]; newer models give the same numbers as a tensor in double precision.
    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f32>, String> {
        let plain = self.floats(name);
        match self.find(&format!("{name}_as_tensor")).and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) if plain.is_empty() => match constant(tensor)?.data {
                TensorData::F32(values) => Ok(values),
                _ => Err(format!("{name}_as_tensor has no numbers")),
            },
            _ => Ok(plain.to_vec()),
        }
    }

    pub(super) fn ints(&self, name: &str) -> &'a [i64] {
        self.find(name).map_or(&[], |attribute| &attribute.ints)
    }

    /// Texts; what is no UTF-8 has its bytes replaced.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.find(name).map_or(&[][..], |attribute| &attribute.strings);
        texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.find(name).map_or(default, |attribute| attribute.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.find(name).map_or(default, |attribute| attribute.f)
    }

    pub(super) fn text(&self, name: &str, default: &str) -> String {
        self.find(name).map_or_else(|| default.to_owned(), |it| String::from_utf8_lossy(&it.s).into_owned())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }
}

/// A constant's shape and values.
///
/// # Errors
/// When the values are not as many as its shape says, or of a type no operator here takes.
pub(super) fn constant(constant: &Constant) -> Result<Tensor, String> {
    let name = &constant.name;
    let shape = constant
        .dims
        .iter()
        .map(|length| usize::try_from(*length).map_err(|_| format!("the constant {name:?} has a negative dimension")))
        .collect::<Result<Vec<_>, _>>()?;
    let raw = &constant.raw_data;
    let data = match constant.data_type {
        element::FLOAT if raw.is_empty() => TensorData::F32(constant.float_data.clone()),
        element::FLOAT => TensorData::F32(little_endian(raw, f32::from_le_bytes)),
        #[expect(clippy::cast_possible_truncation, reason = "these models are computed in single precision")]
        element::DOUBLE => {
            let values =
                if raw.is_empty() { constant.double_data.clone() } else { little_endian(raw, f64::from_le_bytes) };
            TensorData::F32(values.into_iter().map(|value| value as f32).collect())
        }
        element::INT64 if raw.is_empty() => TensorData::I64(constant.int64_data.clone()),
        element::INT64 => TensorData::I64(little_endian(raw, i64::from_le_bytes)),
        element::INT32 if raw.is_empty() => {
            TensorData::I64(constant.int32_data.iter().map(|it| i64::from(*it)).collect())
        }
        element::INT32 => TensorData::I64(little_endian(raw, i32::from_le_bytes).into_iter().map(i64::from).collect()),
        element::BOOL if raw.is_empty() => {
            TensorData::I64(constant.int32_data.iter().map(|it| i64::from(*it)).collect())
        }
        element::BOOL => TensorData::I64(raw.iter().map(|byte| i64::from(*byte)).collect()),
        element::STRING => {
            let texts = constant.string_data.iter().map(|text| String::from_utf8_lossy(text).into_owned());
            TensorData::Text(texts.collect())
        }
        other => return Err(format!("the constant {name:?} has the element type {other}")),
    };
    let count = match &data {
        TensorData::F32(values) => values.len(),
        TensorData::I64(values) => values.len(),
        TensorData::Text(values) => values.len(),
    };
    match shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length)) {
        Some(product) if product == count => Ok(Tensor { name: name.clone(), shape, data }),
        _ => Err(format!("the constant {name:?} has {count} values for the shape {shape:?}")),
    }
}

fn little_endian<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}
