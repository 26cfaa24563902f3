//! What a caller does from any machine: these commands speak HTTP to the api and need no server and no secret.
//!
//! - [`submit`] – a text, a document, or a [`file`] of many goes in.
//! - [`result`] – what became of a task.
//! - [`watch`] – events as they happen, from the [`feed`].
//! - [`top`] – lanes, analyzers, failures and lag at a glance, again each second.
//!
//! [`door`] asks, and puts refusals into words; [`plain`] takes out of strangers' texts what a terminal would obey.

pub(crate) mod door;
mod feed;
mod file;
pub(crate) mod plain;
pub(crate) mod result;
pub(crate) mod submit;
pub(crate) mod top;
pub(crate) mod watch;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use door::Failure;

/// What one has waited for has not come yet.
const NOT_YET: u8 = 3;

/// The exit code that a task's status means: 0 it completed, 1 it failed or was cancelled, 3 it has not ended yet.
fn exit_code(status: &str) -> ExitCode {
    match status {
        "completed" => ExitCode::SUCCESS,
        "failed" | "cancelled" => ExitCode::FAILURE,
        _ => ExitCode::from(NOT_YET),
    }
}

/// Looks again and again at something that will change, for so many seconds at most: soon at first, then each second.
async fn look<T>(seconds: u64, mut once: impl AsyncFnMut() -> Result<(T, bool), Failure>) -> Result<T, Failure> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut pause = Duration::from_millis(50);
    loop {
        let (seen, is_over) = once().await?;
        if is_over || Instant::now() + pause > deadline {
            return Ok(seen);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}
