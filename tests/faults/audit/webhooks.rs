//! The receiver was told, rightly, and again only of what was in doubt when a projector was killed: once a death at most,
//! and only what was sent just before it and not recorded by then.

use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::{Announced, Death, Findings, Seen};
use crate::journal::Told;

/// How long an answer may have gone unrecorded: outcomes are written together with others, and a busy machine is slow. As
/// long as the lease in these runs; what was recorded is known for certain beside it.
const UNRECORDED: Duration = Duration::from_secs(8);
/// What the dead had sent may be noted by the receiver this much later.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

pub(super) fn judge(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let [end] = told.ends()[..] else { return };
    for endpoint in ["default", "task"].into_iter().take(1 + usize::from(told.asked.own_webhook)) {
        let id = format!("msg_{}_{endpoint}", task.simple());
        let Some((first, again)) = seen.webhooks.get(&id).and_then(|all| all.split_first()) else {
            findings.lost.push(format!("{task}: the receiver was not told ({endpoint})"));
            continue;
        };
        let body: Value = serde_json::from_slice(&first.body).unwrap_or_default();
        for (name, due, said) in content(task, end, told, &body) {
            if due != said {
                findings.wrong.push(format!("{task} ({endpoint}): the receiver was told the {name} {said}, not {due}"));
            }
        }
        for delivery in std::iter::once(first).chain(again) {
            if let Some(flaw) = &delivery.flaw {
                findings.wrong.push(format!("{task} ({endpoint}): {flaw}"));
            }
        }
        repeats(seen, &id, first, again, findings);
    }
    let known = |id: &str| id == format!("msg_{}_task", task.simple());
    if !told.asked.own_webhook && seen.webhooks.keys().any(|id| known(id)) {
        findings.wrong.push(format!("{task} has no webhook of its own, and one was told"));
    }
}

/// Name, what is due and what was said.
fn content(task: Uuid, end: &str, told: &Told, body: &Value) -> Vec<(&'static str, Value, Value)> {
    // In the contract's words, which know two outcomes.
    let status = if end == "completed" { "completed" } else { "failed" };
    let position = told.ended_at().map(|row| insightforge_schema::id::position_of_row(row).to_string());
    let code = told.error.as_ref().map(|(code, _)| code.clone());
    let mut fields = vec![
        ("task_id", Value::from(task.to_string())),
        ("status", Value::from(status)),
        ("task_type", Value::from(told.asked.task_type.clone())),
        ("position", Value::from(position)),
        ("result", told.result.clone().unwrap_or(Value::Null)),
    ];
    if end == "cancelled" {
        fields.push(("error_code", Value::from("cancelled")));
    }
    if end == "failed" {
        fields.push(("error_code", Value::from(code)));
        fields.push(("error_message", Value::from(told.error.as_ref().map(|(_, message)| message.clone()))));
    }
    fields.into_iter().map(|(name, due)| (name, due, body[name].clone())).collect()
}

fn repeats(seen: &Seen, id: &str, first: &Announced, again: &[Announced], findings: &mut Findings) {
    let mut deaths = seen.deaths.iter();
    let mut before = first;
    for repeated in again {
        if repeated.body != first.body {
            findings.wrong.push(format!("{id}: the receiver was told {:?} and {:?}", first.body, repeated.body));
        }
        // Each death excuses one repetition.
        if deaths.any(|death| excuses(death, id, before.at, repeated.at)) {
            findings.repeated += 1;
        } else {
            findings
                .doubled
                .push(format!("{id}: the receiver was told again: {}", doubts(seen, id, before.at, repeated.at)));
        }
        before = repeated;
    }
}

/// Why nobody's death excuses a repetition.
fn doubts(seen: &Seen, id: &str, taken: Instant, again: Instant) -> String {
    let since = |at: Instant, death: &Death| {
        let before = death.at.saturating_duration_since(at).as_secs_f64();
        at.saturating_duration_since(death.at).as_secs_f64() - before
    };
    let of = |death: &Death| {
        let recorded = if death.recorded.contains(id) { "recorded" } else { "not recorded" };
        format!(
            "{recorded} when a projector died, taken {:.1} s and {:.1} s after",
            since(taken, death),
            since(again, death)
        )
    };
    if seen.deaths.is_empty() {
        "no projector died".to_owned()
    } else {
        seen.deaths.iter().map(of).collect::<Vec<_>>().join(", ")
    }
}

/// Whether the death of a projector left an announcement in doubt that was taken at `taken`.
fn excuses(death: &Death, id: &str, taken: Instant, again: Instant) -> bool {
    let in_flight = taken + UNRECORDED >= death.at && taken <= death.at + ON_ITS_WAY;
    in_flight && again > death.at && !death.recorded.contains(id)
}
