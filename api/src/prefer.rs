//! `Prefer: wait=N` (RFC 7240 §4.3): the caller would rather wait for the result.

use std::time::Duration;

use axum::http::HeaderMap;

/// How long the caller would wait, in whole seconds, `limit` at most. What cannot be read is ignored, as the RFC asks.
pub(crate) fn wait(headers: &HeaderMap, limit_s: u64) -> Option<Duration> {
    let texts = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = texts.flat_map(|text| text.split(','));
    let seconds = preferences.filter_map(wait_of).next()?.min(limit_s);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn wait_of(preference: &str) -> Option<u64> {
    // Parameters behind a semicolon change nothing here.
    let (name, value) = preference.split(';').next()?.split_once('=')?;
    name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_wait_is_found_among_other_preferences_and_bounded() {
        for (prefer, seconds) in [
            (&["wait=5"][..], Some(5)),
            (&["respond-async, Wait = \"7\"; x=1"], Some(7)),
            (&["handling=lenient", "wait=3"], Some(3)),
            (&["wait=4, wait=9"], Some(4)),
            (&["wait=100000"], Some(30)),
            (&["wait=0"], None),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&["wait=soon"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in prefer {
                headers.append("prefer", HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(wait(&headers, 30), seconds.map(Duration::from_secs), "{prefer:?}");
        }
    }
}
