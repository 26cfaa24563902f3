//! One look at all sources: what is new, changed, gone or broken.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::opener::Open;
use super::source::{self, Candidate, Mark};
use super::{Change, Store};
use crate::loaded::Loaded;
use crate::open::OpenError;

/// How long a refused package rests before it is tried again unchanged: its server or device may have come back. Doubles.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(120);

/// What the last look found.
pub(super) struct Scanner {
    built_in: bool,
    folders: Vec<PathBuf>,
    open: Arc<dyn Open>,
    /// By task type and version: what is served, and the state of its place.
    taken: HashMap<Name, Mark>,
    refused: HashMap<Name, Refusal>,
    pub(super) wanted: Box<Wanted>,
}

/// Whether a task type's version is to be served.
type Wanted = dyn Fn(&str, &str) -> bool + Send + Sync;

/// Task type and version.
type Name = (String, String);

struct Refusal {
    mark: Mark,
    reason: String,
    again: Instant,
    rest: Duration,
}

impl Scanner {
    pub(super) fn new(built_in: bool, folders: Vec<PathBuf>, open: Arc<dyn Open>) -> Self {
        Self { built_in, folders, open, taken: HashMap::new(), refused: HashMap::new(), wanted: Box::new(|_, _| true) }
    }

    pub(super) async fn step(&mut self, store: &Store) -> Vec<Change> {
        let (built_in, folders) = (self.built_in, self.folders.clone());
        let looked = tokio::task::spawn_blocking(move || look(built_in, &folders)).await;
        let Ok((mut found, complete)) = looked else { return Vec::new() };
        found.retain(|(task_type, version), _| (self.wanted)(task_type, version));
        let mut changes = Vec::new();
        if complete {
            self.forget_gone(store, &found, &mut changes);
        }
        for (name, (candidate, mark)) in found {
            if self.is_known(&name, &mark) {
                continue;
            }
            let change = match self.open(candidate, mark.clone()).await {
                Ok(loaded) => self.take(store, &name, mark.clone(), loaded),
                Err(error) => Err(error),
            };
            match change {
                Ok(change) => changes.extend(change),
                Err(error) => changes.extend(self.refuse(name, mark, &error)),
            }
        }
        changes
    }

    pub(super) fn refused(&self) -> Vec<Name> {
        self.refused.keys().cloned().collect()
    }

    /// Nothing to do: it is served as it stands there, or it is broken as it was.
    fn is_known(&self, name: &Name, mark: &Mark) -> bool {
        let broken = self.refused.get(name).is_some_and(|old| old.mark == *mark && Instant::now() < old.again);
        broken || self.taken.get(name) == Some(mark)
    }

    async fn open(&self, candidate: Candidate, mark: Mark) -> Result<Loaded, OpenError> {
        let open = self.open.clone();
        tokio::task::spawn_blocking(move || {
            let package = candidate.read()?;
            let manifest = &package.manifest;
            if (manifest.task_type.as_str(), manifest.version.as_str()) != (&*candidate.task_type, &*candidate.version)
            {
                let is = format!("{}/{}", manifest.task_type, manifest.version);
                let should = format!("{}/{}", candidate.task_type, candidate.version);
                return Err(OpenError::Broken(format!("the folder is {should}, but its manifest says {is}")));
            }
            let loaded = open.open(Arc::new(package))?;
            if candidate.mark() != mark {
                return Err(OpenError::Broken("its files changed while it was opened".to_owned()));
            }
            Ok(loaded)
        })
        .await
        .unwrap_or_else(|_| Err(OpenError::Broken("the backend panicked while it opened the package".to_owned())))
    }

    fn take(&mut self, store: &Store, name: &Name, mark: Mark, loaded: Loaded) -> Result<Option<Change>, OpenError> {
        let old = store.get(&name.0, &name.1);
        let change = match old {
            // Only touched.
            Some(old) if old.digest() == loaded.package.digest => None,
            old => {
                let served = super::Served::new(loaded, &store.memory, &store.compute, Some(self.open.clone()))?;
                store.put(&served);
                Some(match old {
                    Some(old) => Change::Reloaded { served, from: old.digest().to_owned() },
                    None => Change::Loaded(served),
                })
            }
        };
        self.refused.remove(name);
        self.taken.insert(name.clone(), mark);
        Ok(change)
    }

    fn refuse(&mut self, name: Name, mark: Mark, error: &OpenError) -> Option<Change> {
        let reason = error.to_string();
        let old = self.refused.remove(&name).filter(|old| old.reason == reason);
        let rest = old.as_ref().map_or(RETRY, |old| (old.rest * 2).min(RETRY_MOST));
        let (task_type, version) = name.clone();
        self.refused.insert(name, Refusal { mark, reason: reason.clone(), again: Instant::now() + rest, rest });
        old.is_none().then_some(Change::Refused { task_type, version, reason })
    }

    fn forget_gone(&mut self, store: &Store, found: &Found, changes: &mut Vec<Change>) {
        self.refused.retain(|name, _| found.contains_key(name));
        let gone: Vec<Name> = self.taken.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            self.taken.remove(&name);
            if let Some(served) = store.remove(&name.0, &name.1) {
                let digest = served.digest().to_owned();
                changes.push(Change::Unloaded { task_type: name.0, version: name.1, digest });
            }
        }
    }
}

type Found = BTreeMap<Name, (Candidate, Mark)>;

/// Everything that may be a package; of two with one name the first counts. False when a source could not be read: what
/// is missing then may still be there.
fn look(built_in: bool, folders: &[PathBuf]) -> (Found, bool) {
    let mut found = Found::new();
    let mut complete = true;
    let mut all = if built_in { source::built_in() } else { Vec::new() };
    for root in folders {
        match source::folder(root) {
            Ok(candidates) => all.extend(candidates),
            Err(error) => {
                tracing::warn!(folder = %root.display(), %error, "a folder of models cannot be read; what came from it stays");
                complete = false;
            }
        }
    }
    for candidate in all {
        let name = (candidate.task_type.clone(), candidate.version.clone());
        if let std::collections::btree_map::Entry::Vacant(place) = found.entry(name) {
            let mark = candidate.mark();
            place.insert((candidate, mark));
        }
    }
    (found, complete)
}
