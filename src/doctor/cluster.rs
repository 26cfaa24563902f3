//! What the masters of a Redis Cluster have in common is said once; what one has for itself is said with its address.

use super::{Finding, Level, broken, good, info_field, weak};

/// What was found at each master, as one list.
pub(super) fn judge(servers: Vec<(&str, Vec<Finding>)>) -> Vec<Finding> {
    let masters = servers.len();
    let silent = |findings: &[Finding]| findings.len() == 1 && findings[0].level == Level::Broken;
    let away: Vec<&str> = servers.iter().filter(|(_, found)| silent(found)).map(|(name, _)| *name).collect();
    if away.len() == masters {
        return vec![broken(
            format!("none of the {masters} masters of the cluster can be used: {}", first_words(&servers)),
            "start Redis, or correct REDIS_URL",
        )];
    }
    let mut findings = vec![if away.is_empty() {
        good(format!("all {masters} masters of the cluster answer"))
    } else {
        weak(
            format!("{} of {masters} masters cannot be used: {}", away.len(), away.join(", ")),
            "start them, or let a replica take over: tasks of their partitions wait meanwhile",
        )
    }];
    let answering: Vec<_> = servers.into_iter().filter(|(_, found)| !silent(found)).collect();
    let everywhere = |finding: &Finding| answering.iter().all(|(_, found)| found.contains(finding));
    for finding in &answering[0].1 {
        if everywhere(finding) {
            findings.push(finding.clone());
        }
    }
    for (name, found) in &answering {
        for finding in found.iter().filter(|finding| !everywhere(finding)) {
            findings.push(Finding { what: format!("{name}: {}", finding.what), ..finding.clone() });
        }
    }
    findings
}

/// Whether somebody can take a master's place, from its `INFO`; nothing for a server that is in no cluster.
pub(super) fn judge_replicas(info: &str) -> Option<Finding> {
    if info_field(info, "cluster_enabled") != Some("1") {
        return None;
    }
    Some(match info_field(info, "connected_slaves") {
        Some("0") | None => weak(
            "no replica follows: when this master is lost, its partitions stand still".to_owned(),
            "give every master a replica, and set INSIGHTFORGE_MIN_REPLICAS_ACK",
        ),
        Some(_) => good("a replica follows".to_owned()),
    })
}

fn first_words(servers: &[(&str, Vec<Finding>)]) -> String {
    servers.first().and_then(|(_, found)| found.first()).map_or_else(String::new, |finding| finding.what.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well(version: &str) -> Vec<Finding> {
        vec![good(format!("Redis {version}")), good("appendfsync always".to_owned())]
    }

    fn away() -> Vec<Finding> {
        vec![broken("Redis is not available".to_owned(), "start Redis")]
    }

    fn said(servers: Vec<(&str, Vec<Finding>)>) -> (Level, String) {
        let findings = judge(servers);
        let worst = findings.iter().map(|finding| finding.level).max().unwrap();
        (worst, findings.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn what_all_masters_have_is_said_once_and_what_one_has_with_its_address() {
        assert_eq!(
            said(vec![("a:1", well("7.0.15")), ("b:2", well("7.0.15"))]),
            (Level::Good, "all 2 masters of the cluster answer; Redis 7.0.15; appendfsync always".to_owned())
        );
        let mut weaker = well("7.0.15");
        weaker[1] = weak("appendfsync is everysec".to_owned(), "always");
        assert_eq!(
            said(vec![("a:1", well("7.0.15")), ("b:2", weaker)]),
            (
                Level::Weak,
                "all 2 masters of the cluster answer; Redis 7.0.15; a:1: appendfsync always; b:2: appendfsync is everysec"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_master_of_a_cluster_without_a_replica_is_weak() {
        for (info, level) in [
            ("cluster_enabled:0\r\nconnected_slaves:0\r\n", None),
            ("connected_slaves:0\r\ncluster_enabled:1\r\n", Some(Level::Weak)),
            ("connected_slaves:1\r\ncluster_enabled:1\r\n", Some(Level::Good)),
        ] {
            assert_eq!(judge_replicas(info).map(|finding| finding.level), level, "{info:?}");
        }
    }

    #[test]
    fn a_master_that_is_away_weakens_the_cluster_and_all_of_them_break_it() {
        let (level, words) = said(vec![("a:1", away()), ("b:2", well("8.0"))]);
        assert_eq!(
            (level, words.as_str()),
            (Level::Weak, "1 of 2 masters cannot be used: a:1; Redis 8.0; appendfsync always")
        );
        let (level, words) = said(vec![("a:1", away()), ("b:2", away())]);
        assert_eq!(level, Level::Broken);
        assert!(words.contains("none of the 2 masters"), "{words}");
    }
}
