//! The private servers of one run after another: a Redis with an empty folder for each run, and a MariaDB with a fresh
//! database. Each can be killed, stopped and started again on the same port and data.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use insightforge_schema::tables;
use redis::AsyncConnectionConfig;
use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Executor, MySqlPool};
use tokio::process::{Child, Command};

use crate::clock::Clock;
use crate::disk::Room;
use crate::fleet::send;
use crate::program::{Settings, free_addr};
use crate::redis_cluster::RedisCluster;

/// How long a server may take to come up; with all the machine's cores busy, and logs to recover.
const START: Duration = Duration::from_secs(60);

/// A server's process and how to start it again.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) addr: String,
    command: Vec<String>,
    /// Beside this process's own environment.
    variables: Settings,
    log: PathBuf,
    child: Option<Child>,
    /// A disk of its own that can be filled.
    pub(crate) room: Option<Room>,
}

impl Server {
    /// Starts the process; it answers when [`Self::wait_until`] says so.
    pub(crate) fn start(&mut self) {
        let file = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut words = self.command.iter();
        let mut command = match &self.room {
            None => Command::new(words.next().expect("a program")),
            Some(room) => room.enter(),
        };
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(words).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.name)));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(Child::id) {
            send(pid, signal);
        }
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Waits for the end of the process.
    pub(crate) async fn ended(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.wait().await.unwrap();
        }
    }

    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    pub(crate) async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        self.ended().await;
    }

    async fn wait_until(&mut self, mut answers: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + START;
        while !answers().await {
            let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(
                self.child.as_mut().is_some_and(|it| it.try_wait().unwrap().is_none()),
                "{} ended:\n{}",
                self.name,
                log()
            );
            assert!(Instant::now() < deadline, "{} did not answer within {START:?}:\n{}", self.name, log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How Redis keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fsync {
    Always,
    EverySecond,
}

/// One server; or a cluster, before which no proxy stands.
pub(crate) struct Redis {
    pub(crate) server: Server,
    /// When it can be set.
    clock: Option<Clock>,
    client: redis::Client,
    pub(crate) cluster: Option<RedisCluster>,
}

impl Redis {
    /// Three masters with a replica each. The one server is not started.
    pub(crate) async fn start_cluster(folder: &Path) -> Self {
        let cluster = RedisCluster::start(folder, "always").await;
        let addr = format!("127.0.0.1:{}", cluster.nodes[0].port);
        let client = redis::Client::open(format!("redis://{addr}")).unwrap();
        let log = folder.join("redis.log");
        let server =
            Server { name: "redis", addr, command: Vec::new(), variables: Vec::new(), log, child: None, room: None };
        Self { server, clock: None, client, cluster: Some(cluster) }
    }

    /// With the durability InsightForge ships, unless told otherwise; on a disk of its own when there is one.
    pub(crate) async fn start(folder: &Path, fsync: Fsync, room: Option<Room>, clock: Option<Clock>) -> Self {
        let data = room.as_ref().map_or_else(|| folder.join("redis"), |room| room.folder.clone());
        std::fs::create_dir_all(&data).unwrap();
        let addr = free_addr();
        let port = addr.rsplit(':').next().expect("a port");
        let fsync = if fsync == Fsync::Always { "always" } else { "everysec" };
        let data = data.display().to_string();
        let words = [
            "redis-server",
            "--port",
            port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &data,
            "--daemonize",
            "no",
            "--appendonly",
            "yes",
            "--appendfsync",
            fsync,
            "--no-appendfsync-on-rewrite",
            "no",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
            "--stream-node-max-bytes",
            "16384",
            "--stream-node-max-entries",
            "32",
            "--hash-max-listpack-value",
            "1024",
        ];
        let command = words.iter().map(|word| (*word).to_owned()).collect();
        let log = folder.join("redis.log");
        let client = redis::Client::open(format!("redis://{addr}")).unwrap();
        let variables = clock.as_ref().map_or_else(Vec::new, Clock::settings);
        let server = Server { name: "redis", addr, command, variables, log, child: None, room };
        let mut redis = Self { server, clock, client, cluster: None };
        redis.up().await;
        redis
    }

    /// Starts the process and waits until it has its data in memory.
    pub(crate) async fn up(&mut self) {
        self.server.start();
        let client = self.client.clone();
        self.server.wait_until(async || ping(&client).await).await;
    }

    /// What its clock says beside the true time.
    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock.as_ref().expect("it has a clock of its own").set(seconds);
    }

    /// A connection past every proxy.
    async fn connection(&self) -> redis::aio::MultiplexedConnection {
        // Patient: on a busy machine an answer can take its time.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(START)).set_response_timeout(Some(START));
        self.client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    pub(crate) async fn query<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> T {
        self.ask(command).await.unwrap()
    }

    /// # Errors
    /// When no server answers, or none has the key.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, redis::RedisError> {
        match &self.cluster {
            Some(cluster) => cluster.query(command).await,
            None => command.query_async(&mut self.connection().await).await,
        }
    }

    /// The end of a run.
    pub(crate) async fn end(&mut self) {
        self.server.kill().await;
        self.cluster = None;
    }
}

async fn ping(client: &redis::Client) -> bool {
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
    redis::cmd("PING").query_async::<String>(&mut connection).await.is_ok()
}

pub(crate) struct MariaDb {
    pub(crate) server: Server,
    /// As root.
    pub(crate) root: MySqlPool,
}

impl MariaDb {
    /// A new server; setting up its folder takes some seconds.
    pub(crate) async fn start(folder: &Path, room: Option<Room>) -> Self {
        let data = room.as_ref().map_or_else(|| folder.join("mariadb"), |room| room.folder.join("mariadb"));
        let log = folder.join("mariadb.log");
        let (data, user) = (data.display().to_string(), "--user=root".to_owned());
        // Its own: a server that starts removes what it takes for leftovers, and in /tmp those are another's tables.
        let temporary = format!("--tmpdir={}", folder.display());
        let mut install = match &room {
            None => Command::new("mariadb-install-db"),
            Some(room) => {
                let mut command = room.enter();
                command.arg("mariadb-install-db");
                command
            }
        };
        let installed = install
            .args(["--no-defaults", "--force", &user, &format!("--datadir={data}"), &temporary, "--skip-test-db"])
            .args(["--auth-root-authentication-method=normal", "--innodb-log-file-size=16M"])
            .output()
            .await
            .expect("mariadb-install-db is installed");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let addr = free_addr();
        let port = addr.rsplit(':').next().expect("a port");
        let command = [
            "mariadbd",
            "--no-defaults",
            &user,
            &format!("--datadir={data}"),
            &temporary,
            &format!("--port={port}"),
            "--bind-address=127.0.0.1",
            &format!("--socket={}", folder.join("mariadb.sock").display()),
            &format!("--pid-file={}", folder.join("mariadb.pid").display()),
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--max-connections=200",
        ];
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let root = tables::pool(&format!("mysql://root@{addr}"), 4).unwrap();
        let mut mariadb = Self {
            server: Server { name: "mariadb", addr, command, variables: Vec::new(), log, child: None, room },
            root,
        };
        mariadb.up().await;
        mariadb
    }

    /// Starts the process and waits until it answers.
    pub(crate) async fn up(&mut self) {
        self.server.start();
        let root = self.root.clone();
        self.server.wait_until(async || root.execute("SELECT 1").await.is_ok()).await;
    }

    /// A fresh database, and a user who may do everything in it and nothing to the server: its URL.
    pub(crate) async fn database(&self, name: &str, addr: &str) -> String {
        for statement in [
            format!("CREATE DATABASE {name}"),
            "CREATE USER IF NOT EXISTS roles@'%' IDENTIFIED BY 'roles'".to_owned(),
            format!("GRANT ALL ON {name}.* TO roles@'%'"),
        ] {
            self.say(&statement).await;
        }
        format!("mysql://roles:roles@{addr}/{name}")
    }

    pub(crate) async fn say(&self, statement: &str) {
        self.root.execute(AssertSqlSafe(statement)).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}
