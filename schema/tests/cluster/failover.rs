//! A master dies under load, with a replica that has not seen everything.

use std::time::{Duration, Instant};

use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;

use crate::redis_cluster::{RedisCluster, partner};
use crate::writers::{Readers, Writers, missing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_takes_back_only_what_no_replica_had_confirmed() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start(folder.path(), "no").await;
    let link = Link::new(&cluster.url(), Duration::from_secs(5)).unwrap();
    let confirmed = link.confirmed_by(1);
    let (careful, hasty) = (Keys::new("careful"), Keys::new("hasty"));
    let partitions = PartitionCount::new(8).unwrap();
    let readers = Readers::begin(&confirmed, &careful, partitions);
    let (careful_writers, hasty_writers) =
        (Writers::begin(&confirmed, &careful, partitions), Writers::begin(&link, &hasty, partitions));
    until(|| careful_writers.accepted() > 200 && hasty_writers.accepted() > 200).await;

    // The master of a partition of both goes on for a while without its replica, and then dies.
    let victim = shared_master(&cluster, &careful, &hasty, partitions).await;
    cluster.hold_replication(victim).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    cluster.nodes[victim].kill();
    let died = Instant::now();
    cluster.nodes[partner(victim)].go_on();
    cluster.nodes[partner(victim)].wait_until_master().await;
    let took = died.elapsed();

    // The shard has no replica until the one that died is back: nothing of it is confirmed until then.
    let before = hasty_writers.accepted();
    until(|| hasty_writers.accepted() > before + 200).await;
    cluster.nodes[victim].start();
    cluster.wait_until_whole().await;
    let before = careful_writers.accepted();
    until(|| careful_writers.accepted() > before + 200).await;

    let (careful_told, hasty_told) = (careful_writers.end().await, hasty_writers.end().await);
    let read = readers.end().await;
    let lost = missing(&link, &careful, partitions, &careful_told.accepted).await;
    let lost_unconfirmed = missing(&link, &hasty, partitions, &hasty_told.accepted).await;
    println!(
        "replaced after {:.1} s; confirmed by a replica: {} acknowledged, {lost} lost, {} not answered; \
         not confirmed: {} acknowledged, {lost_unconfirmed} lost, {} not answered",
        took.as_secs_f64(),
        careful_told.accepted.len(),
        careful_told.unanswered,
        hasty_told.accepted.len(),
        hasty_told.unanswered
    );
    assert_eq!(lost, 0, "a confirmed upload survives");
    assert!(lost_unconfirmed > 0, "the replica was stopped: what was not confirmed meanwhile is gone");
    // Who reads only what is confirmed never has to go back, and misses nothing of what was acknowledged.
    assert_eq!((read.moved_back, read.gaps), (0, Vec::new()));
    let unread = careful_told.accepted.iter().filter(|task| read.tasks.get(&task.to_string()) != Some(&1)).count();
    assert_eq!(unread, 0, "each acknowledged submission is read once");
}

/// A master that has a partition under both prefixes.
async fn shared_master(cluster: &RedisCluster, one: &Keys, other: &Keys, partitions: PartitionCount) -> usize {
    let mut masters = Vec::new();
    for keys in [one, other] {
        let mut of_keys = Vec::new();
        for partition in partitions.iter() {
            of_keys.push(cluster.owner(&keys.journal(partition)).await);
        }
        masters.push(of_keys);
    }
    *masters[0].iter().find(|master| masters[1].contains(master)).expect("eight partitions reach every master")
}

async fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "nothing is accepted any more");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
