//! What can happen to a model version, and the bytes it is stored as.
//!
//! An entry of the stream has three fields: `type` (the event's type, in plain text), `w` (which write it came with, see
//! `schema/scripts/register.lua`), and `e`: MessagePack with named fields, `{v, meta, body}`.

use crate::envelope;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The encoding's version, in every stored event. A reader of version N reads every version up to N.
pub const ENCODING: u8 = 1;

/// The types of event this release writes.
pub const EVENT_TYPES: [&str; 10] = [
    "registered",
    "refused",
    "refusal_ended",
    "unloaded",
    "promoted",
    "candidate_set",
    "canary_set",
    "shadow_set",
    "rolled_back",
    "retired",
];

/// One thing that happened, as it stands in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The entry's number, counted from 1 without gaps.
    pub n: u64,
    #[serde(flatten)]
    pub meta: Meta,
    #[serde(flatten)]
    pub change: Change,
}

/// What every event carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// When it happened by the clock of the process that saw it, in microseconds since 1970-01-01 UTC.
    pub at_us: i64,
    /// Who did it: `analyzer/<worker>`, `cli/<user>@<host>`, `api` (its callers have no names).
    pub actor: String,
    /// Why, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened. Past tense; one variant an event type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Change {
    Registered(Registered),
    Refused(Refused),
    RefusalEnded(RefusalEnded),
    Unloaded(Unloaded),
    Promoted(Promoted),
    CandidateSet(CandidateSet),
    CanarySet(CanarySet),
    ShadowSet(ShadowSet),
    RolledBack(RolledBack),
    Retired(Retired),
    /// An entry this release cannot read. A value, so that no reader stops.
    Unknown(Unknown),
}

/// An analyzer serves a version: for the first time, or with another package under the same name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub task_type: String,
    pub version: String,
    /// SHA-256 of the package's manifest, in hex; it names the whole package.
    pub digest: String,
    /// The engine that runs it, such as `linear` or `rten 0.27`.
    pub backend: String,
    /// Such as `cpu`, `cuda:0`, `remote`.
    pub device: String,
    /// Where the package lies; `built-in` when it is part of the program.
    pub folder: String,
    pub worker: String,
}

/// A package was found and cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// As far as its manifest could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub folder: String,
    /// For people: what is wrong with it.
    pub reason: String,
    pub worker: String,
}

/// A refused package is there no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalEnded {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_type: Option<String>,
    pub folder: String,
    pub worker: String,
}

/// An analyzer serves a version no longer, since its package is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unloaded {
    pub task_type: String,
    pub version: String,
    pub digest: String,
    pub worker: String,
}

/// A version became the stable one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    pub task_type: String,
    pub version: String,
    /// The stable version until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// The alias `candidate` was pointed at a version, or at none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateSet {
    pub task_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A share of those who ask for the stable version is answered by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanarySet {
    pub task_type: String,
    pub version: String,
    /// In 1/10000; 0 ends it.
    pub share: u16,
}

/// Versions that are asked as well, beside the answer; none ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowSet {
    pub task_type: String,
    pub versions: Vec<String>,
}

/// The stable version is an earlier one again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    pub task_type: String,
    pub from: String,
    pub to: String,
}

/// A version answers nobody any more, for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    pub task_type: String,
    pub version: String,
}

/// Why an entry could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unknown {
    pub event_type: String,
    pub reason: String,
}

impl Change {
    /// The word in the stream's `type` field.
    #[must_use]
    pub fn event_type(&self) -> &str {
        match self {
            Self::Registered(_) => "registered",
            Self::Refused(_) => "refused",
            Self::RefusalEnded(_) => "refusal_ended",
            Self::Unloaded(_) => "unloaded",
            Self::Promoted(_) => "promoted",
            Self::CandidateSet(_) => "candidate_set",
            Self::CanarySet(_) => "canary_set",
            Self::ShadowSet(_) => "shadow_set",
            Self::RolledBack(_) => "rolled_back",
            Self::Retired(_) => "retired",
            Self::Unknown(unknown) => &unknown.event_type,
        }
    }

    /// The task type it is about, where that is known.
    #[must_use]
    pub fn task_type(&self) -> Option<&str> {
        match self {
            Self::Registered(it) => Some(&it.task_type),
            Self::Refused(it) => it.task_type.as_deref(),
            Self::RefusalEnded(it) => it.task_type.as_deref(),
            Self::Unloaded(it) => Some(&it.task_type),
            Self::Promoted(it) => Some(&it.task_type),
            Self::CandidateSet(it) => Some(&it.task_type),
            Self::CanarySet(it) => Some(&it.task_type),
            Self::ShadowSet(it) => Some(&it.task_type),
            Self::RolledBack(it) => Some(&it.task_type),
            Self::Retired(it) => Some(&it.task_type),
            Self::Unknown(_) => None,
        }
    }
}

/// Encodes what goes into field `e`.
///
/// # Panics
/// On [`Change::Unknown`], which is only ever read.
#[must_use]
pub fn encode(meta: &Meta, change: &Change) -> Vec<u8> {
    match change {
        Change::Registered(body) => envelope::pack(ENCODING, meta, body),
        Change::Refused(body) => envelope::pack(ENCODING, meta, body),
        Change::RefusalEnded(body) => envelope::pack(ENCODING, meta, body),
        Change::Unloaded(body) => envelope::pack(ENCODING, meta, body),
        Change::Promoted(body) => envelope::pack(ENCODING, meta, body),
        Change::CandidateSet(body) => envelope::pack(ENCODING, meta, body),
        Change::CanarySet(body) => envelope::pack(ENCODING, meta, body),
        Change::ShadowSet(body) => envelope::pack(ENCODING, meta, body),
        Change::RolledBack(body) => envelope::pack(ENCODING, meta, body),
        Change::Retired(body) => envelope::pack(ENCODING, meta, body),
        Change::Unknown(unknown) => unreachable!("{} is read, never written", unknown.event_type),
    }
}

/// Decodes field `e` of an entry of type `event_type`. Total: what cannot be read comes back as [`Change::Unknown`].
#[must_use]
pub fn decode(event_type: &str, bytes: &[u8]) -> (Meta, Change) {
    fn unpack<B: DeserializeOwned>(bytes: &[u8], wrap: fn(B) -> Change) -> Result<(Meta, Change), String> {
        let (meta, body) = envelope::unpack(ENCODING, bytes)?;
        Ok((meta, wrap(body)))
    }
    let decoded = match event_type {
        "registered" => unpack(bytes, Change::Registered),
        "refused" => unpack(bytes, Change::Refused),
        "refusal_ended" => unpack(bytes, Change::RefusalEnded),
        "unloaded" => unpack(bytes, Change::Unloaded),
        "promoted" => unpack(bytes, Change::Promoted),
        "candidate_set" => unpack(bytes, Change::CandidateSet),
        "canary_set" => unpack(bytes, Change::CanarySet),
        "shadow_set" => unpack(bytes, Change::ShadowSet),
        "rolled_back" => unpack(bytes, Change::RolledBack),
        "retired" => unpack(bytes, Change::Retired),
        _ => Err("this release knows no such event type".to_owned()),
    };
    decoded.unwrap_or_else(|reason| {
        let meta = Meta { at_us: 0, actor: String::new(), reason: None };
        (meta, Change::Unknown(Unknown { event_type: event_type.to_owned(), reason }))
    })
}
