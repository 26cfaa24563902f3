//! What the continuous check found, and whether the journal leaves Redis.

use chrono::{NaiveDateTime, TimeDelta, Utc};
use insightforge_archive::Journal;
use insightforge_schema::id::PartitionCount;
use insightforge_schema::journal;
use sqlx::MySqlPool;

use super::{Finding, broken, good, weak};

/// A check that is older than this has stopped, unless its interval is longer still.
const STALE: TimeDelta = TimeDelta::hours(2);
/// A difference found so long ago is told of.
const REMEMBERED: TimeDelta = TimeDelta::days(7);

/// The continuous check's last outcome.
pub(super) async fn check_comparison(pool: &MySqlPool) -> Finding {
    let row = sqlx::query_as("SELECT checked_at, tasks, differences, differed_at, difference FROM projection_checks")
        .fetch_optional(pool)
        .await;
    match row {
        Ok(row) => judge(row, Utc::now().naive_utc()),
        Err(error) => {
            broken(format!("what the continuous check found cannot be read: {error}"), "insightforge migrate")
        }
    }
}

/// When it was, tasks, differences; when it last found any, and one of them.
type Checked = (NaiveDateTime, u64, u64, Option<NaiveDateTime>, Option<String>);

fn judge(row: Option<Checked>, now: NaiveDateTime) -> Finding {
    let Some((checked_at, tasks, differences, differed_at, difference)) = row else {
        return weak(
            "the tables were never compared with the journal".to_owned(),
            "is `insightforge projector` running, with INSIGHTFORGE_CHECK_EVERY_S above 0?",
        );
    };
    let difference = difference.unwrap_or_default();
    match differed_at {
        _ if differences > 0 => broken(
            format!("{differences} rows of a sample are not what the journal says, at {checked_at} UTC: {difference}"),
            "insightforge verify finds all of them, insightforge rebuild folds the journal anew",
        ),
        Some(differed_at) if now - differed_at < REMEMBERED => weak(
            format!("the continuous check found a difference at {differed_at} UTC: {difference}"),
            "insightforge verify says whether it is still there",
        ),
        _ if now - checked_at > STALE => weak(
            format!("the tables were last compared with the journal at {checked_at} UTC"),
            "is `insightforge projector` running?",
        ),
        _ => good(format!("{tasks} tasks were compared with the journal at {checked_at} UTC, and all are right")),
    }
}

/// Whether every event can be read, in Redis or in the archive.
pub(super) async fn check_past(journal: &Journal, count: PartitionCount) -> Finding {
    let (mut inside, mut before) = (0, 0);
    for partition in count.iter() {
        match journal.begins(partition).await {
            Ok(1) => {}
            Ok(begins) => {
                return broken(
                    format!("events before {begins} of partition {partition} are neither in Redis nor in the archive"),
                    "INSIGHTFORGE_ARCHIVE must name the archive that the projector writes; restore it from a backup if it is lost",
                );
            }
            Err(error) => {
                return broken(format!("the journal's past cannot be read: {error}"), "see INSIGHTFORGE_ARCHIVE");
            }
        }
        let first = journal::first_number(&journal.link, &journal.keys, partition).await;
        let last = journal.last_number(partition).await;
        if let (Ok(Some(first)), Ok(last)) = (first, last) {
            inside += last + 1 - first.min(last + 1);
            before += first - 1;
        }
    }
    match &journal.archive {
        Some(archive) => {
            good(format!("{inside} events are in Redis, {before} only in the archive at {}", archive.name()))
        }
        None => weak(
            format!("the journal is kept whole in Redis, {inside} events: its memory grows with every task"),
            "set INSIGHTFORGE_ARCHIVE for api, projector and commands",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn the_last_comparison_is_judged_by_its_age_and_what_it_found() {
        let now = NaiveDateTime::default() + TimeDelta::days(100);
        let ago = |hours| now - TimeDelta::hours(hours);
        let some = || Some("task_logs 0:7: the row is missing".to_owned());
        for (row, level, words) in [
            (None, Level::Weak, "never compared"),
            (Some((ago(0), 9, 0, None, None)), Level::Good, "9 tasks were compared"),
            (Some((ago(3), 9, 0, None, None)), Level::Weak, "last compared"),
            (Some((ago(0), 9, 2, Some(ago(0)), some())), Level::Broken, "task_logs 0:7"),
            (Some((ago(0), 9, 0, Some(ago(20)), some())), Level::Weak, "task_logs 0:7"),
            (Some((ago(0), 9, 0, Some(ago(24 * 8)), some())), Level::Good, "all are right"),
        ] {
            let finding = judge(row, now);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.what.contains(words), "{finding:?}");
            assert_eq!(finding.remedy.is_empty(), level == Level::Good);
        }
    }
}
