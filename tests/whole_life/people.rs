//! The commands of people: they know the api's address and nothing else.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::caller::TEXT;
use crate::eventually;
use crate::installation::{Database, Installation};
use crate::process::{Settings, Signal, run, run_badly, run_well};
use crate::program::program;

/// What such a person has: an address.
fn knows(installation: &Installation) -> Settings {
    vec![("INSIGHTFORGE_URL", format!("http://{}", installation.http_addr))]
}

#[tokio::test]
async fn a_text_goes_in_and_its_result_and_history_come_out() {
    let installation = Installation::running(Database::MariaDb).await;
    let person = knows(&installation);

    let said = run_well(&person, &["submit", TEXT, "--model", "v1.0", "--wait", "30"]).await;
    let (task, result) = said.split_once('\n').unwrap();
    assert!(result.starts_with("completed sentiment_analysis v1.0\n"), "{said}");
    assert!(result.contains("\"sentiment\": \"Positive\""), "{said}");
    assert_eq!(run_well(&person, &["result", task]).await, result);

    let history = run_well(&person, &["watch", task]).await;
    let types: Vec<&str> = history.lines().map(|line| line.split_whitespace().nth(3).unwrap()).collect();
    assert_eq!(types, ["submitted", "processing", "completed"], "{history}");

    let id = run_well(&person, &["submit", "--data", r#"{"text":"bad"}"#, "--key", "once"]).await;
    let again = run_well(&person, &["submit", "--data", r#"{"text":"bad"}"#, "--key", "once", "--json"]).await;
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["task_id"], id.trim(), "the same key is the same task");
    let result = run_well(&person, &["result", id.trim(), "--wait", "30", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap()["status"], "completed");

    let complaint = run_badly(&person, &["submit", "x", "--type", "no_such_type"]).await;
    assert!(complaint.contains("422: task_type:"), "{complaint}");
    let complaint = run_badly(&person, &["result", "00000000-0000-0000-0000-000000000001"]).await;
    assert!(complaint.contains("404: there is no task"), "{complaint}");
    let complaint = run_badly(&person, &["submit"]).await;
    assert!(complaint.contains("standard input is empty"), "{complaint}");
    installation.end().await;
}

#[tokio::test]
async fn a_file_goes_in_as_one_batch_whatever_it_is() {
    let installation = Installation::running(Database::MariaDb).await;
    let person = knows(&installation);
    let (csv, lines) = (installation.folder.path().join("texts.csv"), installation.folder.path().join("texts.jsonl"));
    std::fs::write(&csv, "text\n好消息!\nIt broke after a day\n").unwrap();
    std::fs::write(&lines, "{\"text\":\"好消息!\"}\n{\"text\":\n").unwrap();

    let output = run(&person, &["submit", "--file", csv.to_str().unwrap(), "--wait", "30"]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told, "2 accepted, 0 repeated, 0 rejected\n2 completed, 0 failed, 0 cancelled, 0 not ended\n");

    let with_key = ["submit", "--file", lines.to_str().unwrap(), "--key", "lines", "--json", "--wait", "30"];
    let mut accounts = Vec::new();
    for _ in 0..2 {
        let output = run(&person, &with_key).await;
        assert_eq!(output.status.code(), Some(1), "a line was refused");
        accounts.push(serde_json::from_slice::<Value>(&output.stdout).unwrap());
    }
    assert_eq!((&accounts[0]["accepted"], &accounts[0]["rejected"]), (&json!(1), &json!(1)), "{}", accounts[0]);
    assert_eq!(accounts[0]["progress"]["tasks"]["completed"], 1, "{}", accounts[0]);
    assert_eq!(accounts[0]["tasks"], accounts[1]["tasks"], "the same key is the same tasks");
    assert_eq!(installation.count("analysis_tasks").await, 3);

    let complaint = run_badly(&person, &["submit", "--file", "texts"]).await;
    assert!(complaint.contains("--format csv or jsonl"), "{complaint}");
    installation.end().await;
}

#[tokio::test]
async fn nothing_that_a_stranger_wrote_moves_the_terminal() {
    let installation = Installation::running(Database::MariaDb).await;
    let person = knows(&installation);
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}好";
    let data = json!({ "text": hostile, "\u{1b}[2J": "\u{9b}" }).to_string();
    let id = run_well(&person, &["submit", "--data", &data, "--wait", "30", "--json"]).await;
    let id: Value = serde_json::from_str(&id).unwrap();
    let task = id["task_id"].as_str().unwrap();
    for command in [&["watch", task][..], &["watch", task, "--json"], &["result", task], &["result", task, "--json"]] {
        let output = run(&person, command).await;
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(!shown.is_empty() && !shown.chars().any(|c| c != '\n' && c.is_control()), "{command:?}: {shown:?}");
        assert!(!shown.contains('\u{202e}'), "{command:?}: {shown:?}");
    }
    let events = run(&person, &["watch", task, "--json"]).await.stdout;
    let first: Value = serde_json::from_slice(events.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(first["data"]["data"]["text"], hostile, "JSON is the same document");
    installation.end().await;
}

/// A running `watch --json` of everything.
struct Watching {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn begin(person: &Settings, arguments: &[&str]) -> Self {
        let mut command = program(person);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The positions of events up to the `count`-th completed one.
    async fn completed(&mut self, count: usize) -> Vec<Value> {
        let (mut events, mut completed) = (Vec::new(), 0);
        while completed < count {
            let line = tokio::time::timeout(std::time::Duration::from_secs(60), self.lines.next_line()).await;
            let event: Value = serde_json::from_str(&line.unwrap().unwrap().expect("it goes on")).unwrap();
            completed += usize::from(event["type"] == "completed");
            events.push(event);
        }
        events
    }

    async fn end(mut self) -> String {
        self.child.start_kill().unwrap();
        let mut told = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut told).await.unwrap();
        self.child.wait().await.unwrap();
        told
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_a_lost_connection_without_a_gap_or_a_repetition() {
    let mut installation = Installation::running(Database::MariaDb).await;
    let person = knows(&installation);
    let mut watching = Watching::begin(&person, &["watch", "--after", "0", "--json"]);
    installation.caller().upload_many(20, 4).await;
    let mut events = watching.completed(20).await;

    installation.stop("api", Signal::Kill).await;
    installation.start("api").await;
    installation.caller().upload_many(20, 4).await;
    events.extend(watching.completed(20).await);
    let told = watching.end().await;
    assert!(told.contains("trying again until it answers") && told.contains("nothing was missed"), "{told}");

    let mut seen: Vec<&str> = events.iter().map(|event| event["position"].as_str().unwrap()).collect();
    seen.sort_unstable();
    let all = seen.len();
    seen.dedup();
    assert_eq!(all, seen.len(), "no event comes twice");
    let mut expected: Vec<String> = Vec::new();
    let feed = installation.caller().get_json("/api/events?limit=1000").await;
    expected.extend(feed["events"].as_array().unwrap().iter().map(|it| it["position"].as_str().unwrap().to_owned()));
    expected.sort_unstable();
    assert_eq!(seen, expected, "no event is missed");

    // The cursor of any line is a place to go on from.
    let middle = &events[events.len() / 2];
    let mut later = Watching::begin(&person, &["watch", "--after", middle["cursor"].as_str().unwrap(), "--json"]);
    let next = later.completed(1).await;
    assert_ne!(next[0]["position"], middle["position"]);
    later.end().await;
    installation.end().await;
}

#[tokio::test]
async fn the_installation_is_seen_at_a_glance_in_a_pipe_and_on_a_terminal() {
    let installation = Installation::running(Database::MariaDb).await;
    let person = knows(&installation);
    installation.caller().upload_many(5, 1).await;
    eventually("the tasks are over", async || {
        (installation.count("analysis_tasks WHERE status = 'completed'").await == 5).then_some(())
    })
    .await;

    let text = run_well(&person, &["top", "--once"]).await;
    for part in ["InsightForge", "waiting or running", "tables     0 events", "last take", "sentiment_analysis v1.0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let answers: Value = serde_json::from_str(&run_well(&person, &["top", "--json"]).await).unwrap();
    assert!(answers["health"]["components"].is_object() && answers["analyzers"].is_object(), "{answers}");

    // A terminal: util-linux's `script` gives one. The picture comes, and `q` ends it and leaves the terminal as it was.
    let built = std::env::var("INSIGHTFORGE_TEST_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_insightforge").to_owned());
    let mut child = tokio::process::Command::new("script")
        .args(["-qefc", &format!("stty rows 30 cols 100; '{built}' top"), "/dev/null"])
        .envs(person.iter().map(|(name, value)| (name, value)))
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    eventually("the picture is drawn", async || {
        let mut piece = [0; 4096];
        let count = out.read(&mut piece).await.unwrap();
        shown.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&shown);
        (text.contains("Lanes") && text.contains("Analyzers")).then_some(())
    })
    .await;
    child.stdin.take().unwrap().write_all(b"q").await.unwrap();
    out.read_to_end(&mut shown).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    let text = String::from_utf8_lossy(&shown);
    assert!(text.contains("\u{1b}[?1049l"), "it leaves the other screen");
    installation.end().await;
}

#[tokio::test]
async fn a_command_whose_reader_has_gone_ends_without_a_word() {
    let mut child = program(&vec![]);
    let mut child = child.args(["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than a pipe takes: it cannot have written all of it before.
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((String::from_utf8(output.stderr).unwrap().as_str(), output.status.code()), ("", Some(141)));
}

#[tokio::test]
async fn what_has_no_default_stands_together_in_the_help() {
    for role in ["api", "projector"] {
        let help = run_well(&vec![], &[role, "--help"]).await;
        let (_, required) = help.split_once("Required, as a flag or a variable:").unwrap();
        assert!(required.contains("DATABASE_URL"), "{help}");
        assert!(required.contains("INSIGHTFORGE_ENCRYPTION_KEY"), "{help}");
    }
}

#[tokio::test]
async fn shells_learn_to_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run_well(&vec![], &["completions", shell]).await;
        for command in ["submit", "result", "watch", "top", "dead-letters", "rebuild"] {
            assert!(script.contains(command), "{command} for {shell}");
        }
    }
}
