//! Whether somebody answers what the model routes promise.

use std::collections::BTreeMap;

use insightforge_schema::catalogue::Worker;
use insightforge_schema::id::Partition;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::registry::{Registry, Routes, STABLE};

use super::{Finding, broken, good, weak};

/// Reads the routes and what waits, and judges both.
pub(super) async fn check(link: &Link, keys: &Keys, workers: &[Worker]) -> Vec<Finding> {
    let mut registry = Registry::new(link.clone(), keys.clone());
    let read = async {
        registry.refresh().await?;
        waiting(link, keys).await
    };
    match read.await {
        Ok(waiting) => judge(&registry.routes(), workers).into_iter().chain(judge_waiting(&waiting, workers)).collect(),
        Err(error) => vec![broken(error.to_string(), "start Redis, or correct REDIS_URL")],
    }
}

/// The lanes on which tasks lie, with their number.
async fn waiting(link: &Link, keys: &Keys) -> Result<BTreeMap<Lane, u64>, LinkError> {
    let partitions: Option<u16> = link.query(redis::cmd("HGET").arg(keys.config()).arg("partitions")).await?;
    let mut waiting = BTreeMap::new();
    for partition in (0..partitions.unwrap_or(0)).map(Partition) {
        let names: Vec<String> = link.query(redis::cmd("SMEMBERS").arg(keys.lanes(partition))).await?;
        for lane in names.iter().filter_map(|name| Lane::parse(name)) {
            let tasks: u64 = link.query(redis::cmd("XLEN").arg(keys.lane(partition, &lane))).await?;
            *waiting.entry(lane).or_default() += tasks;
        }
    }
    waiting.retain(|_, tasks| *tasks > 0);
    Ok(waiting)
}

/// The stable version's lanes are judged with the routes.
fn judge_waiting(waiting: &BTreeMap<Lane, u64>, workers: &[Worker]) -> Vec<Finding> {
    let taken = |lane: &Lane| workers.iter().any(|worker| worker.lanes.contains(&lane.to_string()));
    let left =
        waiting.iter().filter(|(lane, _)| lane.model_version != STABLE && **lane != Lane::unroutable() && !taken(lane));
    left.map(|(lane, tasks)| {
        weak(
            format!("{lane}: {tasks} tasks wait, and no analyzer takes them"),
            "start one that has the version, or insightforge models retire: then they fail and say so",
        )
    })
    .collect()
}

fn judge(routes: &Routes, workers: &[Worker]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(newer) = &routes.not_understood {
        let what = format!("event {} of the registry ({:?}) is of a newer release", newer.n, newer.event_type);
        findings.push(broken(what, "update this program; until then it decides on no model version"));
    }
    for (task_type, task) in routes.tasks.iter().filter(|(_, task)| !task.versions.is_empty()) {
        let lane = Lane::new(task_type, STABLE).to_string();
        let taken = workers.iter().any(|worker| worker.lanes.contains(&lane));
        let targets = routes.targets(task_type, STABLE).join(" and ");
        findings.push(match &task.stable {
            None => weak(
                format!("{task_type}: there is no stable version; who asks for none by name is turned away"),
                "insightforge models promote",
            ),
            Some(_) if taken => good(format!("{lane}: {targets}")),
            Some(_) => weak(
                format!("{lane}: no analyzer has {targets} at once; its tasks wait"),
                "start one, or insightforge models rollback",
            ),
        });
    }
    for (folder, note) in &routes.refused {
        let remedy = "mend the package; what ran under its name goes on";
        findings.push(weak(format!("{folder} is refused: {}", note.reason), remedy));
    }
    findings
}

#[cfg(test)]
mod tests {
    use insightforge_schema::registry::event::{CanarySet, Change, Refused, Registered};
    use insightforge_schema::registry::{Entry, Meta};

    use super::*;
    use crate::doctor::Level;
    use crate::doctor::tests::worker;

    fn routes(changes: Vec<Change>) -> Routes {
        let mut routes = Routes::default();
        for change in changes {
            let meta = Meta { at_us: 0, actor: String::new(), reason: None };
            routes.apply(&Entry { n: routes.position + 1, meta, change });
        }
        routes
    }

    fn registered(version: &str) -> Change {
        Change::Registered(Registered {
            task_type: "acting".to_owned(),
            version: version.to_owned(),
            digest: version.to_owned(),
            backend: String::new(),
            device: String::new(),
            folder: String::new(),
            worker: String::new(),
        })
    }

    #[test]
    fn a_promise_that_nobody_keeps_and_a_refused_package_are_named() {
        let canary = CanarySet { task_type: "acting".to_owned(), version: "v2".to_owned(), share: 100 };
        let refused = Refused {
            task_type: None,
            version: None,
            folder: "acting/v3".to_owned(),
            reason: "cut off".to_owned(),
            worker: String::new(),
        };
        let all = routes(vec![registered("v1"), registered("v2"), Change::CanarySet(canary), Change::Refused(refused)]);
        let kept = judge(&all, &[worker(&["acting:v1", "acting:stable"])]);
        assert_eq!(kept[0], good("acting:stable: v1 and v2".to_owned()));
        assert!(kept[1].level == Level::Weak && kept[1].what.contains("cut off"));
        let broken = judge(&all, &[worker(&["acting:v1"]), worker(&["acting:v2"])]);
        assert!(broken[0].level == Level::Weak && broken[0].what.contains("v1 and v2 at once"), "{broken:?}");
        assert!(judge(&Routes::default(), &[]).is_empty());
    }

    #[test]
    fn tasks_that_nobody_takes_are_told_lane_by_lane() {
        let lane = |version: &str| Lane::new("acting", version);
        let waiting = BTreeMap::from([(lane("v1"), 3), (lane("v2"), 5), (lane("latest"), 1), (lane("stable"), 1)]);
        let found = judge_waiting(&waiting, &[worker(&["acting:v1"]), worker(&["acting:latest"])]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].level == Level::Weak && found[0].what.starts_with("acting:v2: 5 tasks wait"), "{found:?}");
    }

    #[test]
    fn an_event_of_a_newer_release_is_a_defect_of_this_one() {
        let unknown =
            insightforge_schema::registry::event::Unknown { event_type: "exploded".into(), reason: "r".into() };
        let found = judge(&routes(vec![Change::Unknown(unknown)]), &[]);
        assert!(found[0].level == Level::Broken && found[0].what.contains("exploded"), "{found:?}");
    }
}
