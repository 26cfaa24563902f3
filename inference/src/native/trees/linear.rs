//! `LinearClassifier`, `LinearRegressor`, and what stands before them: `Scaler`, `Normalizer`, `Imputer`, `Binarizer`.

use super::arithmetic::count;
use super::attributes::Attributes;
use super::classes::{Classes, Second, Transform};
use super::operator::{Operator, Table, matrix, shaped};
use crate::model::{Tensor, TensorData};

/// One weight a column for each of several sums.
struct Weights {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    columns: usize,
}

impl Weights {
    fn read(attributes: &Attributes<'_>, sums: usize) -> Result<Self, String> {
        let coefficients = attributes.floats("coefficients").to_vec();
        let mut intercepts = attributes.floats("intercepts").to_vec();
        intercepts.resize(sums.max(intercepts.len()), 0.0);
        if coefficients.is_empty() || sums == 0 || !coefficients.len().is_multiple_of(sums) || intercepts.len() != sums
        {
            let (many, intercepts) = (coefficients.len(), intercepts.len());
            return Err(format!("it has {many} coefficients and {intercepts} intercepts for {sums} sums"));
        }
        let columns = coefficients.len() / sums;
        Ok(Self { coefficients, intercepts, columns })
    }

    fn sums(&self, row: &[f32]) -> Vec<f32> {
        let weighed = |weights: &[f32]| weights.iter().zip(row).map(|(weight, cell)| weight * cell).sum::<f32>();
        self.coefficients
            .chunks_exact(self.columns)
            .zip(&self.intercepts)
            .map(|(it, base)| weighed(it) + base)
            .collect()
    }

    fn fits(&self, table: &Table<'_>) -> Result<(), String> {
        if self.columns == table.columns {
            Ok(())
        } else {
            Err(format!("it has weights for {} columns; there are {}", self.columns, table.columns))
        }
    }

    fn bytes(&self) -> u64 {
        4 * (self.coefficients.len() + self.intercepts.len()) as u64
    }
}

pub(super) struct Classifier {
    weights: Weights,
    classes: Classes,
    transform: Transform,
}

impl Classifier {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let classes = Classes::read(attributes, "classlabels_ints")?;
        let sums = match attributes.floats("intercepts").len() {
            0 => classes.len(),
            sums => sums,
        };
        if sums != classes.len() && !(sums == 1 && classes.len() == 2) {
            return Err(format!("it has {sums} sums for {} classes", classes.len()));
        }
        Ok(Self { weights: Weights::read(attributes, sums)?, classes, transform: Transform::read(attributes)? })
    }
}

impl Operator for Classifier {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let table = matrix(inputs, 0)?;
        self.weights.fits(&table)?;
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for row in table.rows() {
            let mut sums = self.weights.sums(row);
            if let [sum] = sums[..]
                && self.classes.len() == 2
            {
                labels.push(usize::from(sum > 0.0));
                sums = self.transform.two(sum, Second::Opposite);
            } else {
                labels.push(Classes::best(&sums, &vec![true; sums.len()]));
                self.transform.apply(&mut sums);
            }
            scores.extend(sums);
        }
        let shape = vec![labels.len(), self.classes.len()];
        Ok(vec![self.classes.labels(&labels), shaped(shape, TensorData::F32(scores))])
    }

    fn bytes(&self) -> u64 {
        self.weights.bytes()
    }

    fn classes(&self) -> Option<&Classes> {
        Some(&self.classes)
    }
}

pub(super) struct Regressor {
    weights: Weights,
    targets: usize,
    transform: Transform,
}

impl Regressor {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let targets = usize::try_from(attributes.int("targets", 1)).unwrap_or(0);
        Ok(Self { weights: Weights::read(attributes, targets)?, targets, transform: Transform::read(attributes)? })
    }
}

impl Operator for Regressor {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let table = matrix(inputs, 0)?;
        self.weights.fits(&table)?;
        let mut values = Vec::with_capacity(count(&[table.count(), self.targets])?);
        for row in table.rows() {
            let mut sums = self.weights.sums(row);
            self.transform.apply(&mut sums);
            values.extend(sums);
        }
        Ok(vec![shaped(vec![table.count(), self.targets], TensorData::F32(values))])
    }

    fn bytes(&self) -> u64 {
        self.weights.bytes()
    }
}

/// Operators that change each row of a table for itself.
pub(super) enum Rows {
    /// (x − offset) × scale, one of each a column or one for all.
    Scale {
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    Normalize(Norm),
    /// Puts a column's value in the place of `missing`.
    Impute {
        values: Vec<f32>,
        missing: f32,
    },
    Binarize {
        threshold: f32,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Norm {
    Greatest,
    Sum,
    Length,
}

impl Rows {
    pub(super) fn scaler(attributes: &Attributes<'_>) -> Result<Self, String> {
        let (offset, scale) = (attributes.floats("offset").to_vec(), attributes.floats("scale").to_vec());
        if offset.is_empty() || scale.is_empty() {
            return Err("it has no offset or no scale".to_owned());
        }
        Ok(Self::Scale { offset, scale })
    }

    pub(super) fn normalizer(attributes: &Attributes<'_>) -> Result<Self, String> {
        match attributes.text("norm", "MAX").as_str() {
            "MAX" => Ok(Self::Normalize(Norm::Greatest)),
            "L1" => Ok(Self::Normalize(Norm::Sum)),
            "L2" => Ok(Self::Normalize(Norm::Length)),
            other => Err(format!("its norm is {other:?}")),
        }
    }

    pub(super) fn imputer(attributes: &Attributes<'_>) -> Result<Self, String> {
        let values = attributes.floats("imputed_value_floats").to_vec();
        if values.is_empty() {
            return Err("it has no imputed_value_floats".to_owned());
        }
        Ok(Self::Impute { values, missing: attributes.float("replaced_value_float", f32::NAN) })
    }

    pub(super) fn binarizer(attributes: &Attributes<'_>) -> Self {
        Self::Binarize { threshold: attributes.float("threshold", 0.0) }
    }

    fn change(&self, row: &mut [f32]) -> Result<(), String> {
        let columns = row.len();
        let fits = |many: usize| {
            if [1, columns].contains(&many) {
                Ok(())
            } else {
                Err(format!("it is for {many} columns; there are {columns}"))
            }
        };
        match self {
            Self::Scale { offset, scale } => {
                fits(offset.len())?;
                fits(scale.len())?;
                for (column, cell) in row.iter_mut().enumerate() {
                    *cell = (*cell - offset[column % offset.len()]) * scale[column % scale.len()];
                }
            }
            Self::Normalize(norm) => {
                let by = match norm {
                    Norm::Greatest => row.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                    Norm::Sum => row.iter().map(|cell| cell.abs()).sum(),
                    Norm::Length => row.iter().map(|cell| cell * cell).sum::<f32>().sqrt(),
                };
                if by != 0.0 {
                    row.iter_mut().for_each(|cell| *cell /= by);
                }
            }
            Self::Impute { values, missing } => {
                fits(values.len())?;
                for (column, cell) in row.iter_mut().enumerate() {
                    #[expect(clippy::float_cmp, reason = "the operator is defined by it")]
                    if *cell == *missing || (missing.is_nan() && cell.is_nan()) {
                        *cell = values[column % values.len()];
                    }
                }
            }
            Self::Binarize { threshold } => {
                row.iter_mut().for_each(|cell| *cell = if *cell > *threshold { 1.0 } else { 0.0 });
            }
        }
        Ok(())
    }
}

impl Operator for Rows {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let table = matrix(inputs, 0)?;
        let mut values = Vec::with_capacity(table.count() * table.columns);
        for row in table.rows() {
            let from = values.len();
            values.extend_from_slice(row);
            self.change(&mut values[from..])?;
        }
        let shape = if inputs[0].shape.len() == 1 { vec![1, table.columns] } else { inputs[0].shape.clone() };
        Ok(vec![shaped(shape, TensorData::F32(values))])
    }
}
