//! Routes, cards and events for people, or as JSON.

use std::fmt::Write;

use crate::caller::plain::count;
use insightforge_schema::catalogue::{ModelCard, Worker};
use insightforge_schema::keys::Lane;
use insightforge_schema::registry::{Change, Entry, RegisteredVersion, Routes, TaskRoutes};
use serde_json::json;

/// Prints every version with the part it plays; as JSON the routes as they are.
pub(super) fn list(routes: &Routes, workers: &[Worker], task_type: Option<&str>, as_json: bool) -> anyhow::Result<()> {
    let mut out = String::new();
    let wanted = |name: &str| task_type.is_none_or(|wanted| wanted == name);
    let tasks: Vec<(&String, &TaskRoutes)> = routes.tasks.iter().filter(|(name, _)| wanted(name)).collect();
    let refused: Vec<_> =
        routes.refused.iter().filter(|(_, note)| note.task_type.as_deref().is_none_or(wanted)).collect();
    if as_json {
        let tasks: serde_json::Map<_, _> = tasks.into_iter().map(|(name, task)| (name.clone(), json!(task))).collect();
        let refused: serde_json::Map<_, _> =
            refused.into_iter().map(|(folder, note)| (folder.clone(), json!(note))).collect();
        println!("{}", json!({ "position": routes.position, "tasks": tasks, "refused": refused }));
        return Ok(());
    }
    if tasks.iter().all(|(_, task)| task.versions.is_empty()) {
        writeln!(out, "no model is registered yet; an analyzer registers what it serves")?;
    }
    for (name, task) in tasks {
        writeln!(out, "{name}")?;
        for version in &task.versions {
            let lane = Lane::new(name, &version.version).to_string();
            let analyzers =
                count(workers.iter().filter(|worker| worker.lanes.contains(&lane)).count() as u64, "analyzer");
            writeln!(
                out,
                "  {:<16} {:<28} {:<14} {:<18} {:<8} {analyzers}, since {}",
                version.version,
                parts(task, version).join(", "),
                version.digest.get(..12).unwrap_or(&version.digest),
                version.backend,
                version.device,
                time(version.registered_us),
            )?;
        }
        if let Some(earlier) = task.earlier.last() {
            writeln!(out, "  a rollback goes to {earlier}")?;
        }
    }
    for (folder, note) in refused {
        writeln!(out, "refused: {folder}, {}: {}", time(note.at_us), note.reason)?;
    }
    print!("{out}");
    Ok(())
}

/// What a version is for its task type.
fn parts(task: &TaskRoutes, version: &RegisteredVersion) -> Vec<String> {
    let name = version.version.as_str();
    let mut parts = Vec::new();
    if task.stable.as_deref() == Some(name) {
        parts.push("stable".to_owned());
    }
    if let Some(canary) = task.canary.as_ref().filter(|canary| canary.version == name) {
        parts.push(format!("canary {}", percent(canary.share)));
    }
    if task.candidate.as_deref() == Some(name) {
        parts.push("candidate".to_owned());
    }
    if task.latest() == Some(name) {
        parts.push("latest".to_owned());
    }
    if task.shadows.iter().any(|shadow| shadow == name) {
        parts.push("shadow".to_owned());
    }
    if task.retired.contains(name) {
        parts.push("retired".to_owned());
    }
    if !version.loaded {
        parts.push("gone".to_owned());
    }
    parts
}

/// Prints a version's card.
pub(super) fn show(routes: &Routes, card: &ModelCard, as_json: bool) -> anyhow::Result<()> {
    let mut out = String::new();
    let task = routes.task(&card.task_type);
    let version = task.and_then(|task| task.version(&card.version));
    let roles = task.zip(version).map(|(task, version)| parts(task, version)).unwrap_or_default();
    if as_json {
        let mut shown = json!(card);
        shown["roles"] = json!(roles);
        println!("{shown}");
        return Ok(());
    }
    writeln!(out, "{} {}: {}", card.task_type, card.version, card.name)?;
    let mut line = |name: &str, value: &str| {
        if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<12} {value}") }
    };
    line("roles", &roles.join(", "))?;
    line("about", &card.description)?;
    line("limits", &card.limits)?;
    line("languages", &card.languages.join(", "))?;
    line("labels", &card.labels.join(", "))?;
    line("digest", &card.digest)?;
    line("runs on", &format!("{} ({}), {}", card.engine, card.backend, card.device))?;
    line("memory", &format!("{} KiB loaded, {} MiB at most", card.resident_bytes / 1_024, card.memory_mb))?;
    let batch = &card.batch;
    let limits = format!(
        "{} inputs or {} {} at once, {} may wait",
        batch.max_items, batch.max_cost, batch.cost, batch.max_queue
    );
    line("batch", &limits)?;
    line("time", &format!("{} ms a call", card.timeout_ms))?;
    line("speed", &card.speed)?;
    line("license", &card.license)?;
    line("training", &card.training)?;
    line("checks", &format!("{} answered as expected when it was loaded", card.checks_passed))?;
    for it in &card.data {
        line("data", &format!("{} ({}), {} {}", it.name, it.source, it.license, it.used_for))?;
    }
    for it in &card.quality {
        let published =
            it.published.map(|value| format!(", published {value} ({})", it.published_source)).unwrap_or_default();
        line("quality", &format!("{} {} {}{published}", it.set, it.metric, it.value))?;
        line("", &it.command)?;
    }
    for weakness in &card.weaknesses {
        line("weakness", weakness)?;
    }
    for reason in &card.refused {
        line("refused", reason)?;
    }
    print!("{out}");
    Ok(())
}

/// Prints what a command made happen.
pub(super) fn written(entries: &[Entry], as_json: bool) -> anyhow::Result<()> {
    if entries.is_empty() && !as_json {
        println!("it is so already; nothing was changed");
    }
    history(entries, as_json)
}

/// Prints events, one a line.
pub(super) fn history(entries: &[Entry], as_json: bool) -> anyhow::Result<()> {
    let mut out = String::new();
    for entry in entries {
        if as_json {
            writeln!(out, "{}", json!(entry))?;
        } else {
            let reason = entry.meta.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let (n, at) = (entry.n, time(entry.meta.at_us));
            writeln!(out, "{n:>6}  {at}  {}  by {}{reason}", describe(&entry.change), entry.meta.actor)?;
        }
    }
    print!("{out}");
    Ok(())
}

fn describe(change: &Change) -> String {
    let none = || "none".to_owned();
    match change {
        Change::Registered(it) => {
            let digest = it.digest.get(..12).unwrap_or(&it.digest);
            format!(
                "{} {} registered: {digest}, {} on {}, {}",
                it.task_type, it.version, it.backend, it.device, it.folder
            )
        }
        Change::Refused(it) => format!("{} refused: {}", it.folder, it.reason),
        Change::RefusalEnded(it) => format!("{} is refused no more: it is gone", it.folder),
        Change::Unloaded(it) => format!("{} {} unloaded: its package is gone", it.task_type, it.version),
        Change::Promoted(it) => {
            format!("{} {} promoted, before {}", it.task_type, it.version, it.from.clone().unwrap_or_else(none))
        }
        Change::CandidateSet(it) => {
            format!("{} candidate is {}", it.task_type, it.version.clone().unwrap_or_else(none))
        }
        Change::CanarySet(it) if it.share == 0 => format!("{} canary {} ended", it.task_type, it.version),
        Change::CanarySet(it) => format!("{} canary {} has {}", it.task_type, it.version, percent(it.share)),
        Change::ShadowSet(it) if it.versions.is_empty() => format!("{} shadows ended", it.task_type),
        Change::ShadowSet(it) => format!("{} shadows are {}", it.task_type, it.versions.join(", ")),
        Change::RolledBack(it) => format!("{} rolled back from {} to {}", it.task_type, it.from, it.to),
        Change::Retired(it) => format!("{} {} retired", it.task_type, it.version),
        Change::Unknown(it) => format!("`{}`: {}", it.event_type, it.reason),
    }
}

/// A share in 1/10000 as per cent.
fn percent(share: u16) -> String {
    format!("{} %", f64::from(share) / 100.0)
}

fn time(at_us: i64) -> String {
    insightforge_schema::tables::datetime(at_us).and_utc().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
