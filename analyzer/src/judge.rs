//! Step four: what an answer means for the task. Pure.

use std::borrow::Cow;

use crate::ask::Answer;
use crate::config::Config;

/// How long a task that is for a model elsewhere waits: until this process takes from its lane no more.
const HAND_ON_MS: u64 = 500;
/// How long a task waits whose model has had too much to do.
const BUSY_MS: u64 = 1_000;

/// How an attempt ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// For good, with the result document.
    Completed { result: String },
    /// For good: repeating cannot help, or the attempts are used up.
    Failed { code: Cow<'static, str>, message: String, permanent: bool },
    /// Another attempt after `delay_ms`.
    Retry { code: Cow<'static, str>, message: String, next_attempt: u32, delay_ms: u64 },
}

/// Judges the answer of attempt `attempt`. `random` is uniform in `0..1`.
#[must_use]
pub fn judge(answer: Answer, attempt: u32, config: &Config, random: f64) -> Verdict {
    match answer {
        Answer::Result(result) => Verdict::Completed { result },
        Answer::Error(error) if error.permanent => {
            Verdict::Failed { code: error.code, message: error.message, permanent: true }
        }
        Answer::Error(error) if attempt >= config.max_attempts => {
            Verdict::Failed { code: error.code, message: error.message, permanent: false }
        }
        Answer::Error(error) => Verdict::Retry {
            code: error.code,
            message: error.message,
            next_attempt: attempt + 1,
            delay_ms: backoff_ms(attempt, config, random),
        },
        // None of these is the task's fault: the attempt is not used up, and another worker may have it.
        Answer::Stopping => again(attempt, "worker_stopping", "the analyzer was stopped before the model answered", 0),
        Answer::NotHere => {
            again(attempt, "model_not_here", "this analyzer does not have the version it is for", HAND_ON_MS)
        }
        Answer::Busy => again(attempt, "overloaded", "the model took no more inputs for too long", BUSY_MS),
    }
}

/// The same attempt, somewhere else or later.
fn again(attempt: u32, code: &'static str, message: &str, delay_ms: u64) -> Verdict {
    Verdict::Retry { code: code.into(), message: message.to_owned(), next_attempt: attempt, delay_ms }
}

/// Exponential backoff with full jitter: uniform below a bound that doubles with each attempt, so that tasks that failed
/// together do not come back together.
fn backoff_ms(attempt: u32, config: &Config, random: f64) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let bound = config.backoff_base_ms.saturating_mul(1 << doublings).min(config.backoff_cap_ms);
    (random * bound as f64) as u64
}
