//! Of every request there are as many tasks as it must be: with an answer that named them these, each once; without one
//! each at most once; after an answer that nothing was stored none. And no task is of no request.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Findings, Seen};
use crate::journal::Told;
use crate::ledger::{Asked, Fate};
use crate::request::{Expect, Mark};

pub(super) fn judge(seen: &Seen, findings: &mut Findings) {
    let mut made: HashMap<Mark, Vec<(usize, Uuid)>> = HashMap::new();
    for (task, told) in &seen.journal.tasks {
        let known = told.asked.mark.filter(|(mark, _)| seen.ledger.asked.contains_key(mark));
        match known {
            None => findings.doubled.push(format!("{task} is of no request: {:?}", told.asked.data)),
            // What repeats another is not asked for by an upload.
            Some(_) if told.asked.retry_of.is_some() => {}
            Some((mark, line)) => made.entry(mark).or_default().push((line, *task)),
        }
    }
    for (mark, asked) in &seen.ledger.asked {
        let mut tasks = made.remove(mark).unwrap_or_default();
        tasks.sort_unstable();
        counted(*mark, asked, &tasks, findings);
        for task in tasks.iter().filter_map(|(_, task)| seen.journal.tasks.get_key_value(task)) {
            expected(asked, *task.0, task.1, findings);
        }
    }
    for (task, accepted) in &seen.ledger.accepted {
        match seen.journal.tasks.get(task).map(|told| told.asked.mark) {
            None => findings.lost.push(format!("{task} was accepted and is not in the journal")),
            Some(mark) if mark.map(|(mark, _)| mark) != Some(accepted.mark) => {
                findings
                    .wrong
                    .push(format!("{task} was accepted for the request {}, and is of {mark:?}", accepted.mark));
            }
            Some(_) => {}
        }
    }
}

fn counted(mark: Mark, asked: &Asked, tasks: &[(usize, Uuid)], findings: &mut Findings) {
    let line = |at: usize| if asked.lines == 1 { 0 } else { at + 1 };
    for at in 0..asked.lines {
        let found: Vec<Uuid> = tasks.iter().filter(|(number, _)| *number == line(at)).map(|(_, task)| *task).collect();
        let what = || format!("line {} of the request {mark} ({:?})", line(at), asked.fate());
        match (asked.fate(), &found[..]) {
            (Fate::Stored, []) => findings.lost.push(format!("{} is no task", what())),
            (Fate::Stored, [task]) if asked.told.get(at) != Some(task) => {
                findings.wrong.push(format!("{} is {task}, and the caller was told {:?}", what(), asked.told.get(at)));
            }
            (Fate::Stored | Fate::Open, [_]) | (Fate::Open | Fate::Refused, []) => {}
            (_, several) => findings.doubled.push(format!("{} is {several:?}", what())),
        }
    }
    if tasks.iter().any(|(number, _)| (0..asked.lines).all(|at| line(at) != *number)) {
        findings.doubled.push(format!("the request {mark} has tasks of lines that it has not: {tasks:?}"));
    }
}

fn expected(asked: &Asked, task: Uuid, told: &Told, findings: &mut Findings) {
    if asked.own_webhook != told.asked.own_webhook {
        findings.wrong.push(format!("{task}: of its own webhook the journal says {}", told.asked.own_webhook));
    }
    let Some(end) = told.ends().first().copied() else { return };
    let as_expected = match asked.expect {
        Expect::Completed => end == "completed",
        Expect::Failed => end == "failed",
        Expect::InTime => end == "completed" || told.expired(),
        Expect::Any => true,
    };
    if !as_expected {
        let expect = asked.expect;
        findings.wrong.push(format!("{task} should have {expect:?} and has {end} {:?}", told.error));
    }
}
