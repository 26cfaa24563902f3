//! A name for every request: the caller's `X-Request-Id`, or a new one. It goes into the logs and back to the caller.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A longer one is not a name.
const MOST_BYTES: usize = 128;

/// Names the request for everything that is logged while it is answered.
pub(crate) async fn name(request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).filter(|id| is_name(id)).cloned();
    let id =
        given.unwrap_or_else(|| HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is visible ASCII"));
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or(""));
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, id);
    response
}

/// Visible ASCII: nothing that could break out of a log line.
fn is_name(id: &HeaderValue) -> bool {
    !id.is_empty() && id.len() <= MOST_BYTES && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_stand_in_a_log_line_is_taken_as_a_name() {
        let long = "x".repeat(MOST_BYTES + 1);
        for (id, fine) in [("a-1", true), ("", false), ("a b", false), ("好", false), (&long, false)] {
            assert_eq!(is_name(&HeaderValue::from_bytes(id.as_bytes()).unwrap()), fine, "{id}");
        }
    }
}
