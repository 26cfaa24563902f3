//! Where the features of a sentence gather: hashes, token after token.

use super::hash::Hash;

#[derive(Debug, Default)]
pub(crate) struct Features {
    hashes: Vec<u64>,
    /// Where each token's begin.
    starts: Vec<usize>,
}

impl Features {
    pub(crate) fn clear(&mut self) {
        self.hashes.clear();
        self.starts.clear();
    }

    /// Begins the next token.
    pub(crate) fn token(&mut self) -> Emit<'_> {
        self.starts.push(self.hashes.len());
        Emit { hashes: &mut self.hashes }
    }

    /// The hashes of each token in turn.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = &[u64]> {
        let ends = self.starts.iter().skip(1).copied().chain([self.hashes.len()]);
        self.starts.iter().zip(ends).map(|(&start, end)| &self.hashes[start..end])
    }
}

pub(crate) struct Emit<'a> {
    hashes: &'a mut Vec<u64>,
}

impl Emit<'_> {
    /// One feature: which template, filled with what.
    #[inline]
    pub(crate) fn add(&mut self, template: u64, parts: &[u64]) {
        let hash = parts.iter().fold(Hash::new(template + 16), |hash, &part| hash.and(part));
        self.hashes.push(hash.finish());
    }
}
