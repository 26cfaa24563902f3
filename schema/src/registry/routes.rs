//! The fold: what the registry's events make of each task type. Pure and total: no I/O, no clock, no logging.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::event::{Change, Entry};

/// Every task type's routes after the events up to `position`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Routes {
    /// Number of the last event folded in; 0 before the first.
    pub position: u64,
    pub tasks: BTreeMap<String, TaskRoutes>,
    /// Packages that were refused and have not been served since, by folder.
    pub refused: BTreeMap<String, Note>,
    /// The first event that this release could not read. What follows is folded in all the same, so that readers of both
    /// releases go on together as far as they can; but nobody decides on routes that are known in part (see
    /// [`super::decide()`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<NotUnderstood>,
}

/// An event of a newer release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotUnderstood {
    pub n: u64,
    pub event_type: String,
}

/// One task type's routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TaskRoutes {
    /// Every version ever registered, in the order of their first registration.
    pub versions: Vec<RegisteredVersion>,
    pub stable: Option<String>,
    /// The stable versions before this one, the latest last: where a rollback goes.
    pub earlier: Vec<String>,
    pub candidate: Option<String>,
    pub canary: Option<Canary>,
    pub shadows: Vec<String>,
    /// Versions that answer nobody any more.
    pub retired: BTreeSet<String>,
}

/// A version that an analyzer has served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegisteredVersion {
    pub version: String,
    /// Of the package registered last.
    pub digest: String,
    pub backend: String,
    pub device: String,
    /// Every digest registered under this version since it was last unloaded; more than one while analyzers differ.
    pub digests: BTreeSet<String>,
    /// `false` once an analyzer said that the package is gone, until one serves it again.
    pub loaded: bool,
    /// Number of its first `registered` event.
    pub first_n: u64,
    /// When that was, in microseconds since 1970-01-01 UTC.
    pub registered_us: i64,
}

/// A share of the stable version's callers that another version answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Canary {
    pub version: String,
    /// In 1/10000, never 0.
    pub share: u16,
}

/// A refused package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    pub task_type: Option<String>,
    pub version: Option<String>,
    pub reason: String,
    pub worker: String,
    pub at_us: i64,
}

impl Note {
    /// Whether the refused package would have been this version.
    #[must_use]
    pub fn is_of(&self, task_type: &str, version: &str) -> bool {
        self.task_type.as_deref() == Some(task_type) && self.version.as_deref() == Some(version)
    }
}

impl Routes {
    /// Folds one event in. An event at or before `position` is already contained and changes nothing.
    pub fn apply(&mut self, entry: &Entry) {
        if entry.n <= self.position {
            return;
        }
        self.position = entry.n;
        if let Change::Unknown(it) = &entry.change {
            let this = || NotUnderstood { n: entry.n, event_type: it.event_type.clone() };
            self.not_understood.get_or_insert_with(this);
            return;
        }
        if let Change::RefusalEnded(it) = &entry.change {
            self.refused.remove(&it.folder);
            return;
        }
        if let Change::Refused(it) = &entry.change {
            let note = Note {
                task_type: it.task_type.clone(),
                version: it.version.clone(),
                reason: it.reason.clone(),
                worker: it.worker.clone(),
                at_us: entry.meta.at_us,
            };
            self.refused.insert(it.folder.clone(), note);
            return;
        }
        if let Change::Registered(it) = &entry.change {
            self.refused.retain(|folder, note| *folder != it.folder && !note.is_of(&it.task_type, &it.version));
        }
        if let Some(task_type) = entry.change.task_type() {
            self.tasks.entry(task_type.to_owned()).or_default().apply(entry);
        }
    }

    #[must_use]
    pub fn task(&self, task_type: &str) -> Option<&TaskRoutes> {
        self.tasks.get(task_type)
    }
}

impl TaskRoutes {
    fn apply(&mut self, entry: &Entry) {
        match &entry.change {
            Change::Registered(it) => {
                match self.versions.iter_mut().find(|known| known.version == it.version) {
                    Some(known) => {
                        if !known.loaded {
                            known.digests.clear();
                        }
                        known.digests.insert(it.digest.clone());
                        known.loaded = true;
                        known.digest.clone_from(&it.digest);
                        known.backend.clone_from(&it.backend);
                        known.device.clone_from(&it.device);
                    }
                    None => self.versions.push(RegisteredVersion {
                        version: it.version.clone(),
                        digest: it.digest.clone(),
                        backend: it.backend.clone(),
                        device: it.device.clone(),
                        digests: BTreeSet::from([it.digest.clone()]),
                        loaded: true,
                        first_n: entry.n,
                        registered_us: entry.meta.at_us,
                    }),
                }
                // Only the very first: a later version never answers anybody by being there.
                if self.versions.len() == 1 && self.stable.is_none() && !self.retired.contains(&it.version) {
                    self.stable = Some(it.version.clone());
                }
            }
            Change::Unloaded(it) => {
                if let Some(known) = self.versions.iter_mut().find(|known| known.version == it.version) {
                    known.loaded = false;
                }
            }
            Change::Promoted(it) => {
                let before = self.stable.replace(it.version.clone());
                self.earlier.extend(before.filter(|before| *before != it.version));
                // `candidate` stays where it is: tasks that ask for it wait, and more come until every door has read this.
                if self.canary.as_ref().is_some_and(|canary| canary.version == it.version) {
                    self.canary = None;
                }
                self.shadows.retain(|shadow| *shadow != it.version);
            }
            Change::CandidateSet(it) => self.candidate.clone_from(&it.version),
            Change::CanarySet(it) => {
                self.canary =
                    (it.share > 0).then(|| Canary { version: it.version.clone(), share: it.share.min(super::WHOLE) });
            }
            Change::ShadowSet(it) => self.shadows.clone_from(&it.versions),
            Change::RolledBack(it) => {
                if let Some(at) = self.earlier.iter().rposition(|earlier| *earlier == it.to) {
                    self.earlier.truncate(at);
                }
                self.stable = Some(it.to.clone());
                if self.canary.as_ref().is_some_and(|canary| canary.version == it.to) {
                    self.canary = None;
                }
                self.shadows.retain(|shadow| *shadow != it.to);
            }
            Change::Retired(it) => self.retire(&it.version),
            Change::Refused(_) | Change::RefusalEnded(_) | Change::Unknown(_) => {}
        }
    }

    fn retire(&mut self, version: &str) {
        self.retired.insert(version.to_owned());
        self.earlier.retain(|earlier| earlier != version);
        self.shadows.retain(|shadow| shadow != version);
        for alias in [&mut self.stable, &mut self.candidate] {
            if alias.as_deref() == Some(version) {
                *alias = None;
            }
        }
        if self.canary.as_ref().is_some_and(|canary| canary.version == version) {
            self.canary = None;
        }
    }

    #[must_use]
    pub fn version(&self, version: &str) -> Option<&RegisteredVersion> {
        self.versions.iter().find(|known| known.version == version)
    }

    /// The version registered last that is not retired: of those whose package is there, as long as there is any.
    #[must_use]
    pub fn latest(&self) -> Option<&str> {
        let live = || self.versions.iter().rev().filter(|known| !self.retired.contains(&known.version));
        let known = live().find(|known| known.loaded).or_else(|| live().next());
        known.map(|known| known.version.as_str())
    }
}
