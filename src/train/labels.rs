//! Linear models: labelled texts in, a package out.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use insightforge_inference::manifest::Card;
use insightforge_inference::train::examples::{Example, read_file, read_folder, sentiment_label};
use insightforge_inference::train::holdout::Holdout;
use insightforge_inference::train::linear::package::{Naming, write};
use insightforge_inference::train::linear::{Config, train};
use insightforge_inference::train::recipes;
use insightforge_inference::train::sets::{Part, intents, sentiment as open_sets};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder with *.csv, *.tsv or *.jsonl of texts and labels, or with the open collections the defaults are made of
    #[arg(long)]
    data: PathBuf,
    /// The package's folder; a model.toml that is there is kept, with the new file's hash
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Labelled texts to measure with: training leaves out every text that shares 12 (Chinese) or 25 characters with one
    #[arg(long)]
    holdout: Vec<PathBuf>,
    /// Of the package [default: the folder's name]
    #[arg(long)]
    model_version: Option<String>,
    /// What results call the model [default: the task type and version]
    #[arg(long)]
    model_name: Option<String>,
    /// Print the outcome as one JSON object
    #[arg(long)]
    json: bool,
}

/// Chinese and English sentiment.
pub(crate) async fn sentiment(args: Args) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || train_sentiment(&args)).await??;
    Ok(ExitCode::SUCCESS)
}

/// Any labels.
pub(crate) async fn classification(args: Args) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || train_classification(&args)).await??;
    Ok(ExitCode::SUCCESS)
}

fn train_sentiment(args: &Args) -> anyhow::Result<()> {
    let mut holdout = held_out(&args.holdout)?;
    let examples = if args.data.join("sentiment-zh").is_dir() {
        open_sets::training(&open_sets::sets(&args.data)?, &mut holdout)
    } else {
        let labelled = read_folder(&args.data)?.into_iter();
        unseen(labelled.map(|example| Example { label: sentiment_label(&example.label), ..example }), &holdout)
    };
    finish(args, "sentiment_analysis", &recipes::sentiment(args.seed), &examples)
}

fn train_classification(args: &Args) -> anyhow::Result<()> {
    let holdout = held_out(&args.holdout)?;
    let sets = if args.data.join("data_full.json").is_file() {
        intents::clinc150(&args.data)?
    } else if args.data.join("train.csv").is_file() && args.data.join("test.csv").is_file() {
        intents::banking77(&args.data)?
    } else {
        Vec::new()
    };
    let examples = if sets.is_empty() {
        unseen(read_folder(&args.data)?.into_iter(), &holdout)
    } else {
        let train = sets.into_iter().filter(|set| set.part == Part::Train);
        unseen(train.flat_map(|set| set.examples), &holdout)
    };
    let labels: BTreeSet<&str> = examples.iter().map(|example| example.label.as_str()).collect();
    let out_of_scope = recipes::out_of_scope_label(labels.iter().copied());
    let config = recipes::classification(args.seed, labels.len(), out_of_scope);
    finish(args, "text_classification", &config, &examples)
}

fn held_out(files: &[PathBuf]) -> anyhow::Result<Holdout> {
    let mut holdout = Holdout::default();
    for file in files {
        read_file(file)?.iter().for_each(|example| holdout.add(&example.text));
    }
    Ok(holdout)
}

/// Each text once, without those that meet a held-out text.
fn unseen(examples: impl Iterator<Item = Example>, holdout: &Holdout) -> Vec<Example> {
    let mut seen = HashSet::new();
    let kept = examples.filter(|example| !holdout.meets(&example.text));
    kept.filter(|example| seen.insert((example.text.clone(), example.label.clone()))).collect()
}

fn finish(args: &Args, task_type: &str, config: &Config, examples: &[Example]) -> anyhow::Result<()> {
    let started = Instant::now();
    let file = train(config, examples)?;
    let took = started.elapsed();
    let folder_name = args.out.file_name().and_then(|name| name.to_str());
    let version =
        args.model_version.clone().or(folder_name.map(str::to_owned)).context("--out must be a folder with a name")?;
    let naming = Naming {
        task_type: task_type.to_owned(),
        name: args.model_name.clone().unwrap_or_else(|| format!("{task_type} {version}")),
        version,
        description: format!("A linear model over hashed n-grams, trained on {} texts.", examples.len()),
        languages: vec!["zh".to_owned(), "en".to_owned()],
        card: Card { training: command_line(), ..Card::default() },
    };
    write(&args.out, naming, &file)?;
    if args.json {
        let (texts, labels, bytes) = (examples.len(), file.header.labels.len(), file.table.bytes());
        let (folder, seconds) = (args.out.display().to_string(), took.as_secs_f64());
        println!(
            "{}",
            serde_json::json!({ "folder": folder, "texts": texts, "labels": labels, "bytes": bytes, "seconds": seconds })
        );
        return Ok(());
    }
    println!(
        "{}: {} texts, {} labels, {} bytes of weights, trained in {:.1} s",
        args.out.display(),
        examples.len(),
        file.header.labels.len(),
        file.table.bytes(),
        took.as_secs_f64()
    );
    Ok(())
}

/// What was typed, with the program's name alone in the first place.
fn command_line() -> String {
    let typed = std::env::args().skip(1);
    std::iter::once("insightforge".to_owned()).chain(typed).collect::<Vec<_>>().join(" ")
}
