//! Which version answers.

use std::sync::Arc;

use axum::http::StatusCode;
use insightforge_inference::store::Served;
use insightforge_schema::registry::{ALIASES, Reason, Routes, Unresolved};
use uuid::Uuid;

use super::door::Door;
use super::figures;
use super::shown::Shown;
use crate::problem::{Fields, Problem};
use crate::sent::short;

/// The version that answers a request.
pub(super) struct Resolved {
    pub(super) served: Arc<Served>,
    pub(super) shown: Arc<Shown>,
    pub(super) reason: Reason,
}

/// Why none does.
pub(super) enum Nobody {
    Unresolved(Unresolved),
    /// It is known, but not to this process, or not yet.
    NotHere {
        task_type: String,
        version: String,
    },
}

/// What a problem's `type` ends with when the model is elsewhere.
pub(super) const NOT_HERE: &str = "model-not-here";

/// `asked` as the registry reads it. `key` is asked for only while a canary runs, since finding it may mean reading the
/// document; without one a caller is anybody.
pub(super) fn resolve(
    door: &Door,
    task_type: &str,
    asked: &str,
    key: impl FnOnce() -> Option<String>,
) -> Result<Resolved, Nobody> {
    let routes = door.routes();
    let canary = routes.task(task_type).is_some_and(|task| task.canary.is_some());
    let key = if canary { key().unwrap_or_else(|| Uuid::new_v4().to_string()) } else { String::new() };
    let resolved = routes.resolve(task_type, asked, &key).map_err(Nobody::Unresolved)?;
    let Some(served) = door.store.get(task_type, &resolved.version) else {
        return Err(Nobody::NotHere { task_type: task_type.to_owned(), version: resolved.version });
    };
    let shown = door.shown.of(&served, &door.store);
    Ok(Resolved { served, shown, reason: resolved.reason })
}

impl Nobody {
    /// As a request to `/api/infer` is answered: with the field that names what there is not.
    pub(super) fn problem(self, routes: &Routes) -> Problem {
        self.count();
        match self {
            Self::Unresolved(unresolved) => {
                let (field, what) = refusal(&unresolved, routes);
                Problem::invalid(Fields::one(field, what))
            }
            Self::NotHere { task_type, version } => not_here(&task_type, &version),
        }
    }

    /// As a path that names a model is answered.
    pub(super) fn not_found(self, routes: &Routes) -> Problem {
        self.count();
        match self {
            Self::Unresolved(unresolved) => Problem::not_found(refusal(&unresolved, routes).1),
            Self::NotHere { task_type, version } => not_here(&task_type, &version),
        }
    }

    fn count(&self) {
        figures::unresolved(match self {
            Self::Unresolved(unresolved) => unresolved.code(),
            Self::NotHere { .. } => "model_not_here",
        });
    }
}

/// The wrong field, and what is wrong with it: in the words of [`Unresolved`], with what is known instead.
pub(crate) fn refusal(unresolved: &Unresolved, routes: &Routes) -> (&'static str, String) {
    match unresolved {
        Unresolved::UnknownTaskType { task_type } => {
            let known = list(routes.tasks.keys().map(String::as_str));
            ("task_type", format!("{:?} is not known; known are: {known}", short(task_type)))
        }
        Unresolved::UnknownVersion { task_type, version } => {
            let known = known_versions(routes, task_type);
            ("model_version", format!("{task_type} has no version {:?}; known are: {known}", short(version)))
        }
        Unresolved::Retired { task_type, .. } | Unresolved::Unset { task_type, .. } => {
            ("model_version", format!("{unresolved}; known are: {}", known_versions(routes, task_type)))
        }
    }
}

/// Versions that answer, and the aliases that point at one.
fn known_versions(routes: &Routes, task_type: &str) -> String {
    let Some(task) = routes.task(task_type) else { return "none".to_owned() };
    let versions = task.versions.iter().map(|known| &*known.version).filter(|it| !task.retired.contains(*it));
    list(versions.chain(ALIASES.into_iter().filter(|alias| !routes.targets(task_type, alias).is_empty())))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn not_here(task_type: &str, version: &str) -> Problem {
    let detail = format!("{task_type} {version} is not served here at the moment; try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, NOT_HERE, "Not available", detail).retry_after(2)
}
