//! What a run found, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::Args;
use super::audit::Audit;
use super::disk::Fsync;
use super::ledger::{Ledger, Micros, Task};
use super::load::Sent;
use super::processes::Usage;

/// What told that a task was completed.
pub(super) enum CompletedBy {
    Webhook,
    Row { at: Micros },
    Nobody,
}

/// When a task reached something, if it did.
type Moment = fn(&Task) -> Option<Micros>;

#[derive(Serialize)]
pub(super) struct Report {
    load: String,
    pub(super) accepted: u64,
    /// Tasks not accepted, by HTTP status; 0: no answer came.
    refused: BTreeMap<u16, u64>,
    accepted_per_s: f64,
    /// Accepted tasks by the time from the first upload to the last completion; absent when nothing tells of it.
    completed_per_s: Option<f64>,
    completed_by: &'static str,
    /// From the upload's (scheduled) sending.
    latencies: Vec<Latency>,
    processes: Vec<Process>,
    fsync: Fsync,
    pub(super) audit: Audit,
}

#[derive(Serialize)]
struct Latency {
    until: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    samples: usize,
}

#[derive(Serialize)]
struct Process {
    #[serde(flatten)]
    usage: Usage,
    cpu_s_per_1000: f64,
}

impl Report {
    pub(super) fn new(
        args: &Args,
        ledger: &Ledger,
        sent: Sent,
        by: CompletedBy,
        processes: Vec<Usage>,
        fsync: Fsync,
        audit: Audit,
    ) -> Self {
        let tasks: Vec<Task> = ledger.accepted_tasks().into_iter().map(|(_, task)| task).collect();
        let accepted = ledger.accepted();
        let rate = |until: Micros| accepted as f64 / (until.max(1) as f64 / 1e6);
        let (completed_at, completed_by) = match by {
            CompletedBy::Webhook => (tasks.iter().filter_map(|task| task.webhook).max(), "webhook"),
            CompletedBy::Row { at } => (Some(at), "row"),
            CompletedBy::Nobody => (None, "nobody: give --webhook-listen or --database-url"),
        };
        let spans: [(&str, Moment); 4] = [
            ("accepted", |task| task.answered),
            ("row completed", |task| task.row),
            ("visible by GET", |task| task.visible),
            ("webhook received", |task| task.webhook),
        ];
        let cpu = |usage: Usage| Process { cpu_s_per_1000: usage.cpu_s * 1000.0 / accepted.max(1) as f64, usage };
        Self {
            load: load(args),
            accepted,
            refused: sent.refused,
            accepted_per_s: rate(sent.last_accepted),
            completed_per_s: completed_at.map(rate),
            completed_by,
            latencies: spans.iter().filter_map(|(until, end)| Latency::new(until, &tasks, *end)).collect(),
            processes: processes.into_iter().map(cpu).collect(),
            fsync,
            audit,
        }
    }
}

fn load(args: &Args) -> String {
    let how = match args.rate {
        Some(rate) => format!("open loop at {rate} tasks/s, at most {} connections", args.concurrency),
        None => format!("closed loop, {} connections", args.concurrency),
    };
    let batch = if args.batch == 1 { String::new() } else { format!(", {} tasks a request", args.batch) };
    format!("{} tasks, {how}{batch}", args.tasks)
}

impl Latency {
    fn new(until: &'static str, tasks: &[Task], end: Moment) -> Option<Self> {
        let mut took: Vec<Micros> =
            tasks.iter().filter_map(|task| Some(end(task)?.saturating_sub(task.sent?))).collect();
        took.sort_unstable();
        let rank =
            |percent: usize| Some(*took.get((took.len() * percent).div_ceil(100).saturating_sub(1))? as f64 / 1e3);
        Some(Self { until, p50_ms: rank(50)?, p99_ms: rank(99)?, samples: took.len() })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.load)?;
        writeln!(f, "accepted   {:>9}  {:>9.1}/s", self.accepted, self.accepted_per_s)?;
        match self.completed_per_s {
            Some(rate) => writeln!(f, "completed  {:>9}  {rate:>9.1}/s  (by {})", "", self.completed_by)?,
            None => writeln!(f, "completed  not known ({})", self.completed_by)?,
        }
        for (status, count) in &self.refused {
            let why = if *status == 0 { "without an answer".to_owned() } else { format!("answered {status}") };
            writeln!(f, "refused    {count:>9}  {why}")?;
        }
        writeln!(f, "\nupload sent →       {:>10} {:>10} {:>9}", "p50 ms", "p99 ms", "samples")?;
        for latency in &self.latencies {
            let Latency { until, p50_ms, p99_ms, samples } = latency;
            writeln!(f, "  {until:<18}{p50_ms:>10.2} {p99_ms:>10.2} {samples:>9}")?;
        }
        writeln!(f, "fsync of 4 KiB      {:>10.2} {:>10.2}", self.fsync.p50_ms, self.fsync.p99_ms)?;
        writeln!(f, "\nprocess             {:>10} {:>10} {:>9}", "CPU s/1000", "CPU s", "peak MiB")?;
        for Process { usage, cpu_s_per_1000 } in &self.processes {
            let mib = usage.peak_rss as f64 / f64::from(1 << 20);
            writeln!(f, "  {:<18}{cpu_s_per_1000:>10.3} {:>10.2} {mib:>9.1}", usage.name, usage.cpu_s)?;
        }
        self.write_audit(f)
    }
}

impl Report {
    fn write_audit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let audit = &self.audit;
        writeln!(f)?;
        if audit.webhooks_checked == 0 && audit.rows_checked == 0 {
            return writeln!(f, "audit      none: give --webhook-listen or --database-url");
        }
        let verdict = if audit.passed() { "passed" } else { "FAILED" };
        writeln!(
            f,
            "audit      {verdict}: webhooks of {} tasks and rows of {} looked at; {} webhooks repeated, {} of other tasks",
            audit.webhooks_checked, audit.rows_checked, audit.repeated_webhooks, audit.foreign_webhooks
        )?;
        for fault in audit.faults() {
            writeln!(f, "  {} × {}: {}", fault.count, fault.what, fault.examples.join(", "))?;
        }
        Ok(())
    }
}
