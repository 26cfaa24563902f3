//! Deals with the entries of holders that have been silent for longer than the lease: crashed, hung, or cut off.
//!
//! One janitor a partition looks at every lane, also at those no running analyzer serves. What becomes of an entry is
//! decided from the task's record; the script checks both again.

use std::time::Duration;

use insightforge_inference::InferError;
use insightforge_schema::event::{Change, DeadLettered, Failed, Meta, RetryScheduled, encode, now_us};
use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, Reap, Reaped, Silent, Takeover};
use insightforge_schema::trace::trace_id;
use redis::Value;

use crate::ask::Answer;
use crate::config::BEAT_FLOOR_MS;
use crate::duty::Duty;
use crate::end::{Tally, appended};
use crate::judge::{Verdict, judge};
use crate::measure;
use crate::take::{Reference, create_group, read_reference};
use crate::wait::pause;
use crate::worker::Worker;

/// Entries looked at by one call.
const PAGE: usize = 500;
/// A task whose holders die this often before they begin it is given up: something about it kills them.
const REQUEUES_MAX: u32 = 10;

/// What a round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    pub dropped: usize,
    pub requeued: usize,
    pub retried: usize,
    pub failed: usize,
}

/// What a record says about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Field `s`.
    pub(crate) state: String,
    pub(crate) token: String,
    pub(crate) attempt: u32,
    pub(crate) worker: String,
    pub(crate) requeues: u32,
}

/// What is to be done with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Drop,
    Requeue,
    End(Verdict),
}

/// Goes once over all lanes of a partition.
///
/// # Errors
/// See [`LinkError`].
pub async fn round(worker: &Worker, partition: Partition) -> Result<Round, LinkError> {
    let names: Vec<String> = worker.link.query(redis::cmd("SMEMBERS").arg(worker.keys.lanes(partition))).await?;
    let mut sum = Round::default();
    for lane in names.iter().filter_map(|name| Lane::parse(name)) {
        let mut from = Some("-".to_owned());
        while let Some(begin) = from {
            let silent = silent(worker, partition, &lane, &begin).await?;
            for token in &silent.tokens {
                match take_over(worker, partition, &lane, token, &mut sum).await {
                    Err(LinkError::Refused(refusal)) => {
                        tracing::error!(%partition, %lane, token, refusal, "an entry cannot be dealt with; the others are");
                    }
                    dealt => dealt?,
                }
            }
            from = silent.next;
        }
    }
    Ok(sum)
}

async fn silent(worker: &Worker, partition: Partition, lane: &Lane, from: &str) -> Result<Silent, LinkError> {
    match script::silent(&worker.link, &worker.keys, partition, lane, worker.config.lease_ms, from, PAGE).await {
        Err(LinkError::Refused(text)) if text.contains("NOGROUP") => {
            create_group(worker, partition, lane).await?;
            Ok(Silent { tokens: Vec::new(), next: None })
        }
        looked => looked,
    }
}

/// Deals with one silent entry.
async fn take_over(
    worker: &Worker,
    partition: Partition,
    lane: &Lane,
    token: &str,
    sum: &mut Round,
) -> Result<(), LinkError> {
    let Some(reference) = entry(worker, partition, lane, token).await? else {
        // Deleted, or never one of ours: nothing but the pending entry is left of it.
        let key = worker.keys.lane(partition, lane);
        let _: i64 = worker.link.query(redis::cmd("XACK").arg(&key).arg(lane.group()).arg(token)).await?;
        let _: i64 = worker.link.query(redis::cmd("XDEL").arg(&key).arg(token)).await?;
        sum.dropped += 1;
        measure::reaped("dropped");
        return Ok(());
    };
    let record = record(worker, partition, reference.task).await?;
    let (expected_state, decision) = decide(worker, token, record.as_ref());
    let now_us = now_us();
    let reap = Reap {
        token: token.to_owned(),
        task: reference.task,
        expected_state,
        min_idle_ms: worker.config.lease_ms,
        takeover: write(worker, lane, &reference, record.as_ref(), decision, now_us),
    };
    fail::reached(Step::ReapUnsent);
    let reaped = script::reap(&worker.link, &worker.keys, partition, lane, now_us / 1_000, &reap).await?;
    fail::reached(Step::ReapWritten);
    if reaped == Reaped::Done {
        let trace_id = trace_id(reference.task, reference.context.trace.as_deref());
        tracing::warn!(task.id = %reference.task, trace_id, %lane, holder = record.map(|record| record.worker),
            outcome = outcome(&reap.takeover), "took over from a silent holder");
        count(&reap.takeover, sum);
    }
    // A holder that came back keeps its task; a record that changed is decided on in the next round.
    Ok(())
}

/// What the record makes of the entry `token`, and the state that was decided on.
pub(crate) fn decide(worker: &Worker, token: &str, record: Option<&Record>) -> (&'static str, Decision) {
    let lost = |code: &'static str, message| Answer::Error(InferError::unavailable(code, message));
    match record {
        Some(record) if record.token == token && record.state == "P" => {
            let message = format!("the analyzer {} fell silent while it worked on this attempt", record.worker);
            let answer = lost("worker_lost", message);
            ("P", Decision::End(judge(answer, record.attempt, &worker.config, rand::random())))
        }
        Some(record) if record.token == token && record.state == "Q" => {
            if record.requeues < REQUEUES_MAX {
                ("Q", Decision::Requeue)
            } else {
                let message = format!("{REQUEUES_MAX} analyzers fell silent before they could begin this task");
                let code = "worker_lost_before_start".into();
                ("Q", Decision::End(Verdict::Failed { code, message, permanent: false }))
            }
        }
        _ => ("", Decision::Drop),
    }
}

fn write(
    worker: &Worker,
    lane: &Lane,
    reference: &Reference,
    record: Option<&Record>,
    decision: Decision,
    now_us: i64,
) -> Takeover {
    let verdict = match decision {
        Decision::Drop => return Takeover::Drop,
        Decision::Requeue => return Takeover::Requeue,
        Decision::End(verdict) => verdict,
    };
    let meta = Meta {
        at_us: now_us,
        tenant: reference.context.tenant.clone(),
        actor: format!("reaper/{}", worker.name()),
        attempt: record.map_or(reference.attempt, |record| record.attempt),
        trace: reference.context.trace.clone(),
    };
    match verdict {
        Verdict::Retry { code, message, next_attempt, delay_ms } => {
            let due_us = now_us + i64::try_from(delay_ms).unwrap_or(0) * 1_000;
            let change = RetryScheduled { code: code.into_owned(), message, next_attempt, due_us };
            let event = encode(&meta, &Change::RetryScheduled(change));
            Takeover::Retry { event, next_attempt, due_ms: due_us / 1_000 }
        }
        Verdict::Failed { code, message, permanent } => {
            let failed = Failed {
                task_type: lane.task_type.clone(),
                model_version: lane.model_version.clone(),
                code: code.clone().into_owned(),
                message,
                permanent,
                route: None,
            };
            let letter = DeadLettered { code: code.into_owned() };
            Takeover::Fail {
                event: encode(&meta, &Change::Failed(failed)),
                dead_letter: encode(&meta, &Change::DeadLettered(letter)),
            }
        }
        Verdict::Completed { .. } => unreachable!("a lost holder gave no result"),
    }
}

/// Reads one lane entry.
async fn entry(
    worker: &Worker,
    partition: Partition,
    lane: &Lane,
    token: &str,
) -> Result<Option<Reference>, LinkError> {
    let mut range = redis::cmd("XRANGE");
    range.arg(worker.keys.lane(partition, lane)).arg(token).arg(token);
    let entries: Vec<(String, Vec<Value>)> = worker.link.query(&range).await?;
    Ok(entries.into_iter().next().and_then(|(token, fields)| read_reference(&token, fields)))
}

async fn record(worker: &Worker, partition: Partition, task: TaskId) -> Result<Option<Record>, LinkError> {
    let mut fields = redis::cmd("HMGET");
    fields.arg(worker.keys.record(partition, task)).arg(&["s", "q", "a", "w", "r"]);
    // Texts: a number that is none is this record's fault alone, and no reason to ask again.
    type Fields = (Option<String>, Option<String>, Option<String>, Option<String>, Option<String>);
    let (state, token, attempt, holder, requeues): Fields = worker.link.query(&fields).await?;
    let number = |field: Option<String>, default: u32| match field.map(|text| text.parse()) {
        None => Ok(default),
        Some(Ok(number)) => Ok(number),
        Some(Err(_)) => Err(LinkError::Refused(format!("the record of task {task} holds no number where one belongs"))),
    };
    let (attempt, requeues) = (number(attempt, 1)?, number(requeues, 0)?);
    Ok(state.map(|state| Record {
        state,
        token: token.unwrap_or_default(),
        attempt,
        worker: holder.unwrap_or_default(),
        requeues,
    }))
}

fn outcome(takeover: &Takeover) -> &'static str {
    match takeover {
        Takeover::Drop => "dropped",
        Takeover::Requeue => "requeued",
        Takeover::Retry { .. } => "retried",
        Takeover::Fail { .. } => "failed",
    }
}

fn count(takeover: &Takeover, sum: &mut Round) {
    measure::reaped(outcome(takeover));
    let mut tally = Tally::default();
    match takeover {
        Takeover::Drop => sum.dropped += 1,
        Takeover::Requeue => sum.requeued += 1,
        Takeover::Retry { .. } => (sum.retried, tally.retried) = (sum.retried + 1, 1),
        Takeover::Fail { .. } => (sum.failed, tally.failed) = (sum.failed + 1, 1),
    }
    for (event_type, count) in appended(tally) {
        measure::events(event_type, count);
    }
}

/// Makes a round three times a lease, while this process has the duty.
pub(crate) async fn run(worker: std::sync::Arc<Worker>, partition: Partition) {
    let interval = Duration::from_millis((worker.config.lease_ms / 3).max(BEAT_FLOOR_MS));
    let mut duty = Duty::new(&worker, partition, "reap", 2 * interval);
    while pause(interval, &worker.stop.taking).await {
        let result = match duty.is_ours(&worker).await {
            Ok(true) => round(&worker, partition).await.map(|_| ()),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%partition, %error, "silent holders could not be looked for; trying again");
        }
    }
    duty.leave(&worker).await;
}
