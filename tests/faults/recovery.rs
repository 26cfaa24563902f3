//! How soon all is as before. Pure: seconds since the fault was healed.

/// The part of what comes in that must come out for the rate to be full.
const FULL: f64 = 0.9;
/// Rates are taken over so many seconds, beginning at every tenth of one.
const WINDOW: f64 = 1.0;
const STEP: f64 = 0.1;

/// When a task was accepted and when it ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) accepted_s: f64,
    pub(crate) ended_s: f64,
}

/// After how long as much ends as is accepted; `None` when the load was over before that could be seen.
pub(crate) fn full_rate_s(tasks: &[Span]) -> Option<f64> {
    let last = tasks.iter().map(|task| task.accepted_s).fold(0.0, f64::max);
    let mut from = 0.0;
    while from + WINDOW <= last {
        let within = |at: f64| (from..from + WINDOW).contains(&at);
        let accepted = tasks.iter().filter(|task| within(task.accepted_s)).count();
        let ended = tasks.iter().filter(|task| within(task.ended_s)).count();
        if accepted > 0 && ended as f64 >= FULL * accepted as f64 {
            return Some(from);
        }
        from += STEP;
    }
    None
}

/// After how long the last of the tasks ended that were accepted before.
pub(crate) fn last_ended_s(tasks: &[Span]) -> f64 {
    tasks.iter().filter(|task| task.accepted_s < 0.0).map(|task| task.ended_s).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten tasks a second for four seconds; those accepted before `until` end then, the others at once.
    fn stalled(until: f64) -> Vec<Span> {
        let accepted = (-10..30).map(|tenth| f64::from(tenth) / 10.0);
        accepted.map(|at| Span { accepted_s: at, ended_s: at.max(until) }).collect()
    }

    #[test]
    fn a_rate_is_full_when_as_much_ends_as_comes_in() {
        assert_eq!(full_rate_s(&stalled(-1.0)), Some(0.0));
        let after_a_second = full_rate_s(&stalled(1.55)).unwrap();
        assert!((0.5..0.8).contains(&after_a_second), "{after_a_second}");
        assert_eq!(full_rate_s(&stalled(9.0)), None);
    }

    #[test]
    fn only_what_was_accepted_before_counts_as_recovered_late() {
        assert_eq!(last_ended_s(&stalled(2.0)), 2.0);
        let later = Span { accepted_s: 0.1, ended_s: 50.0 };
        assert_eq!(last_ended_s(&[later]), 0.0);
    }
}
