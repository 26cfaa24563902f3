//! Whether a change would leave an alias to nobody. Pure.
//!
//! An analyzer takes from an alias' lane only while it has everything that the alias can resolve to, so a canary between two
//! versions that no process has at once stops the tasks of the stable version altogether. Analyzers are counted as they
//! reported themselves last, so this keeps operators from mistakes and proves nothing.

use super::ALIASES;
use super::decide::Refusal;
use super::event::{Change, Entry, Meta};
use super::routes::Routes;
use crate::catalogue::Worker;
use crate::keys::Lane;

/// Refuses what leaves an alias to nobody that somebody answers now, or that is new. Where no analyzer of the task type
/// runs, every lane waits for one to be started, and a change makes nothing worse.
///
/// # Errors
/// [`Refusal::Unstaffed`].
pub fn check(routes: &Routes, changes: &[Change], workers: &[Worker]) -> Result<(), Refusal> {
    let mut after = routes.clone();
    for change in changes {
        let meta = Meta { at_us: 0, actor: String::new(), reason: None };
        after.apply(&Entry { n: after.position + 1, meta, change: change.clone() });
    }
    for task_type in changes.iter().filter_map(Change::task_type) {
        let lanes: Vec<Vec<Lane>> = workers.iter().map(|worker| lanes(worker, task_type)).collect();
        let answered = |targets: &[&str]| {
            lanes.iter().any(|has| targets.iter().all(|target| has.iter().any(|lane| lane.model_version == *target)))
        };
        for alias in ALIASES {
            let (was, will) = (routes.targets(task_type, alias), after.targets(task_type, alias));
            let worse = was != will && !will.is_empty() && (was.is_empty() || answered(&was)) && !answered(&will);
            if worse && lanes.iter().any(|has| !has.is_empty()) {
                let targets = will.join(" and ");
                return Err(Refusal::Unstaffed { task_type: task_type.to_owned(), alias, targets });
            }
        }
    }
    Ok(())
}

fn lanes(worker: &Worker, task_type: &str) -> Vec<Lane> {
    let lanes = worker.lanes.iter().filter_map(|name| Lane::parse(name));
    lanes.filter(|lane| lane.task_type == task_type).collect()
}
