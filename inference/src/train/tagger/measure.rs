//! How well names are found: exact span and kind, over a whole set (as `conlleval` counts).

use crate::native::tagger::Kind;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub right: usize,
    pub found: usize,
    pub marked: usize,
}

impl Counts {
    pub fn precision(&self) -> f64 {
        share(self.right, self.found)
    }

    pub fn recall(&self) -> f64 {
        share(self.right, self.marked)
    }

    /// The harmonic mean of both.
    pub fn f1(&self) -> f64 {
        share(2 * self.right, self.found + self.marked)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Counts of all kinds together, then of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    pub all: Counts,
    pub each: [Counts; Kind::ALL.len()],
}

type Name = (usize, usize, Kind);

impl Measured {
    /// Adds a sentence: the names marked in it and those found.
    pub fn add(&mut self, marked: &[Name], found: &[Name]) {
        let mut count = |kind: Kind, by: fn(&mut Counts)| {
            by(&mut self.all);
            by(&mut self.each[kind as usize]);
        };
        for name in found {
            count(name.2, |counts| counts.found += 1);
            if marked.contains(name) {
                count(name.2, |counts| counts.right += 1);
            }
        }
        for name in marked {
            count(name.2, |counts| counts.marked += 1);
        }
    }
}
