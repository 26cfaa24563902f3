//! From prepared inputs to runs of the graph: which go through together, padded to which length, and which part of the
//! outputs is whose.

use std::ops::Range;

use crate::model::{Tensor, TensorData, Window};

/// Windows go through a graph together while none is padded by more than this share of its own length…
const PADDING_SHARE: usize = 4;
/// …or by this many tokens: on a processor a batch is no cheaper than its tokens, so padding is all loss.
const PADDING_TOKENS: usize = 8;

/// Names of a text model's inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextInputs {
    pub(crate) ids: String,
    pub(crate) mask: Option<String>,
    pub(crate) type_ids: Option<String>,
}

/// Groups windows by length: places in `windows`, longest first, at most `max_tokens` in a group with its padding.
/// Without a mask (`maskable` is false) only windows of one length go together.
pub(crate) fn by_length(windows: &[&Window], max_items: usize, max_tokens: usize, maskable: bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(windows[*place].ids.len()));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for place in order {
        let length = windows[place].ids.len();
        if let Some(group) = groups.last_mut() {
            let longest = windows[group[0]].ids.len();
            let allowed = if maskable { length + PADDING_TOKENS.max(length / PADDING_SHARE) } else { length };
            if longest <= allowed && group.len() < max_items && longest * (group.len() + 1) <= max_tokens {
                group.push(place);
                continue;
            }
        }
        groups.push(vec![place]);
    }
    groups
}

/// The input tensors of a group of windows, `[windows, longest]` each, padded by zeros the mask hides.
pub(crate) fn pad(windows: &[&Window], names: &TextInputs) -> Vec<Tensor> {
    let longest = windows.iter().map(|window| window.ids.len()).max().unwrap_or(0);
    let fill = |row: &dyn Fn(&Window) -> Vec<i64>| {
        let mut data = Vec::with_capacity(windows.len() * longest);
        for (number, window) in windows.iter().enumerate() {
            data.extend(row(window));
            data.resize((number + 1) * longest, 0);
        }
        TensorData::I64(data)
    };
    let tensor = |name: &String, data| Tensor { name: name.clone(), shape: vec![windows.len(), longest], data };
    let mut inputs = vec![tensor(&names.ids, fill(&|it| it.ids.iter().map(|id| i64::from(*id)).collect()))];
    if let Some(name) = &names.mask {
        inputs.push(tensor(name, fill(&|it| vec![1; it.ids.len()])));
    }
    if let Some(name) = &names.type_ids {
        inputs.push(tensor(name, fill(&|it| it.type_ids.iter().map(|id| i64::from(*id)).collect())));
    }
    inputs
}

/// Groups items whose tensors can be one: all shapes equal, the first dimension aside when it counts rows.
pub(crate) fn by_shape(items: &[&[Tensor]], rows: bool, max_items: usize) -> Vec<Vec<usize>> {
    let skip = usize::from(rows);
    let alike = |one: &[Tensor], other: &[Tensor]| {
        one.len() == other.len()
            && one.iter().zip(other).all(|(one, other)| one.shape.get(skip..) == other.shape.get(skip..))
    };
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        match groups.iter_mut().find(|group| group.len() < max_items && alike(items[group[0]], item)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// One tensor of several items', by a new first dimension or, when that counts rows, along it.
pub(crate) fn stack(items: &[&Tensor], rows: bool) -> Tensor {
    let first = items[0];
    let inner = &first.shape[usize::from(rows)..];
    let count = if rows { items.iter().map(|item| item.shape[0]).sum() } else { items.len() };
    let mut shape = vec![count];
    shape.extend_from_slice(inner);
    let data = match &first.data {
        TensorData::F32(_) => TensorData::F32(join(items, |data| match data {
            TensorData::F32(values) => values,
            _ => &[],
        })),
        TensorData::I64(_) => TensorData::I64(join(items, |data| match data {
            TensorData::I64(values) => values,
            _ => &[],
        })),
        TensorData::Text(_) => TensorData::Text(join(items, |data| match data {
            TensorData::Text(values) => values,
            _ => &[],
        })),
    };
    Tensor { name: first.name.clone(), shape, data }
}

/// The part `range` of a tensor's first dimension; without that dimension when `single`.
///
/// # Errors
/// When the first dimension is not `count` long: such an output is nobody's.
pub(crate) fn part(tensor: &Tensor, range: Range<usize>, count: usize, single: bool) -> Result<Tensor, String> {
    if tensor.shape.first() != Some(&count) {
        return Err(format!("the output {:?} has the shape {:?} for {count} inputs", tensor.name, tensor.shape));
    }
    let width: usize = tensor.shape[1..].iter().product();
    let cut = range.start * width..range.end * width;
    let data = match &tensor.data {
        TensorData::F32(values) => TensorData::F32(values[cut].to_vec()),
        TensorData::I64(values) => TensorData::I64(values[cut].to_vec()),
        TensorData::Text(values) => TensorData::Text(values[cut].to_vec()),
    };
    let mut shape = if single { Vec::new() } else { vec![range.len()] };
    shape.extend_from_slice(&tensor.shape[1..]);
    Ok(Tensor { name: tensor.name.clone(), shape, data })
}

fn join<'a, T: Clone + 'a>(items: &[&'a Tensor], values: impl Fn(&'a TensorData) -> &'a [T]) -> Vec<T> {
    items.iter().flat_map(|item| values(&item.data)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(length: u32) -> Window {
        let ids: Vec<u32> = (1..=length).collect();
        let many = ids.len();
        Window { ids, type_ids: vec![0; many], offsets: vec![(0, 0); many], words: vec![None; many] }
    }

    #[test]
    fn windows_go_together_while_padding_stays_small() {
        let windows = [window(5), window(100), window(12), window(90), window(128)];
        let windows: Vec<&Window> = windows.iter().collect();
        assert_eq!(by_length(&windows, 8, 10_000, true), [vec![4], vec![1, 3], vec![2, 0]]);
        assert_eq!(by_length(&windows, 8, 199, true), [vec![4], vec![1], vec![3], vec![2, 0]]);
        assert_eq!(by_length(&windows, 1, 10_000, true).len(), 5);
        assert_eq!(by_length(&windows, 8, 10_000, false).len(), 5, "what has no mask is not padded");
        assert_eq!(by_length(&windows, 8, 1, true).len(), 5, "a window longer than the budget goes alone");
    }

    #[test]
    fn padding_is_masked() {
        let names = TextInputs { ids: "ids".to_owned(), mask: Some("mask".to_owned()), type_ids: None };
        let inputs = pad(&[&window(3), &window(1)], &names);
        assert_eq!(inputs[0].shape, [2, 3]);
        assert_eq!(inputs[0].data, TensorData::I64(vec![1, 2, 3, 1, 0, 0]));
        assert_eq!(inputs[1].data, TensorData::I64(vec![1, 1, 1, 1, 0, 0]));
    }

    #[test]
    fn what_is_stacked_comes_apart_again() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor {
            name: "x".to_owned(),
            shape: shape.to_vec(),
            data: TensorData::F32(values.to_vec()),
        };
        let (a, b) = (tensor(&[2], &[1.0, 2.0]), tensor(&[2], &[3.0, 4.0]));
        let both = stack(&[&a, &b], false);
        assert_eq!(both, tensor(&[2, 2], &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(part(&both, 1..2, 2, true), Ok(b));
        let (a, b) = (tensor(&[1, 2], &[1.0, 2.0]), tensor(&[2, 2], &[3.0, 4.0, 5.0, 6.0]));
        let both = stack(&[&a, &b], true);
        assert_eq!(both.shape, [3, 2]);
        assert_eq!(part(&both, 1..3, 3, false), Ok(b.clone()));
        assert!(part(&both, 0..1, 2, true).unwrap_err().contains("[3, 2]"));
        let (c, d) = (tensor(&[5, 2], &[0.0; 10]), tensor(&[1, 3], &[0.0; 3]));
        let items: Vec<&[Tensor]> = [&a, &b, &d, &c].into_iter().map(std::slice::from_ref).collect();
        assert_eq!(by_shape(&items, true, 8), [vec![0, 1, 3], vec![2]]);
        assert_eq!(by_shape(&items, false, 8).len(), 4);
    }
}
