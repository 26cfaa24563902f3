//! The child's side.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};

use super::command::Job;
use super::limit;
use super::wire::{self, Ask, Hello, Reply};
use crate::batch::{Answer, Limits, pick};
use crate::loaded::Loaded;
use crate::manifest::Device;
use crate::model::{InferError, Prepared};
use crate::open::OpenError;
use crate::store::Open;

/// Where the driver of a GPU is spoken to.
const GPU: &str = "/dev/nvidiactl";

/// Serves a package over standard input and output until the input ends. Ends the process when the parent is gone, also
/// out of a call that does not come back.
#[must_use]
pub fn serve(job: &Job, open: &dyn Open) -> ExitCode {
    match speak(job, open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("model host: {error}");
            ExitCode::FAILURE
        }
    }
}

fn speak(job: &Job, open: &dyn Open) -> std::io::Result<()> {
    let mut output = own_output()?;
    // Before anything of the package is touched: it may never come back, and must not outlive the parent.
    let asks = listen()?;
    let loaded = match load(job, open) {
        Ok(loaded) => loaded,
        Err(reason) => return wire::write(&mut output, &Hello::Refused { reason }),
    };
    let resident_bytes = loaded.resident_bytes().max(limit::resident_bytes());
    wire::write(&mut output, &Hello::Ready { runs_on: loaded.runs_on(), resident_bytes })?;
    for Ask { id, documents } in asks {
        let answers = answer(&loaded, documents);
        wire::write(&mut output, &Reply { id, answers })?;
    }
    Ok(())
}

/// Takes the standard output for us alone: what a library prints goes to the standard error from here.
fn own_output() -> std::io::Result<impl Write> {
    let ours = File::from(rustix::io::dup(std::io::stdout())?);
    rustix::stdio::dup2_stdout(std::io::stderr())?;
    Ok(ours)
}

fn load(job: &Job, open: &dyn Open) -> Result<Loaded, String> {
    let package = job.read()?;
    let runtime = &package.manifest.runtime;
    let unbounded = |error| format!("the bound on memory: {error}");
    let most = limit::beyond_now(runtime.memory_mb).map_err(unbounded)?;
    // A GPU's driver reserves address space without measure: the bound would only forbid the GPU.
    if runtime.device == Device::Cpu || !Path::new(GPU).exists() {
        limit::hold_to(most).map_err(unbounded)?;
    }
    let loaded = open.open(package).map_err(|error: OpenError| error.to_string())?;
    if !loaded.runs_on().device.starts_with("cuda") {
        limit::hold_to(most).map_err(unbounded)?;
    }
    Ok(loaded)
}

/// Reads ahead, so that the end of the input is noticed at once: it ends the process.
fn listen() -> std::io::Result<Receiver<Ask>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::Builder::new().name("listen".to_owned()).stack_size(1 << 20).spawn(move || {
        let mut input = BufReader::new(std::io::stdin());
        while let Ok(Some(ask)) = wire::read(&mut input) {
            if sender.send(ask).is_err() {
                break;
            }
        }
        std::process::exit(0);
    })?;
    Ok(receiver)
}

/// Answers documents in as many calls as their true costs ask for; the parent has only guessed them.
fn answer(loaded: &Loaded, documents: Vec<serde_json::Value>) -> Vec<Answer> {
    let limits = Limits::of(&loaded.package.manifest.batch);
    let mut answers: Vec<Option<Answer>> = Vec::with_capacity(documents.len());
    let mut waiting: Vec<(usize, Prepared)> = Vec::new();
    for (place, document) in documents.iter().enumerate() {
        match loaded.prepare(document) {
            Ok(prepared) => {
                answers.push(None);
                waiting.push((place, prepared));
            }
            Err(error) => answers.push(Some(Err(error))),
        }
    }
    while !waiting.is_empty() {
        let costs: Vec<u32> = waiting.iter().map(|(_, prepared)| prepared.cost).collect();
        let picked = pick(&costs, &limits);
        let (places, batch): (Vec<usize>, Vec<Prepared>) =
            picked.into_iter().rev().map(|place| waiting.remove(place)).unzip();
        for (place, answer) in places.into_iter().zip(loaded.infer(&batch)) {
            answers[place] = Some(answer);
        }
    }
    let none = || Err(InferError::unavailable("panic", "the input was left without an answer"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(none)).collect()
}
