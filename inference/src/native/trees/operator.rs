//! What every operator of these graphs is, and tables of numbers as they see them.

use super::classes::Classes;
use crate::model::{Tensor, TensorData};

/// One node of a graph, read and judged.
pub(super) trait Operator: Send + Sync {
    /// Its outputs, in order.
    ///
    /// # Errors
    /// For people: what the inputs are that they should not be.
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String>;

    /// Memory it keeps.
    fn bytes(&self) -> u64 {
        0
    }

    /// Of a classifier.
    fn classes(&self) -> Option<&Classes> {
        None
    }
}

/// Numbers in rows and columns.
pub(super) struct Table<'a> {
    pub(super) columns: usize,
    values: std::borrow::Cow<'a, [f32]>,
}

impl Table<'_> {
    pub(super) fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.columns)
    }

    pub(super) fn count(&self) -> usize {
        self.values.len() / self.columns
    }
}

/// Input `place` as a table: one row of it when it has one dimension.
pub(super) fn matrix<'a>(inputs: &[&'a Tensor], place: usize) -> Result<Table<'a>, String> {
    let tensor = input(inputs, place)?;
    let columns = match tensor.shape[..] {
        [columns] | [_, columns] if columns > 0 => columns,
        _ => return Err(format!("{:?} is {:?}, not a table", tensor.name, tensor.shape)),
    };
    Ok(Table { columns, values: numbers(tensor)? })
}

/// Input `place`.
pub(super) fn input<'a>(inputs: &[&'a Tensor], place: usize) -> Result<&'a Tensor, String> {
    inputs.get(place).copied().ok_or_else(|| format!("input {place} is missing"))
}

/// A tensor's values as numbers.
pub(super) fn numbers(tensor: &Tensor) -> Result<std::borrow::Cow<'_, [f32]>, String> {
    match &tensor.data {
        TensorData::F32(values) => Ok(values.into()),
        #[expect(clippy::cast_precision_loss, reason = "as the operators are defined")]
        TensorData::I64(values) => Ok(values.iter().map(|value| *value as f32).collect::<Vec<_>>().into()),
        TensorData::Text(_) => Err(format!("{:?} has texts, not numbers", tensor.name)),
    }
}

/// A tensor that gets its name from the node.
pub(super) fn shaped(shape: Vec<usize>, data: TensorData) -> Tensor {
    Tensor { name: String::new(), shape, data }
}
