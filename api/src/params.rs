//! What a request asks for in its query string. Each handler takes its parameters out one by one; what is wrong, given
//! twice or not known is named at the end, all at once.

use std::str::FromStr;

use chrono::{DateTime, NaiveDate, Utc};
use insightforge_schema::id::TaskId;
use uuid::Uuid;

use crate::problem::{Fields, Problem};

/// The longest name that is stored (task types, versions, error codes).
const NAME_BYTES: usize = 64;

/// The parameters of one request that were not taken yet.
pub(crate) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    wrong: Fields,
}

impl Params {
    /// Reads a query string; nothing is wrong with it until it is taken.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let given = url::form_urlencoded::parse(query.unwrap_or("").as_bytes()).into_owned().collect();
        Self { given, known: Vec::new(), wrong: Fields::default() }
    }

    /// The parameter `name`, when it is given and `parse` takes it. An empty value counts as not given: forms send
    /// those.
    pub(crate) fn take<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        self.known.push(name);
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.given).into_iter().partition(|it| it.0 == name);
        self.given = others;
        if mine.len() > 1 {
            self.wrong.add(name, "is given more than once");
            return None;
        }
        let (_, text) = mine.into_iter().next()?;
        if text.is_empty() {
            return None;
        }
        parse(&text).map_err(|what| self.wrong.add(name, what)).ok()
    }

    /// A count of things, `default` when it is not given.
    pub(crate) fn limit(&mut self, name: &'static str, default: u32, most: u32) -> u32 {
        let parsed = self.take(name, whole);
        match parsed {
            Some(count) if (1..=most).contains(&count) => count,
            Some(_) => {
                self.wrong.add(name, format!("must be from 1 to {most}"));
                default
            }
            None => default,
        }
    }

    /// Notes that a parameter is wrong for a reason that only the handler sees.
    pub(crate) fn wrong(&mut self, name: &'static str, what: impl Into<String>) {
        self.wrong.add(name, what);
    }

    /// # Errors
    /// 422 that names everything that was wrong or is not known here.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.given) {
            let known = if self.known.is_empty() { "none".to_owned() } else { self.known.join(", ") };
            self.wrong.add(cut(&name), format!("is not a parameter of this path; known: {known}"));
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(self.wrong)) }
    }
}

/// The id in a path.
///
/// # Errors
/// 422 that names it.
pub(crate) fn task_id(text: &str) -> Result<TaskId, Problem> {
    text.parse().map_err(|_| Problem::invalid(Fields::one("task_id", "must be a UUID")))
}

/// See [`task_id`].
pub(crate) fn batch_id(text: &str) -> Result<Uuid, Problem> {
    text.parse().map_err(|_| Problem::invalid(Fields::one("batch_id", "must be a UUID")))
}

pub(crate) fn uuid(text: &str) -> Result<Uuid, &'static str> {
    text.parse().map_err(|_| "must be a UUID")
}

pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse().map_err(|_| "must be a whole number")
}

pub(crate) fn yes_or_no(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

pub(crate) fn name(text: &str) -> Result<String, &'static str> {
    let fine = text.len() <= NAME_BYTES && !text.chars().any(char::is_control);
    if fine { Ok(text.to_owned()) } else { Err("must be at most 64 bytes without control characters") }
}

/// A time: RFC 3339, or a day, which means its beginning in UTC.
pub(crate) fn time(text: &str) -> Result<DateTime<Utc>, &'static str> {
    // `+` arrives as a space from callers that do not escape it.
    let text = text.replace(' ', "+");
    let day = || text.parse::<NaiveDate>().ok()?.and_hms_opt(0, 0, 0).map(|start| start.and_utc());
    let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc()).or_else(day);
    // What a DATETIME column can hold.
    time.filter(|time| ("1000".."9999").contains(&&*time.format("%Y").to_string()))
        .ok_or("must be a time such as 2026-11-25T08:30:00Z, or a day such as 2026-11-25")
}

/// A name is repeated in the answer, but not at any length.
fn cut(name: &str) -> String {
    name.chars().take(NAME_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(params: Params) -> Vec<(String, String)> {
        let errors = params.finish().unwrap_err().errors;
        errors.into_iter().map(|(name, whats)| (name, whats.join(", "))).collect()
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let mut params = Params::parse(Some("limit=0&from=yesterday&status=a&status=b&stauts=failed&task=1"));
        assert_eq!(params.limit("limit", 50, 200), 50);
        assert_eq!(params.take("from", time), None);
        assert_eq!(params.take("status", name), None);
        assert_eq!(params.take("task", uuid), None);
        let known = "is not a parameter of this path; known: limit, from, status, task";
        assert_eq!(
            wrong(params),
            [
                ("from", "must be a time such as 2026-11-25T08:30:00Z, or a day such as 2026-11-25"),
                ("limit", "must be from 1 to 200"),
                ("status", "is given more than once"),
                ("stauts", known),
                ("task", "must be a UUID"),
            ]
            .map(|(name, what)| (name.to_owned(), what.to_owned()))
        );
    }

    #[test]
    fn what_is_right_is_taken_and_an_empty_value_is_none() {
        let mut params = Params::parse(Some("limit=200&error_code=&name=%E5%A5%BD+x&dead=true"));
        assert_eq!(params.limit("limit", 50, 200), 200);
        assert_eq!(params.take("error_code", name), None);
        assert_eq!(params.take("name", name).as_deref(), Some("好 x"));
        assert_eq!(params.take("dead", yes_or_no), Some(true));
        assert_eq!(params.limit("other", 50, 200), 50);
        assert!(params.finish().is_ok());
        assert!(Params::parse(None).finish().is_ok());
    }

    #[test]
    fn times_are_read_in_the_forms_people_write() {
        let noon = "2026-11-25T12:00:00+00:00";
        for (text, read) in [
            ("2026-11-25T12:00:00Z", Some(noon)),
            ("2026-11-25T14:00:00+02:00", Some(noon)),
            ("2026-11-25T14:00:00 02:00", Some(noon)),
            ("2026-11-25T12:00:00.000000Z", Some(noon)),
            ("2026-11-25", Some("2026-11-25T00:00:00+00:00")),
            ("2026-11-31", None),
            ("0001-01-01", None),
            ("+262000-01-01", None),
            ("12:00", None),
            ("1764072000", None),
        ] {
            assert_eq!(time(text).ok().map(|time| time.to_rfc3339()).as_deref(), read, "{text}");
        }
    }

    #[test]
    fn a_name_of_any_length_is_not_repeated_in_full() {
        let long = "x".repeat(5_000);
        let errors = Params::parse(Some(&format!("{long}=1"))).finish().unwrap_err().errors;
        assert_eq!(errors.keys().next().unwrap().len(), NAME_BYTES);
    }
}
