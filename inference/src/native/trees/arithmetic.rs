//! The plain ONNX operators that scikit-learn's exports put between and behind those of `ai.onnx.ml`.

use super::attributes::Attributes;
use super::classes::{logistic, softmax};
use super::operator::{Operator, input, numbers, shaped};
use crate::model::{Tensor, TensorData};
use crate::onnx::proto::element;

/// What one step may make, in elements, and what one product may take, in multiplications: nothing but the file's own word
/// says how much a graph makes of a small input.
pub(super) const MOST_ELEMENTS: usize = 1 << 24;
const MOST_STEPS: usize = 1 << 32;

/// What is computed.
pub(super) enum Plain {
    Identity,
    Cast(Element),
    Two(fn(f32, f32) -> f32),
    One(fn(f32) -> f32),
    /// Over the last dimension.
    Softmax,
    MatMul,
    /// `Gemm`: its second table may lie on its side.
    Gemm {
        transposed: bool,
        alpha: f32,
        beta: f32,
    },
    Concat {
        axis: i64,
    },
    /// Columns by number: the second input. `ArrayFeatureExtractor`, which always answers a table.
    Columns,
    /// The same by `Gather`, which answers a list for a single number.
    Gather {
        axis: i64,
    },
    Reshape,
    /// To rows: every dimension from `axis` on is one.
    Flatten {
        axis: i64,
    },
}

#[derive(Clone, Copy)]
pub(super) enum Element {
    Number,
    Whole,
    Truth,
    Text,
}

impl Plain {
    pub(super) fn cast(attributes: &Attributes<'_>) -> Result<Self, String> {
        match i32::try_from(attributes.int("to", 0)).unwrap_or(0) {
            element::FLOAT | element::DOUBLE => Ok(Self::Cast(Element::Number)),
            element::INT64 | element::INT32 => Ok(Self::Cast(Element::Whole)),
            element::BOOL => Ok(Self::Cast(Element::Truth)),
            element::STRING => Ok(Self::Cast(Element::Text)),
            other => Err(format!("it casts to the element type {other}")),
        }
    }

    pub(super) fn gemm(attributes: &Attributes<'_>) -> Result<Self, String> {
        if attributes.int("transA", 0) != 0 {
            return Err("it turns its first table on its side".to_owned());
        }
        let transposed = attributes.int("transB", 0) != 0;
        Ok(Self::Gemm { transposed, alpha: attributes.float("alpha", 1.0), beta: attributes.float("beta", 1.0) })
    }
}

impl Operator for Plain {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let first = input(inputs, 0)?;
        let output = match self {
            Self::Identity => shaped(first.shape.clone(), first.data.clone()),
            Self::Cast(to) => shaped(first.shape.clone(), cast(first, *to)?),
            Self::One(compute) => {
                let values = numbers(first)?.iter().map(|value| compute(*value)).collect();
                shaped(first.shape.clone(), TensorData::F32(values))
            }
            Self::Two(compute) => two(first, input(inputs, 1)?, *compute)?,
            Self::Softmax => {
                let mut values = numbers(first)?.into_owned();
                let width = first.shape.last().copied().unwrap_or(1).max(1);
                values.chunks_exact_mut(width).for_each(|row| softmax(row, false));
                shaped(first.shape.clone(), TensorData::F32(values))
            }
            Self::MatMul => match input(inputs, 1)? {
                // A list stands for a table of one column, and the answer is a list again.
                list if list.shape.len() == 1 => {
                    let column = shaped(vec![list.shape[0], 1], list.data.clone());
                    let mut answer = product(first, &column, false, 1.0)?;
                    answer.shape.truncate(1);
                    answer
                }
                table => product(first, table, false, 1.0)?,
            },
            Self::Gemm { transposed, alpha, beta } => {
                let product = product(first, input(inputs, 1)?, *transposed, *alpha)?;
                match inputs.get(2) {
                    Some(bias) => {
                        let scaled = numbers(bias)?.iter().map(|value| value * beta).collect();
                        two(&product, &shaped(bias.shape.clone(), TensorData::F32(scaled)), |a, b| a + b)?
                    }
                    None => product,
                }
            }
            Self::Concat { axis } => concat(inputs, *axis)?,
            Self::Columns => columns(first, input(inputs, 1)?)?,
            Self::Gather { axis } => {
                if first.shape.len() != 2 || !(*axis == 1 || *axis == -1) {
                    return Err("only columns of a table can be gathered".to_owned());
                }
                let wanted = input(inputs, 1)?;
                let mut table = columns(first, wanted)?;
                match wanted.shape.len() {
                    0 => table.shape.truncate(1),
                    1 => {}
                    _ => return Err("columns are gathered by a list".to_owned()),
                }
                table
            }
            Self::Reshape => reshape(first, input(inputs, 1)?)?,
            Self::Flatten { axis } => {
                let axis = usize::try_from(*axis).ok().filter(|axis| *axis <= first.shape.len());
                let (rows, columns) = first.shape.split_at(axis.ok_or("its axis is none")?);
                shaped(vec![rows.iter().product(), columns.iter().product()], first.data.clone())
            }
        };
        Ok(vec![output])
    }
}

pub(super) fn sigmoid(value: f32) -> f32 {
    logistic(value)
}

fn cast(tensor: &Tensor, to: Element) -> Result<TensorData, String> {
    #[expect(clippy::cast_possible_truncation, reason = "as the operator is defined")]
    Ok(match (to, &tensor.data) {
        (Element::Number, TensorData::Text(values)) => {
            let parsed = values.iter().map(|text| text.trim().parse::<f32>()).collect::<Result<_, _>>();
            TensorData::F32(parsed.map_err(|_| format!("{:?} has a text that is no number", tensor.name))?)
        }
        (Element::Number, _) => TensorData::F32(numbers(tensor)?.into_owned()),
        (Element::Whole, TensorData::I64(values)) => TensorData::I64(values.clone()),
        (Element::Whole, TensorData::F32(values)) => {
            TensorData::I64(values.iter().map(|value| *value as i64).collect())
        }
        (Element::Whole, TensorData::Text(values)) => {
            let parsed = values.iter().map(|text| text.trim().parse::<i64>()).collect::<Result<_, _>>();
            TensorData::I64(parsed.map_err(|_| format!("{:?} has a text that is no whole number", tensor.name))?)
        }
        (Element::Truth, _) => TensorData::I64(numbers(tensor)?.iter().map(|value| i64::from(*value != 0.0)).collect()),
        (Element::Text, TensorData::Text(values)) => TensorData::Text(values.clone()),
        (Element::Text, TensorData::I64(values)) => TensorData::Text(values.iter().map(ToString::to_string).collect()),
        (Element::Text, TensorData::F32(values)) => TensorData::Text(values.iter().map(ToString::to_string).collect()),
    })
}

/// Element by element; the smaller shape is repeated over the larger (of which it must be the end, ones aside).
fn two(first: &Tensor, second: &Tensor, compute: fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let rank = first.shape.len().max(second.shape.len());
    let padded = |shape: &[usize]| -> Vec<usize> {
        let mut padded = vec![1; rank - shape.len()];
        padded.extend_from_slice(shape);
        padded
    };
    let (left, right) = (padded(&first.shape), padded(&second.shape));
    let shape = left
        .iter()
        .zip(&right)
        .map(|(a, b)| match (a, b) {
            (a, b) if a == b => Ok(*a),
            (1, b) => Ok(*b),
            (a, 1) => Ok(*a),
            _ => Err(format!("{:?} and {:?} do not go together", first.shape, second.shape)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let count = count(&shape)?;
    let (a, b) = (numbers(first)?, numbers(second)?);
    let at = |sizes: &[usize], mut index: usize| {
        let (mut place, mut step) = (0, 1);
        for (size, whole) in sizes.iter().zip(&shape).rev() {
            if *size > 1 {
                place += (index % whole) * step;
            }
            step *= size;
            index /= whole;
        }
        place
    };
    let values = (0..count).map(|index| compute(a[at(&left, index)], b[at(&right, index)])).collect();
    Ok(shaped(shape, TensorData::F32(values)))
}

fn product(first: &Tensor, second: &Tensor, transposed: bool, alpha: f32) -> Result<Tensor, String> {
    let ([rows, inner], [tall, wide]) = (&first.shape[..], &second.shape[..]) else {
        return Err(format!("{:?} and {:?} are no tables", first.shape, second.shape));
    };
    let (tall, wide) = if transposed { (*wide, *tall) } else { (*tall, *wide) };
    if *inner != tall {
        return Err(format!("{:?} and {:?} have no product", first.shape, second.shape));
    }
    let (a, b) = (numbers(first)?, numbers(second)?);
    let steps = rows.checked_mul(wide).and_then(|cells| cells.checked_mul(*inner));
    if steps.is_none_or(|steps| steps > MOST_STEPS) {
        return Err(format!("the product of {:?} and {:?} is too much work", first.shape, second.shape));
    }
    let mut values = vec![0.0; count(&[*rows, wide])?];
    for row in 0..*rows {
        for column in 0..wide {
            let cell = |at: usize| if transposed { b[column * inner + at] } else { b[at * wide + column] };
            values[row * wide + column] = alpha * (0..*inner).map(|at| a[row * inner + at] * cell(at)).sum::<f32>();
        }
    }
    Ok(shaped(vec![*rows, wide], TensorData::F32(values)))
}

/// Tables side by side.
fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor, String> {
    let first = input(inputs, 0)?;
    let rows = first.shape.first().copied().unwrap_or(0);
    if !(axis == 1 || axis == -1) || inputs.iter().any(|it| it.shape.len() != 2 || it.shape[0] != rows) {
        return Err("only tables of as many rows can be put side by side".to_owned());
    }
    let width = inputs.iter().map(|tensor| tensor.shape[1]).sum();
    count(&[rows, width])?;
    let all_texts: Option<Vec<&Vec<String>>> = inputs
        .iter()
        .map(|tensor| match &tensor.data {
            TensorData::Text(values) => Some(values),
            _ => None,
        })
        .collect();
    if let Some(texts) = all_texts {
        let cells = (0..rows).flat_map(|row| {
            let part = move |(tensor, values): (&&Tensor, &&Vec<String>)| {
                values[row * tensor.shape[1]..(row + 1) * tensor.shape[1]].to_vec()
            };
            inputs.iter().zip(&texts).flat_map(part).collect::<Vec<_>>()
        });
        return Ok(shaped(vec![rows, width], TensorData::Text(cells.collect())));
    }
    let tables = inputs.iter().map(|tensor| numbers(tensor)).collect::<Result<Vec<_>, _>>()?;
    let mut values = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for (tensor, table) in inputs.iter().zip(&tables) {
            values.extend_from_slice(&table[row * tensor.shape[1]..(row + 1) * tensor.shape[1]]);
        }
    }
    Ok(shaped(vec![rows, width], TensorData::F32(values)))
}

fn columns(table: &Tensor, wanted: &Tensor) -> Result<Tensor, String> {
    let TensorData::I64(wanted) = &wanted.data else { return Err("columns are numbered by whole numbers".to_owned()) };
    let width = table.shape.last().copied().unwrap_or(0);
    count(&[count(&table.shape)? / width.max(1), wanted.len()])?;
    let places = wanted
        .iter()
        .map(|place| {
            usize::try_from(*place).ok().filter(|place| *place < width).ok_or(format!("there is no column {place}"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let data = match &table.data {
        TensorData::F32(values) => TensorData::F32(select(values, width, &places)),
        TensorData::I64(values) => TensorData::I64(select(values, width, &places)),
        TensorData::Text(values) => TensorData::Text(select(values, width, &places)),
    };
    let mut shape = table.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = places.len();
    }
    // The reference makes one row of one dimension.
    if shape.len() == 1 {
        shape.insert(0, 1);
    }
    Ok(shaped(shape, data))
}

fn select<T: Clone>(values: &[T], width: usize, places: &[usize]) -> Vec<T> {
    values.chunks_exact(width.max(1)).flat_map(|row| places.iter().map(|place| row[*place].clone())).collect()
}

/// Zero keeps a dimension, −1 is whatever is left.
fn reshape(tensor: &Tensor, wanted: &Tensor) -> Result<Tensor, String> {
    let TensorData::I64(wanted) = &wanted.data else { return Err("a shape has whole numbers".to_owned()) };
    let whole = count(&tensor.shape)?;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (place, length) in wanted.iter().enumerate() {
        shape.push(match length {
            -1 if free.is_none() => {
                free = Some(place);
                1
            }
            0 => tensor.shape.get(place).copied().ok_or("it keeps a dimension there is not")?,
            length => usize::try_from(*length).map_err(|_| format!("its shape has {length}"))?,
        });
    }
    let known = count(&shape)?;
    if let Some(place) = free
        && known > 0
    {
        shape[place] = whole / known;
    }
    if count(&shape)? == whole {
        Ok(shaped(shape, tensor.data.clone()))
    } else {
        Err(format!("{:?} cannot become {wanted:?}", tensor.shape))
    }
}

/// The elements of a tensor of this shape, unless they are more than any step may make.
pub(super) fn count(shape: &[usize]) -> Result<usize, String> {
    let count = shape.iter().try_fold(1_usize, |product, length| product.checked_mul(*length));
    count.filter(|count| *count <= MOST_ELEMENTS).ok_or_else(|| format!("{shape:?} is too large"))
}
