//! The journal as an outsider reads it: straight from Redis, past every process of the program.

use std::collections::HashMap;

use insightforge_schema::event::decode;
use insightforge_schema::id::{Partition, PartitionCount, Position, number_of, row_id, stream_id};
use insightforge_schema::journal::Entries;
use insightforge_schema::keys::Keys;
use uuid::Uuid;

use crate::servers::Redis;

/// Entries of one read.
const PAGE: usize = 2_000;

#[derive(Default)]
pub(crate) struct Journal {
    /// Number of the last event read, by partition.
    pub(crate) last: Vec<u64>,
    pub(crate) tasks: HashMap<Uuid, Told>,
    /// Numbers that are not one more than the one before.
    pub(crate) gaps: Vec<String>,
}

/// What the journal tells of one task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Row id and type of each event, in order.
    pub(crate) events: Vec<(u64, String)>,
    /// When its terminal event happened, in microseconds since 1970-01-01 UTC.
    pub(crate) ended_us: i64,
    /// The greatest attempt that began.
    pub(crate) attempts: u32,
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
}

impl Journal {
    /// Reads on from where it ended.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(crate) async fn read_on(
        &mut self,
        redis: &Redis,
        keys: &Keys,
        partitions: PartitionCount,
    ) -> Result<(), redis::RedisError> {
        self.last.resize(usize::from(partitions.get()), 0);
        for partition in partitions.iter() {
            loop {
                let last = &mut self.last[usize::from(partition.0)];
                let mut range = redis::cmd("XRANGE");
                range.arg(keys.journal(partition)).arg(stream_id(*last + 1)).arg("+").arg("COUNT").arg(PAGE);
                let entries: Entries = redis.ask(&range).await?;
                for entry in &entries.0 {
                    let n = number_of(&entry.id).unwrap_or(0);
                    if n != *last + 1 {
                        self.gaps.push(format!("partition {partition}: {n} follows {last}"));
                    }
                    *last = n;
                    if entry.event_type != "batch_received" {
                        let task = entry.task.parse().unwrap_or_default();
                        note(self.tasks.entry(task).or_default(), partition, n, &entry.event_type, &entry.bytes);
                    }
                }
                if entries.0.len() < PAGE {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn events(&self) -> u64 {
        self.last.iter().sum()
    }

    /// Tasks without an end.
    pub(crate) fn open(&self) -> usize {
        self.tasks.values().filter(|told| told.ends().is_empty()).count()
    }
}

fn note(told: &mut Told, partition: Partition, n: u64, event_type: &str, bytes: &[u8]) {
    let (meta, _) = decode(event_type, bytes);
    match event_type {
        "processing" => told.attempts = told.attempts.max(meta.attempt),
        "completed" | "failed" | "cancelled" => told.ended_us = meta.at_us,
        _ => {}
    }
    told.events.push((row_id(Position { partition, n }), event_type.to_owned()));
}
