//! An installation of its own for each test: keys under a random prefix, a fresh database, users and secrets nobody else
//! has, and the roles that run on them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use insightforge_schema::link::Link;
use insightforge_schema::tables;
use serde_json::Value;
use sqlx::{AssertSqlSafe, MySqlPool, Row};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use url::Url;
use uuid::Uuid;

use crate::caller::Caller;
use crate::eventually;
use crate::process::{Role, Settings, Signal, free_addr, run_badly, run_well};
use crate::receiver::Receiver;

pub(crate) const ROLES: [&str; 3] = ["api", "analyzer", "projector"];

/// The servers every test of a life runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Database {
    MariaDb,
    MySql,
}

impl Database {
    fn url(self) -> Url {
        let variable = match self {
            Self::MariaDb => "INSIGHTFORGE_TEST_MARIADB_URL",
            Self::MySql => "INSIGHTFORGE_TEST_MYSQL_URL",
        };
        url_in(variable)
    }
}

fn url_in(variable: &str) -> Url {
    let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
    url.parse().unwrap_or_else(|error| panic!("{variable}: {error}"))
}

pub(crate) struct Installation {
    name: String,
    redis: Link,
    server: MySqlPool,
    /// Reads the tables.
    pub(crate) pool: MySqlPool,
    pub(crate) settings: Settings,
    pub(crate) webhook_secret: String,
    /// What no output may show.
    pub(crate) secrets: Vec<String>,
    pub(crate) http_addr: String,
    pub(crate) receiver: Receiver,
    pub(crate) folder: TempDir,
    pub(crate) roles: Vec<Role>,
    /// Logs of the roles that have ended, and how they were.
    ended: Vec<(PathBuf, Signal)>,
}

impl Installation {
    /// Migrated, with no role running.
    pub(crate) async fn migrated(database: Database) -> Self {
        let installation = Self::blank(database).await;
        run_well(&installation.settings, &["migrate"]).await;
        installation
    }

    /// Migrated, with every role running.
    pub(crate) async fn running(database: Database) -> Self {
        let mut installation = Self::migrated(database).await;
        for role in ROLES {
            installation.start(role).await;
        }
        installation
    }

    /// Nothing but an empty database and users.
    pub(crate) async fn blank(database: Database) -> Self {
        let name = format!("t{}", &Uuid::new_v4().simple().to_string()[..20]);
        let (redis_password, database_password) = (random_hex(), random_hex());
        let (redis, redis_url) = redis_user(&name, &redis_password).await;
        let (server, database_url) = database_user(database, &name, &database_password).await;
        let encryption_key = random_hex();
        let webhook_secret = format!("whsec_{}", STANDARD.encode(Uuid::new_v4().into_bytes().repeat(2)));
        let receiver = Receiver::listen().await;
        let settings = vec![
            ("REDIS_URL", redis_url),
            ("DATABASE_URL", database_url.clone()),
            ("INSIGHTFORGE_KEY_PREFIX", name.clone()),
            ("INSIGHTFORGE_ENCRYPTION_KEY", encryption_key.clone()),
            ("INSIGHTFORGE_WEBHOOK_URL", receiver.url.clone()),
            ("INSIGHTFORGE_WEBHOOK_SECRET", webhook_secret.clone()),
            ("INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
        ];
        let secrets = vec![
            redis_password,
            database_password,
            encryption_key,
            webhook_secret.trim_start_matches("whsec_").to_owned(),
        ];
        Self {
            redis,
            server,
            pool: tables::pool(&database_url, 2).unwrap(),
            settings,
            webhook_secret,
            secrets,
            http_addr: free_addr(),
            receiver,
            folder: tempfile::tempdir().unwrap(),
            roles: Vec::new(),
            ended: Vec::new(),
            name,
        }
    }

    /// Starts a role; it is ready when this returns.
    pub(crate) async fn start(&mut self, role: &'static str) {
        let mut arguments = Vec::new();
        if role == "api" {
            arguments.extend(["--http-addr", &self.http_addr]);
        }
        let role = Role::start(role, self.folder.path(), &self.settings, &arguments).await;
        self.roles.push(role);
    }

    /// Ends the role that was started first under this name.
    pub(crate) async fn stop(&mut self, name: &str, signal: Signal) {
        let at = self.roles.iter().position(|role| role.name == name).expect("the role runs");
        let role = self.roles.remove(at);
        self.ended.push((role.log.clone(), signal));
        role.stop(signal).await;
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::new(&self.http_addr)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let printed = run_well(&self.settings, arguments).await;
        self.assert_no_secret_in(&format!("{arguments:?}"), &printed);
        printed
    }

    pub(crate) async fn run_badly(&self, arguments: &[&str]) -> String {
        let complaint = run_badly(&self.settings, arguments).await;
        self.assert_no_secret_in(&format!("{arguments:?}"), &complaint);
        complaint
    }

    /// The task's events as `replay --json` prints them.
    pub(crate) async fn replay(&self, task: &str) -> Vec<Value> {
        let printed = self.run(&["replay", "--task", task, "--json"]).await;
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many rows `table` has.
    pub(crate) async fn count(&self, table: &str) -> usize {
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&self.pool)
            .await
            .unwrap();
        count.try_into().unwrap()
    }

    /// Every accepted task has, in the end, one row, one outcome, one result and one history; and at least one webhook.
    pub(crate) async fn every_task_completed_once(&self, tasks: &[Uuid]) {
        eventually("every task is completed in the tables", async || {
            let done = self.count("analysis_tasks WHERE status = 'completed'").await;
            (done >= tasks.len()).then_some(())
        })
        .await;
        eventually("every webhook arrived", async || (self.receiver.counts().len() >= tasks.len()).then_some(())).await;
        let outcomes = "SELECT t.task_id, t.status, \
             (SELECT COUNT(*) FROM analysis_results r WHERE r.analysis_task_id = t.id) results, \
             (SELECT COUNT(*) FROM task_logs l WHERE l.analysis_task_id = t.id AND l.event_type = 'submitted') begun, \
             (SELECT COUNT(*) FROM task_logs l WHERE l.analysis_task_id = t.id \
              AND l.event_type IN ('completed', 'failed', 'cancelled')) ended \
             FROM analysis_tasks t ORDER BY t.task_id";
        let rows = sqlx::query(outcomes).fetch_all(&self.pool).await.unwrap();
        let mut expected: Vec<String> = tasks.iter().map(Uuid::to_string).collect();
        expected.sort_unstable();
        let stored: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(stored, expected);
        for row in rows {
            let outcome = (row.get::<&str, _>(1), row.get::<i64, _>(2), row.get::<i64, _>(3), row.get::<i64, _>(4));
            assert_eq!(outcome, ("completed", 1, 1, 1), "{}", row.get::<&str, _>(0));
        }
        let mut announced: Vec<String> = self.receiver.counts().into_keys().collect();
        announced.sort_unstable();
        assert_eq!(announced, expected);
    }

    /// Stops every role, checks what all of them left behind, and removes the installation.
    pub(crate) async fn end(mut self) {
        for role in &self.roles {
            let metrics = role.metrics().await;
            self.assert_no_secret_in(role.name, &metrics);
            check_metrics(role.name, &metrics).await;
        }
        while let Some(role) = self.roles.pop() {
            self.ended.push((role.log.clone(), Signal::Terminate));
            role.stop(Signal::Terminate).await;
        }
        for (log, signal) in &self.ended {
            self.check_log(log, *signal);
        }
        self.pool.close().await;
        for statement in [format!("DROP DATABASE {}", self.name), format!("DROP USER {}", self.name)] {
            sqlx::query(AssertSqlSafe(statement)).execute(&self.server).await.unwrap();
        }
        self.remove_keys().await;
    }

    fn check_log(&self, log: &Path, signal: Signal) {
        let text = std::fs::read_to_string(log).unwrap();
        self.assert_no_secret_in(&log.display().to_string(), &text);
        if signal == Signal::Terminate {
            assert!(text.contains("SIGTERM"), "{}: a role says that it stops", log.display());
        }
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "service", "target", "message"] {
                assert!(line[field].is_string(), "{field} of {line}");
            }
            let role = log.file_name().and_then(|name| name.to_str()).unwrap().split('-').next().unwrap();
            assert_eq!(line["service"], role, "{line}");
            // A task has one name in every role, and its trace beside it.
            assert!(line["task"].is_null() && line["task_id"].is_null(), "{line}");
            if !line["task.id"].is_null() {
                let trace = line["trace_id"].as_str().unwrap_or_default();
                assert!(trace.len() == 32 && trace.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
            }
        }
    }

    pub(crate) fn assert_no_secret_in(&self, what: &str, text: &str) {
        for secret in &self.secrets {
            assert!(!text.contains(secret), "a secret shows in the output of {what}");
        }
    }

    /// Redis loses what it knows of the installation as a whole.
    pub(crate) async fn lose_config(&self) {
        let config = insightforge_schema::keys::Keys::new(&self.name).config();
        assert_eq!(self.redis.query::<i64>(redis::cmd("DEL").arg(config)).await.unwrap(), 1);
    }

    async fn remove_keys(&self) {
        let keys: Vec<String> = self.redis.query(redis::cmd("KEYS").arg(format!("*{}*", self.name))).await.unwrap();
        for keys in keys.chunks(500) {
            self.redis.query::<i64>(redis::cmd("DEL").arg(keys)).await.unwrap();
        }
        self.redis.query::<i64>(redis::cmd("ACL").arg("DELUSER").arg(&self.name)).await.unwrap();
    }
}

/// A user with a password, so that there is one to leak.
async fn redis_user(name: &str, password: &str) -> (Link, String) {
    let mut url = url_in("INSIGHTFORGE_TEST_REDIS_URL");
    let link = Link::new(url.as_str(), Duration::from_secs(10)).unwrap();
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg(name).arg("on").arg(format!(">{password}")).arg("~*").arg("&*").arg("+@all");
    link.query::<String>(&user).await.unwrap();
    url.set_username(name).unwrap();
    url.set_password(Some(password)).unwrap();
    (link, url.to_string())
}

async fn database_user(database: Database, name: &str, password: &str) -> (MySqlPool, String) {
    let mut url = database.url();
    let server = tables::pool(url.as_str(), 1).unwrap();
    for statement in [
        format!("CREATE DATABASE {name}"),
        format!("CREATE USER {name}@'%' IDENTIFIED BY '{password}'"),
        format!("GRANT ALL ON {name}.* TO {name}@'%'"),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&server).await.unwrap();
    }
    url.set_username(name).unwrap();
    url.set_password(Some(password)).unwrap();
    url.set_path(name);
    (server, url.to_string())
}

/// The checks of Prometheus's own tool: names, units, help, duplicates.
async fn check_metrics(role: &str, metrics: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed");
    tool.stdin.take().unwrap().write_all(metrics.as_bytes()).await.unwrap();
    let output = tool.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool on /metrics of {role}: {said}");
}

fn random_hex() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
