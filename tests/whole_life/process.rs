//! One process of the program.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::program::program;
pub(crate) use crate::program::{Settings, free_addr, http, run, run_badly, run_well};

/// How long a role may take to end.
const STOP: Duration = Duration::from_secs(10);

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
        let (client, url) = (http(), format!("http://{}/readyz", self.metrics));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status} before it was ready:\n{}", self.name, self.log());
            }
            if client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
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
        http().get(url).send().await.unwrap().text().await.unwrap()
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
