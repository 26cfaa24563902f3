//! The journal as an outsider reads it, past every process of the program: from the stream, and from the archive what has
//! left the stream.

use std::collections::HashMap;

use insightforge_archive::{Archive, ReadError};
use insightforge_schema::event::{Change, Submitted, decode};
use insightforge_schema::id::{Partition, PartitionCount, Position, TaskId, row_id};
use insightforge_schema::journal::{Entry, first_number};
use insightforge_schema::trim;
use serde_json::Value;
use uuid::Uuid;

use crate::request::{Mark, mark_in};

/// Entries of one read.
const PAGE: usize = 2_000;

#[derive(Default)]
pub(crate) struct Journal {
    /// Every entry as it was read first, by partition and number.
    pub(crate) entries: Vec<Vec<Entry>>,
    pub(crate) tasks: HashMap<Uuid, Told>,
    /// What is not in order: numbers, and where events say that their task began.
    pub(crate) gaps: Vec<String>,
}

/// What the journal tells of one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Row id and type of each event, in order.
    pub(crate) events: Vec<(u64, String)>,
    pub(crate) asked: Asked,
    /// When its terminal event happened, in microseconds since 1970-01-01 UTC.
    pub(crate) ended_us: i64,
    /// The result document of a completed task.
    pub(crate) result: Option<Value>,
    /// Code and message of a failed one.
    pub(crate) error: Option<(String, String)>,
    /// The greatest attempt that began.
    pub(crate) attempts: u32,
    /// When the last attempt began, by its analyzer's clock.
    pub(crate) began_us: i64,
    pub(crate) redriven_as: Vec<Uuid>,
    /// Shadow versions that were asked too.
    pub(crate) shadows: Vec<String>,
}

/// What its `submitted` event says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    /// Mark of the request and line in it.
    pub(crate) mark: Option<(Mark, usize)>,
    pub(crate) task_type: String,
    pub(crate) data: String,
    pub(crate) own_webhook: bool,
    pub(crate) retry_of: Option<Uuid>,
    pub(crate) expires_us: Option<i64>,
}

impl Told {
    pub(crate) fn count(&self, event_type: &str) -> usize {
        self.events.iter().filter(|(_, known)| known == event_type).count()
    }

    /// Its terminal events; one, when all is well.
    pub(crate) fn ends(&self) -> Vec<&str> {
        let terminal = |event_type: &&str| matches!(*event_type, "completed" | "failed" | "cancelled");
        self.events.iter().map(|(_, event_type)| event_type.as_str()).filter(terminal).collect()
    }

    /// Row id of its terminal event.
    pub(crate) fn ended_at(&self) -> Option<u64> {
        let end = self.ends().first().copied()?;
        self.events.iter().find(|(_, event_type)| event_type == end).map(|(row, _)| *row)
    }

    /// Whether it failed for having waited beyond its deadline: that is no dead letter.
    pub(crate) fn expired(&self) -> bool {
        self.error.as_ref().is_some_and(|(code, _)| code == "expired")
    }
}

impl Journal {
    /// Reads on from where it ended.
    ///
    /// # Errors
    /// When a server does not answer, or events are nowhere any more.
    pub(crate) async fn read_on(
        &mut self,
        source: &insightforge_archive::Journal,
        partitions: PartitionCount,
    ) -> Result<(), ReadError> {
        self.entries.resize(usize::from(partitions.get()), Vec::new());
        for partition in partitions.iter() {
            loop {
                let from = self.entries[usize::from(partition.0)].len() as u64 + 1;
                let (page, end) = source.entries(partition, from, PAGE, usize::MAX).await?;
                for entry in page {
                    self.take(partition, entry);
                }
                if end {
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, partition: Partition, entry: Entry) {
        let entries = &mut self.entries[usize::from(partition.0)];
        let n = entries.len() as u64 + 1;
        if entry.n() != Some(n) {
            self.gaps.push(format!("partition {partition}: {} stands where {n} should", entry.id));
        }
        if entry.event_type != "batch_received" {
            let task = entry.task.parse().unwrap_or_default();
            let told = self.tasks.entry(task).or_default();
            note(told, partition, n, &entry);
            let began = told.events.first().map(|(row, _)| *row);
            let says = entry.first.parse().ok().map(|first: u64| if first == 0 { n } else { first });
            if says.map(|n| row_id(Position { partition, n })) != began {
                self.gaps.push(format!("{task}: its event {n} says that it began at {}", entry.first));
            }
        }
        entries.push(entry);
    }

    pub(crate) fn events(&self) -> u64 {
        self.entries.iter().map(|entries| entries.len() as u64).sum()
    }

    /// Tasks without an end.
    pub(crate) fn open(&self) -> usize {
        self.tasks.values().filter(|told| told.ends().is_empty()).count()
    }

    /// Announcements that are due for ended tasks: one to the configured receiver, one to the task's own.
    pub(crate) fn announcements(&self) -> usize {
        self.tasks.values().map(|told| 1 + usize::from(told.asked.own_webhook)).sum()
    }

    /// Compares the archive with what was read of the stream when it was there; says how many events the archive holds and
    /// how many left the stream.
    ///
    /// # Errors
    /// When a server does not answer.
    pub(crate) async fn compare_archive(
        &mut self,
        source: &insightforge_archive::Journal,
        partitions: PartitionCount,
    ) -> Result<(u64, u64), ReadError> {
        let Some(archive) = &source.archive else { return Ok((0, 0)) };
        let (mut archived, mut trimmed) = (0, 0);
        for partition in partitions.iter() {
            let mark = trim::mark(&source.link, &source.keys, partition).await?.unwrap_or(0);
            let begins = first_number(&source.link, &source.keys, partition).await?.unwrap_or(1);
            if begins > mark + 1 {
                self.gaps.push(format!("partition {partition}: trimmed up to {}, archived up to {mark}", begins - 1));
            }
            (archived, trimmed) = (archived + mark, trimmed + begins - 1);
            let known = &self.entries[usize::from(partition.0)];
            self.gaps.extend(differences(archive, partition, mark, known).await?);
        }
        Ok((archived, trimmed))
    }
}

/// What is wrong with a partition's archive up to its mark.
async fn differences(
    archive: &Archive,
    partition: Partition,
    mark: u64,
    known: &[Entry],
) -> Result<Vec<String>, ReadError> {
    let (mut next, mut wrong) = (1, Vec::new());
    while next <= mark {
        let block = archive.read(partition, next, mark).await?;
        if block.is_empty() {
            wrong.push(format!("partition {partition}: {next} is not in the archive, which is said to reach {mark}"));
            return Ok(wrong);
        }
        for entry in &block {
            if known.get(next as usize - 1) != Some(entry) {
                wrong.push(format!("partition {partition}: {next} is another event in the archive than in the stream"));
            }
            next += 1;
        }
    }
    Ok(wrong)
}

fn note(told: &mut Told, partition: Partition, n: u64, entry: &Entry) {
    let (meta, change) = decode(&entry.event_type, &entry.bytes);
    if matches!(change, Change::Completed(_) | Change::Failed(_) | Change::Cancelled(_)) {
        told.ended_us = meta.at_us;
    }
    match change {
        Change::Submitted(submitted) if told.events.is_empty() => told.asked = asked(submitted),
        Change::Processing(_) => {
            told.attempts = told.attempts.max(meta.attempt);
            told.began_us = meta.at_us;
        }
        Change::Completed(completed) => told.result = serde_json::from_str(&completed.result).ok(),
        Change::Failed(failed) => told.error = Some((failed.code, failed.message)),
        Change::Redriven(redriven) => told.redriven_as.push(uuid_of(redriven.as_task)),
        Change::Shadowed(shadowed) => told.shadows.push(shadowed.model_version),
        _ => {}
    }
    told.events.push((row_id(Position { partition, n }), entry.event_type.clone()));
}

fn asked(submitted: Submitted) -> Asked {
    Asked {
        mark: mark_in(&submitted.data),
        task_type: submitted.task_type,
        own_webhook: submitted.webhook.is_some(),
        retry_of: submitted.retry_of.map(uuid_of),
        expires_us: submitted.expires_us,
        data: submitted.data,
    }
}

fn uuid_of(task: TaskId) -> Uuid {
    task.0
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Meta, encode};
    use insightforge_schema::id::stream_id;

    use super::*;

    fn entry(n: u64, task: u128, first: u64) -> Entry {
        let meta = Meta { at_us: 1, tenant: String::new(), actor: String::new(), attempt: 1, trace: None };
        let change = Change::Processing(insightforge_schema::event::Processing { worker: "w".to_owned() });
        Entry {
            id: stream_id(n),
            event_type: "processing".to_owned(),
            task: Uuid::from_u128(task).to_string(),
            first: first.to_string(),
            bytes: encode(&meta, &change),
        }
    }

    #[test]
    fn a_missing_number_and_an_event_of_another_beginning_are_found() {
        let gaps = |entries: &[Entry]| {
            let mut journal = Journal { entries: vec![Vec::new()], ..Journal::default() };
            entries.iter().for_each(|entry| journal.take(Partition(0), entry.clone()));
            journal.gaps.len()
        };
        assert_eq!(gaps(&[entry(1, 7, 0), entry(2, 7, 1), entry(3, 8, 0)]), 0);
        assert_eq!(gaps(&[entry(1, 7, 0), entry(3, 7, 1)]), 1);
        assert_eq!(gaps(&[entry(1, 7, 0), entry(2, 8, 0), entry(3, 7, 2)]), 1);
    }

    #[tokio::test]
    async fn an_archive_that_lacks_an_event_or_has_another_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path().to_str().unwrap(), [], "if").unwrap();
        let known = [entry(1, 7, 0), entry(2, 7, 1), entry(3, 8, 0)];
        archive.put(Partition(0), &known[..2]).await.unwrap();
        let wrong = async |mark, known: &[Entry]| differences(&archive, Partition(0), mark, known).await.unwrap();
        assert_eq!(wrong(2, &known).await, Vec::<String>::new());
        assert!(wrong(3, &known).await[0].contains("3 is not in the archive"));
        let other = [entry(1, 7, 0), entry(2, 9, 0)];
        assert!(wrong(2, &other).await[0].contains("2 is another event"));
    }
}
