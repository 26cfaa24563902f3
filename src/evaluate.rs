//! `insightforge evaluate`: how good a package is, on sets with known answers.

mod labels;
mod ner;

use std::process::ExitCode;

use clap::Subcommand;

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
    Ner(ner::Args),
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.model {
        Model::Labels(args) => labels::run(args).await,
        Model::Ner(args) => ner::run(args).await,
    }
}
