//! From a command to events, or why not. Pure: who writes what this says with a compare-and-set on the position of the
//! routes it was decided on (see [`super::stream::Registry::write`]) steps on nobody.

use super::event::{
    CanarySet, CandidateSet, Change, Promoted, RefusalEnded, Refused, Registered, Retired, RolledBack, ShadowSet,
    Unloaded,
};
use super::routes::{Routes, TaskRoutes};
use super::{ALIASES, WHOLE};

/// The most shadows of a task type: each is asked for every answer.
pub const SHADOWS_MAX: usize = 4;

/// What is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An analyzer serves a version.
    Register(Registered),
    /// An analyzer refused a package.
    Refuse(Refused),
    /// A refused package is gone.
    EndRefusal(RefusalEnded),
    /// An analyzer's package is gone.
    Unload(Unloaded),
    /// Make a version the stable one.
    Promote { task_type: String, version: String },
    /// Point `candidate` at a version, or at none.
    Candidate { task_type: String, version: Option<String> },
    /// Give a share of the stable version's callers to a version, in 1/10000; 0 ends it.
    Canary { task_type: String, version: String, share: u16 },
    /// Ask versions as well, beside the answer; none ends it.
    Shadow { task_type: String, versions: Vec<String> },
    /// Take back a step of a roll-out.
    Rollback { task_type: String, undoes: Undoes },
    /// Let a version answer nobody any more, for good.
    Retire { task_type: String, version: String },
}

/// What a rollback takes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undoes {
    /// The canary under way; when none is, the promotion of the stable version. Which that is is fixed before anything is
    /// written (see [`Command::settled`]), else a repetition would take back one step more.
    Newest,
    /// What this version has: its canary, or its place as the stable version. When it has neither, it is so already.
    Version(String),
    /// Its canary.
    Canary(String),
    /// Its place as the stable version.
    Promotion(String),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no task type {task_type:?} is registered; known are: {known}")]
    UnknownTaskType { task_type: String, known: String },
    #[error("{task_type} has no version {version:?}; registered are: {known}")]
    UnknownVersion { task_type: String, version: String, known: String },
    #[error("{task_type} {version} is retired, and that is for good: publish the package under a new version")]
    Retired { task_type: String, version: String },
    #[error("{task_type} {version}: no analyzer serves it now, its package is gone")]
    Gone { task_type: String, version: String },
    #[error("share is {share}: {WHOLE} (everybody) at most")]
    Share { share: u16 },
    #[error("{task_type} has no stable version that a canary could take a share from")]
    NoStable { task_type: String },
    #[error("{task_type} {version} is the stable version: {instead}")]
    IsStable { task_type: String, version: String, instead: &'static str },
    #[error("{task_type}: the canary under way is {running}; end it with share 0, or promote it, before {version}'s")]
    OtherCanary { task_type: String, running: String, version: String },
    #[error("{count} shadows: {SHADOWS_MAX} at most, each is asked for every answer")]
    TooManyShadows { count: usize },
    #[error("{task_type} has no earlier stable version to go back to")]
    NothingEarlier { task_type: String },
    /// See [`super::staffed`].
    #[error(
        "{task_type}: no running analyzer has {targets} at once, so tasks for `{alias}` would wait; start one that has, \
         or say that it is meant so (--force, \"force\": true)"
    )]
    Unstaffed { task_type: String, alias: &'static str, targets: String },
    #[error("event {n} of the registry is of a newer release ({event_type:?}); decide with that release")]
    Newer { n: u64, event_type: String },
}

impl Refusal {
    /// A stable word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownTaskType { .. } => "unknown_task_type",
            Self::UnknownVersion { .. } => "unknown_model_version",
            Self::Retired { .. } => "model_version_retired",
            Self::Gone { .. } => "model_version_gone",
            Self::Share { .. } => "bad_share",
            Self::NoStable { .. } => "no_stable_version",
            Self::IsStable { .. } => "version_is_stable",
            Self::OtherCanary { .. } => "other_canary",
            Self::TooManyShadows { .. } => "too_many_shadows",
            Self::NothingEarlier { .. } => "nothing_earlier",
            Self::Unstaffed { .. } => "nobody_would_answer",
            Self::Newer { .. } => "registry_is_newer",
        }
    }
}

impl Command {
    /// The command with what it means now put into words, so that it means the same when others change things meanwhile.
    #[must_use]
    pub fn settled(self, routes: &Routes) -> Self {
        match self {
            Self::Rollback { task_type, undoes: Undoes::Newest } => {
                let task = routes.task(&task_type);
                let canary = task.and_then(|task| task.canary.as_ref()).map(|it| Undoes::Canary(it.version.clone()));
                let stable = || task.and_then(|task| task.stable.clone()).map(Undoes::Promotion);
                Self::Rollback { undoes: canary.or_else(stable).unwrap_or(Undoes::Newest), task_type }
            }
            other => other,
        }
    }
}

/// What `command` makes happen; nothing when things are so already.
///
/// # Errors
/// [`Refusal`], in words for the operator.
pub fn decide(routes: &Routes, command: &Command) -> Result<Vec<Change>, Refusal> {
    match command {
        // What an analyzer found is so, whatever else there is.
        Command::Register(it) => return Ok(register(routes, it)),
        Command::Refuse(it) => return Ok(refuse(routes, it)),
        Command::EndRefusal(it) => return Ok(end_refusal(routes, it)),
        Command::Unload(it) => return Ok(unload(routes, it)),
        _ => {}
    }
    if let Some(newer) = &routes.not_understood {
        return Err(Refusal::Newer { n: newer.n, event_type: newer.event_type.clone() });
    }
    match command {
        Command::Register(_) | Command::Refuse(_) | Command::EndRefusal(_) | Command::Unload(_) => Ok(Vec::new()),
        Command::Promote { task_type, version } => promote(routes, task_type, version),
        Command::Candidate { task_type, version } => candidate(routes, task_type, version.as_deref()),
        Command::Canary { task_type, version, share } => canary(routes, task_type, version, *share),
        Command::Shadow { task_type, versions } => shadow(routes, task_type, versions),
        Command::Rollback { task_type, undoes } => rollback(routes, task_type, undoes),
        Command::Retire { task_type, version } => retire(routes, task_type, version),
    }
}

/// Many analyzers find the same package: the first one's word is enough.
fn register(routes: &Routes, it: &Registered) -> Vec<Change> {
    let known = routes.task(&it.task_type).and_then(|task| task.version(&it.version));
    let said = known.is_some_and(|known| known.loaded && known.digests.contains(&it.digest));
    // Where it was refused before, that it is served now is news.
    let refused =
        routes.refused.iter().any(|(folder, note)| *folder == it.folder || note.is_of(&it.task_type, &it.version));
    if said && !refused { Vec::new() } else { vec![Change::Registered(it.clone())] }
}

fn refuse(routes: &Routes, it: &Refused) -> Vec<Change> {
    let said = routes.refused.get(&it.folder).is_some_and(|note| note.reason == it.reason);
    if said { Vec::new() } else { vec![Change::Refused(it.clone())] }
}

fn end_refusal(routes: &Routes, it: &RefusalEnded) -> Vec<Change> {
    if routes.refused.contains_key(&it.folder) { vec![Change::RefusalEnded(it.clone())] } else { Vec::new() }
}

fn unload(routes: &Routes, it: &Unloaded) -> Vec<Change> {
    let known = routes.task(&it.task_type).and_then(|task| task.version(&it.version));
    if known.is_some_and(|known| known.loaded) { vec![Change::Unloaded(it.clone())] } else { Vec::new() }
}

fn promote(routes: &Routes, task_type: &str, version: &str) -> Result<Vec<Change>, Refusal> {
    let task = usable(routes, task_type, version)?;
    if task.stable.as_deref() == Some(version) {
        return Ok(Vec::new());
    }
    let from = task.stable.clone();
    Ok(vec![Change::Promoted(Promoted { task_type: task_type.to_owned(), version: version.to_owned(), from })])
}

fn candidate(routes: &Routes, task_type: &str, version: Option<&str>) -> Result<Vec<Change>, Refusal> {
    let task = match version {
        Some(version) => usable(routes, task_type, version)?,
        None => known(routes, task_type)?,
    };
    if task.candidate.as_deref() == version {
        return Ok(Vec::new());
    }
    let version = version.map(str::to_owned);
    Ok(vec![Change::CandidateSet(CandidateSet { task_type: task_type.to_owned(), version })])
}

fn canary(routes: &Routes, task_type: &str, version: &str, share: u16) -> Result<Vec<Change>, Refusal> {
    if share > WHOLE {
        return Err(Refusal::Share { share });
    }
    let task = if share == 0 { known(routes, task_type)? } else { usable(routes, task_type, version)? };
    let running = task.canary.as_ref();
    if let Some(other) = running.filter(|running| running.version != version) {
        let running = other.version.clone();
        return Err(Refusal::OtherCanary { task_type: task_type.to_owned(), running, version: version.to_owned() });
    }
    if running.map_or(0, |running| running.share) == share {
        return Ok(Vec::new());
    }
    match task.stable.as_deref() {
        _ if share == 0 => {}
        None => return Err(Refusal::NoStable { task_type: task_type.to_owned() }),
        Some(stable) if stable == version => {
            return Err(is_stable(task_type, version, "it answers everybody already"));
        }
        Some(_) => {}
    }
    Ok(vec![Change::CanarySet(CanarySet { task_type: task_type.to_owned(), version: version.to_owned(), share })])
}

fn shadow(routes: &Routes, task_type: &str, versions: &[String]) -> Result<Vec<Change>, Refusal> {
    let mut versions = versions.to_vec();
    versions.sort();
    versions.dedup();
    if versions.len() > SHADOWS_MAX {
        return Err(Refusal::TooManyShadows { count: versions.len() });
    }
    let task = known(routes, task_type)?;
    for version in &versions {
        usable(routes, task_type, version)?;
        if task.stable.as_ref() == Some(version) {
            return Err(is_stable(task_type, version, "a shadow is compared with it"));
        }
    }
    if task.shadows == versions {
        return Ok(Vec::new());
    }
    Ok(vec![Change::ShadowSet(ShadowSet { task_type: task_type.to_owned(), versions })])
}

fn rollback(routes: &Routes, task_type: &str, undoes: &Undoes) -> Result<Vec<Change>, Refusal> {
    let task = known(routes, task_type)?;
    let canary = task.canary.as_ref().map(|canary| &canary.version);
    let (of_canary, of_stable) = match undoes {
        Undoes::Newest => (canary, task.stable.as_ref()),
        Undoes::Version(version) => {
            registered(task, task_type, version)?;
            (canary.filter(|it| *it == version), task.stable.as_ref().filter(|it| *it == version))
        }
        Undoes::Canary(version) => (canary.filter(|it| *it == version), None),
        Undoes::Promotion(version) => (None, task.stable.as_ref().filter(|it| *it == version)),
    };
    let owned = task_type.to_owned();
    match (of_canary, of_stable, task.earlier.last()) {
        (Some(version), _, _) => {
            Ok(vec![Change::CanarySet(CanarySet { task_type: owned, version: version.clone(), share: 0 })])
        }
        (None, Some(from), Some(to)) => {
            usable(routes, task_type, to)?;
            Ok(vec![Change::RolledBack(RolledBack { task_type: owned, from: from.clone(), to: to.clone() })])
        }
        (None, None, _) if *undoes != Undoes::Newest => Ok(Vec::new()),
        _ => Err(Refusal::NothingEarlier { task_type: owned }),
    }
}

fn retire(routes: &Routes, task_type: &str, version: &str) -> Result<Vec<Change>, Refusal> {
    let task = known(routes, task_type)?;
    if task.retired.contains(version) {
        return Ok(Vec::new());
    }
    registered(task, task_type, version)?;
    if task.stable.as_deref() == Some(version) {
        return Err(is_stable(task_type, version, "promote another one first"));
    }
    Ok(vec![Change::Retired(Retired { task_type: task_type.to_owned(), version: version.to_owned() })])
}

/// The task type's routes, when the version may take part in them.
fn usable<'a>(routes: &'a Routes, task_type: &str, version: &str) -> Result<&'a TaskRoutes, Refusal> {
    let task = known(routes, task_type)?;
    registered(task, task_type, version)?;
    let (task_type, owned) = (task_type.to_owned(), version.to_owned());
    if task.retired.contains(version) {
        return Err(Refusal::Retired { task_type, version: owned });
    }
    if task.version(version).is_some_and(|known| !known.loaded) {
        return Err(Refusal::Gone { task_type, version: owned });
    }
    Ok(task)
}

fn known<'a>(routes: &'a Routes, task_type: &str) -> Result<&'a TaskRoutes, Refusal> {
    routes.task(task_type).filter(|task| !task.versions.is_empty()).ok_or_else(|| Refusal::UnknownTaskType {
        task_type: task_type.to_owned(),
        known: list(routes.tasks.keys().map(String::as_str)),
    })
}

fn registered(task: &TaskRoutes, task_type: &str, version: &str) -> Result<(), Refusal> {
    if task.version(version).is_some() && !ALIASES.contains(&version) {
        return Ok(());
    }
    let known = list(task.versions.iter().map(|known| known.version.as_str()));
    Err(Refusal::UnknownVersion { task_type: task_type.to_owned(), version: version.to_owned(), known })
}

fn is_stable(task_type: &str, version: &str, instead: &'static str) -> Refusal {
    Refusal::IsStable { task_type: task_type.to_owned(), version: version.to_owned(), instead }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
