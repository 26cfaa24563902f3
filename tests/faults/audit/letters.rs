//! Dead letters: every task that failed is one, but those that expired; who repeats or purges one does it once, and then it
//! is off the list.

use uuid::Uuid;

use super::{Findings, Seen};
use crate::journal::Told;
use crate::ledger::Letter;

pub(super) fn judge(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    let wrong = &mut findings.wrong;
    let letter = told.ends() == ["failed"] && !told.expired();
    let letters = told.count("dead_lettered");
    if told.ends().len() == 1 && letters != usize::from(letter) {
        wrong.push(format!("{task} has {:?} {:?} and {letters} dead letters", told.ends(), told.error));
    }
    let (redriven, purged) = (told.count("redriven"), told.count("purged"));
    let listed = seen.dead.contains(&task);
    if listed != (letter && redriven + purged == 0) {
        wrong.push(format!(
            "{task} has {:?}, was repeated {redriven} times and purged {purged} times; on the dead-letter list: {listed}",
            told.ends()
        ));
    }
    if redriven > 1 {
        findings.doubled.push(format!("{task} was repeated as {:?}", told.redriven_as));
    }
    if purged > 1 {
        findings.doubled.push(format!("{task} was purged {purged} times"));
    }
    match seen.ledger.letters.get(&task) {
        Some(Letter::Purged) if purged == 0 => findings.lost.push(format!("{task} was purged, and no event says so")),
        Some(Letter::RedrivenAs(new)) if !told.redriven_as.contains(new) => {
            findings.lost.push(format!("{task} was repeated as {new}, and no event says so"));
        }
        _ => {}
    }
    repetitions(seen, task, told, findings);
}

/// What repeats a task is named by that task, and asks for the same.
fn repetitions(seen: &Seen, task: Uuid, told: &Told, findings: &mut Findings) {
    for new in &told.redriven_as {
        match seen.journal.tasks.get(new) {
            None => findings.lost.push(format!("{task} was repeated as {new}, which is no task")),
            Some(it) if it.asked.retry_of != Some(task) || it.asked.data != told.asked.data => {
                findings.wrong.push(format!("{task} was repeated as {new}, which is {:?}", it.asked));
            }
            Some(_) => {}
        }
    }
    let Some(old) = told.asked.retry_of else { return };
    if seen.journal.tasks.get(&old).is_none_or(|it| !it.redriven_as.contains(&task)) {
        findings.doubled.push(format!("{task} repeats {old}, which does not know of it"));
    }
}
