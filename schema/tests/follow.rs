//! Reading the journals as they grow, on a real Redis.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_schema::follow::Follower;
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;

const BLOCK: Duration = Duration::from_secs(5);

struct Stage {
    link: Link,
    keys: Keys,
}

impl Stage {
    fn new() -> Self {
        let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
        let link = Link::new(&url, Duration::from_secs(10)).unwrap();
        Self { link, keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())) }
    }

    async fn append(&self, partition: Partition, count: usize, bytes: usize) {
        for _ in 0..count {
            let mut add = redis::cmd("XADD");
            add.arg(self.keys.journal(partition)).arg("0-*").arg("type").arg("processing");
            add.arg("task").arg(TaskId::new().to_string()).arg("first").arg(1).arg("e").arg(vec![b'w'; bytes]);
            self.link.query::<String>(&add).await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_small_events_come_at_once_and_large_ones_some_at_a_time_and_none_is_left_out() {
    let stage = Stage::new();
    let partitions = PartitionCount::new(2).unwrap();
    stage.append(Partition(0), 300, 10).await;
    stage.append(Partition(1), 30, 1 << 20).await;
    let mut follower = Follower::new(&stage.link, &stage.keys, partitions);
    let (mut after, mut reads) = ([0, 0], 0);
    while after != [300, 30] {
        let followed = follower.read(&after, 1_000, BLOCK).await.unwrap();
        assert_eq!(followed.more, reads == 0, "more of the large ones");
        for (partition, entries) in followed.entries {
            let read = entries.0.len() as u64;
            let place = usize::from(partition.0);
            let numbers: Vec<u64> = entries.0.iter().map(|entry| entry.n().unwrap()).collect();
            assert_eq!(numbers, (after[place] + 1..=after[place] + read).collect::<Vec<_>>());
            assert!(partition == Partition(0) || read <= 8 + 9, "{read} events of a MiB");
            assert!(partition == Partition(1) || read == 300, "{read} small events");
            after[place] += read;
        }
        reads += 1;
    }
    assert_eq!(reads, 2);
    let keys = [0, 1].map(|partition| stage.keys.journal(Partition(partition)));
    stage.link.query::<i64>(redis::cmd("DEL").arg(&keys)).await.unwrap();
}
