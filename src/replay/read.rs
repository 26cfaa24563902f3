//! Reads the partitions side by side and merges them by time; within a partition the order is the journal's.

use std::collections::VecDeque;

use anyhow::{Context, bail};
use insightforge_archive::Journal;
use insightforge_schema::event::Event;
use insightforge_schema::id::{Partition, PartitionCount, Position};

use super::{Args, Bound};

/// Events read from one partition at a time.
const PAGE: usize = 1_000;
/// Event times are nearly in order: so many events behind the one at the end of `--to` are looked at too.
const DISORDER: u64 = 1_000;

/// Reads on, page by page.
pub(super) struct Reader {
    journal: Journal,
    partitions: Vec<PartitionReader>,
    /// There is an end to reach (`--to`): following beyond it would be endless waiting.
    pub(super) bounded: bool,
}

struct PartitionReader {
    partition: Partition,
    next: u64,
    last: Option<u64>,
    buffer: VecDeque<Event>,
    /// The last read was cut off: what comes next may be older than what other partitions hold.
    more: bool,
}

impl Reader {
    pub(super) async fn open(journal: Journal, count: PartitionCount, args: &Args) -> anyhow::Result<Self> {
        let only = only_partition(count, args)?;
        let mut partitions = Vec::new();
        for partition in count.iter().filter(|partition| only.is_none_or(|only| only == *partition)) {
            let last = match args.to {
                Some(Bound::Position(to)) => Some(to.n),
                Some(Bound::Time(to)) => Some(journal.number_at(partition, to + 1).await? + DISORDER),
                None => None,
            };
            let next = journal.begins(partition).await?;
            if next > 1 {
                let begins = Position { partition, n: next };
                eprintln!(
                    "the journal begins at {begins}: what happened before is neither in Redis nor in the archive"
                );
            }
            partitions.push(PartitionReader { partition, next, last, buffer: VecDeque::new(), more: false });
        }
        Ok(Self { journal, partitions, bounded: args.to.is_some() })
    }

    /// The next events in order; empty when every partition is at its end for now.
    pub(super) async fn next_page(&mut self) -> anyhow::Result<Vec<Event>> {
        for lane in &mut self.partitions {
            if lane.buffer.is_empty() && lane.last.is_none_or(|last| lane.next <= last) {
                let events = self.journal.range(lane.partition, lane.next, lane.last, PAGE).await;
                let events = events.context("reading the journal")?;
                lane.next = events.last().map_or(lane.next, |event| event.position.n + 1);
                lane.more = events.len() == PAGE;
                lane.buffer.extend(events);
            }
        }
        let mut page = Vec::new();
        // Until one partition has to be read again: the others may hold later events than what it will bring.
        while let Some(earliest) = self
            .partitions
            .iter_mut()
            .filter(|lane| !lane.buffer.is_empty())
            .min_by_key(|lane| lane.buffer.front().map_or(i64::MAX, |event| event.meta.at_us))
        {
            page.extend(earliest.buffer.pop_front());
            if earliest.buffer.is_empty() && earliest.more {
                break;
            }
        }
        Ok(page)
    }
}

/// The one partition to read, when a task or a position says which.
fn only_partition(count: PartitionCount, args: &Args) -> anyhow::Result<Option<Partition>> {
    let mut only = args.task.map(|task| ("--task", count.of_task(task)));
    for (flag, bound) in [("--from", args.from), ("--to", args.to)] {
        let Some(Bound::Position(position)) = bound else { continue };
        if position.partition.0 >= count.get() {
            bail!("{flag} names partition {}, and there are only {} (from 0)", position.partition.0, count.get());
        }
        match only {
            Some((other, partition)) if partition != position.partition => {
                bail!("{other} is in partition {}, {flag} in {}", partition.0, position.partition.0);
            }
            _ => only = Some((flag, position.partition)),
        }
    }
    Ok(only.map(|(_, partition)| partition))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;
    use insightforge_schema::event::{Change, Meta, Processing, encode};
    use insightforge_schema::id::TaskId;
    use insightforge_schema::keys::Keys;
    use insightforge_schema::link::Link;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        Cli::parse_from(["replay"].iter().chain(line)).args
    }

    fn two() -> PartitionCount {
        PartitionCount::new(2).unwrap()
    }

    #[test]
    fn flags_that_name_different_partitions_are_refused_with_both_names() {
        assert_eq!(only_partition(two(), &args(&["--from", "1:7"])).unwrap(), Some(Partition(1)));
        assert_eq!(only_partition(two(), &args(&["--from", "1h"])).unwrap(), None);
        for (line, names) in [
            (["--from", "1:7", "--to", "0:9"], ["--from", "--to"]),
            (["--from", "2:7", "--to", "2:9"], ["--from", "only 2"]),
        ] {
            let error = only_partition(two(), &args(&line)).unwrap_err().to_string();
            assert!(names.iter().all(|name| error.contains(name)), "{error}");
        }
    }

    #[tokio::test]
    async fn events_of_all_partitions_come_in_the_order_of_their_times() {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
        let link = Link::new(&url, Duration::from_secs(10)).unwrap();
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        // One partition is four times as busy as the other.
        for (partition, every) in [(Partition(0), 1_i64), (Partition(1), 4)] {
            let mut pipe = redis::pipe();
            for number in 0..3_000 / every {
                let at_us = number * every * 10 + i64::from(partition.0);
                let (tenant, actor) = (String::new(), String::new());
                let event = encode(
                    &Meta { at_us, tenant, actor, attempt: 1, trace: None },
                    &Change::Processing(Processing { worker: "w".to_owned() }),
                );
                pipe.cmd("XADD").arg(keys.journal(partition)).arg("0-*").arg("type").arg("processing").arg("task");
                pipe.arg(TaskId::new().to_string()).arg("first").arg(1).arg("e").arg(event).ignore();
            }
            let mut connection = link.blocking(&keys.journal(partition)).await.unwrap();
            pipe.query_async::<()>(&mut connection).await.unwrap();
        }
        let journal = Journal { link, keys, archive: None };
        let mut reader = Reader::open(journal, two(), &args(&[])).await.unwrap();
        let mut times = Vec::new();
        loop {
            let page = reader.next_page().await.unwrap();
            if page.is_empty() {
                break;
            }
            times.extend(page.iter().map(|event| event.meta.at_us));
        }
        assert_eq!(times.len(), 3_750);
        assert!(times.is_sorted());
    }
}
