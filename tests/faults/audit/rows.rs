//! The tables tell what the journal tells.

use std::collections::HashSet;

use uuid::Uuid;

use super::{Findings, Logged, Seen};
use crate::journal::Told;

pub(super) fn judge(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let Some((row, _)) = told.events.first() else { return };
    let end = told.ends().first().copied();
    match seen.tasks.get(row) {
        None => findings.lost.push(format!("{task} has no row")),
        Some(known) if known.task != task => findings.wrong.push(format!("the row of {task} is {}'s", known.task)),
        Some(known) if end.is_some_and(|end| end != known.status) => {
            findings.wrong.push(format!("{task} has {end:?} and its row says {}", known.status));
        }
        Some(known) if known.mark != told.asked.mark => {
            findings.wrong.push(format!("{task} is of {:?} and its row of {:?}", told.asked.mark, known.mark));
        }
        Some(_) => {}
    }
    let results = seen.results.get(row).map_or(0, Vec::len);
    match (results, usize::from(end == Some("completed"))) {
        (found, due) if found < due => findings.lost.push(format!("{task} is completed without a result")),
        (found, due) if found > due => findings.doubled.push(format!("{task} has {found} results and {end:?}")),
        _ => {}
    }
    for (event, event_type) in &told.events {
        let due = Logged { task_row: *row, event_type: event_type.clone() };
        if seen.logs.get(event) != Some(&due) {
            let logged = seen.logs.get(event);
            findings.wrong.push(format!("{task}: `{event_type}` is {logged:?} in its history, and not {due:?}"));
        }
        if seen.shadows.contains(event) != (event_type == "shadowed") {
            findings.wrong.push(format!("{task}: event {event} is `{event_type}` and a shadow's row, or neither"));
        }
    }
}

/// Nothing stands anywhere that the journal does not know.
pub(super) fn strangers(seen: &Seen, findings: &mut Findings) {
    let told = || seen.journal.tasks.values();
    let known: HashSet<u64> = told().flat_map(|it| it.events.iter().map(|(row, _)| *row)).collect();
    let logged = seen.logs.keys().chain(&seen.shadows).filter(|row| !known.contains(row)).count();
    let stored = seen.tasks.len();
    if logged > 0 || stored > seen.journal.tasks.len() {
        findings.doubled.push(format!("{stored} rows, and {logged} lines of history the journal does not know"));
    }
    let begun: HashSet<u64> = told().filter_map(|it| it.events.first()).map(|(row, _)| *row).collect();
    let orphans = seen.results.keys().filter(|row| !begun.contains(row)).count();
    if orphans > 0 {
        findings.doubled.push(format!("{orphans} results of no task"));
    }
}
