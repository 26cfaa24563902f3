//! Who may send next: a lane for each receiver, and a fair turn for each lane. Pure: no clock, no I/O.
//!
//! A receiver that is slow or down must not hold what others need. Its own [`Lane`] bounds what it gets; and because
//! callers can name any number of hosts, receivers that are not proven (no good answer yet, or the last one was bad)
//! share half of the places in flight and a quarter of those to wait in. Proven receivers always find the others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{Health, Lane};

/// Lanes remembered; above it, those without work are forgotten.
const REMEMBERED: usize = 4096;
/// Lanes whose due deliveries one claim leaves in the table.
const SWAMPED_LANES: usize = 16;
/// What may wait in memory in total, in bytes.
const MAX_BYTES: usize = 32 << 20;

/// A delivery that does not stay in memory: it is due again after `away`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spilled<J> {
    pub(super) job: J,
    pub(super) away: Duration,
    /// How long its receiver has been failing; `None` unless it is paused.
    pub(super) failing_for: Option<Duration>,
}

/// A receiver that is sent nothing for `left`, and for which much falls due.
#[derive(Debug)]
pub(super) struct Swamped {
    pub(super) key: Arc<str>,
    pub(super) left: Duration,
    pub(super) failing_for: Duration,
}

/// Something that takes memory while it waits.
pub(super) trait Weigh {
    fn bytes(&self) -> usize;
}

/// The bounds of all lanes.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// In flight, in total.
    pub(super) concurrency: usize,
    /// In flight to one receiver.
    pub(super) per_endpoint: usize,
    /// Waiting, in total.
    pub(super) queue: usize,
}

impl Bounds {
    /// In flight to receivers that are not proven, in total.
    fn unproven_places(self) -> usize {
        self.concurrency.div_ceil(2)
    }

    /// Waiting for one receiver.
    fn cap(self) -> usize {
        self.queue.div_ceil(2)
    }

    /// Whether so much waits that what is left is for proven receivers.
    fn crowded(self, waiting: usize, bytes: usize) -> bool {
        waiting >= self.queue.div_ceil(4) || bytes >= MAX_BYTES / 4
    }
}

/// All receivers' lanes.
pub(super) struct Lanes<J> {
    bounds: Bounds,
    lanes: HashMap<Arc<str>, Lane<J>>,
    /// Lanes that may have something to send, in turn.
    ready: VecDeque<Arc<str>>,
    /// Unproven lanes whose turn came when the unproven had no place.
    held: VecDeque<Arc<str>>,
    waiting: usize,
    waiting_bytes: usize,
    in_flight: usize,
    /// In flight to receivers that are not proven now.
    unproven: usize,
}

impl<J: Weigh> Lanes<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            waiting: 0,
            waiting_bytes: 0,
            in_flight: 0,
            unproven: 0,
        }
    }

    /// Whether more deliveries should be taken in.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < self.bounds.queue && self.waiting_bytes < MAX_BYTES
    }

    /// The lanes that send nothing for a while.
    pub(super) fn paused(&self, now: Instant) -> impl Iterator<Item = &Arc<str>> {
        self.lanes.iter().filter(move |(_, lane)| lane.paused_for(now).is_some()).map(|(key, _)| key)
    }

    /// Paused lanes for which so much falls due that it is better left where it is, and for how long; some of them.
    pub(super) fn swamped(&self, now: Instant) -> Vec<Swamped> {
        let swamped = self.lanes.iter().filter_map(|(key, lane)| {
            let (left, failing_for) = (lane.swamped_for(now)?, lane.failing_for(now)?);
            Some(Swamped { key: key.clone(), left, failing_for })
        });
        swamped.take(SWAMPED_LANES).collect()
    }

    /// Puts a delivery in its lane; gives it back when it cannot stay. `proven` is what a new lane is taken for.
    pub(super) fn admit(&mut self, key: &Arc<str>, job: J, proven: bool, now: Instant) -> Result<(), Spilled<J>> {
        if !self.lanes.contains_key(key) {
            self.lanes.insert(key.clone(), Lane::new(self.bounds.per_endpoint, proven));
        }
        let lane = self.lanes.get_mut(key).expect("it was inserted above");
        let crowded = self.bounds.crowded(self.waiting, self.waiting_bytes);
        if lane.waiting.len() >= lane.allowance(self.bounds.cap(), now) || (crowded && !lane.proven()) {
            let (away, failing_for) = (lane.away(now), lane.failing_for(now));
            self.forget(key);
            return Err(Spilled { job, away, failing_for });
        }
        self.waiting += 1;
        self.waiting_bytes += job.bytes();
        lane.waiting.push_back(job);
        self.list(key);
        Ok(())
    }

    /// The next delivery to send: the oldest of the lane whose turn it is.
    pub(super) fn next(&mut self) -> Option<J> {
        if self.in_flight >= self.bounds.concurrency {
            return None;
        }
        while let Some(key) = self.ready.pop_front() {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            if !lane.proven() && self.unproven >= self.bounds.unproven_places() {
                self.held.push_back(key);
                continue;
            }
            lane.listed = false;
            let Some(job) = lane.start() else { continue };
            self.in_flight += 1;
            self.unproven += usize::from(!lane.proven());
            self.waiting -= 1;
            self.waiting_bytes -= job.bytes();
            self.list(&key);
            return Some(job);
        }
        None
    }

    /// A delivery came back: takes note of how it went; gives back what the lane should no longer keep.
    pub(super) fn settle(&mut self, key: &Arc<str>, health: Health, took: Duration, now: Instant) -> Vec<Spilled<J>> {
        let lane = self.lanes.get_mut(key).expect("a lane with a delivery in flight is not forgotten");
        self.in_flight -= 1;
        self.unproven -= unproven(lane);
        lane.learn(health, took, self.bounds.per_endpoint, now);
        self.unproven += unproven(lane);
        let keep = lane.allowance(self.bounds.cap(), now).min(lane.waiting.len());
        let surplus = lane.waiting.split_off(keep);
        let failing_for = lane.failing_for(now);
        let spilled = surplus.into_iter().map(|job| Spilled { job, away: lane.away(now), failing_for });
        let spilled: Vec<_> = spilled.collect();
        self.waiting -= spilled.len();
        self.waiting_bytes -= spilled.iter().map(|spilled| spilled.job.bytes()).sum::<usize>();
        self.list(key);
        self.forget(key);
        let free = self.bounds.unproven_places().saturating_sub(self.unproven).min(self.held.len());
        self.ready.extend(self.held.drain(..free));
        spilled
    }

    /// A delivery was not sent after all.
    pub(super) fn unsent(&mut self, key: &Arc<str>) {
        let lane = self.lanes.get_mut(key).expect("a lane with a delivery in flight is not forgotten");
        self.in_flight -= 1;
        self.unproven -= usize::from(!lane.proven());
        lane.in_flight -= 1;
        self.list(key);
    }

    /// Empties all lanes.
    pub(super) fn drain(&mut self) -> Vec<J> {
        (self.waiting, self.waiting_bytes) = (0, 0);
        self.lanes.values_mut().flat_map(|lane| lane.waiting.drain(..)).collect()
    }

    /// Lets a lane stand in line when it has something to send.
    fn list(&mut self, key: &Arc<str>) {
        if let Some(lane) = self.lanes.get_mut(key)
            && !lane.listed
            && lane.ready()
        {
            lane.listed = true;
            self.ready.push_back(key.clone());
        }
    }

    /// Forgets a lane without work when too many are remembered.
    fn forget(&mut self, key: &Arc<str>) {
        if self.lanes.len() > REMEMBERED && self.lanes.get(key).is_some_and(|lane| lane.idle() && !lane.listed) {
            self.lanes.remove(key);
        }
    }
}

/// What a lane holds of the places of the unproven.
fn unproven<J>(lane: &Lane<J>) -> usize {
    if lane.proven() { 0 } else { lane.in_flight }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::lane::FIRST_LIMIT;

    const FAST: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_secs(30);
    const BOUNDS: Bounds = Bounds { concurrency: 64, per_endpoint: 16, queue: 4096 };

    /// `(lane, number)`; ten bytes each.
    type Numbered = (u32, u32);

    impl Weigh for Numbered {
        fn bytes(&self) -> usize {
            10
        }
    }

    fn key(lane: u32) -> Arc<str> {
        Arc::from(lane.to_string())
    }

    /// Lanes holding `count` jobs each.
    fn filled(lanes: std::ops::Range<u32>, count: u32, proven: bool) -> Lanes<Numbered> {
        let mut filled = Lanes::new(BOUNDS);
        for (lane, job) in lanes.flat_map(|lane| (0..count).map(move |job| (lane, job))) {
            filled.admit(&key(lane), (lane, job), proven, Instant::now()).unwrap();
        }
        filled
    }

    fn start_all(lanes: &mut Lanes<Numbered>) -> Vec<Numbered> {
        std::iter::from_fn(|| lanes.next()).collect()
    }

    #[test]
    fn lanes_take_turns_and_each_sends_its_oldest_first() {
        let mut lanes = filled(0..2, 3, true);
        assert_eq!(start_all(&mut lanes), [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]);
        assert_eq!((lanes.waiting, lanes.waiting_bytes, lanes.in_flight), (0, 0, 6));
    }

    #[test]
    fn no_lane_and_no_number_of_lanes_sends_more_than_its_bound() {
        assert_eq!(start_all(&mut filled(0..1, 100, true)).len(), FIRST_LIMIT);
        assert_eq!(start_all(&mut filled(0..10, 100, true)).len(), BOUNDS.concurrency);
        assert_eq!(start_all(&mut filled(0..10, 100, false)).len(), BOUNDS.concurrency / 2);
    }

    #[test]
    fn any_number_of_hung_hosts_leaves_half_of_all_places_to_a_proven_receiver() {
        let mut lanes = filled(0..64, 15, false);
        assert_eq!(start_all(&mut lanes).len(), BOUNDS.concurrency / 2);
        for lane in 64..600 {
            for job in 0..10 {
                // Those above the half of the unproven are spilled.
                lanes.admit(&key(lane), (lane, job), false, Instant::now()).ok();
            }
        }
        assert!(lanes.has_room() && lanes.waiting <= BOUNDS.queue / 4, "{}", lanes.waiting);
        for job in 0..100 {
            lanes.admit(&key(1000), (1000, job), true, Instant::now()).expect("there is room for the proven");
        }
        let mut sent = 0;
        while sent < 100 {
            let started = start_all(&mut lanes);
            assert!(started.iter().all(|(lane, _)| *lane == 1000), "{started:?}");
            assert!(!started.is_empty());
            for _ in &started {
                lanes.settle(&key(1000), Health::Good, FAST, Instant::now());
            }
            sent += started.len();
        }
    }

    #[test]
    fn an_unproven_receiver_held_back_has_its_turn_when_a_place_is_free_again() {
        let mut lanes = filled(0..64, 1, false);
        let mut started = start_all(&mut lanes);
        let mut done = 0;
        while let Some((lane, _)) = started.pop() {
            lanes.settle(&key(lane), Health::Bad, FAST, Instant::now());
            done += 1;
            started.extend(start_all(&mut lanes));
        }
        assert_eq!((done, lanes.unproven, lanes.in_flight, lanes.held.len()), (64, 0, 0, 0));
    }

    #[test]
    fn a_pause_empties_its_own_lane_only_and_ends_by_itself() {
        let mut lanes = filled(0..2, 20, true);
        let now = Instant::now();
        let asked = Duration::from_secs(30);
        lanes.next();
        let spilled = lanes.settle(&key(0), Health::Pause(asked), FAST, now);
        assert_eq!(spilled.len(), 19);
        assert!(spilled.iter().all(|spilled| spilled.away >= asked && spilled.failing_for == Some(Duration::ZERO)));
        assert_eq!((lanes.waiting, lanes.waiting_bytes, lanes.paused(now).count()), (20, 200, 1));
        assert!(lanes.admit(&key(0), (0, 99), true, now + asked / 2).is_err());
        assert!(lanes.admit(&key(0), (0, 99), true, now + asked).is_ok());
    }

    #[test]
    fn only_a_paused_lane_from_which_much_was_sent_away_is_swamped() {
        let mut lanes = filled(0..2, 400, true);
        let now = Instant::now();
        lanes.next();
        lanes.next();
        assert_eq!(lanes.settle(&key(0), Health::Pause(SLOW), FAST, now).len(), 399);
        assert_eq!(lanes.settle(&key(1), Health::Bad, FAST, now).len(), 0);
        let swamped: Vec<_> = lanes.swamped(now).into_iter().map(|it| (it.key, it.left, it.failing_for)).collect();
        assert_eq!(swamped, [(key(0), SLOW, Duration::ZERO)]);
        assert_eq!(lanes.swamped(now + SLOW).len(), 0);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        #[derive(Debug)]
        struct Heavy;
        impl Weigh for Heavy {
            fn bytes(&self) -> usize {
                1 << 20
            }
        }
        let mut lanes = Lanes::new(BOUNDS);
        let admitted = (0..100).filter(|_| lanes.admit(&key(0), Heavy, false, Instant::now()).is_ok()).count();
        assert_eq!(admitted, 8, "a quarter of all bytes for the unproven");
        assert!(lanes.has_room());
        while lanes.has_room() {
            lanes.admit(&key(1), Heavy, true, Instant::now()).expect("there is room");
        }
        assert_eq!(lanes.waiting_bytes, MAX_BYTES);
    }

    #[test]
    fn receivers_without_work_are_forgotten_when_there_are_many() {
        let mut lanes = Lanes::new(Bounds { queue: 8, ..BOUNDS });
        for lane in 0..10_000 {
            lanes.admit(&key(lane), (lane, 0), false, Instant::now()).unwrap();
            lanes.next().unwrap();
            lanes.settle(&key(lane), Health::Good, FAST, Instant::now());
        }
        assert_eq!(lanes.lanes.len(), REMEMBERED);
    }

    #[test]
    fn draining_gives_every_waiting_delivery_back() {
        let mut lanes = filled(0..2, 3, true);
        lanes.next();
        assert_eq!(lanes.drain().len(), 5);
        assert_eq!((lanes.has_room(), lanes.next()), (true, None));
    }
}
