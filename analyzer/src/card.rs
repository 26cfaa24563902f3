//! What callers may know of a model: its package's manifest, and how it runs here.

use insightforge_inference::manifest::Manifest;
use insightforge_inference::{Package, PackageError, Served};
use insightforge_schema::catalogue::{BatchLimits, DataSource, ModelCard, QualityFigure};
use insightforge_schema::registry::Routes;
use serde::Serialize;

/// The card of a served version. `routes` tell of packages under its name that were refused.
#[must_use]
pub fn card(served: &Served, routes: &Routes) -> ModelCard {
    let (manifest, runs_on) = (served.manifest(), served.runs_on());
    let refused = routes.refused.values().filter(|note| note.is_of(&manifest.task_type, &manifest.version));
    ModelCard {
        input_schema: served.input_schema().clone(),
        output_schema: served.output_schema().clone(),
        digest: served.digest().to_owned(),
        engine: runs_on.engine.clone(),
        device: runs_on.device.clone(),
        resident_bytes: served.resident_bytes(),
        package_bytes: served.package().size,
        checks_passed: u32::try_from(manifest.checks.len()).unwrap_or(u32::MAX),
        refused: refused.map(|note| note.reason.clone()).collect(),
        ..described(manifest)
    }
}

/// The cards of the packages that are part of the program, whether or not anybody serves them yet.
#[must_use]
pub fn built_in() -> Vec<ModelCard> {
    let packages = insightforge_inference::store::built_in().into_iter().flatten();
    packages.filter_map(|package| of_package(&package).ok()).collect()
}

fn of_package(package: &Package) -> Result<ModelCard, PackageError> {
    Ok(ModelCard {
        input_schema: package.input_schema()?,
        output_schema: package.output_schema()?,
        digest: package.digest.clone(),
        package_bytes: package.size,
        ..described(&package.manifest)
    })
}

/// What the manifest says.
fn described(manifest: &Manifest) -> ModelCard {
    let (runtime, batch, about) = (&manifest.runtime, &manifest.batch, &manifest.card);
    ModelCard {
        task_type: manifest.task_type.clone(),
        version: manifest.version.clone(),
        name: manifest.name.clone(),
        description: manifest.description.clone(),
        languages: manifest.languages.clone(),
        limits: manifest.limits.clone(),
        backend: word(runtime.backend),
        device: word(runtime.device),
        license: about.license.clone(),
        draw: word(manifest.output.draw),
        labels: manifest.output.labels.clone(),
        training: about.training.clone(),
        data: about
            .data
            .iter()
            .map(|it| DataSource {
                name: it.name.clone(),
                source: it.source.clone(),
                license: it.license.clone(),
                used_for: it.used_for.clone(),
            })
            .collect(),
        quality: about
            .quality
            .iter()
            .map(|it| QualityFigure {
                set: it.set.clone(),
                metric: it.metric.clone(),
                value: it.value,
                published: it.published,
                published_source: it.published_source.clone(),
                command: it.command.clone(),
            })
            .collect(),
        weaknesses: about.weaknesses.clone(),
        speed: about.speed.clone(),
        batch: BatchLimits {
            max_items: batch.max_items as u64,
            max_cost: batch.max_cost,
            max_queue: batch.max_queue as u64,
            cost: word(batch.cost),
        },
        timeout_ms: runtime.timeout_ms,
        memory_mb: runtime.memory_mb,
        ..ModelCard::default()
    }
}

/// A word of the manifest, as it is written there.
fn word<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
