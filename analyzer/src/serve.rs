//! Which lanes this process takes from: decided anew whenever its models or the routes change. [`offers`] is pure.
//!
//! A lane is a task type with what was asked for: a version or an alias. Several analyzers may have different models, so
//! a lane is taken only while everything its tasks can resolve to is here; a task that resolves to nothing (its version is
//! retired, its alias points nowhere) can be ended by anybody.

use std::collections::BTreeMap;
use std::sync::Arc;

use insightforge_schema::keys::Lane;
use insightforge_schema::link::LinkError;
use insightforge_schema::registry::{ALIASES, Routes};

use crate::take::create_group;
use crate::worker::Worker;

/// What this process takes from, and the routes that hold meanwhile. Replaced as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    pub routes: Arc<Routes>,
    /// By task type.
    pub offers: BTreeMap<String, Vec<Offer>>,
}

/// A lane that is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub lane: Lane,
    /// Tasks of the lane this process holds at once, at most: what the model lets wait.
    pub bound: usize,
}

impl View {
    /// Every lane that is taken from.
    pub fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.offers.values().flatten().map(|offer| &offer.lane)
    }
}

/// The lanes to take from, by task type. `models` are the versions that are here, each with the inputs that may wait for
/// it.
#[must_use]
pub fn offers(models: &BTreeMap<(String, String), usize>, routes: &Routes) -> BTreeMap<String, Vec<Offer>> {
    let mut all: BTreeMap<String, Vec<Offer>> = BTreeMap::new();
    let mut offer = |task_type: &str, asked: &str, bound: usize| {
        let lane = Lane::new(task_type, asked);
        let lanes = all.entry(task_type.to_owned()).or_default();
        if !lanes.iter().any(|known| known.lane == lane) {
            lanes.push(Offer { lane, bound });
        }
    };
    for ((task_type, version), queue) in models {
        // What the registry does not know yet is not routed yet.
        if routes.task(task_type).is_some_and(|task| task.version(version).is_some()) {
            offer(task_type, version, *queue);
        }
    }
    for (task_type, task) in &routes.tasks {
        if !models.keys().any(|(served, _)| served == task_type) {
            continue;
        }
        for alias in ALIASES {
            let targets = routes.targets(task_type, alias);
            let queues: Option<Vec<usize>> = targets
                .iter()
                .map(|version| models.get(&(task_type.clone(), (*version).to_owned())).copied())
                .collect();
            if let Some(queues) = queues {
                offer(task_type, alias, queues.into_iter().min().unwrap_or(usize::MAX));
            }
        }
        for version in &task.retired {
            offer(task_type, version, usize::MAX);
        }
    }
    all.insert(Lane::unroutable().task_type, vec![Offer { lane: Lane::unroutable(), bound: usize::MAX }]);
    all
}

/// Looks at models and routes and replaces the view when they make another one; says whether they did. New lanes get
/// their groups first.
///
/// # Errors
/// See [`LinkError`]; the view stays as it was.
pub async fn refit(worker: &Worker) -> Result<bool, LinkError> {
    // One at a time, so that an older look never replaces a newer one.
    let registry = worker.registry.lock().await;
    let routes = registry.routes();
    let models = worker.models();
    let view = View { offers: offers(&models, &routes), routes };
    let before = worker.view();
    if *before == view {
        return Ok(false);
    }
    for lane in view.lanes() {
        if !before.lanes().any(|known| known == lane) {
            for partition in worker.config.partitions.iter() {
                create_group(worker, partition, lane).await?;
            }
            tracing::info!(%lane, "taking from a lane");
        }
    }
    for lane in before.lanes().filter(|lane| !view.lanes().any(|kept| kept == *lane)) {
        tracing::info!(%lane, "taking from a lane no more");
    }
    worker.replace_view(view);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use insightforge_schema::registry::event::Registered;
    use insightforge_schema::registry::{Command, Entry, Meta, decide};

    use super::*;

    fn routes(versions: &[&str], commands: &[Command]) -> Routes {
        let mut routes = Routes::default();
        let register = |version: &&str| {
            Command::Register(Registered {
                task_type: "acting".to_owned(),
                version: (*version).to_owned(),
                digest: (*version).to_owned(),
                backend: "linear".to_owned(),
                device: "cpu".to_owned(),
                folder: String::new(),
                worker: String::new(),
            })
        };
        for command in versions.iter().map(register).chain(commands.iter().cloned()) {
            for change in decide(&routes, &command).unwrap() {
                let meta = Meta { at_us: 0, actor: String::new(), reason: None };
                routes.apply(&Entry { n: routes.position + 1, meta, change });
            }
        }
        routes
    }

    fn taken(here: &[&str], routes: &Routes) -> String {
        let models = here.iter().map(|version| (("acting".to_owned(), (*version).to_owned()), 8)).collect();
        let offers = offers(&models, routes);
        let lanes = offers.get("acting").into_iter().flatten().map(|offer| offer.lane.model_version.clone());
        lanes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_lane_is_taken_only_while_all_it_can_resolve_to_is_here() {
        let (task_type, version) = ("acting".to_owned(), "v2".to_owned());
        let canary = Command::Canary { task_type: task_type.clone(), version: version.clone(), share: 100 };
        let whole = Command::Canary { task_type: task_type.clone(), version: version.clone(), share: 10_000 };
        let candidate = Command::Candidate { task_type: task_type.clone(), version: Some(version.clone()) };
        let promote = Command::Promote { task_type: task_type.clone(), version: version.clone() };
        let retire = Command::Retire { task_type, version };
        for (here, commands, expected) in [
            (&["v1", "v2"][..], vec![], "v1 v2 stable candidate latest"),
            (&["v1"], vec![], "v1 stable candidate"),
            (&["v2"], vec![], "v2 candidate latest"),
            (&["v1"], vec![canary.clone()], "v1 candidate"),
            (&["v2"], vec![canary.clone()], "v2 candidate latest"),
            (&["v1", "v2"], vec![canary], "v1 v2 stable candidate latest"),
            (&["v2"], vec![whole], "v2 stable candidate latest"),
            (&["v1"], vec![candidate], "v1 stable"),
            (&["v1"], vec![promote], "v1 candidate"),
            (&["v1"], vec![retire], "v1 stable candidate latest v2"),
            (&[], vec![], ""),
        ] {
            assert_eq!(taken(here, &routes(&["v1", "v2"], &commands)), expected, "{here:?} {commands:?}");
        }
    }

    #[test]
    fn what_nobody_registered_is_not_taken_and_what_nobody_serves_always_is() {
        let models = [(("acting".to_owned(), "v1".to_owned()), 8)].into();
        let offers = offers(&models, &Routes::default());
        assert_eq!(offers.keys().collect::<Vec<_>>(), ["unroutable"]);
    }

    #[test]
    fn a_lane_s_bound_is_the_smallest_queue_behind_it() {
        let canary = Command::Canary { task_type: "acting".to_owned(), version: "v2".to_owned(), share: 1 };
        let models = [(("acting".to_owned(), "v1".to_owned()), 8), (("acting".to_owned(), "v2".to_owned()), 3)].into();
        let offers = offers(&models, &routes(&["v1", "v2"], &[canary]));
        let bounds: Vec<_> = offers["acting"].iter().map(|it| (it.lane.model_version.as_str(), it.bound)).collect();
        assert_eq!(bounds, [("v1", 8), ("v2", 3), ("stable", 3), ("candidate", usize::MAX), ("latest", 3)]);
    }
}
