//! One upload at a time under one `Idempotency-Key`. An optimisation, not a promise: two at once would store each line
//! once all the same.

use std::time::Duration;

use axum::http::StatusCode;
use insightforge_schema::link::{Link, LinkError};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::idempotency;
use crate::problem::Problem;

/// An upload that has not been heard of for this long is over.
const LEASE: Duration = Duration::from_secs(30);
const RENEW: Duration = Duration::from_secs(10);

/// Held while the batch is being uploaded; given back when dropped.
pub(crate) struct InFlight(#[expect(dead_code, reason = "its drop ends the lease")] DropGuard);

impl InFlight {
    /// Takes the lease `key`; 409 when another upload has it.
    pub(crate) async fn take(link: &Link, key: String) -> Result<Self, Problem> {
        let token = Uuid::new_v4().to_string();
        let holder: Option<String> = link.query(set(&key, &token).arg("NX").arg("GET")).await?;
        // A call that was repeated by the link finds its own token.
        if holder.is_some_and(|holder| holder != token) {
            let what = "the same batch is being uploaded at this moment";
            let mut problem = Problem::new(StatusCode::CONFLICT, "in-flight", "In flight", what).retry_after(5);
            problem.errors.insert(idempotency::HEADER.to_owned(), vec![what.to_owned()]);
            return Err(problem);
        }
        let over = CancellationToken::new();
        tokio::spawn(keep(link.clone(), key, token, over.clone()));
        Ok(Self(over.drop_guard()))
    }
}

async fn keep(link: Link, key: String, token: String, over: CancellationToken) {
    while over.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
        let renewed: Result<Option<String>, LinkError> = link.query(set(&key, &token).arg("XX")).await;
        if let Err(error) = renewed {
            tracing::debug!(%error, "an upload's lease could not be renewed");
        }
    }
    let _: Result<u64, LinkError> = link.query(redis::cmd("DEL").arg(&key)).await;
}

fn set(key: &str, token: &str) -> redis::Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(token).arg("PX").arg(LEASE.as_millis() as u64);
    command
}
