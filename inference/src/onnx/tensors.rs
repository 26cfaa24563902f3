//! From a JSON document to the tensors a graph of numbers wants.

use serde_json::Value;

use crate::model::{InferError, Tensor, TensorData};
use crate::onnx::engine::{Kind, Port};
use crate::onnx::section::{Dim, Input};
use crate::open::OpenError;

/// How documents become one input.
#[derive(Debug)]
pub(crate) struct Reader {
    input: Input,
    kind: Kind,
    batching: Batching,
    /// Of one element: without the batch dimension. `None`: of any length.
    inner: Vec<Option<usize>>,
}

/// How several documents go through the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batching {
    /// One element a document.
    Batch,
    /// Any number of elements a document.
    Rows,
    /// One by one.
    Alone,
}

impl Reader {
    /// Brings together what the manifest says of an input and what the graph says.
    ///
    /// # Errors
    /// [`OpenError::Broken`] where they contradict each other.
    pub(crate) fn new(input: &Input, port: &Port) -> Result<Self, OpenError> {
        let wrong = |reason: String| Err(OpenError::Broken(format!("model.toml: input {:?}: {reason}", input.name)));
        if let Kind::Other(kind) = &port.kind {
            return wrong(format!("the graph wants {kind}, which no document can give"));
        }
        let dims = match (&input.shape[..], &input.columns[..], &port.shape) {
            ([], [], None) => return wrong("the graph does not say its shape: give one".to_owned()),
            ([], [], Some(shape)) => dims_of(shape),
            ([], columns, _) => {
                let first = if input.from.is_some() { "rows" } else { "batch" };
                vec![Dim::Named(first.to_owned()), Dim::Fixed(columns.len())]
            }
            (shape, _, _) => shape.to_vec(),
        };
        let batching = match dims.first() {
            Some(Dim::Named(name)) if name == "batch" => Batching::Batch,
            Some(Dim::Named(name)) if name == "rows" => Batching::Rows,
            _ => Batching::Alone,
        };
        if let Some(shape) = &port.shape
            && !agree(&dims, shape, batching)
        {
            return wrong(format!("its shape is {} here and {} in the graph", show(&dims), show(&dims_of(shape))));
        }
        let inner = dims.iter().skip(usize::from(batching != Batching::Alone));
        let inner = inner
            .map(|dim| match dim {
                Dim::Fixed(length) => Some(*length),
                Dim::Named(_) => None,
            })
            .collect();
        Ok(Self { input: input.clone(), kind: port.kind.clone(), batching, inner })
    }

    pub(crate) fn batching(&self) -> Batching {
        self.batching
    }

    /// Reads a document's part; with [`Batching::Rows`] the first dimension counts the rows.
    pub(crate) fn read(&self, document: &Value) -> Result<Tensor, InferError> {
        let mut cells = Vec::new();
        let place = self.input.from.as_deref().unwrap_or_default();
        let found = document.pointer(place).ok_or_else(|| wrong(place, "is missing"))?;
        let shape = if !self.input.columns.is_empty() {
            self.columns(found, place, &mut cells)?
        } else if self.batching == Batching::Rows {
            self.rows(found, place, &mut cells)?
        } else {
            nested(found, &self.inner, place, &mut cells)?
        };
        Ok(Tensor { name: self.input.name.clone(), shape, data: self.convert(&cells, place)? })
    }

    fn columns<'a>(
        &self,
        found: &'a Value,
        place: &str,
        cells: &mut Vec<Option<&'a Value>>,
    ) -> Result<Vec<usize>, InferError> {
        let width = self.input.columns.len();
        if self.input.from.is_none() {
            cells.extend(self.input.columns.iter().map(|column| found.pointer(column)));
            return Ok(vec![width]);
        }
        let rows = list(found, place)?;
        for row in rows {
            cells.extend(self.input.columns.iter().map(|column| row.pointer(column)));
        }
        Ok(vec![rows.len(), width])
    }

    fn rows<'a>(
        &self,
        found: &'a Value,
        place: &str,
        cells: &mut Vec<Option<&'a Value>>,
    ) -> Result<Vec<usize>, InferError> {
        let rows = list(found, place)?;
        let mut inner: Option<Vec<usize>> = None;
        for (number, row) in rows.iter().enumerate() {
            let place = format!("{place}/{number}");
            let shape = nested(row, &self.inner, &place, cells)?;
            match &inner {
                Some(first) if *first != shape => return Err(wrong(&place, "has another length than those before")),
                Some(_) => {}
                None => inner = Some(shape),
            }
        }
        let mut shape = vec![rows.len()];
        shape.extend(inner.unwrap_or_default());
        Ok(shape)
    }

    fn convert(&self, cells: &[Option<&Value>], place: &str) -> Result<TensorData, InferError> {
        let missing = |cell: &Option<&Value>| cell.is_none_or(Value::is_null);
        let at = |index: usize| match self.input.columns.get(index % self.input.columns.len().max(1)) {
            Some(column) => format!("{place}{column}"),
            None => format!("{place} (element {index})"),
        };
        match self.kind {
            Kind::Text => cells
                .iter()
                .enumerate()
                .map(|(index, cell)| match cell {
                    Some(Value::String(text)) => Ok(text.clone()),
                    Some(Value::Number(number)) => Ok(number.to_string()),
                    _ => Err(wrong(&at(index), "must be a text")),
                })
                .collect::<Result<_, _>>()
                .map(TensorData::Text),
            Kind::Int => cells
                .iter()
                .enumerate()
                .map(|(index, cell)| match cell {
                    Some(Value::Number(number)) => {
                        number.as_i64().ok_or_else(|| wrong(&at(index), "must be a whole number"))
                    }
                    Some(Value::Bool(truth)) => Ok(i64::from(*truth)),
                    #[expect(clippy::cast_possible_truncation, reason = "a default for whole numbers is one")]
                    _ if missing(cell) && self.input.missing.is_some_and(|it| it.fract() == 0.0) => {
                        Ok(self.input.missing.unwrap_or_default() as i64)
                    }
                    _ => Err(wrong(&at(index), "must be a whole number")),
                })
                .collect::<Result<_, _>>()
                .map(TensorData::I64),
            Kind::Float | Kind::Unknown | Kind::Other(_) => cells
                .iter()
                .enumerate()
                .map(|(index, cell)| {
                    let number = match (cell, self.input.missing) {
                        (Some(Value::Number(number)), _) => number.as_f64(),
                        (Some(Value::Bool(truth)), _) => Some(f64::from(u8::from(*truth))),
                        (cell, Some(missing)) if cell.is_none_or(Value::is_null) => return Ok(single(missing)),
                        _ => None,
                    };
                    let number = number.ok_or_else(|| wrong(&at(index), "must be a number"))?;
                    let number = single(number * self.input.scale + self.input.offset);
                    if number.is_finite() { Ok(number) } else { Err(wrong(&at(index), "is too large a number")) }
                })
                .collect::<Result<_, _>>()
                .map(TensorData::F32),
        }
    }
}

/// Flattens nested arrays, or takes one flat array for them when its length leaves no doubt of the shape.
fn nested<'a>(
    value: &'a Value,
    dims: &[Option<usize>],
    place: &str,
    cells: &mut Vec<Option<&'a Value>>,
) -> Result<Vec<usize>, InferError> {
    let Some((first, rest)) = dims.split_first() else {
        if value.is_array() || value.is_object() {
            return Err(wrong(place, "is nested deeper than the model's input"));
        }
        cells.push(Some(value));
        return Ok(Vec::new());
    };
    let items = list(value, place)?;
    if !rest.is_empty() && !items.iter().any(Value::is_array) {
        return flat(items, dims, place, cells);
    }
    if first.is_some_and(|length| length != items.len()) || items.is_empty() {
        let expected = first.map_or("at least 1".to_owned(), |length| length.to_string());
        return Err(wrong(place, &format!("has {} elements; the model wants {expected}", items.len())));
    }
    let mut inner: Option<Vec<usize>> = None;
    for (number, item) in items.iter().enumerate() {
        let place = format!("{place}/{number}");
        let shape = nested(item, rest, &place, cells)?;
        match &inner {
            Some(before) if *before != shape => return Err(wrong(&place, "has another length than those before")),
            Some(_) => {}
            None => inner = Some(shape),
        }
    }
    let mut shape = vec![items.len()];
    shape.extend(inner.unwrap_or_default());
    Ok(shape)
}

fn flat<'a>(
    items: &'a [Value],
    dims: &[Option<usize>],
    place: &str,
    cells: &mut Vec<Option<&'a Value>>,
) -> Result<Vec<usize>, InferError> {
    let known = dims.iter().flatten().try_fold(1_usize, |product, length| product.checked_mul(*length)).unwrap_or(0);
    let free = dims.iter().filter(|dim| dim.is_none()).count();
    let length = match free {
        0 if known == items.len() => 1,
        1 if known > 0 && !items.is_empty() && items.len().is_multiple_of(known) => items.len() / known,
        _ => return Err(wrong(place, &format!("has {} elements, which is not the model's shape", items.len()))),
    };
    cells.extend(items.iter().map(Some));
    Ok(dims.iter().map(|dim| dim.unwrap_or(length)).collect())
}

fn list<'a>(value: &'a Value, place: &str) -> Result<&'a Vec<Value>, InferError> {
    let list = value.as_array().ok_or_else(|| wrong(place, "must be an array"))?;
    if list.is_empty() { Err(wrong(place, "is empty")) } else { Ok(list) }
}

fn wrong(place: &str, reason: &str) -> InferError {
    let place = if place.is_empty() { "the document" } else { place };
    InferError::bad_input(format!("{place} {reason}"))
}

#[expect(clippy::cast_possible_truncation, reason = "graphs compute in single precision")]
fn single(number: f64) -> f32 {
    number as f32
}

fn dims_of(shape: &[Option<usize>]) -> Vec<Dim> {
    let name = |place: usize| if place == 0 { "batch".to_owned() } else { format!("free_{place}") };
    shape.iter().enumerate().map(|(place, dim)| dim.map_or_else(|| Dim::Named(name(place)), Dim::Fixed)).collect()
}

/// A fixed batch dimension of 1 takes one document at a time and is no contradiction to none.
fn agree(dims: &[Dim], shape: &[Option<usize>], batching: Batching) -> bool {
    dims.len() == shape.len()
        && dims.iter().zip(shape).enumerate().all(|(place, (here, there))| match (here, there) {
            (_, None) => true,
            (Dim::Fixed(here), Some(there)) => here == there,
            (Dim::Named(_), Some(_)) => !(place == 0 && batching != Batching::Alone),
        })
}

fn show(dims: &[Dim]) -> String {
    let names = dims.iter().map(|dim| match dim {
        Dim::Fixed(length) => length.to_string(),
        Dim::Named(name) => name.clone(),
    });
    format!("[{}]", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reader(toml: &str, kind: Kind, shape: Option<Vec<Option<usize>>>) -> Result<Reader, OpenError> {
        let input: Input = toml::from_str(toml).unwrap();
        Reader::new(&input, &Port { name: "x".to_owned(), kind, shape })
    }

    #[test]
    fn documents_become_tensors_of_the_graph_s_shape() {
        let free = Some(vec![None, Some(2)]);
        for (toml, shape, document, read) in [
            ("from = '/v'", free.clone(), json!({"v": [1, 2.5]}), (vec![2], vec![1.0, 2.5])),
            ("from = '/v'\nscale = 0.5\noffset = 1", free.clone(), json!({"v": [1, true]}), (vec![2], vec![1.5, 1.5])),
            ("columns = ['/a', '/b/c']", free.clone(), json!({"a": 1, "b": {"c": 2}}), (vec![2], vec![1.0, 2.0])),
            ("columns = ['/a', '/b']\nmissing = -1", None, json!({"a": null}), (vec![2], vec![-1.0, -1.0])),
            (
                "columns = ['/a', '/b']\nfrom = '/rows'",
                free.clone(),
                json!({"rows": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}),
                (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]),
            ),
            ("from = ''\nshape = ['rows', 2]", None, json!([[1, 2], [3, 4]]), (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0])),
            (
                "from = '/image'\nshape = ['batch', 1, 2, 'width']",
                None,
                json!({"image": [[[1, 2, 3], [4, 5, 6]]]}),
                (vec![1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            ),
            (
                "from = '/image'\nshape = ['batch', 1, 2, 'width']",
                None,
                json!({"image": [1, 2, 3, 4]}),
                (vec![1, 2, 2], vec![1.0, 2.0, 3.0, 4.0]),
            ),
            ("from = '/v'\nshape = ['batch', 'time']", None, json!({"v": [7]}), (vec![1], vec![7.0])),
        ] {
            let toml = format!("name = 'x'\n{toml}");
            let tensor = reader(&toml, Kind::Float, shape).unwrap().read(&document).unwrap();
            assert_eq!((tensor.shape, tensor.data), (read.0, TensorData::F32(read.1)), "{toml} {document}");
        }
    }

    #[test]
    fn what_a_document_lacks_is_named_by_its_place_and_never_quoted() {
        for (toml, kind, document, place) in [
            ("from = '/v'\nshape = ['batch', 2]", Kind::Float, json!({}), "/v is missing"),
            (
                "from = '/v'\nshape = ['batch', 2]",
                Kind::Float,
                json!({"v": [1]}),
                "/v has 1 elements; the model wants 2",
            ),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Float, json!({"v": [1, "secret"]}), "/v (element 1)"),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Float, json!({"v": [1, null]}), "/v (element 1)"),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Float, json!({"v": [1, [2]]}), "/v/1"),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Float, json!({"v": [1, 1e300]}), "too large"),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Int, json!({"v": [1, 1.5]}), "whole number"),
            ("from = '/v'\nshape = ['batch', 2]", Kind::Text, json!({"v": [1, true]}), "must be a text"),
            ("from = '/v'\nshape = ['rows', 2]", Kind::Float, json!({"v": []}), "/v is empty"),
            ("from = '/v'\nshape = ['rows', 'n']", Kind::Float, json!({"v": [[1], [1, 2]]}), "/v/1 has another length"),
            ("from = '/v'\nshape = ['batch', 2, 2]", Kind::Float, json!({"v": [1, 2, 3]}), "not the model's shape"),
            ("columns = ['/a', '/b']", Kind::Float, json!({"a": 1}), "/b must be a number"),
        ] {
            let error = reader(&format!("name = 'x'\n{toml}"), kind, None).unwrap().read(&document).unwrap_err();
            assert!(error.message.contains(place), "{place}: {error}");
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_input_that_contradicts_its_graph_is_refused() {
        let table = Some(vec![None, Some(3)]);
        assert!(reader("name = 'x'\ncolumns = ['/a', '/b']", Kind::Float, table.clone()).is_err());
        assert!(reader("name = 'x'\nfrom = '/v'\nshape = ['batch', 3, 3]", Kind::Float, table).is_err());
        assert!(reader("name = 'x'\nfrom = '/v'", Kind::Float, None).is_err());
        assert!(reader("name = 'x'\nfrom = '/v'", Kind::Other("sequence".to_owned()), Some(vec![None])).is_err());
    }
}
