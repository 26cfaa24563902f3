//! What one task is asked for, checked: the fields of an upload, of the model server's door, or of a batch's line.

use std::str::FromStr;

use insightforge_schema::address::AddressPolicy;
use insightforge_schema::event::{BatchLine, Submitted, Webhook};
use insightforge_schema::id::TaskId;
use insightforge_schema::keys::Lane;
use insightforge_schema::registry::STABLE;
use insightforge_schema::seal::Sealer;
use sha2::{Digest, Sha256};

use crate::deadline::Expiry;
use crate::document;
use crate::known::{KnownModel, Seen};
use crate::problem::Fields;
use crate::sent::{Sent, SentFields};

/// The fields of an upload.
pub(crate) const KNOWN: &str = "data, task_type, model_version, task_id, user_id, webhook_url, webhook_secret, \
                                expires_at, expires_in_s";
/// The longest webhook secret, in bytes; sealed it fits its column.
const MAX_SECRET_BYTES: usize = 512;
/// The longest task type or model version; their columns.
const MAX_NAME_CHARS: usize = 64;

/// A webhook secret in clear, on its way from the request to the seal. It has no `Debug`.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// One task, checked.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) task_id: Option<TaskId>,
    pub(crate) task_type: String,
    /// A version, or an alias that the analyzer resolves when the task's turn comes.
    pub(crate) model_version: String,
    /// Where it waits.
    pub(crate) lane: Lane,
    pub(crate) data: String,
    pub(crate) user_id: Option<u64>,
    pub(crate) webhook_url: Option<String>,
    pub(crate) webhook_secret: Option<Secret>,
    /// Until when an attempt may begin.
    pub(crate) expiry: Option<Expiry>,
}

/// How strictly a door looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everything is checked before a task is accepted.
    Upload,
    /// The former model server's: `task_id` and `webhook_url` are required; what is wrong with the input, its type or
    /// its version becomes the failure of the task, which the webhook announces; unknown fields are ignored.
    Analyze,
}

/// What a caller left to be filled in.
#[derive(Clone, Default)]
pub(crate) struct Defaults {
    pub(crate) task_type: Option<String>,
    pub(crate) model_version: Option<String>,
    pub(crate) expiry: Option<Expiry>,
}

impl std::fmt::Debug for Defaults {
    /// A batch's key is kept with this text: what is not given does not stand in it, so that a release with one default
    /// more reads the keys of the one before.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Defaults");
        shown.field("task_type", &self.task_type).field("model_version", &self.model_version);
        if let Some(expiry) = &self.expiry {
            shown.field("expiry", expiry);
        }
        shown.finish()
    }
}

/// What the check needs to know.
pub(crate) struct Rules<'a> {
    pub(crate) door: Door,
    pub(crate) models: &'a Seen,
    pub(crate) addresses: &'a AddressPolicy,
    pub(crate) defaults: &'a Defaults,
}

impl Asked {
    /// Checks every field; all that is wrong is in the error.
    pub(crate) fn check(mut sent: SentFields, rules: &Rules<'_>) -> Result<Self, Fields> {
        let mut faults = Fields::default();
        let data = required(&mut sent, "data", None, &mut faults);
        let task_type = required(&mut sent, "task_type", rules.defaults.task_type.clone(), &mut faults);
        let model_version = model_version(&mut sent, rules.defaults, &mut faults);
        let task_id = task_id(&mut sent, &mut faults);
        let user_id = user_id(&mut sent, &mut faults);
        let webhook_url = text(&mut sent, "webhook_url", &mut faults);
        let webhook_secret = text(&mut sent, "webhook_secret", &mut faults);
        check_webhook(webhook_url.as_deref(), webhook_secret.as_deref(), rules.addresses, &mut faults);
        let expiry = match rules.door {
            Door::Upload => Expiry::take(&mut sent, &mut faults).or(rules.defaults.expiry),
            Door::Analyze => None,
        };
        let route = routed(task_type.as_deref(), model_version.as_deref(), rules, &mut faults);
        match rules.door {
            Door::Upload => {
                if let Some(data) = &data {
                    for fault in document::faults(data, route.flatten().map(|known| &known.input)) {
                        faults.add("data", fault);
                    }
                }
                sent.leftovers(KNOWN, &mut faults);
            }
            Door::Analyze => {
                if task_id.is_none() && !faults.names("task_id") {
                    faults.add("task_id", "is missing");
                }
                if webhook_url.is_none() && !faults.names("webhook_url") {
                    faults.add("webhook_url", "is missing");
                }
                sent.duplicates(&mut faults);
            }
        }
        match (data, task_type, model_version) {
            (Some(data), Some(task_type), Some(model_version)) if faults.is_empty() => Ok(Self {
                task_id,
                lane: route.map_or_else(Lane::unroutable, |_| Lane::new(&task_type, &model_version)),
                task_type,
                model_version,
                data,
                user_id,
                webhook_url,
                webhook_secret: webhook_secret.map(Secret),
                expiry,
            }),
            _ => Err(faults),
        }
    }

    /// What tells this request from another under the same id or key. Hexadecimal: a script joins it with other text.
    pub(crate) fn fingerprint(&self, sealer: &Sealer) -> Vec<u8> {
        let user_id = self.user_id.map(|id| id.to_string());
        let task_id = self.task_id.map(|id| id.to_string());
        // A plain hash of a short secret could be guessed from what is stored.
        let secret = self.webhook_secret.as_ref().map(|secret| hex::encode(sealer.digest(secret.0.as_bytes())));
        let mut hash = Sha256::new();
        for part in [
            Some(self.task_type.as_str()),
            Some(&self.model_version),
            Some(&self.data),
            task_id.as_deref(),
            user_id.as_deref(),
            self.webhook_url.as_deref(),
            secret.as_deref(),
        ] {
            // With its length before it, no part can be taken for another.
            hash.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
            hash.update(part.unwrap_or(""));
        }
        // Only where there is one: the fingerprints of earlier releases stay what they were.
        if let Some(expiry) = self.expiry {
            hash.update(expiry.as_given());
        }
        hex::encode(&hash.finalize()[..16]).into_bytes()
    }

    /// The event's body for `task`, to which the webhook's secret is sealed.
    pub(crate) fn submitted(
        self,
        task: TaskId,
        sealer: &Sealer,
        batch: Option<BatchLine>,
        expires_us: Option<i64>,
    ) -> Submitted {
        let sealed_secret = self.webhook_secret.map(|secret| sealer.seal(secret.0.as_bytes(), task.0.as_bytes()));
        Submitted {
            task_type: self.task_type,
            model_version: self.model_version,
            data: self.data,
            user_id: self.user_id,
            webhook: self.webhook_url.map(|url| Webhook { url, sealed_secret }),
            batch,
            retry_of: None,
            expires_us,
        }
    }
}

/// A text field, when it is there and a text.
fn text(sent: &mut SentFields, name: &str, faults: &mut Fields) -> Option<String> {
    match sent.take(name)? {
        Sent::Text(text) => return Some(text),
        Sent::Broken(why) => faults.add(name, format!("is no text: {why}")),
        Sent::Number(_) => faults.add(name, "must be a string, not a number"),
        Sent::Other(kind) => faults.add(name, format!("must be a string, not {kind}")),
        Sent::Null => {}
    }
    None
}

fn required(sent: &mut SentFields, name: &str, default: Option<String>, faults: &mut Fields) -> Option<String> {
    let found = text(sent, name, faults).or(default);
    if found.is_none() && !faults.names(name) {
        faults.add(name, "is missing");
    }
    found
}

/// What is not said is the stable one. Forms send an empty text for what is not said.
fn model_version(sent: &mut SentFields, defaults: &Defaults, faults: &mut Fields) -> Option<String> {
    let found = text(sent, "model_version", faults).filter(|version| !version.is_empty());
    let found = found.or_else(|| defaults.model_version.clone());
    if faults.names("model_version") { None } else { found.or_else(|| Some(STABLE.to_owned())) }
}

fn task_id(sent: &mut SentFields, faults: &mut Fields) -> Option<TaskId> {
    match read_task_id(&text(sent, "task_id", faults)?) {
        Ok(id) => Some(id),
        Err(what) => {
            faults.add("task_id", what);
            None
        }
    }
}

/// A UUID in its usual form; the nil UUID stands for no task.
pub(crate) fn read_task_id(text: &str) -> Result<TaskId, &'static str> {
    match TaskId::from_str(text) {
        Ok(id) if id.0.is_nil() => Err("must not be the nil UUID"),
        Ok(id) if text.len() == 36 => Ok(id),
        _ => Err("must be a UUID such as 018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b"),
    }
}

fn user_id(sent: &mut SentFields, faults: &mut Fields) -> Option<u64> {
    let digits = match sent.take("user_id")? {
        Sent::Text(text) if text.is_empty() => return None,
        Sent::Text(digits) | Sent::Number(digits) => digits,
        _ => String::new(),
    };
    let id = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if id.is_none() {
        faults.add("user_id", "must be a whole number from 0 to 18446744073709551615");
    }
    id
}

fn check_webhook(url: Option<&str>, secret: Option<&str>, addresses: &AddressPolicy, faults: &mut Fields) {
    if let Some(url) = url
        && let Err(refusal) = addresses.check_url(url)
    {
        faults.add("webhook_url", refusal.to_string());
    }
    match (url, secret) {
        (None, Some(_)) => faults.add("webhook_secret", "needs a webhook_url"),
        (_, Some("")) => faults.add("webhook_secret", "must not be empty"),
        (_, Some(secret)) if secret.len() > MAX_SECRET_BYTES => {
            faults.add("webhook_secret", format!("must have {MAX_SECRET_BYTES} bytes at most"));
        }
        _ => {}
    }
}

/// The model that will answer, as far as it is known here; `None` when nobody can be asked.
fn routed<'a>(
    task_type: Option<&str>,
    model_version: Option<&str>,
    rules: &Rules<'a>,
    faults: &mut Fields,
) -> Option<Option<&'a KnownModel>> {
    for (name, value) in [("task_type", task_type), ("model_version", model_version)] {
        if value.is_some_and(|value| value.chars().count() > MAX_NAME_CHARS || value.chars().any(char::is_control)) {
            faults.add(name, format!("must have {MAX_NAME_CHARS} characters at most and no control characters"));
            return None;
        }
    }
    match rules.models.find(task_type?, model_version?) {
        Ok(known) => Some(known),
        Err((field, what)) => {
            if rules.door == Door::Upload {
                faults.add(field, what);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use insightforge_schema::catalogue::ModelCard;
    use serde_json::json;

    use super::*;

    fn models() -> Seen {
        let cards = ["v1.0", "v2.0"].map(|version| ModelCard {
            task_type: "sentiment_analysis".to_owned(),
            version: version.to_owned(),
            name: "m".to_owned(),
            description: String::new(),
            languages: Vec::new(),
            limits: String::new(),
            input_schema: json!({
                "type": "object",
                "required": ["text"],
                "properties": { "text": { "type": "string", "minLength": 1 } },
            }),
            output_schema: json!({}),
            ..ModelCard::default()
        });
        Seen { models: cards.map(|card| Arc::new(KnownModel::new(card))).to_vec(), routes: Arc::default() }
    }

    fn check(door: Door, json: &serde_json::Value) -> Result<Asked, String> {
        let sent = SentFields::from_json(json.to_string().as_bytes()).ok().unwrap();
        let defaults = match door {
            Door::Upload => Defaults::default(),
            Door::Analyze => Defaults { model_version: Some("v1.0".to_owned()), ..Defaults::default() },
        };
        let rules = Rules { door, models: &models(), addresses: &AddressPolicy::default(), defaults: &defaults };
        Asked::check(sent, &rules).map_err(|faults| faults.summary())
    }

    fn upload(extra: &[(&str, serde_json::Value)]) -> serde_json::Value {
        let mut upload =
            json!({ "data": "{\"text\":\"a\"}", "task_type": "sentiment_analysis", "model_version": "v1.0" });
        for (name, value) in extra {
            upload[*name] = value.clone();
        }
        upload
    }

    #[test]
    fn an_upload_that_is_right_says_where_it_waits() {
        let id = "018F4A3E-9C1D-7B6A-8F00-3C5D2E1F0A9B";
        let asked = check(Door::Upload, &upload(&[("task_id", json!(id)), ("user_id", json!(7))])).ok().unwrap();
        assert_eq!(asked.lane, Lane::new("sentiment_analysis", "v1.0"));
        assert_eq!((asked.task_id, asked.user_id), (Some(id.parse().unwrap()), Some(7)));
        let form = check(Door::Upload, &upload(&[("user_id", json!("7")), ("task_id", json!(null))])).ok().unwrap();
        assert_eq!((form.task_id, form.user_id), (None, Some(7)));
    }

    #[test]
    fn a_version_may_be_left_out_or_be_an_alias() {
        for (version, lane) in [
            (json!(null), "stable"),
            (json!(""), "stable"),
            (json!("stable"), "stable"),
            (json!("latest"), "latest"),
            (json!("v2.0"), "v2.0"),
        ] {
            let asked = check(Door::Upload, &upload(&[("model_version", version)])).ok().unwrap();
            assert_eq!(asked.lane, Lane::new("sentiment_analysis", lane));
            assert_eq!(asked.model_version, lane);
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        let long = "x".repeat(600);
        for (name, value, part) in [
            ("data", json!(null), "data: is missing"),
            ("data", json!({ "text": "a" }), "data: must be a string, not an object"),
            ("data", json!("x"), "data: must be a JSON document in a string"),
            ("data", json!("{}"), "data: /text: is missing"),
            ("task_type", json!("other"), "task_type: \"other\" is not known; known are: sentiment_analysis"),
            ("task_type", json!(5), "task_type: must be a string, not a number"),
            ("task_type", json!(long), "task_type: must have 64 characters at most"),
            ("model_version", json!("v9"), "has no version \"v9\"; known are: v1.0, v2.0, stable, latest"),
            ("model_version", json!("candidate"), "has no candidate version now; known are: v1.0, v2.0"),
            ("model_version", json!(1.0), "model_version: must be a string, not a number"),
            ("task_id", json!("x"), "task_id: must be a UUID"),
            ("task_id", json!("018f4a3e9c1d7b6a8f003c5d2e1f0a9b"), "task_id: must be a UUID"),
            ("task_id", json!("00000000-0000-0000-0000-000000000000"), "task_id: must not be the nil UUID"),
            ("user_id", json!(-1), "user_id: must be a whole number"),
            ("user_id", json!("+1"), "user_id: must be a whole number"),
            ("user_id", json!(1.5), "user_id: must be a whole number"),
            ("user_id", json!(true), "user_id: must be a whole number"),
            ("expires_at", json!("tomorrow"), "expires_at: must be a time such as"),
            ("expires_at", json!(1_764_072_000), "expires_at: must be a time such as"),
            ("expires_in_s", json!(0), "expires_in_s: must be a whole number of seconds from 1 to"),
            ("expires_in_s", json!(1.5), "expires_in_s: must be a whole number of seconds from 1 to"),
            ("expires_in_s", json!(31_536_001), "expires_in_s: must be a whole number of seconds from 1 to"),
            ("webhook_url", json!("http://127.0.0.1/x"), "webhook_url: 127.0.0.1 is "),
            ("webhook_url", json!("no url"), "webhook_url: "),
            ("webhook_secret", json!("s"), "webhook_secret: needs a webhook_url"),
            ("tsk_type", json!("x"), "tsk_type: is not a field of this request"),
        ] {
            let error = check(Door::Upload, &upload(&[(name, value.clone())])).err().unwrap();
            assert!(error.contains(part) && !error.contains("; task"), "{name}={value}: {error}");
        }
        for secret in ["", &long] {
            let url = ("webhook_url", json!("https://example.com/hook"));
            let error = check(Door::Upload, &upload(&[url, ("webhook_secret", json!(secret))])).err().unwrap();
            assert!(error.starts_with("webhook_secret: must "), "{error}");
            assert!(secret.is_empty() || !error.contains(secret), "a secret is never repeated");
        }
        let all = check(Door::Upload, &json!({ "user_id": [] })).err().unwrap();
        assert_eq!(
            all,
            "data: is missing; task_type: is missing; \
             user_id: must be a whole number from 0 to 18446744073709551615"
        );
    }

    #[test]
    fn the_model_servers_door_takes_what_will_fail_and_sends_it_where_it_is_told_so() {
        let id = json!("018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b");
        let call = json!({ "task_id": id, "data": "no json", "task_type": "x", "webhook_url": "https://example.com/", "extra": 1 });
        let asked = check(Door::Analyze, &call).ok().unwrap();
        assert_eq!((asked.lane, asked.model_version.as_str()), (Lane::unroutable(), "v1.0"));
        let error = check(Door::Analyze, &json!({ "data": 1 })).err().unwrap();
        assert_eq!(
            error,
            "data: must be a string, not a number; task_id: is missing; task_type: is missing; webhook_url: is missing"
        );
    }

    #[test]
    fn every_field_counts_for_the_fingerprint_and_no_part_passes_for_another() {
        let sealer = Sealer::new(&[7; 32]);
        let url = ("webhook_url", json!("https://example.com/"));
        let id = json!("018f4a3e-9c1d-7b6a-8f00-3c5d2e1f0a9b");
        let variants = [
            upload(&[]),
            upload(&[("model_version", json!("v2.0"))]),
            upload(&[("data", json!("{\"text\":\"b\"}"))]),
            upload(&[("user_id", json!(1))]),
            upload(&[("task_id", id)]),
            upload(std::slice::from_ref(&url)),
            upload(&[url.clone(), ("webhook_secret", json!("one"))]),
            upload(&[url, ("webhook_secret", json!("two"))]),
            upload(&[("expires_in_s", json!(60))]),
            upload(&[("expires_in_s", json!(61))]),
            upload(&[("expires_at", json!("2026-11-25T12:00:00Z"))]),
        ];
        let print = |json: &serde_json::Value| check(Door::Upload, json).ok().unwrap().fingerprint(&sealer);
        let prints: std::collections::HashSet<_> = variants.iter().map(print).collect();
        assert_eq!(prints.len(), variants.len());
        assert_eq!(print(&variants[0]), print(&variants[0]));
        assert!(prints.iter().flatten().all(u8::is_ascii_hexdigit));
    }
}
