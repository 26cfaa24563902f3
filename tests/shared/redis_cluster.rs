//! A Redis Cluster of a test's own: three masters with a replica each, as processes on free ports, with their data in a
//! folder. It ends with its owner.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisError, Value};

/// Masters; each has one replica.
pub(crate) const MASTERS: usize = 3;
/// A master that is silent for so long is replaced by its replica.
pub(crate) const NODE_TIMEOUT_MS: u64 = 1_500;
/// What a cluster may take to come up or to sort itself out, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The other server of a pair of master and replica.
pub(crate) fn partner(node: usize) -> usize {
    (node + MASTERS) % (2 * MASTERS)
}

/// One of its servers.
pub(crate) struct Node {
    pub(crate) port: u16,
    bus: u16,
    folder: PathBuf,
    fsync: &'static str,
    child: Option<Child>,
}

pub(crate) struct RedisCluster {
    /// First those that begin as masters, in the order of their slots; then the replica of each.
    pub(crate) nodes: Vec<Node>,
}

impl RedisCluster {
    /// Starts it with its data below `folder`, and waits until every slot is served and every replica follows its master.
    pub(crate) async fn start(folder: &Path, fsync: &'static str) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..2 * MASTERS {
            let folder = folder.join(format!("node-{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            let port = crate::ports::free_ports();
            let mut node = Node { port, bus: port + 1, folder, fsync, child: None };
            node.start();
            nodes.push(node);
        }
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            wait_for("a node answers", async || node.say::<String>(&redis::cmd("PING")).await.is_ok()).await;
        }
        cluster.meet().await;
        cluster
    }

    async fn meet(&self) {
        let step = 16_384 / MASTERS;
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = number + 1;
            node.tell(redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(epoch)).await;
            if number < MASTERS {
                let last = if number + 1 == MASTERS { 16_383 } else { (number + 1) * step - 1 };
                node.tell(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(number * step).arg(last)).await;
            }
        }
        for node in &self.nodes[1..] {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port).arg(node.bus);
            self.nodes[0].tell(&meet).await;
        }
        let ids: Vec<String> = futures_util::future::join_all(self.nodes.iter().map(Node::id)).await;
        for (number, node) in self.nodes.iter().enumerate() {
            let known = async || node.text("NODES").await.matches(" connected").count() == self.nodes.len();
            wait_for("all know each other", known).await;
            if number >= MASTERS {
                let master = &ids[number - MASTERS];
                let follows =
                    async || node.say::<String>(redis::cmd("CLUSTER").arg("REPLICATE").arg(master)).await.is_ok();
                wait_for("a replica takes its master", follows).await;
            }
        }
        self.wait_until_whole().await;
    }

    /// Returns when every node that runs sees every slot served, and every replica among them follows its master.
    pub(crate) async fn wait_until_whole(&self) {
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            wait_for("the cluster is whole", async || {
                let info: String = node.say(redis::cmd("INFO").arg("replication")).await.unwrap_or_default();
                node.text("INFO").await.contains("cluster_state:ok")
                    && (info.contains("role:master") || info.contains("master_link_status:up"))
            })
            .await;
        }
    }

    pub(crate) fn url(&self) -> String {
        let nodes: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// The index of the master that has a key.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (index, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.child.is_some()) {
                let info: String = node.say(redis::cmd("INFO").arg("replication")).await.unwrap_or_default();
                if info.contains("role:master") && node.say::<Value>(redis::cmd("TYPE").arg(key)).await.is_ok() {
                    return index;
                }
            }
            assert!(Instant::now() < deadline, "nobody has {key}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks each server in turn until one does not send elsewhere.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut last = None;
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            match node.say(command).await {
                Ok(value) => return Ok(value),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("some node runs"))
    }

    /// Lets a master go on without its replica, until that goes on too.
    pub(crate) async fn hold_replication(&self, master: usize) {
        self.nodes[partner(master)].signal("STOP");
        // What the master has sent already would still arrive.
        let cut: Result<i64, _> =
            self.nodes[master].say(redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica")).await;
        assert_eq!(cut.unwrap(), 1, "one replica follows");
    }

    /// Moves a slot to another master while it is used, key by key, as `redis-cli --cluster reshard` does.
    pub(crate) async fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let (from_id, to_id) = (from.id().await, to.id().await);
        let set = |what: &str, id: &str| {
            let mut set = redis::cmd("CLUSTER");
            set.arg("SETSLOT").arg(slot).arg(what).arg(id);
            set
        };
        to.tell(&set("IMPORTING", &from_id)).await;
        from.tell(&set("MIGRATING", &to_id)).await;
        loop {
            let keys: Vec<String> =
                from.say(redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(50)).await.unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(to.port).arg("").arg(0).arg(5_000).arg("KEYS").arg(keys);
            from.tell(&migrate).await;
        }
        for node in [to, from] {
            node.tell(&set("NODE", &to_id)).await;
        }
    }
}

impl Node {
    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("redis.log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
            .args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"])
            .args(["--cluster-port", &self.bus.to_string(), "--cluster-announce-ip", "127.0.0.1"])
            .args(["--cluster-node-timeout", &NODE_TIMEOUT_MS.to_string()])
            // However long a replica has not heard of its master, it may take its place.
            .args(["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"])
            .args(["--appendonly", "yes", "--appendfsync", self.fsync, "--maxmemory-policy", "noeviction"])
            .args(["--stream-node-max-bytes", "16384", "--hash-max-listpack-value", "1024", "--dir"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }

    /// After [`RedisCluster::hold_replication`].
    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits until it answers, with its data in memory.
    pub(crate) async fn wait_until_up(&self) {
        wait_for("a node answers", async || self.say::<String>(&redis::cmd("PING")).await.is_ok()).await;
    }

    /// Waits until no replica follows it any more.
    pub(crate) async fn wait_until_alone(&self) {
        wait_for("a master is alone", async || {
            let info: String = self.say(redis::cmd("INFO").arg("replication")).await.unwrap_or_default();
            info.contains("connected_slaves:0")
        })
        .await;
    }

    /// Waits until it has taken over.
    pub(crate) async fn wait_until_master(&self) {
        wait_for("a replica takes over", async || {
            let info: String = self.say(redis::cmd("INFO").arg("replication")).await.unwrap_or_default();
            info.contains("role:master")
        })
        .await;
    }

    pub(crate) async fn say<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(Duration::from_secs(20)));
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        command.query_async(&mut client.get_multiplexed_async_connection_with_config(&config).await?).await
    }

    async fn tell(&self, command: &Cmd) {
        let _: Value = self.say(command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    async fn text(&self, of_cluster: &str) -> String {
        self.say(redis::cmd("CLUSTER").arg(of_cluster)).await.unwrap_or_default()
    }

    async fn id(&self) -> String {
        self.say(redis::cmd("CLUSTER").arg("MYID")).await.expect("a node that runs knows its id")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
