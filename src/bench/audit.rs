//! The audit that ends every run: each accepted task completed, once.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use sqlx::{MySql, MySqlPool, QueryBuilder};
use tokio::time::Instant;
use uuid::Uuid;

use super::ledger::{Ledger, Task};
use super::report::CompletedBy;
use super::watch;

/// Tasks one query looks at.
const CHUNK: usize = 500;
/// Examples named for each kind of fault.
const EXAMPLES: usize = 3;
const BETWEEN: Duration = Duration::from_millis(50);

/// What was looked at and what was wrong.
#[derive(Default, Serialize)]
pub(super) struct Audit {
    /// Tasks whose webhooks were checked.
    pub(super) webhooks_checked: u64,
    /// Tasks whose rows were checked.
    pub(super) rows_checked: u64,
    /// Webhooks beyond the first of a task: allowed, delivery is at least once.
    pub(super) repeated_webhooks: u64,
    /// Webhooks of tasks this run has no answer for.
    pub(super) foreign_webhooks: u64,
    faults: Vec<Fault>,
}

#[derive(Serialize)]
pub(super) struct Fault {
    pub(super) what: &'static str,
    pub(super) count: u64,
    pub(super) examples: Vec<String>,
}

impl Audit {
    pub(super) fn passed(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Each task: at least one webhook, all of them `completed`.
    pub(super) fn webhooks(&mut self, ledger: &Ledger) {
        for (id, task) in ledger.accepted_tasks() {
            self.webhooks_checked += 1;
            match task {
                Task { completed: 0, otherwise: 0, .. } => self.fault("no webhook came", id),
                Task { completed: 0, .. } => self.fault("the webhook did not say completed", id),
                Task { otherwise: 0, completed, .. } => self.repeated_webhooks += u64::from(completed) - 1,
                Task { .. } => self.fault("webhooks with different outcomes", id),
            }
        }
        self.foreign_webhooks = ledger.foreign() as u64;
        for why in ledger.bad_webhooks() {
            self.fault("a webhook that cannot be believed", why);
        }
    }

    /// Each task: one row that says completed, one result, one `completed` in its history. Rows may still be on their way,
    /// so a fault counts only when nothing changes for `settle`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn rows(
        &mut self,
        pool: &MySqlPool,
        ledger: &Ledger,
        settle: Duration,
    ) -> Result<(), sqlx::Error> {
        let mut open: Vec<Uuid> = ledger.accepted_tasks().iter().map(|(id, _)| *id).collect();
        self.rows_checked = open.len() as u64;
        let mut changed = Instant::now();
        loop {
            let before = open.len();
            let mut faults = Vec::new();
            for chunk in open.chunks(CHUNK) {
                faults.extend(look(pool, chunk).await?);
            }
            open = faults.iter().map(|(id, _)| *id).collect();
            if open.len() < before {
                changed = Instant::now();
            }
            if open.is_empty() || changed.elapsed() > settle {
                faults.into_iter().for_each(|(id, what)| self.fault(what, id));
                return Ok(());
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }

    fn fault(&mut self, what: &'static str, example: impl ToString) {
        let known = self.faults.iter().position(|fault| fault.what == what);
        let at = known.unwrap_or_else(|| {
            self.faults.push(Fault { what, count: 0, examples: Vec::new() });
            self.faults.len() - 1
        });
        let fault = &mut self.faults[at];
        fault.count += 1;
        if fault.examples.len() < EXAMPLES {
            fault.examples.push(example.to_string());
        }
    }
}

/// Those of `ids` that are not completed exactly once, and how.
async fn look(pool: &MySqlPool, ids: &[Uuid]) -> Result<Vec<(Uuid, &'static str)>, sqlx::Error> {
    let mut query = QueryBuilder::<MySql>::new(
        "SELECT t.task_id, t.status, \
         (SELECT COUNT(*) FROM analysis_results r WHERE r.analysis_task_id = t.id), \
         (SELECT COUNT(*) FROM task_logs l WHERE l.analysis_task_id = t.id AND l.event_type = 'completed') \
         FROM analysis_tasks t WHERE t.task_id IN (",
    );
    let mut list = query.separated(",");
    for id in ids {
        list.push_bind(id.hyphenated().to_string());
    }
    query.push(")");
    let rows: Vec<(String, String, i64, i64)> = query.build_query_as().fetch_all(pool).await?;
    let mut found: HashMap<Uuid, Vec<(String, i64, i64)>> = HashMap::with_capacity(ids.len());
    for (id, status, results, completions) in rows {
        if let Ok(id) = id.parse() {
            found.entry(id).or_default().push((status, results, completions));
        }
    }
    let judge = |id: &Uuid| Some((*id, wrong(found.get(id).map_or(&[], Vec::as_slice))?));
    Ok(ids.iter().filter_map(judge).collect())
}

/// What is wrong with a task's rows: status, results, `completed` entries in its history.
fn wrong(rows: &[(String, i64, i64)]) -> Option<&'static str> {
    match rows {
        [] => Some("no row"),
        [(status, 1, 1)] if status == "completed" => None,
        [(status, _, _)] if status != "completed" => Some("its row does not say completed"),
        [(_, results, _)] if *results != 1 => Some("not exactly one result"),
        [_] => Some("not exactly one `completed` in its history"),
        _ => Some("more than one row"),
    }
}

/// Waits until the row of every accepted task says that it ended, or none more does for `settle`.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn wait_for_rows(
    pool: &MySqlPool,
    ledger: &Ledger,
    settle: Duration,
) -> Result<CompletedBy, sqlx::Error> {
    let mut open: Vec<Uuid> = ledger.accepted_tasks().iter().map(|(id, _)| *id).collect();
    let mut changed = Instant::now();
    while !open.is_empty() && changed.elapsed() < settle {
        let (chunk, rest) = open.split_at(open.len().min(CHUNK));
        let ended = watch::ended(pool, chunk).await?;
        if ended.is_empty() {
            tokio::time::sleep(BETWEEN).await;
            continue;
        }
        changed = Instant::now();
        open = rest.iter().chain(chunk.iter().filter(|id| !ended.contains(id))).copied().collect();
    }
    Ok(CompletedBy::Row { at: ledger.now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_completed_row_with_one_result_and_one_completion_passes() {
        let row = |status: &str, results, completions| (status.to_owned(), results, completions);
        assert_eq!(wrong(&[row("completed", 1, 1)]), None);
        for bad in [
            &[][..],
            &[row("failed", 0, 0)],
            &[row("processing", 1, 1)],
            &[row("completed", 0, 1)],
            &[row("completed", 2, 1)],
            &[row("completed", 1, 0)],
            &[row("completed", 1, 2)],
            &[row("completed", 1, 1), row("completed", 1, 1)],
        ] {
            assert!(wrong(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_lost_a_failed_and_a_contradicted_task_fail_the_audit() {
        let ledger = Ledger::default();
        let ids: Vec<Uuid> = (0..4).map(Uuid::from_u128).collect();
        ids.iter().for_each(|id| ledger.accept(*id, 0, false));
        // Repeated: allowed. Failed. Contradicted. The fourth is never heard of.
        for (id, completed) in [(0, true), (0, true), (1, false), (2, true), (2, false)] {
            ledger.announce(ids[id], completed);
        }
        let mut audit = Audit::default();
        audit.webhooks(&ledger);
        assert_eq!((audit.webhooks_checked, audit.repeated_webhooks, ledger.announced()), (4, 1, 3));
        let mut faults: Vec<_> = audit.faults().iter().map(|fault| (fault.what, fault.count)).collect();
        faults.sort_unstable();
        assert_eq!(
            faults,
            [("no webhook came", 1), ("the webhook did not say completed", 1), ("webhooks with different outcomes", 1)]
        );
    }
}
