//! Which analyzers can take a task and, when none can, what would help. Pure.

use chrono::{DateTime, Utc};
use insightforge_schema::catalogue::{Limits, Worker};
use insightforge_schema::keys::Lane;
use insightforge_schema::registry::{ALIASES, Routes};
use serde::Serialize;
use utoipa::ToSchema;

/// Analyzers that are named; more are counted by nobody who reads this.
const NAMED: usize = 20;

/// An analyzer that can take a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Server {
    pub name: String,
    /// Tasks it has now, of any kind.
    pub in_flight: u32,
    /// When it last took a task; its start before the first.
    pub last_read_at: Option<DateTime<Utc>>,
    pub seen_at: Option<DateTime<Utc>>,
}

/// The analyzers alive that take from `lane`, and what would help when there are none.
pub(super) fn servers(
    workers: &[Worker],
    routes: &Routes,
    lane: &Lane,
    task_type: &str,
    asked: &str,
) -> (Vec<Server>, Option<String>) {
    let able: Vec<Server> = taking(workers, lane)
        .take(NAMED)
        .map(|worker| Server {
            name: worker.name.clone(),
            in_flight: worker.in_flight,
            last_read_at: DateTime::from_timestamp_millis(worker.last_read_ms),
            seen_at: DateTime::from_timestamp_millis(worker.seen_ms),
        })
        .collect();
    let remedy = able.is_empty().then(|| remedy(workers, routes, lane, task_type, asked));
    (able, remedy)
}

/// The longest limits of those who take from the lane; of anybody when nobody does.
pub(super) fn limits(workers: &[Worker], lane: &Lane) -> Option<Limits> {
    let longest = |limits: &Limits| (limits.lease_ms, limits.max_attempts);
    let of_lane = taking(workers, lane).filter_map(|worker| worker.limits).max_by_key(longest);
    of_lane.or_else(|| workers.iter().filter_map(|worker| worker.limits).max_by_key(longest))
}

fn taking<'a>(workers: &'a [Worker], lane: &Lane) -> impl Iterator<Item = &'a Worker> {
    let name = lane.to_string();
    // Every analyzer takes from it, and none says so.
    let anybody = *lane == Lane::unroutable();
    workers.iter().filter(move |worker| anybody || worker.lanes.contains(&name))
}

fn remedy(workers: &[Worker], routes: &Routes, lane: &Lane, task_type: &str, asked: &str) -> String {
    if workers.is_empty() {
        return "no analyzer is alive: start `insightforge analyzer`".to_owned();
    }
    if *lane == Lane::unroutable() {
        return "start `insightforge analyzer`: it ends the task and says what can be asked for".to_owned();
    }
    let targets = routes.targets(task_type, asked);
    if ALIASES.contains(&asked) && targets.is_empty() {
        return format!(
            "{asked} of {task_type} points at no version: `insightforge models promote {task_type} <version>`"
        );
    }
    let needed = if targets.is_empty() { asked.to_owned() } else { targets.join(" and ") };
    let mut others: Vec<&str> = workers
        .iter()
        .flat_map(|worker| &worker.lanes)
        .filter_map(|lane| lane.strip_prefix(task_type)?.strip_prefix(':'))
        .collect();
    others.sort_unstable();
    others.dedup();
    let others = match others[..] {
        [] => String::new(),
        _ => format!("; those alive take {} of it", others.join(", ")),
    };
    let together = if targets.len() > 1 { " at once" } else { "" };
    format!(
        "start an analyzer that has {task_type} {needed}{together} (INSIGHTFORGE_MODELS has the package, \
         INSIGHTFORGE_SERVE does not leave it out){others}"
    )
}

#[cfg(test)]
mod tests {
    use insightforge_schema::registry::event::{Change, Registered};
    use insightforge_schema::registry::{Entry, Meta};

    use super::*;

    fn worker(name: &str, lanes: &[&str]) -> Worker {
        Worker {
            name: name.to_owned(),
            lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(),
            in_flight: 1,
            started_ms: 0,
            last_read_ms: 0,
            seen_ms: 0,
            infer_addr: None,
            limits: (name == "b").then_some(Limits { lease_ms: 9, max_attempts: 4, task_timeout_ms: 1 }),
        }
    }

    fn routes(version: &str) -> Routes {
        let mut routes = Routes::default();
        let registered = Change::Registered(Registered {
            task_type: "acting".to_owned(),
            version: version.to_owned(),
            digest: String::new(),
            backend: String::new(),
            device: String::new(),
            folder: String::new(),
            worker: String::new(),
        });
        routes.apply(&Entry { n: 1, meta: Meta { at_us: 0, actor: String::new(), reason: None }, change: registered });
        routes
    }

    #[test]
    fn who_can_take_a_task_is_named_and_else_what_would_help() {
        let (a, b) = (worker("a", &["acting:v1", "acting:stable"]), worker("b", &["acting:v2"]));
        for (workers, asked, able, remedy) in [
            (vec![a.clone(), b.clone()], "stable", vec!["a"], ""),
            (vec![a.clone(), b.clone()], "v2", vec!["b"], ""),
            (vec![b.clone()], "stable", vec![], "has acting v1 (INSIGHTFORGE_MODELS"),
            (vec![b.clone()], "v1", vec![], "those alive take v2 of it"),
            (vec![b.clone()], "candidate", vec![], "points at no version"),
            (vec![], "v1", vec![], "no analyzer is alive"),
        ] {
            let lane = Lane::new("acting", asked);
            let (servers, said) = servers(&workers, &routes("v1"), &lane, "acting", asked);
            assert_eq!(servers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), able, "{asked}");
            assert!(said.as_deref().unwrap_or("").contains(remedy) && said.is_some() == able.is_empty(), "{said:?}");
        }
        let (unroutable, remedy) = servers(std::slice::from_ref(&b), &routes("v1"), &Lane::unroutable(), "other", "v1");
        assert_eq!((unroutable.len(), remedy), (1, None));
        assert_eq!(limits(&[a.clone(), b], &Lane::new("acting", "v1")).unwrap().lease_ms, 9);
        assert_eq!(limits(&[a], &Lane::new("acting", "v1")), None);
    }
}
