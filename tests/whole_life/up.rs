//! `bin/up`, on servers it starts itself: from the first start to the reset.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::caller::{Caller, http};
use crate::eventually;
use crate::process::{free_addr, terminate};
use crate::receiver::Receiver;

/// All of it ends within this time.
const END: Duration = Duration::from_secs(15);

#[tokio::test]
async fn up_serves_what_it_prints_keeps_its_data_and_ends_all_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::listen().await;
    let mut command = Up::command(folder.path());
    command.env("INSIGHTFORGE_WEBHOOK_URL", &receiver.url);
    let up = Up::ready(command).await;
    let accepted: Value = serde_json::from_str(&up.run_line("upload").await).unwrap();
    let task = accepted["task_id"].as_str().unwrap();
    let caller = Caller::new(up.url.trim_start_matches("http://"));
    assert_eq!(caller.wait_for_end(task).await["status"], "completed");
    let history = up.run_line_for("its history", task).await;
    assert!(["submitted", "processing", "completed"].iter().all(|event| history.contains(event)), "{history}");
    eventually("the row is there", async || up.run_line("its row").await.contains(task).then_some(())).await;

    let secret = std::fs::read_to_string(folder.path().join("secrets/webhook_secret")).unwrap();
    receiver.of_task(task).await[0].verify_with_every_library(&secret).await;

    let second = Up::command(folder.path()).output().await.unwrap();
    assert_refused(&second, "already running");
    let reset = Up::command(folder.path()).arg("--reset").output().await.unwrap();
    assert_refused(&reset, "already running");
    for secret in ["encryption_key", "webhook_secret", "database_password"] {
        assert_only_its_owner_reads(&folder.path().join("secrets").join(secret));
    }
    up.end_well().await;

    let up = Up::start(folder.path()).await;
    assert!(up.run_line("its row").await.contains(task), "the data did not stay");
    up.end_well().await;
    assert!(Up::command(folder.path()).arg("--reset").status().await.unwrap().success());
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    // Models were put there by the user, who may have them nowhere else.
    assert_eq!(left, ["lock", "models"]);
}

#[tokio::test]
async fn when_a_role_dies_up_says_which_and_ends_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(folder.path()).await;
    let role = up.children().into_iter().find(|(_, command)| command.contains(" projector ")).unwrap();
    let kill = Command::new("kill").args(["-KILL", &role.0.to_string()]).status().await.unwrap();
    assert!(kill.success());
    let children = up.children();
    let status = tokio::time::timeout(END, up.child.wait()).await;
    let complaint = up.complaint();
    let status = status.unwrap_or_else(|_| panic!("not ended within {END:?}: {complaint}")).unwrap();
    assert_eq!(status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("projector has ended") && complaint.contains("projector.log"), "{complaint}");
    assert_gone(&children);
}

#[tokio::test]
async fn a_port_in_use_is_refused_when_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (option, value) in
        [("--redis-port", port.clone()), ("--mariadb-port", port.clone()), ("--http-addr", format!("127.0.0.1:{port}"))]
    {
        let output = Up::command(folder.path()).args([option, &value]).output().await.unwrap();
        assert_refused(&output, option);
    }
}

/// A running `bin/up`.
struct Up {
    child: Child,
    url: String,
    /// What it printed behind `ready`, by its label.
    lines: Vec<String>,
    errors: NamedTempFile,
}

impl Up {
    fn command(data: &Path) -> Command {
        let mut command = Command::new(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bin/up"));
        command.args(["--binary", env!("CARGO_BIN_EXE_insightforge"), "--data-dir"]).arg(data);
        // The developer's own settings must not decide a test.
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", std::env::var("HOME").unwrap());
        // Of two tests at once each would find the same first free port.
        let [redis, mariadb, metrics] = [free_port(), free_port(), free_port()];
        command.args(["--http-addr", &free_addr(), "--redis-port", &redis, "--mariadb-port", &mariadb]);
        command.args(["--metrics-port", &metrics]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn start(data: &Path) -> Self {
        Self::ready(Self::command(data)).await
    }

    async fn ready(mut command: Command) -> Self {
        let errors = NamedTempFile::new().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(errors.reopen().unwrap()).spawn().unwrap();
        let mut printed = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let mut lines = Vec::new();
        let read = async {
            while let Some(line) = printed.next_line().await.unwrap() {
                let last = line.starts_with("end ");
                lines.push(line);
                if last {
                    break;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), read).await.expect("bin/up is ready within two minutes");
        let Some(url) = lines.iter().find_map(|line| line.strip_prefix("ready ")) else {
            let complaint = std::fs::read_to_string(errors.path()).unwrap();
            panic!("bin/up did not get ready: {lines:?}\n{complaint}");
        };
        Self { url: url.to_owned(), child, lines, errors }
    }

    fn complaint(&self) -> String {
        std::fs::read_to_string(self.errors.path()).unwrap()
    }

    async fn run_line(&self, label: &str) -> String {
        self.run_line_for(label, "").await
    }

    /// Runs what is printed behind `label`, as a person would paste it.
    async fn run_line_for(&self, label: &str, task: &str) -> String {
        let line =
            self.lines.iter().find_map(|line| line.strip_prefix(label)).unwrap_or_else(|| panic!("{:?}", self.lines));
        let output = Command::new("sh").args(["-c", &line.replace("TASK_ID", task)]).output().await.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Process ids and command lines of what it started.
    fn children(&self) -> Vec<(u32, String)> {
        let pid = self.child.id().expect("it runs");
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let command = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\0', " ");
        children.split_whitespace().map(|pid| pid.parse().unwrap()).map(|pid| (pid, text(command(pid)))).collect()
    }

    async fn end_well(mut self) {
        let (children, begin) = (self.children(), Instant::now());
        assert_eq!(children.len(), 5, "two servers and three roles: {children:?}");
        terminate(self.child.id().expect("it runs")).await;
        let ended = tokio::time::timeout(END, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("not ended within {END:?}: {}", self.complaint())).unwrap();
        assert!(ended.success(), "{ended} after {:?}: {}", begin.elapsed(), self.complaint());
        assert!(http().get(&self.url).send().await.is_err(), "somebody still answers");
        assert_gone(&children);
    }
}

fn free_port() -> String {
    free_addr().rsplit(':').next().unwrap().to_owned()
}

fn assert_gone(processes: &[(u32, String)]) {
    for (pid, command) in processes {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "still there: {pid} {command}");
    }
}

fn assert_refused(output: &Output, why: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && complaint.contains(why), "{}: {complaint}", output.status);
}

fn assert_only_its_owner_reads(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
}
