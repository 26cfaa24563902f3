//! Who may send next: one queue a receiver, and a fair turn for each.
//!
//! A receiver that is slow or down must not hold what others need. So each has its own limit of deliveries in flight,
//! which starts low, grows with good answers and halves with bad ones; and it may keep as many waiting as it can send
//! within [`HORIZON`]. What is above that goes back to the table for about as long as it would have waited.
//! Pure: no clock, no I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// In flight to a receiver nothing is known of yet.
const FIRST_LIMIT: usize = 16;
/// Waiting for a receiver nothing is known of yet.
const FIRST_ALLOWANCE: usize = 1024;
/// How much waiting is worth keeping in memory, in time.
const HORIZON: Duration = Duration::from_secs(5);
/// An answer that takes longer holds a place that others could use many times.
const SLOW: Duration = Duration::from_secs(1);
const SHORTEST_AWAY: Duration = Duration::from_secs(1);
const LONGEST_AWAY: Duration = Duration::from_mins(10);
/// Receivers remembered; above it, those without work are forgotten.
const REMEMBERED: usize = 4096;

/// How a receiver took a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// It answered, and refused: nothing about its strength.
    Neutral,
    /// Overloaded, broken, silent.
    Bad,
    /// It asked for silence this long.
    Pause(Duration),
}

/// A delivery that does not stay in memory: it is due again after `away`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spilled<J> {
    pub(super) job: J,
    pub(super) away: Duration,
}

/// All receivers' lanes.
pub(super) struct Lanes<J> {
    lanes: HashMap<Arc<str>, Lane<J>>,
    /// Lanes with something to send and a place to send it, in turn; each at most once.
    ready: VecDeque<Arc<str>>,
    waiting: usize,
    per_endpoint: usize,
    queue: usize,
}

struct Lane<J> {
    waiting: VecDeque<J>,
    in_flight: usize,
    limit: usize,
    /// Moving average of the time an exchange takes; `None` before the first.
    pace: Option<Duration>,
    paused_until: Option<Instant>,
    listed: bool,
}

impl<J> Lanes<J> {
    pub(super) fn new(per_endpoint: usize, queue: usize) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), waiting: 0, per_endpoint, queue }
    }

    /// Deliveries waiting, in all lanes.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a delivery in its lane; gives it back when the lane is paused or holds as much as it should.
    pub(super) fn admit(&mut self, key: &Arc<str>, job: J, now: Instant) -> Result<(), Spilled<J>> {
        let first_limit = self.per_endpoint.min(FIRST_LIMIT);
        let lane = self.lanes.entry(key.clone()).or_insert_with(|| Lane::new(first_limit));
        if let Some(away) = lane.paused_for(now) {
            return Err(Spilled { job, away });
        }
        if lane.waiting.len() >= lane.allowance(self.queue) {
            return Err(Spilled { job, away: lane.time_to_send(lane.waiting.len()) });
        }
        lane.waiting.push_back(job);
        self.waiting += 1;
        if lane.list() {
            self.ready.push_back(key.clone());
        }
        Ok(())
    }

    /// The next delivery to send: the oldest of the lane whose turn it is.
    pub(super) fn next(&mut self) -> Option<J> {
        let key = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key).expect("a listed lane is not forgotten");
        let job = lane.waiting.pop_front().expect("a listed lane has something to send");
        lane.in_flight += 1;
        lane.listed = false;
        self.waiting -= 1;
        if lane.list() {
            self.ready.push_back(key);
        }
        Some(job)
    }

    /// Takes note of how a delivery went; gives back what the lane should no longer keep.
    pub(super) fn settle(&mut self, key: &Arc<str>, health: Health, took: Duration, now: Instant) -> Vec<Spilled<J>> {
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        lane.in_flight -= 1;
        lane.learn(health, took, self.per_endpoint, now);
        let mut spilled = Vec::new();
        if let Some(away) = lane.paused_for(now) {
            spilled.extend(lane.waiting.drain(..).map(|job| Spilled { job, away }));
        }
        let keep = lane.allowance(self.queue).min(lane.waiting.len());
        let surplus = lane.waiting.split_off(keep);
        spilled.extend(surplus.into_iter().enumerate().map(|(i, job)| {
            Spilled { job, away: lane.time_to_send(keep + i) }
        }));
        self.waiting -= spilled.len();
        if lane.waiting.is_empty() && lane.listed {
            lane.listed = false;
            self.ready.retain(|listed| listed != key);
        } else if lane.list() {
            self.ready.push_back(key.clone());
        }
        if self.lanes.len() > REMEMBERED {
            self.lanes.retain(|_, lane| lane.in_flight > 0 || !lane.waiting.is_empty());
        }
        spilled
    }

    /// Empties all lanes.
    pub(super) fn drain(&mut self) -> Vec<J> {
        self.ready.clear();
        self.waiting = 0;
        self.lanes.values_mut().for_each(|lane| lane.listed = false);
        self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)).collect()
    }
}

impl<J> Lane<J> {
    fn new(limit: usize) -> Self {
        Self { waiting: VecDeque::new(), in_flight: 0, limit, pace: None, paused_until: None, listed: false }
    }

    /// Whether the lane has just become ready and is to be listed.
    fn list(&mut self) -> bool {
        let news = !self.listed && !self.waiting.is_empty() && self.in_flight < self.limit;
        self.listed |= news;
        news
    }

    fn learn(&mut self, health: Health, took: Duration, max: usize, now: Instant) {
        self.pace = Some(self.pace.map_or(took, |pace| (pace * 7 + took) / 8));
        match health {
            Health::Good if took <= SLOW => self.limit = (self.limit + 1).min(max),
            Health::Good => self.limit = (self.limit - 1).max(max.div_ceil(8)).min(self.limit),
            Health::Neutral => {}
            Health::Bad => self.limit = (self.limit / 2).max(1),
            Health::Pause(asked) => {
                self.limit = (self.limit / 2).max(1);
                self.paused_until = Some(now + asked.min(LONGEST_AWAY));
            }
        }
    }

    fn paused_for(&self, now: Instant) -> Option<Duration> {
        self.paused_until?.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// How many may wait: what can be sent within the horizon, at least a round of it, at most half of all places.
    fn allowance(&self, queue: usize) -> usize {
        let half = queue.div_ceil(2);
        let Some(pace) = self.pace else { return half.min(FIRST_ALLOWANCE) };
        let rounds = HORIZON.as_micros() / pace.as_micros().max(1);
        let worth = usize::try_from(rounds).unwrap_or(usize::MAX).saturating_mul(self.limit);
        worth.max(self.limit).min(half)
    }

    /// How long until a delivery with `ahead` before it would be sent, within the bounds of being away.
    fn time_to_send(&self, ahead: usize) -> Duration {
        let pace = self.pace.unwrap_or_default();
        let rounds = u32::try_from(ahead / self.limit).unwrap_or(u32::MAX);
        pace.saturating_mul(rounds).clamp(SHORTEST_AWAY, LONGEST_AWAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(5);
    const HUNG: Duration = Duration::from_secs(15);

    fn key(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    /// Lanes holding `count` jobs each, numbered.
    fn filled(names: &[&str], count: u32) -> Lanes<u32> {
        let mut lanes = Lanes::new(64, 8192);
        for name in names {
            for job in 0..count {
                lanes.admit(&key(name), job, Instant::now()).unwrap();
            }
        }
        lanes
    }

    fn in_flight(lanes: &mut Lanes<u32>) -> usize {
        std::iter::from_fn(|| lanes.next()).count()
    }

    #[test]
    fn lanes_take_turns_and_each_sends_its_oldest_first() {
        let mut lanes = filled(&["a", "b"], 3);
        let order: Vec<u32> = std::iter::from_fn(|| lanes.next()).collect();
        assert_eq!(order, [0, 0, 1, 1, 2, 2]);
        assert_eq!(lanes.waiting(), 0);
    }

    #[test]
    fn a_lane_starts_low_grows_with_good_answers_and_stops_at_its_limit() {
        let mut lanes = filled(&["a"], 1000);
        assert_eq!(in_flight(&mut lanes), FIRST_LIMIT);
        let mut busy = FIRST_LIMIT;
        for _ in 0..200 {
            lanes.settle(&key("a"), Health::Good, FAST, Instant::now());
            busy = busy - 1 + in_flight(&mut lanes);
        }
        assert_eq!(busy, 64);
    }

    #[test]
    fn a_hung_receiver_ends_with_one_in_flight_and_one_waiting() {
        let mut lanes = filled(&["a"], 1000);
        assert_eq!(in_flight(&mut lanes), FIRST_LIMIT);
        let spilled: Vec<_> =
            (0..FIRST_LIMIT).flat_map(|_| lanes.settle(&key("a"), Health::Bad, HUNG, Instant::now())).collect();
        assert_eq!(lanes.waiting(), 1);
        assert_eq!(spilled.len(), 1000 - FIRST_LIMIT - 1);
        assert!(spilled.iter().all(|spilled| spilled.away >= SHORTEST_AWAY && spilled.away <= LONGEST_AWAY));
        assert_eq!(in_flight(&mut lanes), 1);
        let refused = (0..10).filter(|job| lanes.admit(&key("a"), *job, Instant::now()).is_err()).count();
        assert_eq!(refused, 9);
    }

    #[test]
    fn a_slow_receiver_that_delivers_keeps_an_eighth_of_its_limit() {
        let mut lanes = filled(&["a"], 64);
        let mut busy = in_flight(&mut lanes);
        for _ in 0..60 {
            lanes.settle(&key("a"), Health::Good, Duration::from_secs(4), Instant::now());
            busy = busy - 1 + in_flight(&mut lanes);
            lanes.admit(&key("a"), 0, Instant::now()).ok();
        }
        assert_eq!(busy, 8);
    }

    #[test]
    fn a_pause_that_was_asked_for_empties_the_lane_and_ends_by_itself() {
        let mut lanes = filled(&["a", "b"], 20);
        while lanes.next().is_some() {}
        let now = Instant::now();
        let asked = Duration::from_secs(30);
        let spilled = lanes.settle(&key("a"), Health::Pause(asked), FAST, now);
        assert_eq!(spilled.len(), 4);
        assert!(spilled.iter().all(|spilled| spilled.away == asked));
        assert!(lanes.admit(&key("a"), 99, now + Duration::from_secs(29)).is_err());
        assert!(lanes.admit(&key("a"), 99, now + asked).is_ok());
        assert_eq!(lanes.waiting(), 5, "the other lane's stay");
    }

    #[test]
    fn draining_gives_every_waiting_delivery_back() {
        let mut lanes = filled(&["a", "b"], 3);
        lanes.next();
        assert_eq!(lanes.drain().len(), 5);
        assert_eq!((lanes.waiting(), lanes.next()), (0, None));
    }
}
