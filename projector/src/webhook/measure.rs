//! The figures the sender gives to Prometheus. Labels are outcomes only: endpoints and hosts are as many as callers like.

use std::time::Duration;

use insightforge_schema::event::now_us;
use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use sqlx::MySqlPool;

use super::record::Record;
use super::schedule::Verdict;

/// How often the table is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// Rows counted at most.
const COUNTED: u32 = 100_000;

/// Tells the installed recorder what each figure means.
pub fn describe_metrics() {
    describe_counter!("if_webhook_attempts_total", "Delivery attempts, by outcome: delivered, retry, gave_up, blocked");
    describe_histogram!("if_webhook_attempt_duration_seconds", Unit::Seconds, "Duration of a delivery attempt");
    describe_counter!(
        "if_webhook_postponed_total",
        "Deliveries handed back to the table without an attempt: their receiver was paused or had enough waiting"
    );
    describe_counter!(
        "if_webhook_leases_lost_total",
        "Deliveries another process took over before their outcome was recorded; they may arrive twice"
    );
    describe_gauge!("if_webhook_in_flight", "Deliveries being sent");
    describe_gauge!("if_webhook_endpoints_paused", "Receivers that are sent nothing for a while");
    describe_gauge!("if_webhook_outbox_pending", "Outbox rows not yet delivered or given up, counted up to 100000");
    describe_gauge!(
        "if_webhook_overdue_seconds",
        Unit::Seconds,
        "How long the oldest outbox row that is due has been so, 0 when none is"
    );
}

/// What the recorder counts; the handles are looked up once.
pub(super) struct Meters {
    delivered: Counter,
    retry: Counter,
    gave_up: Counter,
    blocked: Counter,
    duration: Histogram,
    postponed: Counter,
    leases_lost: Counter,
}

impl Meters {
    pub(super) fn new() -> Self {
        // A counter that begins at its first event hides that event from `rate()`.
        let zero = |counter: Counter| {
            counter.increment(0);
            counter
        };
        let attempts = |outcome: Verdict| zero(counter!("if_webhook_attempts_total", "outcome" => outcome.as_str()));
        Self {
            delivered: attempts(Verdict::Delivered),
            retry: attempts(Verdict::Retry(Duration::ZERO)),
            gave_up: attempts(Verdict::GaveUp),
            blocked: attempts(Verdict::Blocked),
            duration: histogram!("if_webhook_attempt_duration_seconds"),
            postponed: zero(counter!("if_webhook_postponed_total")),
            leases_lost: zero(counter!("if_webhook_leases_lost_total")),
        }
    }

    /// A record is in the table.
    pub(super) fn recorded(&self, record: &Record) {
        let Record::Attempted(it) = record else { return self.postponed.increment(1) };
        match it.verdict {
            Verdict::Delivered => self.delivered.increment(1),
            Verdict::Retry(_) => self.retry.increment(1),
            Verdict::GaveUp => self.gave_up.increment(1),
            Verdict::Blocked => self.blocked.increment(1),
        }
        self.duration.record(it.took);
    }

    pub(super) fn lost(&self, leases: u64) {
        self.leases_lost.increment(leases);
    }
}

/// What the loop shows of itself.
pub(super) struct Gauges {
    pub(super) in_flight: Gauge,
    pub(super) paused: Gauge,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self { in_flight: gauge!("if_webhook_in_flight"), paused: gauge!("if_webhook_endpoints_paused") }
    }
}

/// Shows how much waits in the table, until it is dropped. During an outage the gauges keep their last value.
pub(super) async fn watch(pool: MySqlPool) {
    let (pending, overdue) = (gauge!("if_webhook_outbox_pending"), gauge!("if_webhook_overdue_seconds"));
    loop {
        if let Ok((rows, oldest_due)) = look(&pool).await {
            pending.set(rows as f64);
            overdue.set(oldest_due.map_or(0, |due_us| (now_us() - due_us).max(0)) as f64 / 1e6);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// How many rows are not over, and when the first of those that nobody holds is due, in microseconds.
async fn look(pool: &MySqlPool) -> Result<(i64, Option<i64>), sqlx::Error> {
    let rows =
        sqlx::query_scalar("SELECT COUNT(*) FROM (SELECT 1 FROM webhook_outbox WHERE state IN (0, 1) LIMIT ?) o")
            .bind(COUNTED)
            .fetch_one(pool)
            .await?;
    let due: Option<chrono::NaiveDateTime> =
        sqlx::query_scalar("SELECT MIN(due_at) FROM webhook_outbox WHERE state = 0").fetch_one(pool).await?;
    Ok((rows, due.map(|at| at.and_utc().timestamp_micros())))
}
