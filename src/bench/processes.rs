//! CPU time and memory of processes and their children, from `/proc` (Linux; layout in `man 5 proc`).

use std::collections::HashMap;
use std::fs;
use std::str::FromStr;

use anyhow::Context;
use serde::Serialize;

/// `/proc` counts CPU time in hundredths of a second for programs, whatever the kernel's own tick is.
const TICKS_PER_S: f64 = 100.0;

/// A process to account for, with a name for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    name: String,
    pid: u32,
}

impl Watched {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Watched {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, pid) = text.split_once('=').ok_or("name=pid")?;
        let pid = pid.parse().map_err(|_| "name=pid, where pid is a number")?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// What a process and its children used.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Usage {
    pub(super) name: String,
    pub(super) cpu_s: f64,
    /// Sum over the tree of each process's largest resident set since it started, in bytes. Pages that processes share
    /// count in each.
    pub(super) peak_rss: u64,
}

/// Usage of each process since its start, and last of this one.
///
/// # Errors
/// When a process is not there.
pub(super) fn snapshot(watched: &[Watched]) -> anyhow::Result<Vec<Usage>> {
    let own = Watched { name: "bench".to_owned(), pid: std::process::id() };
    let table = table()?;
    watched.iter().chain([&own]).map(|process| usage(process, &table)).collect()
}

/// What was used between two snapshots of the same processes.
pub(super) fn difference(before: &[Usage], after: &[Usage]) -> Vec<Usage> {
    let between = |(before, after): (&Usage, &Usage)| Usage { cpu_s: after.cpu_s - before.cpu_s, ..after.clone() };
    before.iter().zip(after).map(between).collect()
}

struct Stat {
    parent: u32,
    /// Own time, and that of children which ended and were waited for.
    ticks: u64,
}

fn usage(process: &Watched, table: &HashMap<u32, Stat>) -> anyhow::Result<Usage> {
    anyhow::ensure!(table.contains_key(&process.pid), "--pids: {} has no process {}", process.name, process.pid);
    let mut tree = vec![process.pid];
    let mut at = 0;
    while let Some(parent) = tree.get(at).copied() {
        tree.extend(table.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    let ticks: u64 = tree.iter().map(|pid| table[pid].ticks).sum();
    let peak_rss = tree.iter().filter_map(|pid| peak_rss(*pid)).sum();
    Ok(Usage { name: process.name.clone(), cpu_s: ticks as f64 / TICKS_PER_S, peak_rss })
}

/// Every process of this machine.
fn table() -> anyhow::Result<HashMap<u32, Stat>> {
    let mut table = HashMap::new();
    for entry in fs::read_dir("/proc").context("/proc, which only Linux has")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the two reads.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && let Some(stat) = parse_stat(&stat)
        {
            table.insert(pid, stat);
        }
    }
    Ok(table)
}

fn parse_stat(stat: &str) -> Option<Stat> {
    // The program's name stands in parentheses and may hold anything, parentheses too.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks: ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)? })
}

fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_spaces_and_parentheses_is_skipped() {
        let stat = "77 (a) b (c) S 12 77 77 0 -1 4194304 90 0 0 0 3 4 5 6 20 0 1 0 100 1 1";
        let stat = parse_stat(stat).unwrap();
        assert_eq!((stat.parent, stat.ticks), (12, 3 + 4 + 5 + 6));
    }

    #[test]
    fn a_child_counts_with_its_parent() {
        let before = snapshot(&[]).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let alone = Watched { name: "child".to_owned(), pid: child.id() };
        let usage = snapshot(&[alone]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let [child, own] = &usage[..] else { panic!("{usage:?}") };
        assert!(child.peak_rss > 0 && own.peak_rss >= before[0].peak_rss + child.peak_rss, "{before:?} {usage:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let gone = "redis=4294967295".parse::<Watched>().unwrap();
        assert!(snapshot(&[gone]).unwrap_err().to_string().contains("redis"));
        assert!("redis".parse::<Watched>().is_err());
    }
}
