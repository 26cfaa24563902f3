//! `insightforge train`: a model package from labelled data, the same from the same data and seed.

mod labels;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Subcommand;
use insightforge_inference::train::tagger::folder::{CHINESE, ENGLISH, Folder};
use insightforge_inference::train::tagger::{Plan, Trained, package, train_chinese, train_english};
use serde_json::json;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    model: Model,
}

#[derive(Subcommand)]
enum Model {
    /// Positive, Negative or Neutral, of Chinese and English texts
    Sentiment(labels::Args),
    /// Any labels, such as intents; the label `oos` stands for texts that belong to none of the others
    Classification(labels::Args),
    /// Names of persons, places and organisations, Chinese and English
    Ner(Ner),
}

#[derive(clap::Args)]
struct Ner {
    /// The folder of data sets
    #[arg(long)]
    data: PathBuf,
    /// The package's folder; a model.toml in it keeps all but its hashes
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the outcome as one JSON object; what is told meanwhile goes to standard error
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.model {
        Model::Sentiment(args) => labels::sentiment(args).await,
        Model::Classification(args) => labels::classification(args).await,
        Model::Ner(args) => ner(&args),
    }
}

fn ner(args: &Ner) -> anyhow::Result<ExitCode> {
    let mut folder = Folder::new(&args.data);
    let started = Instant::now();
    let chinese = train_chinese(&folder.chinese(), &folder.training(&CHINESE), &Plan::chinese(args.seed));
    report(package::CHINESE, &chinese, started);
    let started = Instant::now();
    let english = train_english(&folder.english(), &folder.training(&ENGLISH), &Plan::english(args.seed));
    report(package::ENGLISH, &english, started);
    for missing in &folder.missing {
        eprintln!("left out: {missing}");
    }
    let files = [(package::CHINESE, &chinese.file[..]), (package::ENGLISH, &english.file[..])];
    package::write(&args.out, &files).with_context(|| format!("writing {}", args.out.display()))?;
    if args.json {
        let bytes = |trained: &Trained| trained.file.len();
        let folder = args.out.display().to_string();
        println!("{}", json!({ "folder": folder, "chinese_bytes": bytes(&chinese), "english_bytes": bytes(&english) }));
    } else {
        println!("written to {}", args.out.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn report(name: &str, trained: &Trained, started: Instant) {
    eprintln!(
        "{name}: {} bytes from {} sentences in {:.1} s; {} of {} features kept, {} words known, {} names not at tokens' edges",
        trained.file.len(),
        trained.sentences,
        started.elapsed().as_secs_f64(),
        trained.kept,
        trained.features,
        trained.words,
        trained.off_tokens
    );
}
