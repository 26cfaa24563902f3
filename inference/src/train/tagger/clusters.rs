//! Words that are used alike, from vectors that a language model learnt for them: the rows of its embedding table, put into
//! 32 clusters and each of those into 32 again (spherical k-means). Clusters are ordered so that near numbers are near
//! clusters, and a number's leading bits are a coarser cluster.

use std::collections::HashMap;

use super::shuffle::shuffle;
use crate::train::random::Random;

/// Why vectors cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("no table of word vectors: {0}")]
pub struct BadVectors(String);

/// How many clusters, and how many inside each.
const WAYS: usize = 32;
const ROUNDS: usize = 12;

/// Numbers from 1024 to 2047 for the words of a vocabulary (one on a line) that are whole words of letters; the vectors
/// are the tensor whose name ends in `word_embeddings.weight` in a safetensors file, of 32-bit numbers.
///
/// # Errors
/// [`BadVectors`] says what is missing.
pub fn clusters(vocabulary: &str, safetensors: &[u8]) -> Result<Vec<(String, u16)>, BadVectors> {
    let (table, width) = table(safetensors)?;
    let mut words = Vec::new();
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for (at, word) in vocabulary.lines().enumerate() {
        let whole = word.len() > 1 && word.bytes().all(|b| b.is_ascii_alphabetic());
        if let Some(row) = table.get(at * width..(at + 1) * width).filter(|_| whole) {
            words.push(word.to_lowercase());
            rows.push(row.to_vec());
        }
    }
    if words.len() < WAYS * WAYS {
        return Err(BadVectors(format!("{} words are too few", words.len())));
    }
    centre(&mut rows);
    let mut random = Random::new(7);
    let all: Vec<usize> = (0..rows.len()).collect();
    let mut numbers = vec![0; rows.len()];
    for (number, members) in split(&rows, &all, &mut random).into_iter().enumerate() {
        for (inner, members) in split(&rows, &members, &mut random).into_iter().enumerate() {
            for member in members {
                numbers[member] = (WAYS * WAYS + number * WAYS + inner) as u16;
            }
        }
    }
    Ok(words.into_iter().zip(numbers).collect())
}

/// The numbers of the table, row after row, and how many a row has.
fn table(file: &[u8]) -> Result<(Vec<f32>, usize), BadVectors> {
    let bad = |reason: &str| BadVectors(reason.to_owned());
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(|| bad("the file is too short"))?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (header, data) = rest.split_at_checked(length).ok_or_else(|| bad("the header is cut off"))?;
    let header: HashMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| BadVectors(error.to_string()))?;
    let tensor = header.iter().find(|(name, _)| name.ends_with("word_embeddings.weight"));
    let (_, tensor) = tensor.ok_or_else(|| bad("no tensor is called word_embeddings.weight"))?;
    let number = |pointer: &str| {
        tensor.pointer(pointer).and_then(serde_json::Value::as_u64).and_then(|n| usize::try_from(n).ok())
    };
    let (Some(from), Some(to), Some(width)) =
        (number("/data_offsets/0"), number("/data_offsets/1"), number("/shape/1"))
    else {
        return Err(bad("the tensor has no offsets or shape"));
    };
    let bytes = data.get(from..to).ok_or_else(|| bad("the tensor is cut off"))?;
    if tensor["dtype"] != "F32" || width == 0 {
        return Err(bad("the tensor is not one of 32-bit numbers"));
    }
    let numbers = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Ok((numbers, width))
}

/// Takes the mean off and makes all of length one.
fn centre(rows: &mut [Vec<f32>]) {
    let mut mean = vec![0.0; rows[0].len()];
    for row in &*rows {
        add(&mut mean, row);
    }
    let count = rows.len() as f32;
    for row in rows {
        row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean / count);
        unit(row);
    }
}

/// At most [`WAYS`] clusters of these rows, in an order in which neighbours are alike.
fn split(rows: &[Vec<f32>], members: &[usize], random: &mut Random) -> Vec<Vec<usize>> {
    let ways = WAYS.min(members.len());
    let mut picked = members.to_vec();
    shuffle(&mut picked, random);
    let mut centres: Vec<Vec<f32>> = picked[..ways].iter().map(|&member| rows[member].clone()).collect();
    let mut nearest = vec![0; members.len()];
    for _ in 0..ROUNDS {
        for (near, &member) in nearest.iter_mut().zip(members) {
            let mut best = f32::NEG_INFINITY;
            for (number, centre) in centres.iter().enumerate() {
                let alike = dot(&rows[member], centre);
                if alike > best {
                    (best, *near) = (alike, number);
                }
            }
        }
        centres.iter_mut().for_each(|centre| centre.fill(0.0));
        for (&near, &member) in nearest.iter().zip(members) {
            add(&mut centres[near], &rows[member]);
        }
        centres.iter_mut().for_each(|centre| unit(centre));
    }
    let order = in_a_row(&centres);
    let mut clusters = vec![Vec::new(); ways];
    for (&near, &member) in nearest.iter().zip(members) {
        clusters[order[near]].push(member);
    }
    clusters
}

/// A place for each centre: from the one that is least like all the others on to the most alike that is left.
fn in_a_row(centres: &[Vec<f32>]) -> Vec<usize> {
    let mut all = vec![0.0; centres[0].len()];
    centres.iter().for_each(|centre| add(&mut all, centre));
    let first = (0..centres.len()).min_by(|&a, &b| dot(&centres[a], &all).total_cmp(&dot(&centres[b], &all)));
    let mut places = vec![usize::MAX; centres.len()];
    let mut next = first;
    let mut place = 0;
    while let Some(here) = next {
        places[here] = place;
        place += 1;
        let left = (0..centres.len()).filter(|&other| places[other] == usize::MAX);
        next = left.max_by(|&a, &b| dot(&centres[a], &centres[here]).total_cmp(&dot(&centres[b], &centres[here])));
    }
    places
}

fn add(sum: &mut [f32], row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
}

fn unit(row: &mut [f32]) {
    let length = dot(row, row).sqrt().max(1e-9);
    row.iter_mut().for_each(|x| *x /= length);
}

/// Eight sums side by side, so that it runs on whole registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for at in 0..8 {
            sums[at] += a[at] * b[at];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}
