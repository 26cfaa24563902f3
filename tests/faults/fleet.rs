//! The roles of one installation, as processes that die, are stopped and are started again.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::program::{Settings, free_addr, http, program};

pub(crate) const API: &str = "api";
pub(crate) const ANALYZER: &str = "analyzer";
pub(crate) const PROJECTOR: &str = "projector";

/// How long a role that is told to stop may take.
pub(crate) const STOP: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(60);
/// How a role says that it ends because a server it needs does not answer.
const NO_SERVER: [&str; 3] = ["could not start", "does not answer", "is not available"];

/// One process of a role.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    ready: String,
    log: PathBuf,
}

pub(crate) struct Fleet {
    settings: Settings,
    /// How api, analyzers and projectors reach Redis.
    pub(crate) redis_urls: [String; 3],
    folder: PathBuf,
    pub(crate) api_addr: String,
    pub(crate) roles: Vec<Role>,
    /// What went otherwise than it should.
    pub(crate) complaints: Vec<String>,
}

impl Fleet {
    pub(crate) fn new(settings: Settings, folder: PathBuf) -> Self {
        Self {
            settings,
            redis_urls: Default::default(),
            folder,
            api_addr: free_addr(),
            roles: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// The settings of a role, or of a command that stands in its place.
    pub(crate) fn settings_of(&self, name: &str) -> Settings {
        let link = [API, ANALYZER, PROJECTOR].iter().position(|role| *role == name).expect("a role");
        let mut settings = self.settings.clone();
        settings.push(("REDIS_URL", self.redis_urls[link].clone()));
        settings
    }

    /// Starts roles, all at once, and waits until they are ready.
    pub(crate) async fn start(&mut self, names: &[&'static str]) {
        let from = self.roles.len();
        for name in names {
            self.spawn(name, None);
        }
        for at in from..self.roles.len() {
            self.wait_until_ready(at).await;
        }
    }

    /// Starts a role that dies at a step (see `schema/src/fail.rs`).
    pub(crate) async fn start_doomed(&mut self, name: &'static str, plan: &str) {
        self.spawn(name, Some(plan));
        self.wait_until_ready(self.roles.len() - 1).await;
    }

    /// Starts a role beside the doomed one, which stays the last of the list.
    pub(crate) async fn start_before_doomed(&mut self, name: &'static str) {
        self.spawn(name, None);
        let at = self.roles.len() - 1;
        self.wait_until_ready(at).await;
        self.roles.swap(at - 1, at);
    }

    fn spawn(&mut self, name: &'static str, plan: Option<&str>) {
        let metrics = free_addr();
        let log = self.folder.join(format!("{name}-{}.log", metrics.rsplit(':').next().expect("a port")));
        let file = File::create(&log).unwrap();
        let mut command = program(&self.settings_of(name));
        command.arg(name).args(["--metrics-addr", &metrics, "--log-format", "json"]);
        if name == API {
            command.args(["--http-addr", &self.api_addr]);
        }
        if let Some(plan) = plan {
            command.env("INSIGHTFORGE_FAIL_AT", plan);
        }
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        self.roles.push(Role { name, child, ready: format!("http://{metrics}/readyz"), log });
    }

    /// A role that ends meanwhile has reached its step, or cannot work: whoever waits for it will see.
    async fn wait_until_ready(&mut self, at: usize) {
        let (client, role) = (http(), &mut self.roles[at]);
        let deadline = Instant::now() + START;
        while role.child.try_wait().unwrap().is_none() {
            if client.get(&role.ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            if Instant::now() > deadline {
                self.complaints.push(format!("{} was not ready within {START:?}", role.name));
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn first(&self, name: &str) -> usize {
        self.roles.iter().position(|role| role.name == name).unwrap_or_else(|| panic!("no {name} runs"))
    }

    /// Sends a signal to the role that was started first under this name.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        send(self.roles[self.first(name)].child.id().unwrap_or(0), signal);
    }

    /// The process id of the role that was started first under this name.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.roles[self.first(name)].child.id().unwrap_or(0)
    }

    /// Kills the role that was started first under this name.
    pub(crate) async fn kill(&mut self, name: &str) {
        let mut role = self.roles.remove(self.first(name));
        role.child.kill().await.unwrap();
    }

    /// Waits until the role that was started last has died of its plan; `false` when it did not in time.
    pub(crate) async fn died(&mut self, within: Duration) -> bool {
        let role = self.roles.last_mut().expect("one was started");
        let died = tokio::time::timeout(within, role.child.wait()).await.is_ok();
        if died {
            self.roles.pop();
        }
        died
    }

    /// Tells the role that was started first under this name to stop.
    pub(crate) async fn terminate_first(&mut self, name: &str) {
        let mut found = false;
        self.terminate(|role| role.name == name && !std::mem::replace(&mut found, true)).await;
    }

    /// Tells roles to stop, all at once; each must end in time and with success.
    pub(crate) async fn terminate(&mut self, which: impl FnMut(&Role) -> bool) {
        let (mut stopping, stay): (Vec<_>, Vec<_>) = self.roles.drain(..).partition(which);
        self.roles = stay;
        let begin = Instant::now();
        for role in &stopping {
            send(role.child.id().unwrap_or(0), Signal::TERM);
        }
        for role in &mut stopping {
            let left = STOP.saturating_sub(begin.elapsed());
            match tokio::time::timeout(left, role.child.wait()).await {
                Ok(ended) if ended.as_ref().is_ok_and(std::process::ExitStatus::success) => {}
                Ok(ended) => {
                    let text = format!("{} ended with {ended:?}, told to stop{}", role.name, last_words(role));
                    self.complaints.push(text);
                }
                Err(_) => self.complaints.push(format!("{} was still there {STOP:?} after SIGTERM", role.name)),
            }
        }
    }

    /// What a supervisor does: roles that could not start, because a server did not answer in time, are started again. A
    /// role that ended by itself in any other way is a complaint.
    pub(crate) fn supervise(&mut self) {
        let mut gone = Vec::new();
        for mut role in std::mem::take(&mut self.roles) {
            let ended = role.child.try_wait().unwrap().is_some();
            if ended { gone.push(role) } else { self.roles.push(role) }
        }
        for role in gone {
            let words = last_words(&role);
            if NO_SERVER.iter().any(|word| words.contains(word)) {
                self.spawn(role.name, None);
            } else {
                self.complaints.push(format!("{} ended by itself{words}", role.name));
            }
        }
    }
}

fn last_words(role: &Role) -> String {
    let log = std::fs::read_to_string(&role.log).unwrap_or_default();
    log.lines().last().map_or_else(String::new, |line| format!("; its last line: {line}"))
}

/// Sends a signal to a process that this test started.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Who has just ended needs none.
        let _ = kill_process(pid, signal);
    }
}
