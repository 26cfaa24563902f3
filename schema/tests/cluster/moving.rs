//! A slot moves to another master while its partition is written and read.

use std::time::{Duration, Instant};

use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;

use crate::redis_cluster::{MASTERS, RedisCluster};
use crate::writers::{Readers, Writers, missing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_moves_to_another_master_loses_nothing_and_is_read_on() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = RedisCluster::start(folder.path(), "no").await;
    let link = Link::new(&cluster.url(), Duration::from_secs(10)).unwrap();
    let (keys, partitions) = (Keys::new("t"), PartitionCount::new(4).unwrap());
    let readers = Readers::begin(&link, &keys, partitions);
    let writers = Writers::begin(&link, &keys, partitions);
    while writers.accepted() < 400 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let journal = keys.journal(Partition(1));
    let slot: u16 = cluster.query(redis::cmd("CLUSTER").arg("KEYSLOT").arg(&journal)).await.unwrap();
    let mut from = cluster.owner(&journal).await;
    for _ in 0..2 {
        let (to, began) = ((from + 1) % MASTERS, Instant::now());
        cluster.move_slot(slot, from, to).await;
        println!("the slot was moved within {:.2} s", began.elapsed().as_secs_f64());
        let before = writers.accepted();
        while writers.accepted() < before + 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        from = to;
    }
    assert_eq!(cluster.owner(&journal).await, from);

    let told = writers.end().await;
    let read = readers.end().await;
    assert_eq!(told.unanswered, 0, "every call finds the new place in time");
    assert_eq!(missing(&link, &keys, partitions, &told.accepted).await, 0);
    assert_eq!((read.moved_back, read.gaps), (0, Vec::new()));
    assert_eq!(read.tasks.len(), told.accepted.len());
    assert!(read.tasks.values().all(|times| *times == 1));
}
