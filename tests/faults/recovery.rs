//! How soon all is as before. Pure: seconds since the fault was healed.
//!
//! What comes out is measured against what callers had to offer, not against what was taken of it: a door that lets
//! through a little of it has not recovered, however soon that little is done.

/// The part of what is offered that must be accepted, and must end, for the rate to be full.
const FULL: f64 = 0.9;
/// Rates are taken over so many seconds, beginning at every tenth of one.
const WINDOW: f64 = 1.0;
const STEP: f64 = 0.1;
/// What is offered at the very end of the load may come out this much later.
const LATE: f64 = 0.3;

/// When a task was accepted and when it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) accepted_s: f64,
    pub(crate) ended_s: f64,
}

/// What went in and what came out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// When callers sent a request for the first time, and how many tasks it was.
    pub(crate) offered: Vec<(f64, u64)>,
    pub(crate) accepted: Vec<f64>,
    pub(crate) ended: Vec<f64>,
}

/// Tasks a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) offered: f64,
    pub(crate) accepted: f64,
    pub(crate) ended: f64,
}

impl Flow {
    /// After how long as much is accepted and ends as is offered, in a second and in all that follow; `None` when the load
    /// was over before that could be seen.
    pub(crate) fn full_rate_s(&self) -> Option<f64> {
        let last = self.last();
        let mut from = 0.0;
        while from + WINDOW <= last {
            if self.rates(from, from + WINDOW).are_full() && self.rates(from, last).are_full() {
                return Some(from);
            }
            from += STEP;
        }
        None
    }

    /// From the end of the fault to the end of the load.
    pub(crate) fn afterwards(&self) -> Rates {
        self.rates(0.0, self.last())
    }

    /// When the load was over.
    fn last(&self) -> f64 {
        self.offered.iter().map(|(at, _)| *at).fold(0.0, f64::max)
    }

    fn rates(&self, from: f64, to: f64) -> Rates {
        let late = if to >= self.last() { LATE } else { 0.0 };
        let seconds = (to - from).max(STEP);
        let within = |times: &[f64]| times.iter().filter(|at| (from..to + late).contains(at)).count() as f64 / seconds;
        // The request at the end of a load is one of it.
        let offered = self.offered.iter().filter(|(at, _)| *at >= from && (*at < to || late > 0.0));
        Rates {
            offered: offered.map(|(_, tasks)| *tasks).sum::<u64>() as f64 / seconds,
            accepted: within(&self.accepted),
            ended: within(&self.ended),
        }
    }
}

impl Rates {
    fn are_full(self) -> bool {
        self.offered > 0.0 && self.accepted.min(self.ended) >= FULL * self.offered
    }
}

/// After how long the last of the tasks ended that were accepted before.
pub(crate) fn last_ended_s(tasks: &[Span]) -> f64 {
    tasks.iter().filter(|task| task.accepted_s < 0.0).map(|task| task.ended_s).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten tasks offered a second from one second before to three seconds after.
    fn times() -> Vec<f64> {
        (-10..30).map(|tenth| f64::from(tenth) / 10.0).collect()
    }

    fn flow(accepted: Vec<f64>, ended: Vec<f64>) -> Flow {
        Flow { offered: times().into_iter().map(|at| (at, 1)).collect(), accepted, ended }
    }

    /// Everything is accepted at once; what was accepted before `until` ends then, the rest at once.
    fn stalled(until: f64) -> Flow {
        flow(times(), times().into_iter().map(|at| at.max(until)).collect())
    }

    #[test]
    fn a_rate_is_full_when_as_much_ends_as_is_offered() {
        assert_eq!(stalled(-1.0).full_rate_s(), Some(0.0));
        let after_a_second = stalled(1.55).full_rate_s().unwrap();
        assert!((0.5..1.6).contains(&after_a_second), "{after_a_second}");
        assert_eq!(stalled(9.0).full_rate_s(), None);
    }

    #[test]
    fn a_door_that_lets_through_a_third_has_not_recovered_although_all_of_that_ends_at_once() {
        let few: Vec<f64> = times().into_iter().step_by(3).collect();
        let trickle = flow(few.clone(), few);
        assert_eq!(trickle.full_rate_s(), None);
        let rates = trickle.afterwards();
        assert!(rates.offered > 2.5 * rates.accepted, "{rates:?}");
    }

    #[test]
    fn a_door_that_opens_late_has_recovered_late() {
        let opens = |at: f64| times().into_iter().filter(|time| *time < -0.5 || *time >= at).collect::<Vec<f64>>();
        let late = flow(opens(1.5), opens(1.5)).full_rate_s().unwrap();
        assert!((1.3..1.7).contains(&late), "{late}");
    }

    #[test]
    fn catching_up_for_a_moment_is_no_full_rate() {
        // All that waited ends in the first second; then hardly anything does.
        let burst: Vec<f64> = (0..20).map(|at| f64::from(at) / 40.0).chain([1.2, 2.0, 2.8]).collect();
        assert_eq!(flow(times(), burst).full_rate_s(), None);
    }

    #[test]
    fn only_what_was_accepted_before_counts_as_recovered_late() {
        let spans = |until: f64| -> Vec<Span> {
            times().into_iter().map(|at| Span { accepted_s: at, ended_s: at.max(until) }).collect()
        };
        assert_eq!(last_ended_s(&spans(2.0)), 2.0);
        let later = Span { accepted_s: 0.1, ended_s: 50.0 };
        assert_eq!(last_ended_s(&[later]), 0.0);
    }
}
