//! `insightforge model-host`: the process an untrusted model lives in. Started by the analyzer, never by people.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use insightforge_inference::OpenOptions;
use insightforge_inference::host::{self, HostCommand, Job, Place};
use insightforge_inference::store::InThisProcess;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the package
    #[arg(long, conflicts_with = "built_in")]
    package: Option<PathBuf>,
    /// Package that is part of the program: `<task type>/<version>`
    #[arg(long)]
    built_in: Option<String>,
    /// The digest the package must have
    #[arg(long)]
    digest: String,
    /// ONNX Runtime's library
    #[arg(long)]
    onnxruntime: Option<PathBuf>,
}

/// What a child may know of the environment: where libraries and GPUs are, and where temporary files go.
const PASSED_ON: [&str; 5] = ["LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PATH", "TMPDIR"];

/// How the analyzer starts this command.
pub(crate) fn command() -> anyhow::Result<HostCommand> {
    let environment = PASSED_ON.iter().filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
    Ok(HostCommand {
        program: std::env::current_exe().context("the path of this program")?,
        arguments: vec!["model-host".into()],
        environment: environment.collect(),
    })
}

/// Blocks: nothing else runs in this process.
pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { package, built_in, digest, onnxruntime } = args;
    let place = match (package, built_in.as_deref().and_then(|name| name.split_once('/'))) {
        (Some(folder), _) => Place::Folder(folder),
        (None, Some((task_type, version))) => {
            Place::BuiltIn { task_type: task_type.to_owned(), version: version.to_owned() }
        }
        (None, None) => bail!("either --package DIR or --built-in TASK_TYPE/VERSION is needed"),
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let options = OpenOptions { onnxruntime, ..OpenOptions::default() };
    Ok(host::serve(&Job { place, digest }, &InThisProcess(options)))
}
