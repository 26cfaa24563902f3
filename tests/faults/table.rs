//! The table of the runs.

use std::collections::BTreeMap;
use std::fmt;

use crate::recovery::Rates;
use crate::run::Outcome;

/// Examples of each kind of finding.
const EXAMPLES: usize = 4;

/// One line a run, as Markdown prints it.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, seed, findings: it, held_s, ended_s, announced_s, afterwards, .. } = self;
        let rate = self.full_rate_s.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}"));
        write!(
            f,
            "| {fault} | {seed} | {} | {} | {} | {} | {} | {} | {held_s:.1} | {rate} | {afterwards} | {ended_s:.1} | {announced_s:.1} |",
            it.tasks,
            it.lost.len(),
            it.doubled.len(),
            it.stuck.len(),
            it.wrong.len(),
            it.repeated
        )
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0}, {:.0}, {:.0}", self.offered, self.accepted, self.ended)
    }
}

pub(crate) const HEAD: &str = "\
| fault | seed | tasks | lost | doubled | stuck | wrong | repeated webhooks | held s | full rate after s | offered, accepted, \
ended a second after | last task after s | last webhook after s |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// What was found, for people who look for the cause.
pub(crate) fn explain(outcome: &Outcome) -> String {
    let it = &outcome.findings;
    let mut text = String::new();
    for (name, list) in [("lost", &it.lost), ("doubled", &it.doubled), ("stuck", &it.stuck), ("wrong", &it.wrong)] {
        for example in list.iter().take(EXAMPLES) {
            text += &format!("    {name}: {example}\n");
        }
    }
    text
}

/// One line a fault: the sums of its runs, and the worst of their times.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let mut order: Vec<&str> = Vec::new();
    let mut by_fault: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        if !by_fault.contains_key(&*outcome.fault) {
            order.push(&outcome.fault);
        }
        by_fault.entry(&outcome.fault).or_default().push(outcome);
    }
    let mut text = "\
| fault | runs | tasks | lost | doubled | stuck | wrong | repeated webhooks | full rate after s | last task after s | last \
webhook after s |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for fault in order {
        let runs = &by_fault[fault];
        let sum = |of: fn(&Outcome) -> usize| runs.iter().map(|run| of(run)).sum::<usize>();
        let most = |of: fn(&Outcome) -> f64| runs.iter().map(|run| of(run)).fold(0.0, f64::max);
        let rate = full_rate(runs);
        text += &format!(
            "| {fault} | {} | {} | {} | {} | {} | {} | {} | {rate} | {:.1} | {:.1} |\n",
            runs.len(),
            sum(|run| run.findings.tasks),
            sum(|run| run.findings.lost.len()),
            sum(|run| run.findings.doubled.len()),
            sum(|run| run.findings.stuck.len()),
            sum(|run| run.findings.wrong.len()),
            sum(|run| run.findings.repeated),
            most(|run| run.ended_s),
            most(|run| run.announced_s),
        );
    }
    text
}

/// The worst of the runs; those that were over before it could be seen are counted beside it.
fn full_rate(runs: &[&Outcome]) -> String {
    let most = runs.iter().filter_map(|run| run.full_rate_s).reduce(f64::max).map(|most| format!("{most:.1}"));
    let unseen = runs.iter().filter(|run| run.full_rate_s.is_none()).count();
    match (most, unseen) {
        (Some(most), 0) => most,
        (Some(most), unseen) => format!("{most}, – in {unseen}"),
        (None, _) => "–".to_owned(),
    }
}
