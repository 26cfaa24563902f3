//! Step five: end the attempts, each with one event: `completed`, `failed` (and `dead_lettered`), or `retry_scheduled`.

use insightforge_schema::event::{Change, Completed, DeadLettered, Failed, RetryScheduled, encode};
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, Finish, Held, Retry};

use crate::judge::Verdict;
use crate::measure;
use crate::take::Reference;
use crate::wait::wait_out;
use crate::worker::{ServedLane, Worker};

/// A judged attempt.
pub(crate) struct Judged<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) verdict: Verdict,
}

/// What the model's call was, for the `completed` events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) inference_us: u64,
    pub(crate) batch_size: u32,
}

/// How many attempts ended which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub completed: usize,
    pub failed: usize,
    pub retried: usize,
    /// Taken over, cancelled or ended by others; our answer was refused.
    pub lost: usize,
}

/// Ends attempts of one lane. The answers are kept and the calls repeated for as long as Redis is away.
pub(crate) async fn end(worker: &Worker, lane: &ServedLane, judged: &[Judged<'_>], call: Call, now_us: i64) -> Tally {
    let mut finishes = Vec::with_capacity(judged.len());
    let mut retries = Vec::new();
    for judged in judged {
        match write(worker, lane, judged, call, now_us) {
            Ending::Final(finish) => finishes.push(finish),
            Ending::Repeated(retry) => retries.push(retry),
        }
    }
    let (finished, retried) =
        tokio::join!(finish(worker, lane, &finishes, now_us / 1_000), retry(worker, lane, &retries));
    let mut tally = Tally::default();
    for (finish, held) in finishes.iter().zip(finished) {
        match held {
            Held::Lost => tally.lost += 1,
            Held::Done if finish.dead_letter.is_some() => tally.failed += 1,
            Held::Done => tally.completed += 1,
        }
    }
    for held in retried {
        match held {
            Held::Lost => tally.lost += 1,
            Held::Done => tally.retried += 1,
        }
    }
    tally
}

enum Ending {
    Final(Finish),
    Repeated(Retry),
}

/// Writes the events of one attempt's end.
fn write(worker: &Worker, lane: &ServedLane, judged: &Judged<'_>, call: Call, now_us: i64) -> Ending {
    let reference = judged.reference;
    let (task, token) = (reference.task, reference.token.clone());
    let meta = worker.meta(now_us, reference.attempt, &reference.context);
    let (task_type, model_version) = (lane.lane.task_type.clone(), lane.lane.model_version.clone());
    match &judged.verdict {
        Verdict::Completed { result } => {
            let change = Change::Completed(Completed {
                task_type,
                model_version,
                result: result.clone(),
                inference_us: call.inference_us,
                batch_size: call.batch_size,
                route: None,
            });
            Ending::Final(Finish {
                token,
                task,
                event_type: "completed",
                event: encode(&meta, &change),
                dead_letter: None,
            })
        }
        Verdict::Failed { code, message, permanent } => {
            let letter = Change::DeadLettered(DeadLettered { code: (*code).to_owned() });
            let change = Change::Failed(Failed {
                task_type,
                model_version,
                code: (*code).to_owned(),
                message: message.clone(),
                permanent: *permanent,
                route: None,
            });
            Ending::Final(Finish {
                token,
                task,
                event_type: "failed",
                event: encode(&meta, &change),
                dead_letter: Some(encode(&meta, &letter)),
            })
        }
        Verdict::Retry { code, message, next_attempt, delay_ms } => {
            let due_us = now_us + i64::try_from(*delay_ms).unwrap_or(0) * 1_000;
            let change = Change::RetryScheduled(RetryScheduled {
                code: (*code).to_owned(),
                message: message.clone(),
                next_attempt: *next_attempt,
                due_us,
            });
            Ending::Repeated(Retry {
                token,
                task,
                event: encode(&meta, &change),
                next_attempt: *next_attempt,
                due_ms: due_us / 1_000,
            })
        }
    }
}

/// Makes one call for all; when Redis refuses it, one for each, so that one broken record takes nobody along. What is
/// refused alone counts as lost: its lease runs out and the reaper decides.
async fn finish(worker: &Worker, lane: &ServedLane, ends: &[Finish], now_ms: i64) -> Vec<Held> {
    if ends.is_empty() {
        return Vec::new();
    }
    match finish_all(worker, lane, ends, now_ms).await {
        Ok(held) => held,
        Err(error) => {
            report(lane, ends.len(), &error);
            let mut all = Vec::with_capacity(ends.len());
            for end in ends.chunks(1) {
                all.extend(finish_all(worker, lane, end, now_ms).await.unwrap_or_else(|_| vec![Held::Lost]));
            }
            all
        }
    }
}

async fn finish_all(worker: &Worker, lane: &ServedLane, ends: &[Finish], now_ms: i64) -> Result<Vec<Held>, LinkError> {
    loop {
        match script::finish(&worker.link, &worker.keys, lane.partition, &lane.lane, now_ms, ends).await {
            Err(error) => wait_out(error, &worker.stop.repeating).await?,
            held => return held,
        }
    }
}

/// As [`finish`].
async fn retry(worker: &Worker, lane: &ServedLane, retries: &[Retry]) -> Vec<Held> {
    if retries.is_empty() {
        return Vec::new();
    }
    match retry_all(worker, lane, retries).await {
        Ok(held) => held,
        Err(error) => {
            report(lane, retries.len(), &error);
            let mut all = Vec::with_capacity(retries.len());
            for retry in retries.chunks(1) {
                all.extend(retry_all(worker, lane, retry).await.unwrap_or_else(|_| vec![Held::Lost]));
            }
            all
        }
    }
}

async fn retry_all(worker: &Worker, lane: &ServedLane, retries: &[Retry]) -> Result<Vec<Held>, LinkError> {
    loop {
        match script::retry(&worker.link, &worker.keys, lane.partition, &lane.lane, retries).await {
            Err(error) => wait_out(error, &worker.stop.repeating).await?,
            held => return held,
        }
    }
}

fn report(lane: &ServedLane, tasks: usize, error: &LinkError) {
    tracing::error!(partition = %lane.partition, lane = %lane.lane, tasks, %error,
        "attempts could not be ended together");
}

/// The event types a tally stands for, with their numbers.
pub(crate) fn appended(tally: Tally) -> [(&'static str, usize); 4] {
    [
        (measure::COMPLETED, tally.completed),
        (measure::FAILED, tally.failed),
        (measure::DEAD_LETTERED, tally.failed),
        (measure::RETRY_SCHEDULED, tally.retried),
    ]
}
