//! Reading a body that may be too large, too slow, or break off. What is held of it counts against one budget for the
//! whole process, so that many large bodies at once are refused before memory is short.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::BytesMut;
use http_body_util::BodyExt;
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// All that is held at once of one budget, in KiB.
const BUDGET_KIB: usize = 32 * 1024;
/// A body may take this long, and longer at the slowest rate that is still served.
const PATIENCE: Duration = Duration::from_secs(20);
const SLOWEST_BYTES_PER_S: u64 = 8 * 1024;
/// A sender who hears no answer until it has sent everything is listened to for this long after its body became too
/// large; then the connection is closed.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: u64 = 64 << 20;

/// A whole body, and its share of the budget.
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    pub(crate) share: Share,
}

/// Memory taken from the budget; given back when dropped.
#[derive(Default)]
pub(crate) struct Share(Option<OwnedSemaphorePermit>);

/// What all of a kind together may hold.
#[derive(Clone)]
pub(crate) struct Budget {
    room: Arc<Semaphore>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uploads,
    Questions,
}

/// A body on its way in.
pub(crate) struct Incoming {
    body: Body,
    limit: u64,
    received: u64,
    began: Instant,
}

/// Why a body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the body came too slowly")]
    TooSlow,
    #[error("the body broke off")]
    Broken,
}

/// Reads a body of `limit` bytes at most into memory.
pub(crate) async fn read(budget: &Budget, headers: &HeaderMap, body: Body, limit: usize) -> Result<Held, Problem> {
    let mut incoming = Incoming::new(headers, body, limit as u64).await?;
    let mut share = Share::default();
    let mut bytes = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(chunk) = incoming.next().await? {
        budget.take(&mut share, chunk.len()).inspect_err(|_| {
            if budget.kind == Kind::Uploads {
                counter!("if_uploads_refused_total", "reason" => "bodies").increment(1);
            }
        })?;
        // Most bodies come in one piece, which is then not copied.
        if bytes.is_empty() {
            bytes = chunk;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&bytes);
            }
            more.extend_from_slice(&chunk);
        }
    }
    let bytes = if more.is_empty() { bytes } else { more.freeze() };
    Ok(Held { bytes, share })
}

impl Budget {
    /// For what will be stored.
    pub(crate) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(BUDGET_KIB)), kind: Kind::Uploads }
    }

    /// For what is answered at once and held until then, however long a model takes: it must take nothing from uploads.
    pub(crate) fn for_questions() -> Self {
        Self { kind: Kind::Questions, ..Self::new() }
    }

    /// Adds `bytes` to `share`; refused when there is no room. Never waits: what waits would hold its part meanwhile.
    pub(crate) fn take(&self, share: &mut Share, bytes: usize) -> Result<(), Problem> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(permit) = self.room.clone().try_acquire_many_owned(kib) else {
            let (status, detail) = match self.kind {
                Kind::Uploads => (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too much is being uploaded at once; nothing of this request was stored, try again",
                ),
                Kind::Questions => (StatusCode::TOO_MANY_REQUESTS, "too much is being asked at once; try again"),
            };
            return Err(Problem::new(status, "busy", "Too busy", detail).retry_after(1));
        };
        match &mut share.0 {
            Some(taken) => taken.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

impl Incoming {
    /// Refuses what can be refused by the header alone: a length beyond `limit`, a content encoding.
    pub(crate) async fn new(headers: &HeaderMap, body: Body, limit: u64) -> Result<Self, Problem> {
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let detail = "Content-Encoding: send the body without one";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "Not supported", detail));
        }
        let mut incoming = Self { body, limit, received: 0, began: Instant::now() };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit) {
            // Who asks first (`Expect: 100-continue`) has sent nothing yet and must not be asked to.
            if !headers.contains_key(header::EXPECT) {
                incoming.linger().await;
            }
            return Err(BodyFault::TooLarge(limit).into());
        }
        Ok(incoming)
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, BodyFault> {
        loop {
            let allowed = PATIENCE + Duration::from_millis(self.received * 1_000 / SLOWEST_BYTES_PER_S);
            let frame = tokio::time::timeout_at((self.began + allowed).into(), self.body.frame());
            let frame = match frame.await {
                Err(_) => return Err(BodyFault::TooSlow),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(fault_of(&error)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(chunk) = frame.into_data() else { continue };
            self.received += chunk.len() as u64;
            if self.received > self.limit {
                self.linger().await;
                return Err(BodyFault::TooLarge(self.limit));
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// Reads on without keeping anything: closing a connection with unread bytes would take the answer away from the
    /// peer with it.
    async fn linger(&mut self) {
        let rest = async {
            let mut skipped = 0;
            while let Some(Ok(frame)) = self.body.frame().await {
                skipped += frame.data_ref().map_or(0, |data| data.len() as u64);
                if skipped > LINGER_BYTES {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, rest).await;
    }
}

/// Silence is told apart from a broken connection by the layer that watches for it.
fn fault_of(error: &axum::Error) -> BodyFault {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if error.is::<tower_http::timeout::TimeoutError>() {
            return BodyFault::TooSlow;
        }
        source = error.source();
    }
    BodyFault::Broken
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        let (status, word, title) = match fault {
            BodyFault::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            BodyFault::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too-slow", "The body came too slowly"),
            BodyFault::Broken => (StatusCode::BAD_REQUEST, "broken-body", "The body broke off"),
        };
        Self::new(status, word, title, fault.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_that_wait_take_nothing_from_uploads() {
        let (uploads, questions) = (Budget::new(), Budget::for_questions());
        let mut waiting = Share::default();
        questions.take(&mut waiting, BUDGET_KIB * 1024).map_err(|problem| problem.detail).unwrap();
        let refused = questions.take(&mut Share::default(), 1).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_s), (429, Some(1)));
        let mut held = Share::default();
        assert!(uploads.take(&mut held, BUDGET_KIB * 1024).is_ok());
        assert_eq!(uploads.take(&mut Share::default(), 1).unwrap_err().status, 503);
        drop(waiting);
        assert!(questions.take(&mut Share::default(), 1).is_ok());
    }
}
