//! How the answers that are problems appear in the API description.

use utoipa::IntoResponses;

use crate::problem::Problem;

macro_rules! problems {
    ($($(#[doc = $doc:literal])* $name:ident = $status:literal),* $(,)?) => {
        $(
            $(#[doc = $doc])*
            #[derive(IntoResponses)]
            #[response(status = $status, content_type = "application/problem+json")]
            #[expect(dead_code, reason = "described, never made")]
            pub(crate) struct $name(Problem);
        )*
    };
}

problems! {
    /// Something in the request is wrong: every wrong field is named in `errors`
    Invalid = 422,
    /// There is no such thing (any more): `detail` says what
    Absent = 404,
    /// The journal no longer goes back that far
    Trimmed = 410,
    /// The body cannot be read: `detail` says where
    Malformed = 400,
    /// The body came too slowly
    TooSlow = 408,
    /// It is not as the request presumes: `detail` says how
    Conflict = 409,
    /// The body is too large
    TooLarge = 413,
    /// The body is of a kind that is not taken here
    Unsupported = 415,
    /// As many tasks wait as may; `Retry-After` says when to try again
    Backlogged = 429,
    /// A server behind this one does not answer; `Retry-After` says when to try again
    Unavailable = 503,
}
