//! One receiver: what waits for it, and how much it gets at once. Pure: no clock, no I/O.
//!
//! - **Limit.** Deliveries in flight start low, grow with good answers and halve with bad ones.
//! - **Allowance.** As many may wait in memory as can be sent within [`HORIZON`]; what is above that goes back to the
//!   table for about as long as it would have waited.
//! - **Pause.** After [`BREAK_AFTER`] failures in a row, or when the receiver asks for it, nothing is sent for a while
//!   and what waits goes back to the table: a receiver that is down uses up nobody's attempts. The first delivery
//!   afterwards is a probe; while probes fail, pauses get longer.
//! - **Failing.** How long it has given no good answer, once it is paused: what waits for it is not kept for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In flight to a receiver nothing is known of yet.
pub(super) const FIRST_LIMIT: usize = 16;
/// Waiting for a receiver nothing is known of yet.
const FIRST_ALLOWANCE: usize = 1024;
/// How much waiting is worth keeping in memory, in time; well within a lease.
const HORIZON: Duration = Duration::from_secs(20);
/// An answer that takes longer holds a place that others could use many times.
const SLOW: Duration = Duration::from_secs(1);
/// Failures in a row before the first pause.
const BREAK_AFTER: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest silence a receiver is granted; each of its deliveries keeps to its own `Retry-After` beside.
const LONGEST_ASKED: Duration = Duration::from_mins(10);
/// Deliveries sent away in one pause, from which on what is due for the receiver is left in the table.
const SWAMPED: usize = 256;
pub(super) const SHORTEST_AWAY: Duration = Duration::from_secs(1);
pub(super) const LONGEST_AWAY: Duration = Duration::from_mins(5);

/// How a receiver took a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// It answered, and refused; or the failure was not its own: nothing about its strength.
    Neutral,
    /// Overloaded, broken, silent.
    Bad,
    /// It asked for silence this long.
    Pause(Duration),
}

pub(super) struct Lane<J> {
    pub(super) waiting: VecDeque<J>,
    pub(super) in_flight: usize,
    /// Whether it stands in line for its turn.
    pub(super) listed: bool,
    limit: usize,
    /// Whether its last answer was good; see [`super::lanes`] for what hangs on it.
    proven: bool,
    /// Moving average of the time an exchange takes; `None` before the first.
    pace: Option<Duration>,
    /// Bad answers in a row.
    failures: u32,
    paused_until: Option<Instant>,
    /// The first bad answer since the last good one.
    failing_since: Option<Instant>,
    /// Deliveries sent away in this pause.
    sent_away: usize,
    /// When the last delivery that was sent away should have its turn.
    last_turn: Option<Instant>,
}

impl<J> Lane<J> {
    pub(super) fn new(max: usize, proven: bool) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            listed: false,
            limit: max.min(FIRST_LIMIT),
            proven,
            pace: None,
            failures: 0,
            paused_until: None,
            failing_since: None,
            sent_away: 0,
            last_turn: None,
        }
    }

    pub(super) fn proven(&self) -> bool {
        self.proven
    }

    /// Whether it has something to send and may send it.
    pub(super) fn ready(&self) -> bool {
        !self.waiting.is_empty() && self.in_flight < self.limit
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn idle(&self) -> bool {
        self.waiting.is_empty() && self.in_flight == 0
    }

    /// The oldest delivery, now in flight; `None` when it is not [`Self::ready`].
    pub(super) fn start(&mut self) -> Option<J> {
        if !self.ready() {
            return None;
        }
        self.in_flight += 1;
        self.waiting.pop_front()
    }

    /// A delivery came back: what it says about the receiver.
    pub(super) fn learn(&mut self, health: Health, took: Duration, max: usize, now: Instant) {
        self.in_flight -= 1;
        self.pace = Some(self.pace.map_or(took, |pace| (pace * 7 + took) / 8));
        match health {
            Health::Good => {
                self.failures = 0;
                self.failing_since = None;
                self.last_turn = None;
                self.proven = took <= SLOW;
                self.limit = if self.proven {
                    (self.limit + 1).min(max)
                } else {
                    self.limit.saturating_sub(1).max(max.div_ceil(8)).min(self.limit)
                };
            }
            Health::Neutral => {}
            Health::Bad => {
                self.weaken(now);
                // What was in flight when the pause began says nothing new.
                if self.paused_for(now).is_none() {
                    self.failures = self.failures.saturating_add(1);
                    if let Some(doublings) = self.failures.checked_sub(BREAK_AFTER) {
                        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_PAUSE);
                        self.pause(now, pause);
                    }
                }
            }
            Health::Pause(asked) => {
                self.weaken(now);
                self.pause(now, asked.min(LONGEST_ASKED));
            }
        }
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        (self.paused_until, self.sent_away) = (Some(now + pause), 0);
    }

    fn weaken(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
        self.proven = false;
        self.limit = (self.limit / 2).max(1);
    }

    pub(super) fn paused_for(&self, now: Instant) -> Option<Duration> {
        self.paused_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// How long it has been failing, while it is paused.
    pub(super) fn failing_for(&self, now: Instant) -> Option<Duration> {
        self.paused_for(now)?;
        Some(now.saturating_duration_since(self.failing_since?))
    }

    /// How long to leave in the table what is due for it there: when so much of it came in during this pause that more is to
    /// be expected.
    pub(super) fn swamped_for(&self, now: Instant) -> Option<Duration> {
        self.paused_for(now).filter(|_| self.sent_away >= SWAMPED)
    }

    /// How many may wait: none during a pause; else what can be sent within the horizon, at least a round of it, at most
    /// `cap`.
    pub(super) fn allowance(&self, cap: usize, now: Instant) -> usize {
        if self.paused_for(now).is_some() {
            return 0;
        }
        let Some(pace) = self.pace else { return if self.proven { cap } else { cap.min(FIRST_ALLOWANCE) } };
        let rounds = HORIZON.as_micros() / pace.as_micros().max(1);
        let worth = usize::try_from(rounds).unwrap_or(usize::MAX).saturating_mul(self.limit);
        worth.max(self.limit).min(cap)
    }

    /// How long a delivery that cannot stay is away: until its turn after all that went before it, within bounds.
    pub(super) fn away(&mut self, now: Instant) -> Duration {
        self.sent_away = self.sent_away.saturating_add(1);
        let limit = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let step = self.pace.unwrap_or_default() / limit;
        let queue = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let soonest = now + self.paused_for(now).unwrap_or(step.saturating_mul(queue).min(LONGEST_AWAY));
        let turn = self.last_turn.map_or(soonest, |last| soonest.max(last)) + step;
        // A turn later than any absence is no turn; the next ones share it.
        self.last_turn = Some(turn.min(now + LONGEST_ASKED));
        (turn - now).clamp(SHORTEST_AWAY, self.paused_for(now).unwrap_or_default().max(LONGEST_AWAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(5);
    const HUNG: Duration = Duration::from_secs(15);
    const MAX: usize = 64;

    /// A lane with all it may have in flight, and more waiting.
    fn busy() -> Lane<u32> {
        let mut lane = Lane::new(MAX, false);
        lane.waiting.extend(0..1000);
        while lane.start().is_some() {}
        lane
    }

    /// Answers one delivery and starts what may start.
    fn answer(lane: &mut Lane<u32>, health: Health, took: Duration, now: Instant) {
        lane.learn(health, took, MAX, now);
        while lane.start().is_some() {}
    }

    #[test]
    fn a_lane_starts_low_and_grows_with_good_answers_to_its_maximum() {
        let mut lane = busy();
        assert_eq!((lane.in_flight, lane.proven()), (FIRST_LIMIT, false));
        for _ in 0..200 {
            answer(&mut lane, Health::Good, FAST, Instant::now());
        }
        assert_eq!((lane.in_flight, lane.proven()), (MAX, true));
    }

    #[test]
    fn a_hung_receiver_ends_with_one_in_flight_and_one_allowed_to_wait() {
        let (mut lane, now) = (busy(), Instant::now());
        for _ in 0..BREAK_AFTER - 1 {
            lane.learn(Health::Bad, HUNG, MAX, now);
        }
        assert_eq!((lane.limit, lane.allowance(4096, now)), (1, 1));
    }

    #[test]
    fn a_slow_receiver_that_delivers_keeps_an_eighth_of_its_limit() {
        let mut lane = busy();
        for _ in 0..60 {
            answer(&mut lane, Health::Good, Duration::from_secs(4), Instant::now());
        }
        assert_eq!((lane.in_flight, lane.proven()), (MAX / 8, false));
    }

    #[test]
    fn failures_in_a_row_pause_the_lane_longer_with_every_failed_probe() {
        let (mut lane, mut now) = (busy(), Instant::now());
        for _ in 0..FIRST_LIMIT {
            lane.learn(Health::Bad, FAST, MAX, now);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = lane.paused_for(now).expect("it is paused");
            assert_eq!(lane.allowance(4096, now), 0);
            pauses.push(pause.as_secs());
            now += pause;
            assert!(lane.start().is_some() && lane.start().is_none(), "one probe");
            lane.learn(Health::Bad, FAST, MAX, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        now += LONGEST_PAUSE;
        lane.start().expect("a probe");
        lane.learn(Health::Good, FAST, MAX, now);
        assert_eq!((lane.failures, lane.proven(), lane.paused_for(now)), (0, true, None));
    }

    #[test]
    fn refusals_and_single_failures_pause_nothing() {
        let (mut lane, now) = (busy(), Instant::now());
        for _ in 0..50 {
            answer(&mut lane, Health::Bad, FAST, now);
            answer(&mut lane, Health::Neutral, FAST, now);
            answer(&mut lane, Health::Good, FAST, now);
        }
        assert_eq!(lane.paused_for(now), None);
    }

    #[test]
    fn a_pause_that_was_asked_for_is_kept_up_to_ten_minutes() {
        let now = Instant::now();
        for (asked, kept) in [(30, 30), (600, 600), (86_400, 600)] {
            let mut lane = busy();
            lane.learn(Health::Pause(Duration::from_secs(asked)), FAST, MAX, now);
            assert_eq!(lane.paused_for(now), Some(Duration::from_secs(kept)));
            assert!(lane.away(now) >= Duration::from_secs(kept));
        }
    }

    #[test]
    fn a_lane_is_failing_from_its_first_bad_answer_to_a_good_one_and_tells_only_while_it_is_paused() {
        let (mut lane, began) = (busy(), Instant::now());
        lane.learn(Health::Bad, FAST, MAX, began);
        let later = began + Duration::from_secs(5);
        assert_eq!(lane.failing_for(later), None);
        for _ in 1..BREAK_AFTER {
            lane.learn(Health::Bad, FAST, MAX, later);
        }
        assert_eq!(lane.failing_for(later), Some(Duration::from_secs(5)));
        let probed = later + FIRST_PAUSE;
        assert_eq!(lane.failing_for(probed), None);
        lane.learn(Health::Good, FAST, MAX, probed);
        lane.learn(Health::Pause(HUNG), FAST, MAX, probed);
        assert_eq!(lane.failing_for(probed), Some(Duration::ZERO));
    }

    #[test]
    fn a_paused_lane_is_swamped_once_much_was_sent_away_until_the_next_pause() {
        let (mut lane, now) = (busy(), Instant::now());
        lane.learn(Health::Pause(HUNG), FAST, MAX, now);
        for _ in 1..SWAMPED {
            lane.away(now);
        }
        assert_eq!(lane.swamped_for(now), None);
        lane.away(now);
        assert_eq!(lane.swamped_for(now), Some(HUNG));
        lane.learn(Health::Pause(HUNG), FAST, MAX, now);
        assert_eq!(lane.swamped_for(now), None, "it is found out anew");
    }

    #[test]
    fn what_is_sent_away_comes_back_at_the_pace_of_the_receiver() {
        let (mut lane, now) = (busy(), Instant::now());
        for _ in 0..5 {
            lane.learn(Health::Bad, HUNG, MAX, now);
        }
        lane.waiting.clear();
        let away: Vec<u64> = (0..30).map(|_| lane.away(now).as_secs()).collect();
        assert_eq!(away[..4], [15, 30, 45, 60]);
        assert_eq!(away[29], LONGEST_AWAY.as_secs());
    }
}
