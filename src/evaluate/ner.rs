//! Packages that find names, on sentences with the right ones.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use insightforge_inference::native::tagger::Kind;
use insightforge_inference::train::tagger::folder::{CHINESE, ENGLISH, Folder};
use insightforge_inference::train::tagger::measure::{Counts, Measured};
use insightforge_inference::train::tagger::sample::{Join, Sample, kind_of, read_columns};
use insightforge_inference::{Loaded, OpenOptions, Package, open};
use serde::Deserialize;
use serde_json::json;

/// Texts a call.
const BATCH: usize = 32;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The package's folder
    #[arg(long)]
    package: PathBuf,
    /// The folder of data sets: all sets in it that training does not see are measured
    #[arg(long, required_unless_present = "file")]
    data: Option<PathBuf>,
    /// A file of your own in columns: a token first, its IOB tag last, an empty line after each sentence
    #[arg(long)]
    file: Vec<PathBuf>,
    /// How the file's tokens become a text
    #[arg(long, value_enum, default_value_t = Between::Spaces)]
    join: Between,
    /// The operator's ONNX Runtime library, for packages that need it
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
    /// Print one JSON object a set
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Between {
    /// A space between all
    Spaces,
    /// No space, but between two words of letters
    Chinese,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || report(&args)).await??;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args) -> anyhow::Result<()> {
    let package = Package::read(&args.package).with_context(|| format!("{} is no package", args.package.display()))?;
    let model =
        open(Arc::new(package), &OpenOptions { onnxruntime: args.onnxruntime.clone(), ..OpenOptions::default() })?;
    if !args.json {
        println!(
            "{:<20} {:>6} {:>6} {:>6}  {:>6} {:>6} {:>6}  {:>9} {:>9}",
            "set", "F1", "prec.", "recall", "PER", "LOC", "ORG", "texts/s", "chars/s"
        );
    }
    if let Some(data) = &args.data {
        let mut folder = Folder::new(data);
        for set in CHINESE.iter().chain(&ENGLISH).filter(|set| set.weight.is_none()) {
            let samples = folder.samples(set);
            if !samples.is_empty() {
                print(set.name, &model, &samples, args.json)?;
            }
        }
        for missing in &folder.missing {
            eprintln!("left out: {missing}");
        }
    }
    for file in &args.file {
        let samples = own(file, args.join)?;
        print(&file.file_name().unwrap_or_default().to_string_lossy(), &model, &samples, args.json)?;
    }
    Ok(())
}

fn own(file: &Path, join: Between) -> anyhow::Result<Vec<Sample>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let join = match join {
        Between::Spaces => Join::Spaces,
        Between::Chinese => Join::Chinese,
    };
    let samples = read_columns(&text, join, kind_of);
    if samples.is_empty() {
        bail!("{}: no sentence in it", file.display());
    }
    Ok(samples)
}

/// What every package that finds names answers.
#[derive(Deserialize)]
struct Found {
    entities: Vec<Entity>,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    /// In characters, from 0.
    start: usize,
    /// The character after its last.
    end: usize,
}

/// The names a package finds in each text.
fn ask(model: &Loaded, samples: &[Sample]) -> anyhow::Result<Vec<Vec<(usize, usize, Kind)>>> {
    let mut all = Vec::with_capacity(samples.len());
    for batch in samples.chunks(BATCH) {
        let read: Result<Vec<_>, _> =
            batch.iter().map(|sample| model.prepare(&json!({ "text": sample.text }))).collect();
        for result in model.infer(&read?) {
            let Found { entities } =
                serde_json::from_str(&result?).context("the package answers no `entities` with places")?;
            let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
            all.push(entities.iter().filter_map(|it| Some((it.start, it.end, kind(&it.kind)?))).collect());
        }
    }
    ensure!(all.len() == samples.len(), "the package answered {} of {} texts", all.len(), samples.len());
    Ok(all)
}

fn print(name: &str, model: &Loaded, samples: &[Sample], as_json: bool) -> anyhow::Result<()> {
    let started = Instant::now();
    let found = ask(model, samples).with_context(|| name.to_owned())?;
    let seconds = started.elapsed().as_secs_f64();
    let mut measured = Measured::default();
    for (sample, found) in samples.iter().zip(&found) {
        measured.add(&sample.names, found);
    }
    let chars: usize = samples.iter().map(|sample| sample.text.chars().count()).sum();
    let rate = |count: usize| count as f64 / seconds;
    if as_json {
        let [person, location, organization] = measured.each.map(|counts: Counts| counts.f1());
        let all = &measured.all;
        println!(
            "{}",
            json!({
                "set": name, "f1": all.f1(), "precision": all.precision(), "recall": all.recall(),
                "f1_by_type": { "PERSON": person, "LOCATION": location, "ORGANIZATION": organization },
                "texts_per_s": rate(samples.len()), "chars_per_s": rate(chars),
            })
        );
        return Ok(());
    }
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    let [person, location, organization] = measured.each.map(|counts: Counts| percent(counts.f1()));
    println!(
        "{name:<20} {:>6} {:>6} {:>6}  {person:>6} {location:>6} {organization:>6}  {:>9.0} {:>9.0}",
        percent(measured.all.f1()),
        percent(measured.all.precision()),
        percent(measured.all.recall()),
        rate(samples.len()),
        rate(chars)
    );
    Ok(())
}
