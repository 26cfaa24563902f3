//! Hashes that mean the same for ever, since files hold them: words and features are known by them alone.

/// Hashes as they grow: start, add parts, finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash(u64);

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hash {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(ODD) ^ 0x2545_f491_4f6c_dd1d)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn and(self, part: u64) -> Self {
        Self((self.0.rotate_left(23) ^ part).wrapping_mul(ODD))
    }

    /// All bits of what was added in all bits of the result (the last step of SplitMix64).
    #[inline]
    pub(crate) const fn finish(self) -> u64 {
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// The hash of a word, by its characters.
pub(crate) fn word(chars: impl IntoIterator<Item = char>) -> Hash {
    chars.into_iter().fold(Hash::new(1), |hash, c| hash.and(c as u64))
}
