//! One process of the program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

/// How long a role may take to end.
const STOP: Duration = Duration::from_secs(10);

pub(crate) type Settings = Vec<(&'static str, String)>;

/// A running role. Dropped, it is killed.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) metrics: String,
    child: Child,
    pub(crate) log: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Kill,
}

impl Role {
    /// Starts a role and waits until it says that it is ready.
    pub(crate) async fn start(name: &'static str, folder: &Path, settings: &Settings, arguments: &[&str]) -> Self {
        let metrics = free_addr();
        let log = folder.join(format!("{name}-{}.log", metrics.rsplit(':').next().unwrap()));
        let file = File::create(&log).unwrap();
        let child = program(settings)
            .arg(name)
            .args(["--metrics-addr", &metrics, "--log-format", "json"])
            .args(arguments)
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        let mut role = Self { name, metrics, child, log };
        role.wait_until_ready().await;
        role
    }

    async fn wait_until_ready(&mut self) {
        let (http, url) = (crate::caller::http(), format!("http://{}/readyz", self.metrics));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
            }
            if http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            assert!(Instant::now() < deadline, "{} was not ready within a minute:\n{}", self.name, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics);
        crate::caller::http().get(url).send().await.unwrap().text().await.unwrap()
    }

    /// Sends the signal and waits for the end. A role that is told to stop does so in time and with success.
    pub(crate) async fn stop(mut self, signal: Signal) {
        let begin = Instant::now();
        match signal {
            Signal::Kill => self.child.start_kill().unwrap(),
            Signal::Terminate => terminate(self.child.id().expect("it runs")).await,
        }
        let ended = tokio::time::timeout(STOP, self.child.wait()).await;
        let status =
            ended.unwrap_or_else(|_| panic!("{} was still there {STOP:?} after {signal:?}", self.name)).unwrap();
        if signal == Signal::Terminate {
            let took = begin.elapsed();
            assert!(status.success(), "{} ended with {status} after {took:?}:\n{}", self.name, self.log());
        }
    }
}

pub(crate) async fn terminate(pid: u32) {
    let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.unwrap();
    assert!(status.success());
}

/// Runs a command of the program to its end.
pub(crate) async fn run(settings: &Settings, arguments: &[&str]) -> Output {
    let ended = tokio::time::timeout(Duration::from_secs(120), program(settings).args(arguments).output()).await;
    ended.unwrap_or_else(|_| panic!("{arguments:?} did not end within two minutes")).unwrap()
}

/// Runs a command that must succeed; what it printed.
pub(crate) async fn run_well(settings: &Settings, arguments: &[&str]) -> String {
    let output = run(settings, arguments).await;
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{arguments:?} ended with {}:\n{out}{err}", output.status);
    out
}

/// Runs a command that must fail by itself; what it complained about.
pub(crate) async fn run_badly(settings: &Settings, arguments: &[&str]) -> String {
    let output = run(settings, arguments).await;
    let (out, err) = texts(&output);
    assert!(failed(output.status), "{arguments:?} ended with {}:\n{out}{err}", output.status);
    err
}

fn failed(status: ExitStatus) -> bool {
    matches!(status.code(), Some(code) if code != 0)
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the program prints UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

fn program(settings: &Settings) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_insightforge"));
    // The developer's own settings must not decide a test.
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// An address that nobody listens on, and the two ports behind it are free too. Below the kernel's range for outgoing
/// connections, one of which could take the port before whoever asked does.
pub(crate) fn free_addr() -> String {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = rand::random_range(20_000..32_000);
        if (port..port + 3).all(free) {
            return format!("127.0.0.1:{port}");
        }
    }
}
