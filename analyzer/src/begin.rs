//! Step two: begin the attempts. Each becomes a `processing` event, and the worker gets the task's `submitted` event.

use insightforge_inference::InferError;
use insightforge_schema::deadline;
use insightforge_schema::event::{Change, Processing, Submitted, decode, encode, now_us};
use insightforge_schema::fail::{self, Step};
use insightforge_schema::id::TaskId;
use insightforge_schema::link::LinkError;
use insightforge_schema::script::{self, Start, Started};
use insightforge_schema::trace::trace_id;

use crate::measure;
use crate::take::{Batch, Reference};
use crate::wait::wait_out;
use crate::worker::{ServedLane, Worker};

/// An attempt that is ours, with what the caller asked for, or why that cannot be read.
pub(crate) struct Attempt<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) asked: Result<Submitted, InferError>,
}

/// Begins the attempts of a batch; those that are not ours any more are left out.
pub(crate) async fn begin<'a>(worker: &'a Worker, batch: &'a Batch) -> Vec<Attempt<'a>> {
    let lane = &batch.lane;
    let now_us = now_us();
    let processing = Change::Processing(Processing { worker: worker.name().to_owned() });
    let starts: Vec<Start> = batch
        .references
        .iter()
        .map(|reference| Start {
            token: reference.token.clone(),
            task: reference.task,
            event: encode(&worker.meta(now_us, reference.attempt, &reference.context), &processing),
        })
        .collect();
    fail::reached(Step::StartUnsent);
    let begun = start_all(worker, lane, &starts).await;
    fail::reached(Step::StartWritten);
    end_expired(worker, lane, &starts, &begun).await;
    keep_ours(worker, batch, begun, now_us)
}

/// Makes one call for all; when Redis refuses it, one for each, so that one broken record takes nobody along.
async fn start_all(worker: &Worker, lane: &ServedLane, starts: &[Start]) -> Vec<Started> {
    let error = match start(worker, lane, starts).await {
        Ok(begun) => return begun,
        Err(error) => error,
    };
    tracing::error!(partition = %lane.partition, lane = %lane.lane, tasks = starts.len(), %error,
        "attempts could not be begun together");
    let mut all = Vec::with_capacity(starts.len());
    for one in starts.chunks(1) {
        let begun = match &error {
            LinkError::Refused(_) if starts.len() > 1 => start(worker, lane, one).await,
            error => Err(error.clone()),
        };
        // The entry stays pending under our name; once it is silent for a lease, it is requeued.
        all.extend(begun.unwrap_or_else(|_| vec![Started::Busy]));
    }
    all
}

async fn start(worker: &Worker, lane: &ServedLane, starts: &[Start]) -> Result<Vec<Started>, LinkError> {
    loop {
        let (link, keys) = (&worker.link, &worker.keys);
        match script::start(link, keys, lane.partition, &lane.lane, worker.name(), starts).await {
            Err(error) => wait_out(error, &worker.stop.repeating).await?,
            begun => return begun,
        }
    }
}

/// Ends the tasks that are out of time. What cannot be ended now stays pending under our name: the api's janitor ends it,
/// or it is requeued once it is silent for a lease.
async fn end_expired(worker: &Worker, lane: &ServedLane, starts: &[Start], begun: &[Started]) {
    let late = starts.iter().zip(begun).filter(|(_, started)| **started == Started::Expired);
    let tasks: Vec<TaskId> = late.map(|(start, _)| start.task).collect();
    if tasks.is_empty() {
        return;
    }
    let actor = format!("analyzer/{}", worker.name());
    match deadline::end(&worker.link, &worker.keys, lane.partition, &tasks, &actor).await {
        Ok(ended) => measure::expired(&lane.lane, ended),
        Err(error) => {
            tracing::warn!(partition = %lane.partition, lane = %lane.lane, tasks = tasks.len(), %error,
                "tasks that are out of time could not be ended");
        }
    }
}

/// Pairs the attempts that are ours with their inputs.
fn keep_ours<'a>(worker: &Worker, batch: &'a Batch, begun: Vec<Started>, now_us: i64) -> Vec<Attempt<'a>> {
    let lane = &batch.lane;
    let attempts: Vec<Attempt<'a>> = batch
        .references
        .iter()
        .zip(begun)
        .filter_map(|(reference, started)| match started {
            Started::Ours { submitted, .. } => Some(read(worker, batch, reference, &submitted, now_us)),
            // Another worker holds it, it could not be begun, it was cancelled before anybody began, or it is out of time.
            Started::Busy | Started::Lost | Started::Expired => None,
        })
        .collect();
    lane.meters.started(attempts.len());
    let mut held = lane.held();
    for attempt in &attempts {
        if let Some(held) = held.get_mut(&attempt.reference.token) {
            held.begun = true;
        }
    }
    drop(held);
    attempts
}

fn read<'a>(worker: &Worker, batch: &Batch, reference: &'a Reference, submitted: &[u8], now_us: i64) -> Attempt<'a> {
    let permanent = |code: &'static str, message| Err(InferError { code: code.into(), message, permanent: true });
    let asked = if submitted.is_empty() {
        permanent("input_lost", "the journal no longer holds the task's input".to_owned())
    } else {
        match decode("submitted", submitted) {
            (meta, Change::Submitted(submitted)) => {
                if reference.attempt <= 1 {
                    batch.lane.meters.waited(now_us - meta.at_us);
                }
                Ok(submitted)
            }
            (_, Change::Unknown(unknown)) => permanent("input_unreadable", unknown.reason),
            (_, other) => permanent("input_unreadable", format!("its first event is `{}`", other.event_type())),
        }
    };
    if let Err(error) = &asked {
        let trace_id = trace_id(reference.task, reference.context.trace.as_deref());
        tracing::error!(task.id = %reference.task, trace_id, worker = worker.name(), %error, "a task's input cannot be had");
    }
    Attempt { reference, asked }
}
