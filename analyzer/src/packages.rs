//! Looks for model packages that came, changed, broke or went, and tells the registry and the callers of them.

use std::sync::Arc;
use std::time::Duration;

use insightforge_inference::{Change, Served};
use insightforge_schema::catalogue;
use insightforge_schema::link::LinkError;
use insightforge_schema::registry::event::{RefusalEnded, Refused, Registered, Unloaded};
use insightforge_schema::registry::{Command, Note, Routes, WriteError, Written};

use crate::card::card;
use crate::measure;
use crate::presence;
use crate::serve::refit;
use crate::wait::pause;
use crate::worker::Worker;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long a look waits for packages that are being opened before it tells of what came, went and broke meanwhile.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// Lets the store open only what this process is to answer for.
pub async fn keep_to_settings(worker: &Worker) {
    let patterns = worker.config.serve.clone();
    if !patterns.is_empty() {
        let wanted = move |task_type: &str, version: &str| patterns.iter().any(|it| it.matches(task_type, version));
        worker.store.keep_to(wanted).await;
    }
}

/// Looks once, and waits for what it finds new; says what the store changed.
///
/// # Errors
/// As [`look_within`].
pub async fn look(worker: &Worker) -> Result<Vec<Change>, LinkError> {
    look_within(worker, Duration::from_secs(60)).await
}

/// Looks once; says what the store changed. What is not open within `patience` is told at a later look.
///
/// # Errors
/// See [`LinkError`]. What the registry was not told it is told at the next look.
pub async fn look_within(worker: &Worker, patience: Duration) -> Result<Vec<Change>, LinkError> {
    let changes = worker.store.scan_within(patience).await;
    for change in &changes {
        tell(change);
        if let Some(command) = command(worker, change) {
            if let Command::Refuse(refused) = &command {
                worker.refused().insert(refused.folder.clone(), refused.clone());
            }
            worker.untold().push_back(command);
        }
    }
    let refused = worker.store.refused().await;
    let still = |task_type: &str, version: &str| refused.iter().any(|it| it.0 == task_type && it.1 == version);
    worker.refused().retain(|_, it| still(it.task_type.as_deref().unwrap_or(""), it.version.as_deref().unwrap_or("")));
    report_changes(worker).await?;
    let routes = reconcile(worker).await?;
    reconcile_refusals(worker, &routes).await?;
    let refitted = refit(worker).await?;
    if refitted || !changes.is_empty() {
        // Operators are told at once who has what: they may be waiting to decide on it.
        presence::report(worker).await?;
    }
    Ok(changes)
}

/// Tells callers of every model that is here.
///
/// # Errors
/// See [`LinkError`].
pub async fn announce(worker: &Worker) -> Result<(), LinkError> {
    let view = worker.view();
    let cards: Vec<_> = worker.served().iter().map(|served| card(served, &view.routes)).collect();
    catalogue::announce_models(&worker.link, &worker.keys, &cards).await
}

fn command(worker: &Worker, change: &Change) -> Option<Command> {
    match change {
        Change::Loaded(served) | Change::Reloaded { served, .. } => {
            worker.serves(&served.manifest().task_type, &served.manifest().version).then(|| register(worker, served))
        }
        Change::Unloaded { task_type, version, digest } => Some(Command::Unload(Unloaded {
            task_type: task_type.clone(),
            version: version.clone(),
            digest: digest.clone(),
            worker: worker.name().to_owned(),
        })),
        Change::Withdrawn { .. } => None,
        Change::Refused { task_type, version, reason } => worker.serves(task_type, version).then(|| {
            Command::Refuse(Refused {
                task_type: Some(task_type.clone()),
                version: Some(version.clone()),
                folder: format!("{task_type}/{version}"),
                reason: reason.clone(),
                worker: worker.name().to_owned(),
            })
        }),
    }
}

fn register(worker: &Worker, served: &Served) -> Command {
    let (manifest, runs_on) = (served.manifest(), served.runs_on());
    let folder = served.package().folder().map_or_else(|| "built-in".to_owned(), |it| it.display().to_string());
    Command::Register(Registered {
        task_type: manifest.task_type.clone(),
        version: manifest.version.clone(),
        digest: served.digest().to_owned(),
        backend: runs_on.engine.clone(),
        device: runs_on.device.clone(),
        folder,
        worker: worker.name().to_owned(),
    })
}

/// Writes what is to be told, in order; what could not be written stays for the next time.
async fn report_changes(worker: &Worker) -> Result<(), LinkError> {
    loop {
        let Some(command) = worker.untold().front().cloned() else { return Ok(()) };
        write(worker, &command).await?;
        worker.untold().pop_front();
    }
}

/// What is served here is told again where the registry does not know it, was told by another process that it is gone, or
/// was told by this one of a broken package that is mended. Returns the routes it went by.
async fn reconcile(worker: &Worker) -> Result<Arc<Routes>, LinkError> {
    let routes = {
        let mut registry = worker.registry.lock().await;
        registry.refresh().await?;
        registry.routes()
    };
    let refused: Vec<Refused> = worker.refused().values().cloned().collect();
    let is_refused = |note: &Note| {
        let named = |it: &Refused| it.task_type == note.task_type && it.version == note.version;
        note.worker != worker.name() || refused.iter().any(named)
    };
    for served in worker.served() {
        let manifest = served.manifest();
        let mended =
            routes.refused.values().any(|it| it.is_of(&manifest.task_type, &manifest.version) && !is_refused(it));
        let known = routes.task(&manifest.task_type).and_then(|task| task.version(&manifest.version));
        if !known.is_some_and(|known| known.loaded && known.digests.contains(served.digest())) || mended {
            write(worker, &register(worker, &served)).await?;
        }
    }
    Ok(routes)
}

/// A folder has one note, whoever refused it. What is refused here and has none any more, since another process serves its
/// own copy, is told again; a note whose package is gone is ended by who wrote it, or by anybody once that process is gone.
async fn reconcile_refusals(worker: &Worker, routes: &Routes) -> Result<(), LinkError> {
    let ours = worker.refused().clone();
    for refused in ours.values().filter(|it| !routes.refused.contains_key(&it.folder)) {
        write(worker, &Command::Refuse(refused.clone())).await?;
    }
    let others: Vec<_> = routes.refused.iter().filter(|(folder, _)| !ours.contains_key(*folder)).collect();
    if others.is_empty() {
        return Ok(());
    }
    let alive = catalogue::workers(&worker.link, &worker.keys).await?;
    for (folder, note) in others {
        if note.worker == worker.name() || !alive.iter().any(|it| it.name == note.worker) {
            let (task_type, folder) = (note.task_type.clone(), folder.clone());
            write(worker, &Command::EndRefusal(RefusalEnded { task_type, folder, worker: worker.name().to_owned() }))
                .await?;
        }
    }
    Ok(())
}

async fn write(worker: &Worker, command: &Command) -> Result<(), LinkError> {
    let actor = format!("analyzer/{}", worker.name());
    match worker.registry.lock().await.write(command, &actor, None).await {
        Ok(Written::Events(_) | Written::Unchanged) => Ok(()),
        Err(WriteError::Link(error)) => Err(error),
        Err(WriteError::Refused(refusal)) => {
            tracing::error!(%refusal, "the registry takes no note of a model");
            Ok(())
        }
        Err(others) => Err(LinkError::Unavailable(others.to_string())),
    }
}

fn tell(change: &Change) {
    match change {
        Change::Loaded(served) => {
            let manifest = served.manifest();
            tracing::info!(
                task_type = manifest.task_type,
                version = manifest.version,
                digest = served.digest(),
                "a model is loaded"
            );
            measure::models("loaded");
        }
        Change::Reloaded { served, from } => {
            let manifest = served.manifest();
            tracing::info!(
                task_type = manifest.task_type,
                version = manifest.version,
                digest = served.digest(),
                from,
                "a model is replaced"
            );
            measure::models("reloaded");
        }
        Change::Unloaded { task_type, version, digest } => {
            tracing::info!(task_type, version, digest, "a model is unloaded: its package is gone");
            measure::models("unloaded");
        }
        Change::Refused { task_type, version, reason } => {
            tracing::error!(task_type, version, reason, "a model package is refused; what ran goes on");
            measure::models("refused");
        }
        Change::Withdrawn { task_type, version } => {
            tracing::info!(task_type, version, "a refused model package is gone, or mended");
        }
    }
}

/// Looks every few seconds.
pub(crate) async fn run(worker: Arc<Worker>) {
    while pause(INTERVAL, &worker.stop.taking).await {
        if let Err(error) = look_within(&worker, PATIENCE).await {
            tracing::warn!(%error, "the registry could not be told of the models; trying again");
        }
    }
}
