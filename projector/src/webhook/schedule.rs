//! When a delivery that failed is tried again. Pure: no clock, no randomness of its own.

use std::time::{Duration, SystemTime};

use super::send::{Answer, Failure};

/// No receiver is waited for longer than this after one attempt, whatever it asks for.
const LONGEST_ASKED: Duration = Duration::from_hours(24);
/// Waits grow by up to this share, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// How long to wait after each failed attempt; as many attempts as waits, and the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
}

/// What an attempt makes of its delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// Again after this long.
    Retry(Duration),
    GaveUp,
    /// Its URL itself names an address where callers' webhooks may not go; final, too.
    Blocked,
}

/// The example schedule of Standard Webhooks 1.0.0 ("Deliverability and reliability"): 75.6 hours in all.
impl Default for Schedule {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        let seconds = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        Self::new(seconds.map(Duration::from_secs).to_vec())
    }
}

impl Schedule {
    /// From the waits after the first, second, … failed attempt. None at all: one attempt only.
    #[must_use]
    pub fn new(waits: Vec<Duration>) -> Self {
        Self { waits }
    }

    /// The longest that all waits together can take: what is older than this has had its time.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.waits.iter().sum::<Duration>().mul_f64(1.0 + JITTER)
    }

    /// What follows from the answer to `attempt`, counted from 1. `chance`, from 0 up to 1, spreads the waits.
    #[must_use]
    pub fn judge(&self, answer: &Answer, attempt: u16, chance: f64) -> Verdict {
        let asked = match answer {
            Answer::Status { code: 200..=299, .. } => return Verdict::Delivered,
            // Standard Webhooks: the receiver is gone for good.
            Answer::Status { code: 410, .. } => return Verdict::GaveUp,
            // What a URL says stays so; what a name server says may be another thing in a minute.
            Answer::Failed(Failure::Blocked(_)) => return Verdict::Blocked,
            // No later attempt could differ.
            Answer::Failed(Failure::BadUrl | Failure::BadSecret | Failure::TooLate) => return Verdict::GaveUp,
            Answer::Status { code: 429 | 503, retry_after } => retry_after.unwrap_or_default().min(LONGEST_ASKED),
            Answer::Status { .. } | Answer::Failed(_) => Duration::ZERO,
        };
        match self.waits.get(usize::from(attempt.max(1)) - 1) {
            Some(wait) => Verdict::Retry(wait.max(&asked).mul_f64(1.0 + JITTER * chance.clamp(0.0, 1.0))),
            None => Verdict::GaveUp,
        }
    }
}

impl Verdict {
    /// As it stands in `webhook_attempts.outcome` and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(_) => "retry",
            Self::GaveUp => "gave_up",
            Self::Blocked => "blocked",
        }
    }
}

/// The wait that a `Retry-After` header asks for (RFC 9110 §10.2.3): seconds, or a date in any of HTTP's three formats;
/// a date in the past asks for none. `None` when it is neither.
#[must_use]
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds ask for the longest wait.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Answer {
        Answer::Status { code, retry_after: None }
    }

    fn seconds(of: u64) -> Duration {
        Duration::from_secs(of)
    }

    #[test]
    fn the_default_makes_ten_attempts_over_75_hours_and_then_gives_up() {
        let verdicts: Vec<Verdict> =
            (1..=10).map(|attempt| Schedule::default().judge(&status(500), attempt, 0.0)).collect();
        let waits = verdicts.iter().map_while(|verdict| match verdict {
            Verdict::Retry(wait) => Some(*wait),
            _ => None,
        });
        assert_eq!(waits.clone().count(), 9);
        assert_eq!(waits.sum::<Duration>(), seconds(5 + 300 + 1_800 + 3_600 * (2 + 5 + 10 + 14 + 20 + 24)));
        assert_eq!(verdicts[9], Verdict::GaveUp);
        assert_eq!(Schedule::default().longest(), seconds(326_526), "a fifth more");
    }

    #[test]
    fn every_answer_has_its_verdict() {
        let schedule = Schedule::new(vec![seconds(100)]);
        let retry = Verdict::Retry(seconds(100));
        for (answer, verdict) in [
            (status(200), Verdict::Delivered),
            (status(204), Verdict::Delivered),
            (status(299), Verdict::Delivered),
            (status(410), Verdict::GaveUp),
            (status(199), retry),
            (status(301), retry),
            (status(308), retry),
            (status(400), retry),
            (status(404), retry),
            (status(429), retry),
            (status(500), retry),
            (Answer::Failed(Failure::TimedOut), retry),
            (Answer::Failed(Failure::NotConfigured), retry),
            (Answer::Failed(Failure::SealedSecret), retry),
            (Answer::Failed(Failure::BadSecret), Verdict::GaveUp),
            (Answer::Failed(Failure::BadUrl), Verdict::GaveUp),
            (Answer::Failed(Failure::TooLate), Verdict::GaveUp),
            (Answer::Failed(Failure::Blocked("private")), Verdict::Blocked),
            (Answer::Failed(Failure::Misled("private")), retry),
        ] {
            assert_eq!(schedule.judge(&answer, 1, 0.0), verdict, "{answer:?}");
        }
    }

    #[test]
    fn a_wait_is_spread_by_a_fifth_and_never_shortened() {
        let schedule = Schedule::new(vec![seconds(100)]);
        for (chance, wait) in [(0.0, 100), (0.5, 110), (1.0, 120), (7.0, 120), (-1.0, 100)] {
            assert_eq!(schedule.judge(&status(500), 1, chance), Verdict::Retry(seconds(wait)));
        }
    }

    #[test]
    fn what_a_busy_receiver_asks_for_lengthens_the_wait_within_a_day() {
        let schedule = Schedule::new(vec![seconds(100)]);
        for (code, asked, wait) in
            [(429, 7, 100), (429, 700, 700), (503, 700, 700), (500, 700, 100), (429, u64::MAX, 86_400)]
        {
            let answer = Answer::Status { code, retry_after: Some(seconds(asked)) };
            assert_eq!(schedule.judge(&answer, 1, 0.0), Verdict::Retry(seconds(wait)), "{code} {asked}");
            assert_eq!(schedule.judge(&answer, 2, 0.0), Verdict::GaveUp, "asking makes no further attempt");
        }
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        // 1994-11-06 08:49:37 UTC, the example of RFC 9110 §5.6.7.
        let example = SystemTime::UNIX_EPOCH + seconds(784_111_777);
        let now = example - seconds(90);
        for (value, wait) in [
            ("120", Some(seconds(120))),
            (" 0 ", Some(seconds(0))),
            ("99999999999999999999999", Some(seconds(u64::MAX))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(seconds(90))),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(seconds(90))),
            ("Sun Nov  6 08:49:37 1994", Some(seconds(90))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(seconds(0))),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), wait, "{value:?}");
        }
    }
}
