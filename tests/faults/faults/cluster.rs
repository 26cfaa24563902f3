//! What happens to a Redis Cluster.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Strike;
use crate::redis_cluster::{MASTERS, RedisCluster, partner};
use crate::site::Site;

/// `kill -9` of one master: its replica takes over, and later it comes back as the replica of that. Uploads to its
/// partitions are confirmed by nobody meanwhile. A replica that lags has received nothing for a while when its master dies:
/// what only the master had is gone.
pub(super) async fn fail_over(site: &mut Site<'_>, lagging: bool) -> Strike {
    let partition = u16::try_from(site.dice.below(site.partitions.get().into())).expect("it fits");
    let key = site.keys.journal(insightforge_schema::id::Partition(partition));
    let (lag, away) = (site.dice.millis(300, 1_000), site.dice.millis(500, 3_000));
    let cluster = cluster(site);
    let victim = cluster.owner(&key).await;
    let began = Instant::now();
    if lagging {
        cluster.hold_replication(victim).await;
        sleep(lag).await;
    }
    cluster.nodes[victim].kill();
    cluster.nodes[partner(victim)].go_on();
    cluster.nodes[partner(victim)].wait_until_master().await;
    sleep(away).await;
    cluster.nodes[victim].start();
    cluster.nodes[victim].wait_until_up().await;
    cluster.wait_until_whole().await;
    Strike { began, healed: Instant::now() }
}

/// As for an update of the servers: each master hands over to its replica, one after the other.
pub(super) async fn hand_over_each(site: &mut Site<'_>) -> Strike {
    let pauses: Vec<Duration> = (0..MASTERS).map(|_| site.dice.millis(200, 1_500)).collect();
    let cluster = cluster(site);
    let began = Instant::now();
    for (pause, number) in pauses.into_iter().zip(MASTERS..) {
        let handed_over: Result<String, _> = cluster.nodes[number].say(redis::cmd("CLUSTER").arg("FAILOVER")).await;
        handed_over.unwrap();
        cluster.nodes[number].wait_until_master().await;
        cluster.wait_until_whole().await;
        sleep(pause).await;
    }
    Strike { began, healed: Instant::now() }
}

fn cluster<'s>(site: &'s mut Site<'_>) -> &'s mut RedisCluster {
    site.redis.cluster.as_mut().expect("the run has a cluster")
}
