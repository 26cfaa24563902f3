//! Asks the tables. Nobody waits long for them: a connection is had soon or not at all, a statement ends by itself, and a
//! server that has frozen in mid-answer is not waited for.

use std::time::Duration;

use axum::http::StatusCode;
use sqlx::mysql::MySqlDatabaseError;

use crate::problem::Problem;

/// For one question, a little longer than the server's own limit for a statement.
const PATIENCE: Duration = Duration::from_secs(7);
/// "The statement took too long": MySQL's number and MariaDB's.
const TOO_SLOW: [u16; 2] = [3024, 1969];

/// The answer to `question`, or the problem that there is none.
///
/// # Errors
/// 503: the tables cannot be read now, or not in the time there is.
pub(crate) async fn ask<T>(question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Problem> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(sqlx::Error::Database(error))) if took_too_long(&*error) => {
            tracing::warn!(%error, "a question to the tables was given up");
            let detail = "this takes longer than a request may; narrow it by time, status or task type";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-slow", "Too slow", detail).retry_after(5))
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            tracing::warn!("the tables do not answer");
            Err(Problem::unavailable("the database"))
        }
    }
}

fn took_too_long(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<MySqlDatabaseError>().is_some_and(|error| TOO_SLOW.contains(&error.number()))
}
