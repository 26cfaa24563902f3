//! What `doctor` says of a Redis Cluster: of every master, and of one that has no replica any more.

use serde_json::Value;

use crate::program::{Settings, run};
use crate::redis_cluster::{MASTERS, RedisCluster};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_looks_at_every_master_and_names_the_one_that_differs() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = RedisCluster::start(folder.path(), "always").await;
    // A database without our tables: what is said of it is not looked at here.
    let server = std::env::var("INSIGHTFORGE_TEST_MARIADB_URL").expect("INSIGHTFORGE_TEST_MARIADB_URL names a server");
    let settings: Settings = vec![("REDIS_URL", cluster.url()), ("DATABASE_URL", format!("{server}/mysql"))];
    let well = findings(&settings).await;
    for words in ["all 3 masters of the cluster answer", "a replica follows", "appendfsync always"] {
        assert_eq!(count(&well, words), 1, "{words}: {well:?}");
    }
    assert_eq!(count(&well, "the clock of Redis at 127.0.0.1:"), MASTERS, "{well:?}");

    cluster.nodes[MASTERS].kill();
    let everysec = redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg("everysec").clone();
    let _: String = cluster.nodes[1].say(&everysec).await.unwrap();
    cluster.nodes[0].wait_until_alone().await;
    let weak = findings(&settings).await;
    let at = |node: usize, words: &str| format!("127.0.0.1:{}: {words}", cluster.nodes[node].port);
    for words in [at(0, "no replica follows"), at(1, "appendfsync is everysec"), at(2, "appendfsync always")] {
        assert_eq!(count(&weak, &words), 1, "{words}: {weak:?}");
    }
}

async fn findings(settings: &Settings) -> Vec<String> {
    let output = run(settings, &["doctor", "--json"]).await;
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    findings.iter().map(|finding| finding["what"].as_str().unwrap().to_owned()).collect()
}

fn count(findings: &[String], words: &str) -> usize {
    findings.iter().filter(|finding| finding.contains(words)).count()
}
