//! From what a caller asked for to one version, with the reason. Pure and total.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::routes::{Routes, TaskRoutes};
use super::{CANDIDATE, LATEST, STABLE, WHOLE};
use crate::id::TaskId;

/// The version that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    pub version: String,
    pub reason: Reason,
}

/// Why a version answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was asked for by name.
    Exact,
    Stable,
    /// The stable version was asked for, and this caller is among the canary's share.
    Canary,
    Candidate,
    Latest,
}

/// Why no version answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("no task type {task_type:?} is known")]
    UnknownTaskType { task_type: String },
    #[error("{task_type} has no model version {version:?}")]
    UnknownVersion { task_type: String, version: String },
    #[error("{task_type} {version} is retired and answers nobody any more")]
    Retired { task_type: String, version: String },
    /// An alias that points at no version now.
    #[error("{task_type} has no {alias} version now")]
    Unset { task_type: String, alias: &'static str },
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Stable => STABLE,
            Self::Canary => "canary",
            Self::Candidate => CANDIDATE,
            Self::Latest => LATEST,
        }
    }
}

impl Unresolved {
    /// A stable word to filter by.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTaskType { .. } => "unknown_task_type",
            Self::UnknownVersion { .. } => "unknown_model_version",
            Self::Retired { .. } => "model_version_retired",
            Self::Unset { .. } => "model_alias_unset",
        }
    }
}

impl Routes {
    /// The version that answers a request for `asked`: an exact version, or `stable` (also written as nothing),
    /// `candidate`, `latest`. `sticky_key` decides who is among a canary's share (see [`bucket`]): the document's or the
    /// upload's user, where there is one, else the task's id.
    ///
    /// # Errors
    /// [`Unresolved`]; another version never takes the place of the one asked for.
    pub fn resolve(&self, task_type: &str, asked: &str, sticky_key: &str) -> Result<Resolved, Unresolved> {
        let task = self
            .task(task_type)
            .filter(|task| !task.versions.is_empty())
            .ok_or_else(|| Unresolved::UnknownTaskType { task_type: task_type.to_owned() })?;
        let alias = |version: Option<&str>, alias, reason| match version {
            Some(version) => Ok(Resolved { version: version.to_owned(), reason }),
            None => Err(Unresolved::Unset { task_type: task_type.to_owned(), alias }),
        };
        match asked {
            "" | STABLE => match (&task.stable, &task.canary) {
                (Some(_), Some(canary)) if bucket(task_type, sticky_key) < canary.share => {
                    alias(Some(&canary.version), STABLE, Reason::Canary)
                }
                (stable, _) => alias(stable.as_deref(), STABLE, Reason::Stable),
            },
            CANDIDATE => alias(task.candidate.as_deref(), CANDIDATE, Reason::Candidate),
            LATEST => alias(task.latest(), LATEST, Reason::Latest),
            version => exact(task, task_type, version),
        }
    }

    /// Every version that a request for `asked` can resolve to now, whoever asks; empty when it resolves to none.
    #[must_use]
    pub fn targets(&self, task_type: &str, asked: &str) -> Vec<&str> {
        let Some(task) = self.task(task_type).filter(|task| !task.versions.is_empty()) else { return Vec::new() };
        match asked {
            "" | STABLE => {
                let canary = task.canary.as_ref().filter(|_| task.stable.is_some()).map(|it| it.version.as_str());
                let stable = task.stable.as_deref();
                // A canary with the whole share leaves nobody to the stable version.
                let stable = stable.filter(|_| task.canary.as_ref().is_none_or(|canary| canary.share < WHOLE));
                stable.into_iter().chain(canary).collect()
            }
            CANDIDATE => task.candidate.as_deref().into_iter().collect(),
            LATEST => task.latest().into_iter().collect(),
            version => match exact(task, task_type, version) {
                Ok(_) => task.version(version).map(|known| known.version.as_str()).into_iter().collect(),
                Err(_) => Vec::new(),
            },
        }
    }
}

fn exact(task: &TaskRoutes, task_type: &str, version: &str) -> Result<Resolved, Unresolved> {
    let (task_type, owned) = (task_type.to_owned(), version.to_owned());
    if task.retired.contains(version) {
        Err(Unresolved::Retired { task_type, version: owned })
    } else if task.version(version).is_none() {
        Err(Unresolved::UnknownVersion { task_type, version: owned })
    } else {
        Ok(Resolved { version: owned, reason: Reason::Exact })
    }
}

/// The key that decides who is among a canary's share: the user of the upload, else the document's own `user_id` (a number
/// or a text), else the task's id. One person is then answered by one version.
#[must_use]
pub fn sticky_key(upload_user: Option<u64>, document: &str, task: TaskId) -> String {
    let upload_user = upload_user.map(|user| user.to_string());
    user_key(upload_user.as_deref(), document).unwrap_or_else(|| task.to_string())
}

/// The key of a person, at whatever door they ask: the user that the request names, else the document's own.
#[must_use]
pub fn user_key(user: Option<&str>, document: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Owned {
        #[serde(default)]
        user_id: Option<User>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum User {
        Number(u64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    // A list would be read as the fields in order.
    let is_object = document.trim_start().starts_with('{');
    let own = || match serde_json::from_str::<Owned>(document).ok()?.user_id? {
        User::Number(user) => Some(format!("user:{user}")),
        User::Text(user) => Some(format!("user:{user}")),
        User::Other(_) => None,
    };
    user.map(|user| format!("user:{user}")).or_else(|| is_object.then(own).flatten())
}

/// Where a key stands among 10000 places, the same in every process and every release: the first eight bytes of SHA-256
/// over `<task type>|<key>` as a big-endian number, modulo 10000. A canary with share `s` has the places below `s`, so a
/// growing share takes keys in and lets none out. The bias of the modulo is below 10⁻¹⁵.
#[must_use]
pub fn bucket(task_type: &str, sticky_key: &str) -> u16 {
    let digest = Sha256::new().chain_update(task_type).chain_update(b"|").chain_update(sticky_key).finalize();
    let mut first = [0_u8; 8];
    first.copy_from_slice(&digest[..8]);
    (u64::from_be_bytes(first) % u64::from(WHOLE)) as u16
}
