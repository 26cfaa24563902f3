//! The order in which the tagger's trainer sees things.

use crate::train::random::Random;

/// Shuffles by [`Random::below`]. It draws otherwise than [`Random::shuffle`], by which the linear models' files were made;
/// the tagger's files were made by this, and each must come out again as it is.
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for at in (1..items.len()).rev() {
        items.swap(at, random.below(at + 1));
    }
}
