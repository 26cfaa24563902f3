//! A stretch of the journal, chosen at random: every event of it must have left its trace in the tables. A sample of tasks
//! begins at the tables and cannot see what they lack; this begins at the journal.

use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::Cursor;

use super::{Deps, Report, VerifyError};
use crate::retired::{horizon, present};
use crate::rows::{BATCHES, FAULTS, LOGS, TASKS};
use crate::snapshot::Snapshot;

/// Looks at so many events of every partition.
///
/// # Errors
/// [`VerifyError`].
pub async fn verify_stretch(deps: &Deps, events: u64) -> Result<Report, VerifyError> {
    let mut snapshot = Snapshot::take(&deps.pool, deps.partitions).await?;
    let at = Cursor(snapshot.checkpoint.clone());
    let mut report = Report { at, events: 0, tasks: 0, differences: 0, examples: Vec::new() };
    let horizon = horizon(&mut snapshot.connection).await?;
    for partition in deps.partitions.iter() {
        let folded = report.at.at(partition);
        let begins = deps.journal.begins(partition).await?;
        if folded < begins {
            continue;
        }
        let from = rand::random_range(begins..=folded);
        let most = usize::try_from(events).unwrap_or(usize::MAX);
        let stretch = deps.journal.range(partition, from, Some(folded), most).await?;
        report.events += stretch.len() as u64;
        look_at(&mut snapshot, &stretch, horizon, &mut report).await?;
    }
    snapshot.release().await?;
    Ok(report)
}

async fn look_at(
    snapshot: &mut Snapshot,
    events: &[Event],
    horizon: Option<i64>,
    report: &mut Report,
) -> Result<(), sqlx::Error> {
    let ids: Vec<u64> = events.iter().map(|event| event.position.row_id()).collect();
    let mut traces = present(&mut snapshot.connection, "", LOGS.name, &ids).await?;
    for table in [&BATCHES, &FAULTS] {
        traces.extend(present(&mut snapshot.connection, "", table.name, &ids).await?);
    }
    let without: Vec<&Event> = events.iter().filter(|event| !traces.contains(&event.position.row_id())).collect();
    let tasks: Vec<u64> = without.iter().map(|event| event.first.row_id()).collect();
    let tasks = present(&mut snapshot.connection, "", TASKS.name, &tasks).await?;
    for event in without {
        // The task may have been deleted as too old; then nothing of it is there.
        let old = horizon.is_some_and(|horizon| event.meta.at_us < horizon) && !tasks.contains(&event.first.row_id());
        let batch = matches!(event.change, Change::BatchReceived(_));
        if batch || !old {
            let table = if batch { &BATCHES } else { &LOGS };
            report.add(table, Some(event.position.row_id()), "the row is missing".to_owned());
        }
    }
    Ok(())
}
