//! Each outcome is its own task's: the result is what the model makes of its text, in the journal and in the table; no
//! attempt began beyond its deadline; who withdrew it was told what became of it.

use serde_json::Value;
use uuid::Uuid;

use super::{Findings, Seen};
use crate::journal::Told;

pub(super) fn judge(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let wrong = &mut findings.wrong;
    result(seen, task, told, wrong);
    cancel(seen, task, told, wrong);
    if let Some(expires_us) = told.asked.expires_us
        && seen.clocks_are_right
        && told.began_us > expires_us
    {
        wrong.push(format!("{task} was begun {} us after its deadline", told.began_us - expires_us));
    }
    if told.expired() && told.asked.expires_us.is_none() {
        wrong.push(format!("{task} has expired and had no deadline"));
    }
    let mut shadows = told.shadows.clone();
    shadows.dedup();
    if shadows.len() != told.shadows.len() || (!shadows.is_empty() && told.ends() != ["completed"]) {
        wrong.push(format!("{task} has {:?} and was compared with {:?}", told.ends(), told.shadows));
    }
}

fn result(seen: &Seen, task: Uuid, told: &Told, wrong: &mut Vec<String>) {
    if told.ends() != ["completed"] {
        return;
    }
    let text = serde_json::from_str::<Value>(&told.asked.data).ok();
    let text = text.as_ref().and_then(|data| data["text"].as_str()).unwrap_or_default();
    let of = (told.asked.task_type.clone(), text.to_owned());
    let said = seen.ledger.said.get(&of);
    if said.is_none() || told.result.as_ref() != said {
        wrong.push(format!("{task}: the model says {said:?} about {text:?}, the journal {:?}", told.result));
    }
    let stored = told.events.first().and_then(|(row, _)| seen.results.get(row)?.first());
    if let Some(stored) = stored
        && Some(stored) != told.result.as_ref()
    {
        wrong.push(format!("{task}: the journal has the result {:?}, the table {stored}", told.result));
    }
}

fn cancel(seen: &Seen, task: Uuid, told: &Told, wrong: &mut Vec<String>) {
    let end = told.ends().first().copied();
    let answer = seen.ledger.cancels.get(&task);
    match (answer, end) {
        (Some(Some(200)), end) if end != Some("cancelled") => {
            wrong.push(format!("{task} has {end:?}, and its cancellation was answered 200"));
        }
        (Some(Some(409)), Some("cancelled")) => {
            wrong.push(format!("{task} is cancelled, and that was refused with 409"))
        }
        (None, Some("cancelled")) => wrong.push(format!("{task} is cancelled, and nobody asked for that")),
        (Some(Some(status)), _) if !matches!(status, 200 | 409 | 429 | 503) => {
            wrong.push(format!("the cancellation of {task} was answered {status}"));
        }
        _ => {}
    }
}
