//! One look at all sources: what is new, changed, gone or broken.
//!
//! Packages are opened beside: one that hangs (its server never answers, its check never ends) keeps nobody waiting for
//! longer than one look's patience, and is served whenever it comes after all.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::beside::beside;
use super::memory::{Memory, Promise};
use super::opener::Open;
use super::source::{self, Candidate, Mark, Place};
use super::{Change, Store};
use crate::loaded::Loaded;
use crate::manifest::{Backend, Manifest};
use crate::open::OpenError;
use crate::package::Package;

/// How long a refused package rests before it is tried again unchanged: its server or device may have come back. Doubles.
const RETRY: Duration = Duration::from_secs(5);
const RETRY_MOST: Duration = Duration::from_secs(120);
/// A package that is not open after this long is told as refused; it is waited for all the same.
pub(super) const SLOW: Duration = Duration::from_secs(60);
/// Packages that are read or opened at once; one that takes longer than a turn stands in nobody's way.
const AT_ONCE: usize = 4;
const TURN: Duration = Duration::from_secs(10);
/// Between two looks for free memory.
const ROOM: Duration = Duration::from_millis(100);

/// What the last look found.
pub(super) struct Scanner {
    built_in: bool,
    folders: Vec<PathBuf>,
    open: Arc<dyn Open>,
    /// By task type and version: what is served, and the state of its place.
    taken: HashMap<Name, Mark>,
    refused: HashMap<Name, Refusal>,
    /// What is being opened, at most one of a name; the outcome of an older one is not looked at.
    opening: HashMap<Name, Opening>,
    openings: JoinSet<Opened>,
    places: Arc<Semaphore>,
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

struct Opening {
    mark: Mark,
    begun: Instant,
    task: AbortHandle,
}

impl Drop for Opening {
    fn drop(&mut self) {
        // What it waits for is wanted no more.
        self.task.abort();
    }
}

struct Opened {
    name: Name,
    mark: Mark,
    outcome: Result<(Loaded, Promise), OpenError>,
}

impl Scanner {
    pub(super) fn new(built_in: bool, folders: Vec<PathBuf>, open: Arc<dyn Open>) -> Self {
        Self {
            built_in,
            folders,
            open,
            taken: HashMap::new(),
            refused: HashMap::new(),
            opening: HashMap::new(),
            openings: JoinSet::new(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            wanted: Box::new(|_, _| true),
        }
    }

    /// Waits no longer than `patience` for what it began to open, and not at all for what an earlier look began.
    pub(super) async fn step(&mut self, store: &Store, patience: Duration) -> Vec<Change> {
        let (built_in, folders) = (self.built_in, self.folders.clone());
        let looked = tokio::task::spawn_blocking(move || look(built_in, &folders)).await;
        let Ok((mut found, complete)) = looked else { return Vec::new() };
        found.retain(|(task_type, version), _| (self.wanted)(task_type, version));
        let mut changes = Vec::new();
        if complete {
            self.forget_gone(store, &found, &mut changes);
        }
        self.forget_mended(store, &found, &mut changes);
        found.retain(|name, (_, mark)| !self.is_known(name, mark));
        // The program's own come first: the first version of a task type becomes its stable one.
        let own = |(candidate, _): &(Candidate, Mark)| matches!(candidate.place, Place::BuiltIn(_));
        let (own, others): (Found, Found) = found.into_iter().partition(|(_, found)| own(found));
        for (packages, patience) in [(own, SLOW), (others, patience)] {
            let begun = packages.keys().cloned().collect();
            for (name, (candidate, mark)) in packages {
                self.begin(store, name, candidate, mark);
            }
            changes.extend(self.collect(store, begun, patience).await.into_values());
        }
        self.tell_slow(&mut changes);
        changes
    }

    pub(super) fn refused(&self) -> Vec<Name> {
        self.refused.keys().cloned().collect()
    }

    /// Nothing to do: it is served as it stands there, or it is broken as it was, or it is being opened.
    fn is_known(&self, name: &Name, mark: &Mark) -> bool {
        let broken = self.refused.get(name).is_some_and(|old| old.mark == *mark && Instant::now() < old.again);
        let opening = self.opening.get(name).is_some_and(|opening| opening.mark == *mark);
        broken || opening || self.taken.get(name) == Some(mark)
    }

    fn begin(&mut self, store: &Store, name: Name, candidate: Candidate, mark: Mark) {
        let (open, memory, places) = (self.open.clone(), store.memory.clone(), self.places.clone());
        let (known, state) = (name.clone(), mark.clone());
        let task = self.openings.spawn(async move {
            let outcome = opened(open, candidate, mark.clone(), &memory, &places).await;
            Opened { name, mark, outcome }
        });
        self.opening.insert(known, Opening { mark: state, begun: Instant::now(), task });
    }

    /// Takes what is open, until all of `begun` has ended or patience has.
    async fn collect(
        &mut self,
        store: &Store,
        mut begun: BTreeSet<Name>,
        patience: Duration,
    ) -> BTreeMap<Name, Change> {
        let (mut changes, until) = (BTreeMap::new(), tokio::time::Instant::now() + patience);
        loop {
            let next = if begun.is_empty() {
                self.openings.try_join_next()
            } else {
                tokio::time::timeout_at(until, self.openings.join_next()).await.ok().flatten()
            };
            let Opened { name, mark, outcome } = match next {
                Some(Ok(opened)) => opened,
                // It changed or went meanwhile.
                Some(Err(_)) => continue,
                None => return changes,
            };
            if self.opening.get(&name).is_none_or(|opening| opening.mark != mark) {
                continue;
            }
            self.opening.remove(&name);
            begun.remove(&name);
            let change = match outcome {
                Ok((loaded, promise)) => self.take(store, &name, mark.clone(), loaded, promise),
                Err(error) => Err(error),
            };
            let change = change.unwrap_or_else(|error| self.refuse(store, name.clone(), mark, error.to_string()));
            changes.extend(change.map(|change| (name, change)));
        }
    }

    fn take(
        &mut self,
        store: &Store,
        name: &Name,
        mark: Mark,
        loaded: Loaded,
        promise: Promise,
    ) -> Result<Option<Change>, OpenError> {
        let old = store.get(&name.0, &name.1);
        let change = match old {
            // Only touched.
            Some(old) if old.digest() == loaded.package.digest => {
                old.keep(false);
                self.refused.contains_key(name).then(|| withdrawn(name))
            }
            old => {
                let open = Some(self.open.clone());
                let served = super::Served::new(loaded, &store.memory, &store.compute, open, Some(promise))?;
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

    fn refuse(&mut self, store: &Store, name: Name, mark: Mark, reason: String) -> Option<Change> {
        if let Some(running) = store.get(&name.0, &name.1) {
            // It could not come back from what lies there now.
            running.keep(true);
        }
        let old = self.refused.remove(&name).filter(|old| old.reason == reason);
        let rest = old.as_ref().map_or(RETRY, |old| (old.rest * 2).min(RETRY_MOST));
        let (task_type, version) = name.clone();
        self.refused.insert(name, Refusal { mark, reason: reason.clone(), again: Instant::now() + rest, rest });
        old.is_none().then_some(Change::Refused { task_type, version, reason })
    }

    fn forget_gone(&mut self, store: &Store, found: &Found, changes: &mut Vec<Change>) {
        self.opening.retain(|name, _| found.contains_key(name));
        let gone: Vec<Name> = self.taken.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            self.taken.remove(&name);
            if let Some(served) = store.remove(&name.0, &name.1) {
                let digest = served.digest().to_owned();
                changes.push(Change::Unloaded { task_type: name.0, version: name.1, digest });
            }
        }
        let gone: Vec<Name> = self.refused.keys().filter(|name| !found.contains_key(*name)).cloned().collect();
        for name in gone {
            self.refused.remove(&name);
            changes.push(withdrawn(&name));
        }
    }

    /// What is served lies there again as it was taken.
    fn forget_mended(&mut self, store: &Store, found: &Found, changes: &mut Vec<Change>) {
        for (name, (_, mark)) in found {
            if self.taken.get(name) == Some(mark) && self.refused.remove(name).is_some() {
                if let Some(served) = store.get(&name.0, &name.1) {
                    served.keep(false);
                }
                changes.push(withdrawn(name));
            }
        }
    }

    fn tell_slow(&mut self, changes: &mut Vec<Change>) {
        for (name, Opening { mark, begun, .. }) in &self.opening {
            if begun.elapsed() < SLOW || self.refused.get(name).is_some_and(|old| old.mark == *mark) {
                continue;
            }
            let seconds = SLOW.as_secs();
            let reason = format!("it is not open after {seconds} s: a check, its server or memory is still waited for");
            let (task_type, version) = name.clone();
            let refusal = Refusal { mark: mark.clone(), reason: reason.clone(), again: Instant::now(), rest: RETRY };
            self.refused.insert(name.clone(), refusal);
            changes.push(Change::Refused { task_type, version, reason });
        }
    }
}

fn withdrawn((task_type, version): &Name) -> Change {
    Change::Withdrawn { task_type: task_type.clone(), version: version.clone() }
}

/// Reads, verifies and opens a package, and keeps it if nobody wrote there meanwhile.
async fn opened(
    open: Arc<dyn Open>,
    candidate: Candidate,
    mark: Mark,
    memory: &Arc<Memory>,
    places: &Semaphore,
) -> Result<(Loaded, Promise), OpenError> {
    let reading = candidate.clone();
    let read = in_turn(places, beside(move || read(&reading))).await;
    let package = read.ok_or_else(panicked)??;
    let mut promise = room(memory, most_bytes(&package.manifest)).await;
    let open = move || {
        let loaded = open.open(Arc::new(package))?;
        if candidate.mark() != mark {
            return Err(OpenError::Broken("its files changed while it was opened".to_owned()));
        }
        Ok(loaded)
    };
    let mut opened = pin!(in_turn(places, beside(open)));
    let opened = match tokio::time::timeout(SLOW, &mut opened).await {
        Ok(opened) => opened,
        Err(_) => {
            // What hangs keeps no memory from others.
            promise.give_up();
            opened.await
        }
    };
    Ok((opened.ok_or_else(panicked)??, promise))
}

fn panicked() -> OpenError {
    OpenError::Broken("the backend panicked while it opened the package".to_owned())
}

fn read(candidate: &Candidate) -> Result<Package, OpenError> {
    let package = candidate.read()?;
    let (is, should) = (
        format!("{}/{}", package.manifest.task_type, package.manifest.version),
        format!("{}/{}", candidate.task_type, candidate.version),
    );
    if is != should {
        return Err(OpenError::Broken(format!("the folder is {should}, but its manifest says {is}")));
    }
    Ok(package)
}

async fn in_turn<T>(places: &Semaphore, work: impl Future<Output = T>) -> T {
    let place = places.acquire().await;
    let mut work = pin!(work);
    match tokio::time::timeout(TURN, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            drop(place);
            work.await
        }
    }
}

/// Waits until so much memory is free for it.
async fn room(memory: &Arc<Memory>, bytes: u64) -> Promise {
    loop {
        match memory.promise(bytes) {
            Some(promise) => return promise,
            None => tokio::time::sleep(ROOM).await,
        }
    }
}

/// What it may need while it is opened; a remote one needs nothing here.
fn most_bytes(manifest: &Manifest) -> u64 {
    match manifest.runtime.backend {
        Backend::Oip | Backend::JsonHttp => 0,
        _ => manifest.runtime.memory_mb.saturating_mul(1 << 20),
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
        if let Entry::Vacant(place) = found.entry(name) {
            let mark = candidate.mark();
            place.insert((candidate, mark));
        }
    }
    (found, complete)
}
