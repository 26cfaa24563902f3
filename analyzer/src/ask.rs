//! Step three: find the model that each task is for, by the routes of this moment, and ask it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use insightforge_inference::{InferError, Served};
use insightforge_schema::event::Route;
use insightforge_schema::keys::Lane;
use insightforge_schema::registry::{Resolved, Routes, STABLE, sticky_key};
use tokio_util::sync::CancellationToken;

use crate::begin::Attempt;
use crate::take::Batch;
use crate::unroutable;
use crate::wait::pause;
use crate::worker::Worker;

/// Between two tries of a model that takes no more: doubling from the first to the last.
const PATIENCE_FIRST: Duration = Duration::from_millis(2);
const PATIENCE_LAST: Duration = Duration::from_millis(200);

/// What came of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The result document: JSON text.
    Result(String),
    Error(InferError),
    /// The process stops and waits no longer.
    Stopping,
    /// The version it resolves to is not in this process: another one must answer.
    NotHere,
    /// The model took no more inputs for as long as a task may take.
    Busy,
}

/// An answer with the model that gave it, when one was asked.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) by: Option<Arc<By>>,
}

/// A model that was asked, and what its call was.
#[derive(Debug)]
pub(crate) struct By {
    pub(crate) version: String,
    pub(crate) route: Route,
    /// From asking to the last answer.
    pub(crate) took: Duration,
    /// How many inputs were handed over together.
    pub(crate) batch_size: usize,
}

impl Answered {
    fn nobody(answer: Answer) -> Self {
        Self { answer, by: None }
    }
}

/// Answers each attempt, in order, whatever the models do.
pub(crate) async fn ask(worker: &Worker, batch: &Batch, attempts: &[Attempt<'_>]) -> Vec<Answered> {
    let lane = &batch.lane.lane;
    if *lane == Lane::unroutable() {
        return unroutable::answer(worker, attempts).await.into_iter().map(Answered::nobody).collect();
    }
    let view = worker.view();
    let mut answers: Vec<Option<Answered>> = Vec::with_capacity(attempts.len());
    let mut groups: Vec<Group> = Vec::new();
    for (place, attempt) in attempts.iter().enumerate() {
        answers.push(match choose(worker, &view.routes, lane, attempt) {
            Err(answer) => Some(Answered::nobody(answer)),
            Ok((resolved, served)) => {
                match groups.iter_mut().find(|group| group.resolved == resolved) {
                    Some(group) => group.places.push(place),
                    None => groups.push(Group { resolved, served, places: vec![place] }),
                }
                None
            }
        });
    }
    let calls = groups.into_iter().map(|group| call(worker, lane, view.routes.position, group, attempts));
    for (places, group_answers, by) in join_all(calls).await {
        for (place, answer) in places.into_iter().zip(group_answers) {
            answers[place] = Some(Answered { answer, by: Some(by.clone()) });
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| Answered::nobody(Answer::Stopping))).collect()
}

/// The attempts that one model answers.
struct Group {
    resolved: Resolved,
    served: Arc<Served>,
    places: Vec<usize>,
}

/// The model that an attempt is for, or what it is told instead.
fn choose(
    worker: &Worker,
    routes: &Routes,
    lane: &Lane,
    attempt: &Attempt<'_>,
) -> Result<(Resolved, Arc<Served>), Answer> {
    let asked = attempt.asked.as_ref().map_err(|error| Answer::Error(error.clone()))?;
    let (task_type, version) = (lane.task_type.as_str(), lane.model_version.as_str());
    // Only a canary looks at the key, and finding it means reading the document.
    let canary = version == STABLE && routes.task(task_type).is_some_and(|task| task.canary.is_some());
    let key = if canary { sticky_key(asked.user_id, &asked.data, attempt.reference.task) } else { String::new() };
    let resolved = routes.resolve(task_type, version, &key).map_err(|unresolved| {
        let (code, message) = (unresolved.code().into(), unresolved.to_string());
        Answer::Error(InferError { code, message, permanent: true })
    })?;
    let served = worker.model(task_type, &resolved.version).ok_or_else(|| {
        worker.miss();
        Answer::NotHere
    })?;
    Ok((resolved, served))
}

async fn call(
    worker: &Worker,
    lane: &Lane,
    registry_n: u64,
    group: Group,
    attempts: &[Attempt<'_>],
) -> (Vec<usize>, Vec<Answer>, Arc<By>) {
    let Group { resolved, served, places } = group;
    let documents: Vec<&str> =
        places.iter().map(|place| attempts[*place].asked.as_ref().map_or("", |asked| asked.data.as_str())).collect();
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(worker.config.task_timeout_ms);
    let answers = patiently(&served, &documents, deadline, &worker.stop.waiting).await;
    let took = begun.elapsed();
    crate::measure::inferred(lane, documents.len(), took);
    let runs_on = served.runs_on();
    let by = By {
        version: resolved.version,
        route: Route {
            asked: lane.model_version.clone(),
            reason: resolved.reason.as_str().to_owned(),
            digest: served.digest().to_owned(),
            backend: runs_on.engine.clone(),
            device: runs_on.device.clone(),
            registry_n,
        },
        took,
        batch_size: documents.len(),
    };
    (places, answers, Arc::new(by))
}

/// Asks until each document has an answer: a model that takes no more is asked again for those it turned away, and the
/// places they occupy keep more from being read meanwhile.
async fn patiently(served: &Served, documents: &[&str], deadline: Instant, stop: &CancellationToken) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = vec![None; documents.len()];
    let mut patience = PATIENCE_FIRST;
    loop {
        let open: Vec<usize> = (0..documents.len()).filter(|place| answers[*place].is_none()).collect();
        if open.is_empty() {
            return answers.into_iter().flatten().collect();
        }
        let given = tokio::select! {
            given = served.infer(open.iter().map(|place| documents[*place].to_owned()).collect(), deadline) => given,
            () = stop.cancelled() => return excuse(answers, &Answer::Stopping),
        };
        for (place, answer) in open.into_iter().zip(given) {
            answers[place] = match answer {
                Ok(result) => Some(Answer::Result(result)),
                Err(error) if error.code == "overloaded" => None,
                Err(error) => Some(Answer::Error(error)),
            };
        }
        if answers.iter().any(Option::is_none) {
            if Instant::now() + patience >= deadline {
                return excuse(answers, &Answer::Busy);
            }
            if !pause(patience, stop).await {
                return excuse(answers, &Answer::Stopping);
            }
            patience = (2 * patience).min(PATIENCE_LAST);
        }
    }
}

fn excuse(answers: Vec<Option<Answer>>, excuse: &Answer) -> Vec<Answer> {
    answers.into_iter().map(|answer| answer.unwrap_or_else(|| excuse.clone())).collect()
}
