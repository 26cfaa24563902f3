//! The table of weights: a row a feature, a column an output. A weight is one byte, companded: `w = scale · q·|q| / 127²`,
//! which keeps small weights apart where most of them are. Sums are of whole numbers, so they do not depend on order or
//! machine.

/// Weights, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: usize,
    cells: Vec<i8>,
    /// The largest weight of each column.
    scales: Vec<f32>,
    /// What each column's sum starts from.
    biases: Vec<f32>,
}

const STEPS: f32 = 127.0;

impl Table {
    /// Rounds weights (row-major) to bytes.
    #[must_use]
    pub fn compand(weights: &[f32], biases: Vec<f32>) -> Self {
        let columns = biases.len();
        let mut scales = vec![0_f32; columns];
        for row in weights.chunks_exact(columns) {
            for (scale, weight) in scales.iter_mut().zip(row) {
                *scale = scale.max(weight.abs());
            }
        }
        let cells = weights
            .chunks_exact(columns)
            .flat_map(|row| row.iter().zip(&scales).map(|(weight, scale)| step(*weight, *scale)))
            .collect();
        Self { columns, cells, scales, biases }
    }

    /// A table from its parts; `None` when they do not fit each other or a number is none.
    #[must_use]
    pub fn from_parts(cells: Vec<i8>, scales: Vec<f32>, biases: Vec<f32>) -> Option<Self> {
        let columns = biases.len();
        let fits = columns > 0 && scales.len() == columns && cells.len().is_multiple_of(columns);
        let numbers = scales.iter().chain(&biases).all(|number| number.is_finite());
        (fits && numbers).then_some(Self { columns, cells, scales, biases })
    }

    /// Each column's sum over the rows, divided by the square root of their number, and its bias.
    pub fn sums(&self, rows: &[u32], sums: &mut Vec<f32>) {
        let mut whole = [0_i32; 256];
        let mut many = Vec::new();
        let whole = if self.columns <= whole.len() {
            &mut whole[..self.columns]
        } else {
            many.resize(self.columns, 0);
            &mut many[..]
        };
        for row in rows {
            let start = *row as usize * self.columns;
            for (sum, cell) in whole.iter_mut().zip(&self.cells[start..start + self.columns]) {
                let cell = i16::from(*cell);
                *sum += i32::from(cell * cell.abs());
            }
        }
        let norm = (rows.len().max(1) as f32).sqrt() * STEPS * STEPS;
        sums.clear();
        let columns = whole.iter().zip(&self.scales).zip(&self.biases);
        sums.extend(columns.map(|((sum, scale), bias)| *sum as f32 * scale / norm + bias));
    }

    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    #[must_use]
    pub fn rows(&self) -> usize {
        self.cells.len() / self.columns
    }

    #[must_use]
    pub fn cells(&self) -> &[i8] {
        &self.cells
    }

    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    #[must_use]
    pub fn biases(&self) -> &[f32] {
        &self.biases
    }

    /// Memory it keeps.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cells.len() as u64
    }
}

/// The byte nearest to a weight: the root undoes the square.
fn step(weight: f32, scale: f32) -> i8 {
    if scale == 0.0 {
        return 0;
    }
    let root = (weight.abs() / scale).sqrt() * STEPS;
    (root.round().copysign(weight)).clamp(-STEPS, STEPS) as i8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_of_the_rows_named_over_the_root_of_their_number() {
        let table = Table::compand(&[1.0, 0.0, -1.0, 2.0, 0.5, 0.5], vec![0.0, 1.0]);
        let mut sums = Vec::new();
        table.sums(&[0, 1], &mut sums);
        assert!((sums[0]).abs() < 1e-6 && (sums[1] - (1.0 + 2.0 / 2_f32.sqrt())).abs() < 1e-6, "{sums:?}");
        table.sums(&[], &mut sums);
        assert_eq!(sums, [0.0, 1.0]);
    }

    #[test]
    fn parts_that_do_not_fit_are_no_table() {
        assert!(Table::from_parts(vec![0; 4], vec![1.0; 2], vec![0.0; 2]).is_some());
        for (cells, scales, biases) in [
            (3, vec![1.0; 2], vec![0.0; 2]),
            (4, vec![1.0; 1], vec![0.0; 2]),
            (4, vec![], vec![]),
            (4, vec![1.0, f32::NAN], vec![0.0; 2]),
        ] {
            assert!(Table::from_parts(vec![0; cells], scales, biases).is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_rounded_weight_is_near_the_weight(weights in proptest::collection::vec(-3.0_f32..3.0, 1..50)) {
            let table = Table::compand(&weights, vec![0.0]);
            let largest = weights.iter().fold(0.0_f32, |most, weight| most.max(weight.abs()));
            let mut sums = Vec::new();
            for (row, weight) in weights.iter().enumerate() {
                table.sums(&[row as u32], &mut sums);
                // Between two neighbouring bytes lie at most 2/127 of the scale.
                proptest::prop_assert!((sums[0] - weight).abs() <= largest / 126.0, "{} {weight}", sums[0]);
            }
        }
    }
}
