//! The audit of a run: what callers were promised, the journal, the tables and the receiver must tell the same.
//!
//! [`requests`] – of every request as many tasks as it must be. [`rows`] – the tables tell what the journal tells. [`work`] –
//! each outcome is its own task's. [`letters`] – dead letters, repeated and purged. [`webhooks`] – who was told, and how often.

mod letters;
mod requests;
mod rows;
#[cfg(test)]
mod tests;
mod webhooks;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Instant;

use axum::body::Bytes;
use serde_json::Value;
use uuid::Uuid;

use crate::journal::{Journal, Told};
use crate::ledger::Ledger;
use crate::request::Mark;

/// Attempts a task has, as the program ships.
const MAX_ATTEMPTS: u32 = 3;

/// Everything an outsider can see when a run is over.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    /// `analysis_tasks` by row id.
    pub(crate) tasks: BTreeMap<u64, Row>,
    /// `analysis_results`: the documents by the task's row id.
    pub(crate) results: HashMap<u64, Vec<Value>>,
    /// `task_logs` by row id.
    pub(crate) logs: BTreeMap<u64, Logged>,
    /// Row ids of `analysis_shadow_results`.
    pub(crate) shadows: BTreeSet<u64>,
    /// By `webhook-id`: the deliveries the receiver has taken.
    pub(crate) webhooks: HashMap<String, Vec<Announced>>,
    /// When projectors were killed.
    pub(crate) deaths: Vec<Death>,
    /// Whether the roles' clocks told the time throughout.
    pub(crate) clocks_are_right: bool,
    /// Tasks on the dead-letter list.
    pub(crate) dead: HashSet<Uuid>,
    /// What lies on lanes, is pending, or waits for a time.
    pub(crate) left: Vec<String>,
    /// Complaints of those who looked.
    pub(crate) complaints: Vec<String>,
}

/// A row of `analysis_tasks`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) task: Uuid,
    pub(crate) status: String,
    /// What its `data_payload` is marked with.
    pub(crate) mark: Option<(Mark, usize)>,
}

/// A row of `task_logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logged {
    /// `analysis_task_id`.
    pub(crate) task_row: u64,
    pub(crate) event_type: String,
}

/// A delivery.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Announced {
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
    /// What is wrong with its headers.
    pub(crate) flaw: Option<String>,
}

/// A projector was killed.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) at: Instant,
    /// Announcements that the tables held as delivered by then, by `webhook-id`: nothing of these was in doubt.
    pub(crate) recorded: HashSet<String>,
}

/// What is not as it should be.
#[derive(Default, Debug)]
pub(crate) struct Findings {
    pub(crate) tasks: usize,
    /// Promised, and gone.
    pub(crate) lost: Vec<String>,
    /// Done or told more than once.
    pub(crate) doubled: Vec<String>,
    /// Without an end.
    pub(crate) stuck: Vec<String>,
    /// Anything else that does not agree.
    pub(crate) wrong: Vec<String>,
    /// Announcements that came again, and may.
    pub(crate) repeated: usize,
}

impl Findings {
    pub(crate) fn passed(&self) -> bool {
        [&self.lost, &self.doubled, &self.stuck, &self.wrong].iter().all(|list| list.is_empty())
    }
}

/// Compares all with all.
pub(crate) fn judge(seen: &Seen) -> Findings {
    let mut findings = Findings { tasks: seen.journal.tasks.len(), ..Findings::default() };
    requests::judge(seen, &mut findings);
    for (task, told) in &seen.journal.tasks {
        ends(*task, told, &mut findings);
        rows::judge(seen, *task, told, &mut findings);
        work::judge(seen, *task, told, &mut findings);
        letters::judge(seen, *task, told, &mut findings);
        webhooks::judge(seen, *task, told, &mut findings);
    }
    rows::strangers(seen, &mut findings);
    findings.doubled.extend(seen.ledger.doubled.iter().cloned());
    findings.stuck.extend(seen.left.iter().cloned());
    findings.wrong.extend(seen.ledger.complaints.iter().chain(&seen.complaints).cloned());
    findings.wrong.extend(seen.journal.gaps.iter().cloned());
    findings
}

/// It begins once and ends once, within its attempts.
fn ends(task: Uuid, told: &Told, findings: &mut Findings) {
    let begun = told.count("submitted");
    if begun != 1 {
        let list = if begun == 0 { &mut findings.lost } else { &mut findings.doubled };
        list.push(format!("{task} was submitted {begun} times"));
    }
    match told.ends()[..] {
        [] => findings.stuck.push(format!("{task} has no end after {:?}", told.events.last())),
        [_] => {}
        [..] => findings.doubled.push(format!("{task} ended as {:?}", told.ends())),
    }
    if told.attempts > MAX_ATTEMPTS {
        findings.wrong.push(format!("{task} began {} attempts", told.attempts));
    }
}
