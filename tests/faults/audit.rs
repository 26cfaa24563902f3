//! The audit of a run: what callers were promised, the journal, the tables and the receiver must tell the same.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use uuid::Uuid;

use crate::journal::{Journal, Told};
use crate::load::{Expect, Ledger};

/// Attempts a task has, as the program ships.
const MAX_ATTEMPTS: u32 = 3;

/// Everything an outsider can see when a run is over.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) ledger: Ledger,
    pub(crate) journal: Journal,
    /// `analysis_tasks`: status and task by row id.
    pub(crate) tasks: BTreeMap<u64, (Uuid, String)>,
    /// `analysis_results`: how many by the task's row id.
    pub(crate) results: HashMap<u64, usize>,
    /// `task_logs`: type by row id.
    pub(crate) logs: BTreeMap<u64, String>,
    /// By `webhook-id`: the deliveries the receiver has taken.
    pub(crate) webhooks: HashMap<String, Vec<Announced>>,
    /// Tasks on the dead-letter list.
    pub(crate) dead: HashSet<Uuid>,
    /// What lies on lanes, is pending, or waits for a time.
    pub(crate) left: Vec<String>,
    /// Complaints of those who looked.
    pub(crate) complaints: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Announced {
    pub(crate) body: Value,
    /// Whether its attempt could have been in flight when the fault struck: then it may be repeated.
    pub(crate) in_doubt: bool,
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
    promises(seen, &mut findings);
    for (task, told) in &seen.journal.tasks {
        ends(*task, told, &mut findings);
        rows(seen, *task, told, &mut findings);
        webhooks(seen, *task, told, &mut findings);
    }
    strangers(seen, &mut findings);
    findings.doubled.extend(seen.ledger.doubled.iter().cloned());
    findings.stuck.extend(seen.left.iter().cloned());
    findings.wrong.extend(seen.ledger.complaints.iter().chain(&seen.complaints).cloned());
    findings.wrong.extend(seen.journal.gaps.iter().cloned());
    findings
}

/// Every accepted task is in the journal, and no more than those.
fn promises(seen: &Seen, findings: &mut Findings) {
    let Seen { ledger, journal, .. } = seen;
    for (task, accepted) in &ledger.accepted {
        let Some(told) = journal.tasks.get(task) else {
            findings.lost.push(format!("{task} was accepted and is not in the journal"));
            continue;
        };
        let end = told.ends().first().copied().unwrap_or("nothing");
        let as_expected = match accepted.expect {
            Expect::Completed => end == "completed",
            Expect::Failed => end == "failed",
            Expect::Any => true,
        };
        if !as_expected && end != "nothing" {
            findings.wrong.push(format!("{task} should have {:?} and has {end}", accepted.expect));
        }
    }
    let unasked = journal.tasks.keys().filter(|task| !ledger.accepted.contains_key(task)).count() as u64;
    if unasked > ledger.unknown {
        findings.doubled.push(format!("{unasked} tasks nobody knows of, {} answers were lost", ledger.unknown));
    }
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
        [end] => {
            let letters = told.count("dead_lettered");
            if letters != usize::from(end == "failed") {
                findings.wrong.push(format!("{task} has {end} and {letters} dead letters"));
            }
        }
        [..] => findings.doubled.push(format!("{task} ended as {:?}", told.ends())),
    }
    if told.attempts > MAX_ATTEMPTS {
        findings.wrong.push(format!("{task} began {} attempts", told.attempts));
    }
}

/// The tables tell what the journal tells.
fn rows(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let Some((row, _)) = told.events.first() else { return };
    let end = told.ends().first().copied();
    match seen.tasks.get(row) {
        None => findings.lost.push(format!("{task} has no row")),
        Some((known, _)) if *known != task => findings.wrong.push(format!("the row of {task} is {known}'s")),
        Some((_, status)) if end.is_some_and(|end| end != status) => {
            findings.wrong.push(format!("{task} has {end:?} and its row says {status}"));
        }
        Some(_) => {}
    }
    let results = seen.results.get(row).copied().unwrap_or(0);
    match (results, usize::from(end == Some("completed"))) {
        (found, due) if found < due => findings.lost.push(format!("{task} is completed without a result")),
        (found, due) if found > due => findings.doubled.push(format!("{task} has {found} results and {end:?}")),
        _ => {}
    }
    for (row, event_type) in &told.events {
        match seen.logs.get(row) {
            Some(logged) if logged == event_type => {}
            logged => findings.wrong.push(format!("{task}: `{event_type}` is {logged:?} in its history")),
        }
    }
    if seen.dead.contains(&task) != (end == Some("failed")) {
        findings.wrong.push(format!("{task} has {end:?}; on the dead-letter list: {}", seen.dead.contains(&task)));
    }
}

/// The receiver was told, rightly, and twice only where that may be.
fn webhooks(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let [end] = told.ends()[..] else { return };
    let own = seen.ledger.accepted.get(&task).is_some_and(|accepted| accepted.own_webhook);
    for endpoint in ["default", "task"].into_iter().take(1 + usize::from(own)) {
        let id = format!("msg_{}_{endpoint}", task.simple());
        let Some((first, again)) = seen.webhooks.get(&id).and_then(|all| all.split_first()) else {
            findings.lost.push(format!("{task}: the receiver was not told ({endpoint})"));
            continue;
        };
        // In the contract's words, which know two outcomes.
        let status = if end == "completed" { "completed" } else { "failed" };
        if first.body["status"] != status || first.body["task_id"] != task.to_string() {
            findings.wrong.push(format!("{task} has {end} and the receiver was told {}", first.body));
        }
        for repeated in again {
            if repeated.body != first.body {
                findings.wrong.push(format!("{task}: the receiver was told {} and {}", first.body, repeated.body));
            }
            if first.in_doubt {
                findings.repeated += 1;
            } else {
                findings.doubled.push(format!("{task}: the receiver was told again, and no attempt was in flight"));
            }
        }
    }
}

/// Nothing stands anywhere that the journal does not know.
fn strangers(seen: &Seen, findings: &mut Findings) {
    let known: HashSet<u64> =
        seen.journal.tasks.values().flat_map(|it| it.events.iter().map(|(row, _)| *row)).collect();
    let logged = seen.logs.keys().filter(|row| !known.contains(row)).count();
    let stored = seen.tasks.len();
    if logged > 0 || stored > seen.journal.tasks.len() {
        findings.doubled.push(format!("{stored} rows, and {logged} lines of history the journal does not know"));
    }
    let begun: HashSet<u64> =
        seen.journal.tasks.values().filter_map(|it| it.events.first()).map(|(row, _)| *row).collect();
    let orphans = seen.results.keys().filter(|row| !begun.contains(row)).count();
    if orphans > 0 {
        findings.doubled.push(format!("{orphans} results of no task"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::load::Accepted;

    const TASK: Uuid = Uuid::from_u128(7);

    /// A run of one completed task where all is well.
    fn sound() -> Seen {
        let mut seen = Seen::default();
        let accepted = Accepted { at: Instant::now(), expect: Expect::Completed, own_webhook: false };
        seen.ledger.accepted.insert(TASK, accepted);
        let events = [(1024, "submitted"), (2048, "processing"), (3072, "completed")];
        let events: Vec<_> = events.iter().map(|(row, event_type)| (*row, (*event_type).to_owned())).collect();
        seen.logs.extend(events.iter().cloned());
        seen.journal.tasks.insert(TASK, Told { events, ended_us: 1, attempts: 1 });
        seen.tasks.insert(1024, (TASK, "completed".to_owned()));
        seen.results.insert(1024, 1);
        let body = json!({ "status": "completed", "task_id": TASK.to_string() });
        seen.webhooks.insert(format!("msg_{}_default", TASK.simple()), vec![Announced { body, in_doubt: false }]);
        seen
    }

    #[test]
    fn a_sound_run_passes() {
        assert!(judge(&sound()).passed(), "{:?}", judge(&sound()));
    }

    type Break = fn(&mut Seen);
    type List = fn(&Findings) -> &Vec<String>;

    #[test]
    fn every_way_to_break_a_promise_is_found_and_called_by_its_name() {
        fn told(seen: &mut Seen) -> &mut Told {
            seen.journal.tasks.get_mut(&TASK).unwrap()
        }
        fn webhooks(seen: &mut Seen) -> &mut Vec<Announced> {
            seen.webhooks.values_mut().next().unwrap()
        }
        let lost: List = |it| &it.lost;
        let doubled: List = |it| &it.doubled;
        let stuck: List = |it| &it.stuck;
        let wrong: List = |it| &it.wrong;
        let cases: [(Break, List); 19] = [
            (|it| it.journal.tasks.clear(), lost),
            (|it| it.tasks.clear(), lost),
            (|it| it.results.clear(), lost),
            (|it| it.webhooks.clear(), lost),
            (
                |it| {
                    told(it).events.remove(0);
                },
                lost,
            ),
            (|it| told(it).events.push((4096, "completed".to_owned())), doubled),
            (|it| told(it).events.push((4096, "submitted".to_owned())), doubled),
            (|it| it.ledger.accepted.clear(), doubled),
            (
                |it| {
                    it.results.insert(1024, 2);
                },
                doubled,
            ),
            (
                |it| {
                    it.results.insert(9216, 1);
                },
                doubled,
            ),
            (
                |it| {
                    it.tasks.insert(9216, (TASK, "completed".to_owned()));
                },
                doubled,
            ),
            (
                |it| {
                    it.logs.insert(9216, "completed".to_owned());
                },
                doubled,
            ),
            (|it| webhooks(it).push(webhooks(&mut sound())[0].clone()), doubled),
            (
                |it| {
                    told(it).events.pop();
                },
                stuck,
            ),
            (|it| it.left.push("one entry is pending".to_owned()), stuck),
            (
                |it| {
                    it.logs.insert(2048, "failed".to_owned());
                },
                wrong,
            ),
            (
                |it| {
                    it.tasks.insert(1024, (TASK, "failed".to_owned()));
                },
                wrong,
            ),
            (
                |it| {
                    it.dead.insert(TASK);
                },
                wrong,
            ),
            (|it| webhooks(it)[0].body = json!({ "status": "failed", "task_id": TASK.to_string() }), wrong),
        ];
        for (number, (break_it, list)) in cases.into_iter().enumerate() {
            let mut seen = sound();
            break_it(&mut seen);
            let findings = judge(&seen);
            assert!(!list(&findings).is_empty() && !findings.passed(), "case {number}: {findings:?}");
        }
    }

    #[test]
    fn an_announcement_that_was_in_flight_may_come_again() {
        let mut seen = sound();
        let all = seen.webhooks.values_mut().next().unwrap();
        all[0].in_doubt = true;
        all.push(all[0].clone());
        let findings = judge(&seen);
        assert!(findings.passed() && findings.repeated == 1, "{findings:?}");
    }
}
