//! Which of the waiting inputs make the next batch. Pure.

use crate::manifest::{Batch, Cost};

/// How many of the oldest inputs are looked at.
pub(super) const WINDOW: usize = 256;

/// What a batch may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_items: usize,
    pub max_cost: u64,
    pub cost: Cost,
}

impl Limits {
    #[must_use]
    pub fn of(batch: &Batch) -> Self {
        Self { max_items: batch.max_items, max_cost: batch.max_cost, cost: batch.cost }
    }
}

/// Picks from the costs of waiting inputs, oldest first: their places, ascending. The oldest is always among them, so
/// nobody starves, and alone when it exceeds the budget by itself; the others are those nearest to it in length, since
/// padding is wasted work.
#[must_use]
pub fn pick(costs: &[u32], limits: &Limits) -> Vec<usize> {
    let Some(oldest) = costs.first().copied() else { return Vec::new() };
    let mut places: Vec<usize> = (1..costs.len().min(WINDOW)).collect();
    places.sort_by_key(|place| costs[*place].abs_diff(oldest));
    let mut batch = vec![0];
    let mut bill = Bill::new(oldest);
    for place in places {
        if batch.len() >= limits.max_items {
            break;
        }
        let more = bill.with(costs[place]);
        if more.cost(limits.cost) <= limits.max_cost {
            batch.push(place);
            bill = more;
        }
    }
    batch.sort_unstable();
    batch
}

/// What a batch costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bill {
    items: u64,
    sum: u64,
    longest: u64,
}

impl Bill {
    fn new(cost: u32) -> Self {
        Self { items: 1, sum: u64::from(cost), longest: u64::from(cost) }
    }

    /// The bill of some inputs; `None` of none.
    pub(super) fn of(mut costs: impl Iterator<Item = u32>) -> Option<Self> {
        let first = costs.next()?;
        Some(costs.fold(Self::new(first), Self::with))
    }

    fn with(self, cost: u32) -> Self {
        let cost = u64::from(cost);
        Self { items: self.items + 1, sum: self.sum + cost, longest: self.longest.max(cost) }
    }

    /// Tokens are padded to the longest; what is not padded just adds up.
    pub(super) fn cost(self, unit: Cost) -> u64 {
        match unit {
            Cost::Tokens => self.longest * self.items,
            Cost::Chars | Cost::Rows | Cost::Items => self.sum,
        }
    }

    /// The part of a padded batch that is padding, 0 to 1.
    pub(super) fn padding(self) -> f64 {
        1.0 - self.sum as f64 / (self.longest * self.items).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_goes_with_its_nearest() {
        let tokens = |max_items, max_cost| Limits { max_items, max_cost, cost: Cost::Tokens };
        let sum = |max_items, max_cost| Limits { max_items, max_cost, cost: Cost::Chars };
        for (costs, limits, picked) in [
            (vec![], tokens(4, 100), vec![]),
            (vec![500], tokens(4, 100), vec![0]),
            (vec![500, 1, 500], tokens(4, 100), vec![0]),
            (vec![10, 90, 12, 9], tokens(3, 100), vec![0, 2, 3]),
            (vec![10, 90, 12, 9], tokens(4, 100), vec![0, 2, 3]),
            (vec![10, 90, 12, 9], sum(4, 121), vec![0, 1, 2, 3]),
            (vec![10, 90, 12, 9], sum(4, 120), vec![0, 2, 3]),
            (vec![7, 7, 7, 7], tokens(2, 100), vec![0, 1]),
        ] {
            assert_eq!(pick(&costs, &limits), picked, "{costs:?} {limits:?}");
        }
    }

    proptest! {
        #[test]
        fn a_batch_keeps_to_its_limits_and_the_oldest_is_in_it(
            costs in prop::collection::vec(1_u32..2_000, 1..400),
            max_items in 1_usize..70,
            max_cost in 1_u64..20_000,
            padded in any::<bool>(),
        ) {
            let limits = Limits { max_items, max_cost, cost: if padded { Cost::Tokens } else { Cost::Chars } };
            let picked = pick(&costs, &limits);
            prop_assert_eq!(picked[0], 0);
            prop_assert!(picked.windows(2).all(|two| two[0] < two[1]) && picked.iter().all(|place| *place < costs.len()));
            prop_assert!(picked.len() <= max_items);
            let bill = Bill::of(picked.iter().map(|place| costs[*place])).unwrap();
            prop_assert!(picked.len() == 1 || bill.cost(limits.cost) <= max_cost);
            prop_assert!((0.0..1.0).contains(&bill.padding()));
        }

        #[test]
        fn picking_until_nothing_waits_takes_each_exactly_once(
            costs in prop::collection::vec(1_u32..600, 0..600),
            max_items in 1_usize..40,
            max_cost in 1_u64..4_000,
        ) {
            let limits = Limits { max_items, max_cost, cost: Cost::Tokens };
            let mut waiting: VecDeque<(usize, u32)> = costs.iter().copied().enumerate().collect();
            let mut taken = vec![0; costs.len()];
            while !waiting.is_empty() {
                let costs: Vec<u32> = waiting.iter().map(|(_, cost)| *cost).collect();
                for place in pick(&costs, &limits).into_iter().rev() {
                    taken[waiting.remove(place).unwrap().0] += 1;
                }
            }
            prop_assert!(taken.into_iter().all(|times| times == 1));
        }
    }
}
