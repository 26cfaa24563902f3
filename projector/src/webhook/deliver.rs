//! The loop: takes deliveries in, starts what may start, passes on what came of it.
//!
//! One task owns the lanes; every attempt is a task of its own, so that attempts use all cores and one that hangs
//! holds nothing but its place. Nothing here waits for the database: claims and records run beside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use insightforge_schema::event::now_us;
use sqlx::MySqlPool;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempted, Courier, Job};
use super::claim::{Claimed, Left, claim};
use super::lanes::{Bounds, Lanes, Spilled, Swamped};
use super::measure::Gauges;
use super::record::{Record, Written};
use super::{Delivery, WebhookConfig};

/// Outcomes that may wait for the database; above it nothing more is sent.
const UNRECORDED: usize = 4096;
/// The longest pause between two looks at the table while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Deliverer {
    config: Arc<WebhookConfig>,
    pool: MySqlPool,
    courier: Arc<Courier>,
    lanes: Lanes<Job>,
    in_flight: JoinSet<Result<Box<Attempted>, Delivery>>,
    /// At most one.
    claims: JoinSet<Result<Claimed, sqlx::Error>>,
    next_claim: Instant,
    failed_claims: u32,
    records: mpsc::UnboundedSender<Record>,
    written: mpsc::UnboundedReceiver<Written>,
    /// When the leases end of what came of deliveries and is not in the table yet, in the order it was given to the recorder.
    unrecorded: VecDeque<i64>,
    /// Ends what is in flight without waiting for answers.
    hurry: CancellationToken,
    gauges: Gauges,
}

impl Deliverer {
    pub(super) fn new(
        config: Arc<WebhookConfig>,
        pool: MySqlPool,
        courier: Courier,
        records: mpsc::UnboundedSender<Record>,
        written: mpsc::UnboundedReceiver<Written>,
    ) -> Self {
        let WebhookConfig { concurrency, per_endpoint, queue, .. } = *config;
        Self {
            config,
            pool,
            courier: Arc::new(courier),
            lanes: Lanes::new(Bounds { concurrency, per_endpoint, queue }),
            in_flight: JoinSet::new(),
            claims: JoinSet::new(),
            next_claim: Instant::now(),
            failed_claims: 0,
            records,
            written,
            unrecorded: VecDeque::new(),
            hurry: CancellationToken::new(),
            gauges: Gauges::new(),
        }
    }

    /// Until `shutdown`; then ends what is in flight and hands the rest back.
    pub(super) async fn run(mut self, mut handed_over: mpsc::Receiver<Vec<Delivery>>, shutdown: CancellationToken) {
        let mut batches = Vec::new();
        let mut folding = true;
        while !shutdown.is_cancelled() {
            self.start_all();
            let has_room = self.lanes.has_room();
            tokio::select! {
                () = shutdown.cancelled() => {}
                received = handed_over.recv_many(&mut batches, usize::MAX), if folding && has_room => {
                    folding = received > 0;
                    if received == handed_over.max_capacity() {
                        // A full channel may have turned others away; they are in the table.
                        self.next_claim = Instant::now();
                    }
                    for delivery in batches.drain(..).flatten() {
                        self.take_in(delivery);
                    }
                }
                Some(ended) = self.in_flight.join_next() => {
                    self.pass_on(ended);
                    while let Some(ended) = self.in_flight.try_join_next() {
                        self.pass_on(ended);
                    }
                }
                Some(Written(records)) = self.written.recv() => {
                    self.unrecorded.drain(..records);
                }
                Some(claimed) = self.claims.join_next() => self.take_in_claimed(claimed),
                () = tokio::time::sleep_until(self.next_claim), if has_room && self.claims.is_empty() => {
                    self.start_claim();
                }
            }
        }
        self.stop(handed_over).await;
    }

    /// Finds the delivery's lane, and room in it; `false` when it had to be put off.
    fn take_in(&mut self, delivery: Delivery) -> bool {
        let job = match self.courier.route(delivery) {
            Ok(job) => job,
            Err(attempted) => {
                self.record(Record::Attempted(attempted));
                return true;
            }
        };
        let (lane, proven) = (job.lane.clone(), job.is_configured());
        match self.lanes.admit(&lane, job, proven, std::time::Instant::now()) {
            Ok(()) => true,
            Err(spilled) => !self.put_off(spilled),
        }
    }

    /// Starts what has a place.
    fn start_all(&mut self) {
        while self.unrecorded.len() < UNRECORDED
            && let Some(job) = self.lanes.next()
        {
            if self.lease_covers_an_attempt(&job.delivery) {
                let (courier, hurry) = (self.courier.clone(), self.hurry.clone());
                self.in_flight.spawn(async move { courier.attempt(job, &hurry).await });
            } else {
                self.lanes.unsent(&job.lane);
                self.hand_back(job.delivery);
            }
        }
        self.gauges.in_flight.set(self.in_flight.len() as f64);
    }

    /// Whether nobody else can take the row while it is being sent.
    fn lease_covers_an_attempt(&self, delivery: &Delivery) -> bool {
        delivery.lease_ends_us.saturating_sub(now_us()) > micros(self.config.total_timeout)
    }

    /// An attempt ended: its lane learns from it, the recorder gets it.
    fn pass_on(&mut self, ended: Result<Result<Box<Attempted>, Delivery>, JoinError>) {
        match ended.expect("an attempt catches its panics and is never aborted") {
            Ok(attempted) => {
                if let Some(lane) = &attempted.lane {
                    let now = std::time::Instant::now();
                    let spilled = self.lanes.settle(lane, attempted.health, attempted.took, now);
                    for spilled in spilled {
                        self.put_off(spilled);
                    }
                }
                self.record(Record::Attempted(attempted));
            }
            Err(unsent) => self.hand_back(unsent),
        }
    }

    fn start_claim(&mut self) {
        self.next_claim = Instant::now() + self.config.poll;
        let now_us = now_us();
        // While the table could not be written, leases of what was sent may have ended: a claim would send it again.
        if self.unrecorded.iter().all(|lease_ends_us| *lease_ends_us > now_us) {
            let (pool, config) = (self.pool.clone(), self.config.clone());
            let swamped = self.lanes.swamped(std::time::Instant::now());
            let left: Vec<Left> = swamped.into_iter().map(|swamped| self.left_in_the_table(swamped, now_us)).collect();
            self.claims.spawn(async move { claim(&pool, &config, &left, now_us).await });
        }
        let now = std::time::Instant::now();
        self.gauges.paused(self.lanes.paused(now).map(|lane| self.courier.is_configured(lane)));
    }

    /// What is due for a paused receiver and not to be read before the pause ends; what is too old is read, and given up.
    fn left_in_the_table(&self, Swamped { key, left, failing_for }: Swamped, now_us: i64) -> Left {
        let young_us = now_us.saturating_sub(micros(self.config.give_up_after));
        Left {
            is_configured: self.courier.is_configured(&key),
            lane: key,
            until_us: now_us.saturating_add(micros(left)),
            created_after_us: if failing_for >= self.config.patience { young_us } else { 0 },
        }
    }

    fn take_in_claimed(&mut self, claimed: Result<Result<Claimed, sqlx::Error>, JoinError>) {
        match claimed.expect("a claim does not panic and is not aborted before the loop has ended") {
            Ok(Claimed { deliveries, more }) => {
                self.failed_claims = 0;
                let claimed = deliveries.len();
                let put_off =
                    deliveries.into_iter().map(|delivery| self.take_in(delivery)).filter(|kept| !kept).count();
                if more {
                    // The more of it had to go back, the less sense there is in taking more.
                    let share = put_off as f64 / claimed.max(1) as f64;
                    self.next_claim = Instant::now() + self.config.poll.mul_f64(share);
                }
            }
            Err(error) => {
                self.failed_claims = self.failed_claims.saturating_add(1);
                self.next_claim = Instant::now() + (self.config.poll * self.failed_claims).min(LONGEST_PAUSE);
                tracing::warn!(%error, "due webhooks wait for the database");
            }
        }
    }

    /// Back to the table for a while; `false` when it was given up instead, because its time is over and its receiver has
    /// been failing for long.
    fn put_off(&mut self, Spilled { job, away, failing_for }: Spilled<Job>) -> bool {
        let now_us = now_us();
        let given_up = failing_for.is_some_and(|failing| failing >= self.config.patience)
            && now_us.saturating_sub(job.delivery.created_us) > micros(self.config.give_up_after);
        if given_up {
            let attempted = self.courier.too_late(job.delivery);
            self.record(Record::Attempted(attempted));
        } else {
            self.give_back(job.delivery, now_us.saturating_add(micros(away)));
        }
        !given_up
    }

    /// Back to the table, due now.
    fn hand_back(&mut self, delivery: Delivery) {
        self.give_back(delivery, now_us());
    }

    fn give_back(&mut self, mut delivery: Delivery, due_us: i64) {
        delivery.body = Bytes::new();
        self.record(Record::Returned { delivery, due_us });
    }

    fn record(&mut self, record: Record) {
        self.unrecorded.push_back(record.delivery().lease_ends_us);
        self.records.send(record).expect("the recorder ends after the loop");
    }

    /// Nothing is started any more. What is in flight has most of the drain to end; the rest of it is for the records.
    async fn stop(mut self, mut handed_over: mpsc::Receiver<Vec<Delivery>>) {
        let deadline = tokio::time::sleep(self.config.drain * 3 / 4);
        tokio::pin!(deadline);
        handed_over.close();
        let mut folding = true;
        self.lanes.drain().into_iter().for_each(|job| self.hand_back(job.delivery));
        while folding || !self.in_flight.is_empty() || !self.claims.is_empty() {
            tokio::select! {
                batch = handed_over.recv(), if folding => match batch {
                    Some(batch) => batch.into_iter().for_each(|delivery| self.hand_back(delivery)),
                    None => folding = false,
                },
                Some(ended) = self.in_flight.join_next() => self.pass_on(ended),
                Some(claimed) = self.claims.join_next() => {
                    // One that failed or was aborted brought nothing.
                    let brought = claimed.map_or(Vec::new(), |claimed| claimed.unwrap_or_default().deliveries);
                    brought.into_iter().for_each(|delivery| self.hand_back(delivery));
                }
                () = &mut deadline, if !self.hurry.is_cancelled() => {
                    // Leases cover what the fold or a claim still brings.
                    self.hurry.cancel();
                    self.claims.abort_all();
                    folding = false;
                }
            }
        }
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
