//! What a web page of somebody else must not do in a visitor's name: browsers send requests to this machine, and to the
//! private network, for any page that is open in them, and a form or a plain `fetch` needs nobody's leave.
//!
//! Browsers say where a request comes from (`Sec-Fetch-Site`, `Origin`) and pages cannot change that; programs send neither
//! and are not concerned.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A proxy adds one of these.
const PASSED_ON: [HeaderName; 4] =
    [header::FORWARDED, header::VIA, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-real-ip")];

/// Refuses what changes something and comes from another site. Other names of the same site may upload.
pub(crate) async fn of_this_site(request: Request, next: Next) -> Response {
    if request.method().is_safe() || !is_foreign(request.headers(), &["same-origin", "same-site", "none"]) {
        return next.run(request).await;
    }
    refuse("a page of another site sent this request").into_response()
}

/// Refuses whatever comes from a page that is not this server's own.
pub(crate) async fn of_this_origin(request: Request, next: Next) -> Response {
    if is_foreign(request.headers(), &["same-origin", "none"]) {
        return refuse("a page of another origin sent this request").into_response();
    }
    next.run(request).await
}

/// Refuses whatever does not come from this machine itself: what was passed on by a proxy beside this process, and what
/// names another host, as a page whose name was made to point here does.
pub(crate) async fn of_this_machine(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if PASSED_ON.iter().any(|name| headers.contains_key(name)) || !host(headers).is_none_or(|host| is_loopback(&host)) {
        let detail =
            "this path is for callers on this machine; INSIGHTFORGE_INTERNAL_ADDR serves it to a private network";
        return refuse(detail).into_response();
    }
    next.run(request).await
}

fn refuse(detail: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "foreign", "Not from here", detail)
}

fn is_foreign(headers: &HeaderMap, own: &[&str]) -> bool {
    if let Some(site) = headers.get(SITE) {
        return !own.iter().any(|word| site == word);
    }
    // Browsers that say no more; and all of them, where they were reached without TLS over a network.
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")?.1.parse::<Authority>().ok());
    origin.is_none() || origin != host(headers)
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    headers.get(header::HOST)?.to_str().ok()?.parse().ok()
}

fn is_loopback(host: &Authority) -> bool {
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_believed_and_programs_are_no_visitors() {
        let all = ["same-origin", "same-site", "none"];
        let own = ["same-origin", "none"];
        for (site, origin, host, foreign_to_all, foreign_to_own) in [
            ("", "", "a.example", false, false),
            ("", "", "", false, false),
            ("cross-site", "", "a.example", true, true),
            ("cross-site", "http://a.example", "a.example", true, true),
            ("same-site", "http://b.example", "a.example", false, true),
            ("same-origin", "http://a.example", "b.example", false, false),
            ("none", "", "a.example", false, false),
            ("odd", "", "a.example", true, true),
            ("", "http://a.example", "a.example", false, false),
            ("", "https://A.example:8443", "a.example:8443", false, false),
            ("", "http://localhost:3000", "localhost:8080", true, true),
            ("", "http://evil.example", "127.0.0.1:8080", true, true),
            ("", "null", "a.example", true, true),
            ("", "http://a.example", "", true, true),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(SITE, site), (header::ORIGIN, origin), (header::HOST, host)] {
                if !value.is_empty() {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let found = (is_foreign(&headers, &all), is_foreign(&headers, &own));
            assert_eq!(found, (foreign_to_all, foreign_to_own), "{site} {origin} {host}");
        }
    }

    #[test]
    fn this_machine_has_few_names() {
        for (host, own) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("127.9.9.9:1", true),
            ("[::1]:8080", true),
            ("localhost.evil.example", false),
            ("10.0.0.1:8080", false),
            ("0.0.0.0:8080", false),
        ] {
            assert_eq!(is_loopback(&host.parse().unwrap()), own, "{host}");
        }
    }
}
