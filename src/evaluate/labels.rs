//! Packages that give a text one label, on texts with the right one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use insightforge_inference::evaluate::{Report, evaluate};
use insightforge_inference::package::Package;
use insightforge_inference::train::examples::{Example, read_file, sentiment_label};
use insightforge_inference::train::sets::{Part, intents, sentiment as open_sets};
use insightforge_inference::{Loaded, OpenOptions, open};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The package's folder
    #[arg(long, alias = "model")]
    package: PathBuf,
    /// *.csv, *.tsv or *.jsonl of texts and labels; or a folder of the open collections, whose parts to measure with are taken
    #[arg(long, required = true)]
    data: Vec<PathBuf>,
    /// Of a collection that training saw in part: only the parts to choose by, not those to measure with
    #[arg(long)]
    choose: bool,
    /// The operator's ONNX Runtime library, for packages that need it
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
    /// Print JSON, an object a set
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || report(&args)).await??;
    Ok(ExitCode::SUCCESS)
}

fn report(args: &Args) -> anyhow::Result<()> {
    let package = Package::read(&args.package).with_context(|| format!("{} is no package", args.package.display()))?;
    let options = OpenOptions { onnxruntime: args.onnxruntime.clone(), ..OpenOptions::default() };
    let model = open(Arc::new(package), &options)?;
    let is_sentiment = model.package.manifest.task_type == "sentiment_analysis";
    let part = if args.choose { Part::Choose } else { Part::Measure };
    if !args.json {
        println!(
            "{:<34}{:>7}{:>10}{:>12}{:>10}{:>8}{:>10}{:>12}",
            "set", "texts", "accuracy", "of its own", "macro F1", "ECE", "beyond", "us a text"
        );
    }
    for path in &args.data {
        for (name, examples) in sets(path, part, is_sentiment)? {
            ensure!(!examples.is_empty(), "{name}: no texts");
            print(&model, &name, &examples, args.json)?;
        }
    }
    Ok(())
}

/// A file is a set; a folder of collections has several.
fn sets(path: &Path, part: Part, is_sentiment: bool) -> anyhow::Result<Vec<(String, Vec<Example>)>> {
    let collections = if path.join("sentiment-zh").is_dir() && is_sentiment {
        open_sets::sets(path)?
    } else if path.join("data_full.json").is_file() {
        intents::clinc150(path)?
    } else if path.join("train.csv").is_file() && path.join("test.csv").is_file() {
        intents::banking77(path)?
    } else {
        let name =
            path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
        let examples = read_file(path)?.into_iter();
        let label = |label: String| if is_sentiment { sentiment_label(&label) } else { label };
        return Ok(vec![(name, examples.map(|example| Example { label: label(example.label), ..example }).collect())]);
    };
    let mut sets = Vec::new();
    for set in collections.into_iter().filter(|set| set.part == part) {
        let opinions: Vec<Example> =
            set.examples.iter().filter(|example| example.label != "Neutral").cloned().collect();
        // What is known of a set with two labels can be compared with what others say of theirs.
        if is_sentiment && !opinions.is_empty() && opinions.len() < set.examples.len() {
            sets.push((format!("{}, opinions", set.name), opinions));
        }
        sets.push((set.name.to_owned(), set.examples));
    }
    Ok(sets)
}

fn print(model: &Loaded, name: &str, examples: &[Example], json: bool) -> anyhow::Result<()> {
    let report = evaluate(model, examples);
    if json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "set": name, "report": report }))?);
        return Ok(());
    }
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let Report { texts, accuracy, accuracy_among_its_labels, macro_f1, calibration_error, out_of_scope, took, .. } =
        report;
    println!(
        "{name:<34}{texts:>7}{:>10}{:>12}{macro_f1:>10.3}{calibration_error:>8.3}{:>10}{:>12.1}",
        percent(Some(accuracy)),
        percent(accuracy_among_its_labels),
        percent(out_of_scope),
        took.as_secs_f64() * 1e6 / texts.max(1) as f64
    );
    Ok(())
}
