//! Step five: end the attempts, each with one event: `completed`, `failed` (and `dead_lettered`), or `retry_scheduled`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use insightforge_schema::event::{Change, Completed, DeadLettered, Failed, RetryScheduled, encode};
use insightforge_schema::fail::{self, Step};
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, Finish, Held, Retry};

use crate::ask::By;
use crate::begin::Attempt;
use crate::judge::Verdict;
use crate::measure;
use crate::wait::wait_out;
use crate::worker::{ServedLane, Worker};

/// A judged attempt, with the model that was asked.
pub(crate) struct Judged<'a> {
    pub(crate) attempt: Attempt<'a>,
    pub(crate) verdict: Verdict,
    pub(crate) by: Option<Arc<By>>,
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

/// Ends attempts of one lane; says also which of them are completed, by their place. The answers are kept and the calls
/// repeated for as long as Redis is away.
pub(crate) async fn end(
    worker: &Worker,
    lane: &ServedLane,
    judged: &[Judged<'_>],
    now_us: i64,
) -> (Tally, HashSet<usize>) {
    let (mut finishes, mut retries) = (Vec::with_capacity(judged.len()), Vec::new());
    let (mut finished_places, mut retried_places) = (Vec::with_capacity(judged.len()), Vec::new());
    for (place, judged) in judged.iter().enumerate() {
        match write(worker, lane, judged, now_us) {
            Ending::Final(finish) => {
                finishes.push(finish);
                finished_places.push(place);
            }
            Ending::Repeated(retry) => {
                retries.push(retry);
                retried_places.push(place);
            }
        }
    }
    let (finished, retried) =
        tokio::join!(finish(worker, lane, &finishes, now_us / 1_000), retry(worker, lane, &retries));
    let (mut sum, mut completed) = (Tally::default(), HashSet::new());
    let mut by_version: HashMap<&str, Tally> = HashMap::new();
    let mut count = |place: usize, add: &dyn Fn(&mut Tally)| {
        let judged = &judged[place];
        let version = judged.by.as_ref().map_or(lane.lane.model_version.as_str(), |by| &by.version);
        add(&mut sum);
        add(by_version.entry(version).or_default());
    };
    for ((finish, held), place) in finishes.iter().zip(finished).zip(finished_places) {
        match held {
            Held::Lost => count(place, &|tally| tally.lost += 1),
            Held::Done if finish.dead_letter.is_some() => count(place, &|tally| tally.failed += 1),
            Held::Done => {
                count(place, &|tally| tally.completed += 1);
                completed.insert(place);
            }
        }
    }
    for (held, place) in retried.into_iter().zip(retried_places) {
        match held {
            Held::Lost => count(place, &|tally| tally.lost += 1),
            Held::Done => count(place, &|tally| tally.retried += 1),
        }
    }
    for (version, tally) in by_version {
        measure::ended(&lane.lane.task_type, version, tally);
    }
    (sum, completed)
}

enum Ending {
    Final(Finish),
    Repeated(Retry),
}

/// Writes the events of one attempt's end.
fn write(worker: &Worker, lane: &ServedLane, judged: &Judged<'_>, now_us: i64) -> Ending {
    let (reference, by) = (judged.attempt.reference, judged.by.as_deref());
    let (task, token) = (reference.task, reference.token.clone());
    let meta = worker.meta(now_us, reference.attempt, &reference.context);
    let task_type = lane.lane.task_type.clone();
    // Without a model there is only what was asked for.
    let model_version = by.map_or_else(|| lane.lane.model_version.clone(), |by| by.version.clone());
    let route = by.map(|by| by.route.clone());
    match &judged.verdict {
        Verdict::Completed { result } => {
            let change = Change::Completed(Completed {
                task_type,
                model_version,
                result: result.clone(),
                inference_us: by.map_or(0, |by| u64::try_from(by.took.as_micros()).unwrap_or(u64::MAX)),
                batch_size: by.map_or(0, |by| u32::try_from(by.batch_size).unwrap_or(u32::MAX)),
                route,
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
            let letter = Change::DeadLettered(DeadLettered { code: code.clone().into_owned() });
            let change = Change::Failed(Failed {
                task_type,
                model_version,
                code: code.clone().into_owned(),
                message: message.clone(),
                permanent: *permanent,
                route,
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
                code: code.clone().into_owned(),
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
    fail::reached(Step::FinishUnsent);
    let finished = finish_all(worker, lane, ends, now_ms).await;
    fail::reached(Step::FinishWritten);
    match finished {
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
    let retried = retry_all(worker, lane, retries).await;
    fail::reached(Step::RetryWritten);
    match retried {
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
