//! Texts that training must not have seen. Collections share texts with each other, so what is kept out is not only the
//! text itself but every text that has a stretch of it: 12 characters in a row for Chinese, 25 for others, letters and
//! digits alone counted.

use std::collections::HashSet;

use crate::text::{fold, is_han};

const HAN: usize = 12;
const OTHERS: usize = 25;

/// The stretches of texts that are kept out.
#[derive(Debug, Default)]
pub struct Holdout {
    stretches: HashSet<u64>,
}

impl Holdout {
    pub fn add(&mut self, text: &str) {
        self.stretches.extend(stretches(text));
    }

    /// Whether a text shares a stretch with one that is kept out. A text shorter than a stretch is one as a whole.
    #[must_use]
    pub fn meets(&self, text: &str) -> bool {
        !self.stretches.is_empty() && stretches(text).any(|stretch| self.stretches.contains(&stretch))
    }
}

fn stretches(text: &str) -> impl Iterator<Item = u64> + use<> {
    let chars: Vec<char> = text.chars().map(fold).filter(|c| c.is_alphanumeric()).collect();
    let han = chars.iter().filter(|c| is_han(**c)).count();
    let length = if han * 2 > chars.len() { HAN } else { OTHERS };
    let last = chars.len().saturating_sub(length);
    (0..=last).map(move |start| hash(&chars[start..chars.len().min(start + length)]))
}

/// FNV-1a over characters, with the high bits brought down.
fn hash(chars: &[char]) -> u64 {
    chars.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, c| {
        let sum = (sum ^ u64::from(u32::from(*c))).wrapping_mul(0x0100_0000_01b3);
        sum ^ (sum >> 29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_shares_a_long_stretch_is_known() {
        let mut holdout = Holdout::default();
        assert!(!holdout.meets("好"));
        holdout.add("這家酒店的位置很好，早餐也不錯，下次還會再來。");
        holdout.add("The battery lasts two days and the screen is bright.");
        holdout.add("很好");
        for (text, meets) in [
            ("这家酒店的位置很好，早餐也不错", true),
            ("位置很好早餐也不错下次不来了", false),
            ("我們覺得酒店的位置很好，早餐也不錯，下次再說", true),
            ("It says the battery lasts two days and the screen…", true),
            ("the screen is bright", false),
            ("很好", true),
            ("很好！", true),
            ("很好吃", false),
        ] {
            assert_eq!(holdout.meets(text), meets, "{text}");
        }
    }
}
