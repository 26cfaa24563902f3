//! `insightforge evaluate`: how good a package is, on sets with known answers.

mod labels;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use insightforge_inference::Package;
use insightforge_inference::native::tagger::{Kind, TaggerModel};
use insightforge_inference::train::tagger::folder::{CHINESE, ENGLISH, Folder};
use insightforge_inference::train::tagger::measure::{Counts, Measured};
use insightforge_inference::train::tagger::sample::{Join, Sample, kind_of, read_columns};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    model: Model,
}

#[derive(Subcommand)]
enum Model {
    /// One label a text, such as sentiment and intents: accuracy, F1, calibration
    Labels(labels::Args),
    /// Names of persons, places and organisations: F1 of exact span and type
    Ner(Ner),
}

#[derive(clap::Args)]
struct Ner {
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
}

#[derive(Clone, Copy, ValueEnum)]
enum Between {
    /// A space between all
    Spaces,
    /// No space, but between two words of letters
    Chinese,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.model {
        Model::Labels(args) => labels::run(args).await,
        Model::Ner(args) => ner(&args),
    }
}

fn ner(args: &Ner) -> anyhow::Result<ExitCode> {
    let package = Package::read(&args.package).with_context(|| args.package.display().to_string())?;
    let model = TaggerModel::open(&Arc::new(package)).context("opening the model")?;
    println!(
        "{:<20} {:>6} {:>6} {:>6}  {:>6} {:>6} {:>6}  {:>9} {:>9}",
        "set", "F1", "prec.", "recall", "PER", "LOC", "ORG", "texts/s", "chars/s"
    );
    if let Some(data) = &args.data {
        let mut folder = Folder::new(data);
        for set in CHINESE.iter().chain(&ENGLISH).filter(|set| set.weight.is_none()) {
            let samples = folder.samples(set);
            if !samples.is_empty() {
                print(set.name, &model, &samples);
            }
        }
        for missing in &folder.missing {
            eprintln!("left out: {missing}");
        }
    }
    for file in &args.file {
        let samples = own(file, args.join)?;
        print(&file.file_name().unwrap_or_default().to_string_lossy(), &model, &samples);
    }
    Ok(ExitCode::SUCCESS)
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

fn print(name: &str, model: &TaggerModel, samples: &[Sample]) {
    let started = Instant::now();
    let found: Vec<Vec<(usize, usize, Kind)>> = samples
        .iter()
        .map(|sample| model.names(&sample.text).into_iter().map(|name| (name.from, name.to, name.kind)).collect())
        .collect();
    let seconds = started.elapsed().as_secs_f64();
    let mut measured = Measured::default();
    for (sample, found) in samples.iter().zip(&found) {
        measured.add(&sample.names, found);
    }
    let chars: usize = samples.iter().map(|sample| sample.text.chars().count()).sum();
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    let [person, location, organization] = measured.each.map(|counts: Counts| percent(counts.f1()));
    println!(
        "{name:<20} {:>6} {:>6} {:>6}  {person:>6} {location:>6} {organization:>6}  {:>9.0} {:>9.0}",
        percent(measured.all.f1()),
        percent(measured.all.precision()),
        percent(measured.all.recall()),
        samples.len() as f64 / seconds,
        chars as f64 / seconds
    );
}
