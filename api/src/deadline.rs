//! A task's deadline as callers give it: a time, or seconds from its arrival.

use chrono::DateTime;

use crate::problem::Fields;
use crate::sent::{Sent, SentFields};

/// The longest time that can be given in seconds: a year.
const MOST_S: u32 = 31_536_000;

/// Until when an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Microseconds since 1970-01-01 UTC.
    At(i64),
    /// Seconds from the upload's arrival.
    In(u32),
}

impl Expiry {
    /// Takes `expires_at` and `expires_in_s` out of what was sent. An empty text is what forms send for nothing.
    pub(crate) fn take(sent: &mut SentFields, faults: &mut Fields) -> Option<Self> {
        let mut found = None;
        for name in ["expires_at", "expires_in_s"] {
            let text = match sent.take(name) {
                None | Some(Sent::Null) => continue,
                Some(Sent::Text(text)) if text.is_empty() => continue,
                Some(Sent::Text(text)) => text,
                Some(Sent::Number(digits)) if name == "expires_in_s" => digits,
                Some(_) => String::new(),
            };
            match Self::parse(name, &text) {
                Ok(_) if found.is_some() => faults.add(name, "cannot stand beside expires_at"),
                Ok(expiry) => found = Some(expiry),
                Err(what) => faults.add(name, what),
            }
        }
        found
    }

    /// Reads the value of `expires_at` or `expires_in_s`.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, String> {
        if name == "expires_at" {
            let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.timestamp_micros());
            let time = time.filter(|us| (0..=LAST_US).contains(us)).map(Self::At);
            return time.ok_or_else(|| "must be a time such as 2026-11-25T08:30:00Z".to_owned());
        }
        let seconds = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let seconds = seconds.filter(|seconds| (1..=MOST_S).contains(seconds)).map(Self::In);
        seconds.ok_or_else(|| format!("must be a whole number of seconds from 1 to {MOST_S}"))
    }

    /// The deadline of a task that arrived at `now_us`.
    pub(crate) fn deadline_us(self, now_us: i64) -> i64 {
        match self {
            Self::At(us) => us,
            Self::In(seconds) => now_us + i64::from(seconds) * 1_000_000,
        }
    }

    /// What tells it from another one in the same request.
    pub(crate) fn as_given(self) -> String {
        match self {
            Self::At(us) => format!("at {us}"),
            Self::In(seconds) => format!("in {seconds}"),
        }
    }
}

/// The end of the year 9999: what people and tables can write.
const LAST_US: i64 = 253_402_300_799_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(json: &str) -> Result<Option<Expiry>, String> {
        let mut sent = SentFields::from_json(json.as_bytes()).ok().unwrap();
        let mut faults = Fields::default();
        let expiry = Expiry::take(&mut sent, &mut faults);
        if faults.is_empty() { Ok(expiry) } else { Err(faults.summary()) }
    }

    #[test]
    fn a_deadline_is_a_time_or_seconds_from_now_and_not_both() {
        for (json, expected) in [
            ("{}", None),
            (r#"{"expires_at":null,"expires_in_s":""}"#, None),
            (r#"{"expires_at":"1970-01-01T00:00:01Z"}"#, Some(Expiry::At(1_000_000))),
            (r#"{"expires_at":"1970-01-01T01:00:01.5+01:00"}"#, Some(Expiry::At(1_500_000))),
            (r#"{"expires_in_s":60}"#, Some(Expiry::In(60))),
            (r#"{"expires_in_s":"60"}"#, Some(Expiry::In(60))),
        ] {
            assert_eq!(taken(json), Ok(expected), "{json}");
        }
        for json in [
            r#"{"expires_at":"soon"}"#,
            r#"{"expires_at":"2026-11-25"}"#,
            r#"{"expires_at":"1969-12-31T23:59:59Z"}"#,
            r#"{"expires_at":"+12026-11-25T00:00:00Z"}"#,
            r#"{"expires_at":5}"#,
            r#"{"expires_at":{}}"#,
        ] {
            assert_eq!(
                taken(json),
                Err("expires_at: must be a time such as 2026-11-25T08:30:00Z".to_owned()),
                "{json}"
            );
        }
        for json in [
            r#"{"expires_in_s":0}"#,
            r#"{"expires_in_s":-1}"#,
            r#"{"expires_in_s":"+1"}"#,
            r#"{"expires_in_s":1e3}"#,
            r#"{"expires_in_s":99999999999999999999}"#,
            r#"{"expires_in_s":true}"#,
        ] {
            let what = "expires_in_s: must be a whole number of seconds from 1 to 31536000";
            assert_eq!(taken(json), Err(what.to_owned()), "{json}");
        }
        let both = taken(r#"{"expires_at":"2026-11-25T08:30:00Z","expires_in_s":5}"#);
        assert_eq!(both, Err("expires_in_s: cannot stand beside expires_at".to_owned()));
        assert_eq!((Expiry::In(2).deadline_us(5), Expiry::At(7).deadline_us(5)), (2_000_005, 7));
    }
}
