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

/// Who named a receiver.
const RECEIVERS: [&str; 2] = ["operator", "caller"];

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
    describe_gauge!(
        "if_webhook_endpoints_paused",
        "Receivers that are sent nothing for a while, by who named them: the operator or callers"
    );
    describe_gauge!("if_webhook_outbox_pending", "Outbox rows not yet delivered or given up, counted up to 100000");
    describe_gauge!(
        "if_webhook_overdue_seconds",
        Unit::Seconds,
        "How long the oldest outbox row that is due has been so, or that nobody took over from a holder gone silent; 0 when \
         none is"
    );
    describe_gauge!(
        "if_webhook_oldest_seconds",
        Unit::Seconds,
        "Age of the oldest announcement not yet delivered or given up, by who named its receiver, the operator or a caller; 0 \
         when there is none"
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
    paused: [Gauge; 2],
}

impl Gauges {
    pub(super) fn new() -> Self {
        let paused = RECEIVERS.map(|of| gauge!("if_webhook_endpoints_paused", "receiver" => of));
        Self { in_flight: gauge!("if_webhook_in_flight"), paused }
    }

    /// So many receivers are paused; of each, whether the operator named it.
    pub(super) fn paused(&self, receivers: impl Iterator<Item = bool>) {
        let mut counts = [0_u32; 2];
        receivers.for_each(|is_configured| counts[usize::from(!is_configured)] += 1);
        self.paused.iter().zip(counts).for_each(|(gauge, count)| gauge.set(f64::from(count)));
    }
}

/// Shows how much waits in the table, until it is dropped. During an outage the gauges keep their last value.
pub(super) async fn watch(pool: MySqlPool) {
    let (pending, overdue) = (gauge!("if_webhook_outbox_pending"), gauge!("if_webhook_overdue_seconds"));
    let oldest = RECEIVERS.map(|of| gauge!("if_webhook_oldest_seconds", "receiver" => of));
    loop {
        if let Ok(seen) = look(&pool).await {
            let age = |since_us: Option<i64>| since_us.map_or(0, |us| (now_us() - us).max(0)) as f64 / 1e6;
            pending.set(seen.rows as f64);
            overdue.set(age(seen.due_us));
            oldest.iter().zip(seen.created_us).for_each(|(gauge, us)| gauge.set(age(us)));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// What the table says; moments in microseconds since 1970-01-01 UTC.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Rows that are not over.
    rows: i64,
    /// When the first of them that nobody holds any more was or is due.
    due_us: Option<i64>,
    /// When the oldest of them was created: for the operator's receivers, and for callers'.
    created_us: [Option<i64>; 2],
}

/// Keys grow with time within a partition, so the oldest of each is found in the index alone, without reading rows.
const LOOK: &str = "\
SELECT oldest.of_caller, oldest.found, (SELECT MIN(o.created_at) FROM webhook_outbox o WHERE o.id = oldest.id)
FROM (
    SELECT pending.endpoint = 'task' AS of_caller, COUNT(*) AS found, MIN(pending.id) AS id
    FROM (SELECT id, endpoint FROM webhook_outbox FORCE INDEX (webhook_outbox_due) WHERE state IN (0, 1) LIMIT ?) pending
    GROUP BY pending.endpoint = 'task', pending.id MOD 1024
) oldest";

async fn look(pool: &MySqlPool) -> Result<Seen, sqlx::Error> {
    let mut seen = Seen::default();
    let oldest: Vec<(i64, i64, Option<chrono::NaiveDateTime>)> =
        sqlx::query_as(LOOK).bind(COUNTED).fetch_all(pool).await?;
    for (of_caller, rows, created) in oldest {
        seen.rows += rows;
        let created_us = created.map(|at| at.and_utc().timestamp_micros());
        let first = &mut seen.created_us[usize::from(of_caller != 0)];
        *first = [*first, created_us].into_iter().flatten().min();
    }
    let due: Vec<Option<chrono::NaiveDateTime>> = sqlx::query_scalar(
        "SELECT MIN(due_at) FROM webhook_outbox WHERE state = 0 UNION ALL SELECT MIN(due_at) FROM webhook_outbox WHERE state = 1",
    )
    .fetch_all(pool)
    .await?;
    seen.due_us = due.into_iter().flatten().map(|at| at.and_utc().timestamp_micros()).min();
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use insightforge_schema::tables;
    use sqlx::{AssertSqlSafe, Executor};

    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_not_over_is_found_whoever_named_its_receiver_and_whatever_its_partition() {
        for variable in ["INSIGHTFORGE_TEST_MARIADB_URL", "INSIGHTFORGE_TEST_MYSQL_URL"] {
            let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server"));
            let server = tables::pool(&url, 1).unwrap();
            let database = format!("t_{}", uuid::Uuid::new_v4().simple());
            server.execute(AssertSqlSafe(format!("CREATE DATABASE {database}"))).await.unwrap();
            let pool = tables::pool(&format!("{}/{database}", url.trim_end_matches('/')), 2).unwrap();
            tables::migrate(&pool).await.unwrap();
            assert_eq!(look(&pool).await.unwrap(), Seen::default());
            // Id, endpoint, state, created and due at these seconds since 1970.
            for (id, endpoint, state, created, due) in [
                (1024, "shop", 2, 100, 100),
                (9 * 1024, "shop", 0, 300, 900),
                (9 * 1024, "task", 0, 300, 900),
                (10 * 1024, "shop", 1, 310, 800),
                (4 * 1024 + 1, "shop", 0, 200, 950),
                (5 * 1024 + 1, "task", 3, 210, 210),
            ] {
                sqlx::query(
                    "INSERT INTO webhook_outbox (id, endpoint, analysis_task_id, body, state, due_at, attempts, created_at)
                    VALUES (?, ?, 1, '{}', ?, TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? SECOND, 0,
                        TIMESTAMP'1970-01-01 00:00:00' + INTERVAL ? SECOND)",
                )
                .bind(id)
                .bind(endpoint)
                .bind(state)
                .bind(due)
                .bind(created)
                .execute(&pool)
                .await
                .unwrap();
            }
            let seen = look(&pool).await.unwrap();
            let second = 1_000_000;
            let created_us = [Some(200 * second), Some(300 * second)];
            assert_eq!(seen, Seen { rows: 4, due_us: Some(800 * second), created_us }, "{variable}");
            pool.close().await;
            server.execute(AssertSqlSafe(format!("DROP DATABASE {database}"))).await.unwrap();
        }
    }
}
