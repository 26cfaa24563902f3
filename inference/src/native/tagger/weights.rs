//! What each feature weighs for each label: a table found by hash that holds the features worth keeping and says nothing
//! of the others, so that what training never saw does not act as noise.
//!
//! A weight is a byte on a curve, `sign(q) · (q/127)² · top`: fine near zero, where nearly all weights lie, coarse at the
//! few large ones. Linear bytes cost up to 3 points of F1, these none.

use super::bytes::{Broken, Reader, write_rising};
use super::label::LABELS;
use super::lattice::Scores;

/// A slot: the bytes of all labels, and behind them the bits of the hash that the place does not tell. A quarter of a
/// cache line, and a width that adds up in whole registers: what stands behind the labels is added too, and ignored.
#[derive(Debug, Clone, Copy)]
#[repr(align(16))]
struct Row([i8; WIDTH]);

const WIDTH: usize = 16;
/// About as many features as a token has.
const AT_ONCE: usize = 96;
const EMPTY: Row = Row([0; WIDTH]);

/// A token's scores while they add up: steps of [`Weights::unit`], and lanes that nobody reads.
pub(crate) type Tally = [i32; WIDTH];

#[derive(Debug)]
pub(crate) struct Weights {
    rows: Vec<Row>,
    top: f32,
    count: usize,
}

impl Weights {
    fn of(features: &[(u32, [i8; LABELS])], top: f32) -> Self {
        let size = (features.len() * 3 / 2 + 1).next_power_of_two().max(256);
        let mut rows = vec![EMPTY; size];
        for &(key, weight) in features {
            let mut at = key as usize & (size - 1);
            while rows[at].check() != 0 {
                at = (at + 1) & (size - 1);
            }
            rows[at] = Row::new(key, weight);
        }
        Self { rows, top, count: features.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The weights of a token's features, added up. First all rows are fetched, then all are judged: memory answers many
    /// requests at once, but only those that no guess at an answer stands before.
    pub(crate) fn tally(&self, hashes: &[u64]) -> Tally {
        let mut tally = [0; WIDTH];
        let mut checks = [0; AT_ONCE];
        for hashes in hashes.chunks(AT_ONCE) {
            for (check, &hash) in checks.iter_mut().zip(hashes) {
                *check = self.rows[self.place(hash)].check();
            }
            for (&found, &hash) in checks.iter().zip(hashes) {
                if found == check(short(hash)) {
                    add(&mut tally, &self.rows[self.place(hash)]);
                } else if found != 0 {
                    self.search(hash, &mut tally);
                }
            }
        }
        tally
    }

    /// Where a feature's row is, unless another has its place.
    #[inline]
    fn place(&self, hash: u64) -> usize {
        short(hash) as usize & (self.rows.len() - 1)
    }

    /// Looks for a row behind its place.
    fn search(&self, hash: u64, tally: &mut Tally) {
        let (check, mask) = (check(short(hash)), self.rows.len() - 1);
        let mut at = (self.place(hash) + 1) & mask;
        loop {
            match self.rows[at].check() {
                0 => return,
                found if found == check => return add(tally, &self.rows[at]),
                _ => at = (at + 1) & mask,
            }
        }
    }

    /// What one step of a tally weighs.
    pub(crate) fn unit(&self) -> f32 {
        self.top / (127.0 * 127.0)
    }

    /// Bytes in memory.
    pub(crate) fn resident(&self) -> usize {
        size_of_val(&self.rows[..])
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Broken> {
        let top = reader.f32()?;
        let mut features = Vec::new();
        for key in reader.rising()? {
            features.push((u32::try_from(key).map_err(|_| Broken("a feature's hash is out of range"))?, [0; LABELS]));
        }
        for (_, row) in &mut features {
            let set = reader.u16()?;
            if set >> LABELS != 0 {
                return Err(Broken("a feature has more labels than there are"));
            }
            for (l, q) in row.iter_mut().enumerate() {
                if set & (1 << l) != 0 {
                    *q = reader.byte()? as i8;
                }
            }
        }
        Ok(Self::of(&features, top))
    }
}

/// Weights as a file holds them: sorted by hash, which is cut to 32 bits.
pub(crate) struct Pressed {
    features: Vec<(u32, [i8; LABELS])>,
    top: f32,
}

impl Pressed {
    /// Of features by hash; those that round to nothing are left out, and of two with the same 32 bits the later.
    pub(crate) fn new(features: &[(u64, Scores)]) -> Self {
        let top = features.iter().flat_map(|(_, row)| row).fold(1e-6_f32, |top, weight| top.max(weight.abs()));
        let mut kept: Vec<(u32, [i8; LABELS])> =
            features.iter().map(|(hash, row)| (short(*hash), row.map(|weight| press(weight, top)))).collect();
        kept.retain(|(_, row)| row.iter().any(|&q| q != 0));
        kept.sort_unstable_by_key(|(key, _)| *key);
        kept.dedup_by_key(|(key, _)| *key);
        Self { features: kept, top }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.top.to_le_bytes());
        write_rising(out, &self.features.iter().map(|(key, _)| u64::from(*key)).collect::<Vec<_>>());
        for (_, row) in &self.features {
            let set = row.iter().enumerate().filter(|(_, q)| **q != 0).fold(0_u16, |set, (l, _)| set | 1 << l);
            out.extend(set.to_le_bytes());
            out.extend(row.iter().filter(|q| **q != 0).map(|&q| q as u8));
        }
    }
}

impl Row {
    fn new(key: u32, weight: [i8; LABELS]) -> Self {
        let mut row = [0; WIDTH];
        row[..LABELS].copy_from_slice(&weight);
        let [a, b, c, _] = check(key).to_le_bytes();
        row[LABELS..].copy_from_slice(&[a as i8, b as i8, c as i8]);
        Self(row)
    }

    fn check(&self) -> u32 {
        u32::from_le_bytes([self.0[13] as u8, self.0[14] as u8, self.0[15] as u8, 0])
    }
}

#[inline]
fn add(tally: &mut Tally, row: &Row) {
    for (sum, &q) in tally.iter_mut().zip(&row.0) {
        let q = i16::from(q);
        *sum += i32::from(q * q.abs());
    }
}

fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Never zero, which marks an empty row; the low bits, which the place mostly tells, are left out.
fn check(key: u32) -> u32 {
    (key >> 8).max(1)
}

fn press(weight: f32, top: f32) -> i8 {
    let size = (weight.abs() / top).sqrt() * 127.0;
    (size.round().min(127.0) as i8) * if weight < 0.0 { -1 } else { 1 }
}
