//! Tasks of a type or version that nobody serves: each fails for good, and is told what is served.

use insightforge_inference::InferError;
use insightforge_schema::catalogue::{self, ModelCard};
use insightforge_schema::event::Submitted;

use crate::ask::Answer;
use crate::begin::Attempt;
use crate::card::card;
use crate::worker::Worker;

/// Longest part of a caller's own word that a message repeats, in characters.
const QUOTE_MAX: usize = 100;

/// Tells each attempt why no model answers it.
pub(crate) async fn answer(worker: &Worker, attempts: &[Attempt<'_>]) -> Vec<Answer> {
    let view = worker.view();
    let mut cards: Vec<ModelCard> = worker.served().iter().map(|served| card(served, &view.routes)).collect();
    // What others announce makes the message better; without it this process's own list will do.
    cards.extend(catalogue::models(&worker.link, &worker.keys).await.unwrap_or_default());
    attempts
        .iter()
        .map(|attempt| match &attempt.asked {
            Ok(asked) => Answer::Error(explain(asked, &cards)),
            Err(error) => Answer::Error(error.clone()),
        })
        .collect()
}

fn explain(asked: &Submitted, cards: &[ModelCard]) -> InferError {
    let mut versions: Vec<&str> =
        cards.iter().filter(|card| card.task_type == asked.task_type).map(|card| card.version.as_str()).collect();
    let (code, message) = if versions.is_empty() {
        let types = sorted(cards.iter().map(|card| card.task_type.as_str()).collect());
        ("unknown_task_type", format!("no task type {:?} is served; known are: {types}", quote(&asked.task_type)))
    } else {
        let known = sorted(std::mem::take(&mut versions));
        let (version, task_type) = (quote(&asked.model_version), &asked.task_type);
        ("unknown_model_version", format!("{task_type} has no model version {version:?}; known are: {known}"))
    };
    InferError { code: code.into(), message, permanent: true }
}

fn sorted(mut names: Vec<&str>) -> String {
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_MAX).collect()
}
