//! What an error means for the call that met it.

use redis::{ErrorKind, RedisError, ServerErrorKind};

pub(super) enum Verdict {
    Again,
    OutOfMemory,
    Refused,
}

/// Whether the connection behind an error is of no further use.
pub(super) fn breaks_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly))
}

/// Whether another server may have the slot by now, without anybody having said which.
pub(super) fn doubts_the_owner(error: &RedisError) -> bool {
    breaks_connection(error)
        || error.code() == Some("UNBLOCKED")
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown | ServerErrorKind::Moved)
        )
}

pub(super) fn judge(error: &RedisError) -> Verdict {
    match error.kind() {
        _ if breaks_connection(error) => Verdict::Again,
        // A password being rotated, a server still loading, a failover or a move of slots under way: all pass.
        ErrorKind::AuthenticationFailed
        | ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        ) => Verdict::Again,
        _ => match error.code() {
            Some("OOM") => Verdict::OutOfMemory,
            Some("MISCONF" | "NOREPLICAS" | "BUSY" | "LOADING") => Verdict::Again,
            // A script's own error text hides the code behind a prefix.
            _ if error.to_string().contains("OOM command not allowed") => Verdict::OutOfMemory,
            _ => Verdict::Refused,
        },
    }
}
