//! The whole life of a task, seen from outside: the real program as processes, on real servers, with callers and
//! receivers that know the wire contract only.
//!
//! - [`life`] – from the upload to the verified webhook, for a task that completes and one that fails.
//! - [`endings`] – roles are told to stop, or killed, under load; two projectors work at once; nothing is lost.
//! - [`inferring`] – questions that are answered at once.
//! - [`looking`] – what people see and order: overview, counts, insight, checks, webhooks again.
//! - [`logs`] – what the roles log, as a collector reads it.
//! - [`people`] – the commands of people who reach the api and nothing else.
//! - [`rebuilding`] – the tables are built again under load, with equal contents, and no webhook goes out.
//! - `traces` – spans at an OpenTelemetry collector (with the feature `otel-tests`).
//! - [`refusals`] – settings that cannot work do not start.
//! - [`versions`] – model versions come, take over and go back under load.
//! - [`up`] – `bin/up`, from the first start to the reset.
//!
//! What they stand on: an [`installation`] of its own for each test, [`process`]es, a [`caller`] and a [`receiver`].
//! Every test ends with [`installation::Installation::end`], which checks that each role stops in time with success, that
//! every log line is JSON, that every metric is well named, and that no secret shows in any of it.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod caller;
mod endings;
mod inferring;
mod installation;
mod life;
mod logs;
mod looking;
#[path = "../shared/package.rs"]
mod package;
mod people;
#[path = "../shared/ports.rs"]
mod ports;
mod process;
#[path = "../shared/program.rs"]
mod program;
mod rebuilding;
mod receiver;
mod refusals;
#[cfg(feature = "otel-tests")]
mod traces;
mod up;
mod versions;

use std::time::{Duration, Instant};

/// Looks until there is something to see, for a minute at most.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
