//! The program, run as a process with settings of a test's own.

use std::process::{ExitStatus, Output, Stdio};
use std::sync::Once;
use std::time::Duration;

use reqwest::Client;
use tokio::process::Command;

pub(crate) type Settings = Vec<(&'static str, String)>;

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

pub(crate) fn program(settings: &Settings) -> Command {
    // What cargo has built, unless another build is to be tried.
    let built = env!("CARGO_BIN_EXE_insightforge").to_owned();
    let mut command = Command::new(std::env::var("INSIGHTFORGE_TEST_PROGRAM").unwrap_or(built));
    // The developer's own settings must not decide a test.
    command.env_clear().envs(settings.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// An address that is this test's alone, and so are the two ports behind it.
pub(crate) fn free_addr() -> String {
    format!("127.0.0.1:{}", crate::ports::free_ports())
}

pub(crate) fn http() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap()
}
