//! What a text package of the backends `onnx` and `onnxruntime` costs, side by side: time to load, memory, CPU a call.
//!
//! ```sh
//! cargo run --release -p insightforge-inference --features onnx,ort --example measure_onnx -- \
//!     [--onnxruntime /path/to/libonnxruntime.so] [--seconds 1.5] PACKAGE…
//! ```
//!
//! A package is opened once for each backend, whatever its own manifest says, with one instance. A call is one batch:
//! texts × tokens. CPU is of the whole process (user and system); of several rounds the least is printed, since whatever
//! else the machine does can only add to it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insightforge_inference::model::Window;
use insightforge_inference::{Loaded, OpenOptions, Package, Payload, Prepared, open};

const SHAPES: [(usize, usize); 3] = [(1, 16), (1, 128), (32, 32)];
const ROUNDS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { library, seconds, packages } = arguments()?;
    let backends: &[&str] = if library.is_some() { &["onnx", "onnxruntime"] } else { &["onnx"] };
    println!(
        "{:<34}{:<18}{:>9}{:>9}{:>17}{:>17}{:>17}",
        "package", "engine", "load ms", "RSS MB", "1 x 16", "1 x 128", "32 x 32"
    );
    for package in &packages {
        for backend in backends {
            let before = resident_bytes()?;
            let begin = Instant::now();
            let loaded = load(package, backend, library.clone())?;
            let load = begin.elapsed().as_secs_f64() * 1e3;
            let mut cells = String::new();
            for (texts, tokens) in SHAPES {
                let (cpu, clock) = measure(&loaded, &batch(texts, tokens), seconds)?;
                cells = format!("{cells}{:>17}", format!("{cpu:.2} ({clock:.2})"));
            }
            let grown = resident_bytes()?.saturating_sub(before) >> 20;
            let name = package.iter().rev().take(2).collect::<Vec<_>>();
            let name = name.iter().rev().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
            println!("{:<34}{:<18}{load:>9.0}{grown:>9}{cells}", cut(&name, 33), loaded.runs_on().engine);
        }
    }
    println!("CPU ms (clock ms) a call; RSS is what the process grew by, load the time until the package can be asked");
    Ok(())
}

struct Arguments {
    library: Option<PathBuf>,
    seconds: f64,
    packages: Vec<PathBuf>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut read = Arguments { library: None, seconds: 1.5, packages: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--onnxruntime" => read.library = Some(words.next().ok_or("--onnxruntime needs a path")?.into()),
            "--seconds" => read.seconds = words.next().ok_or("--seconds needs a number")?.parse()?,
            _ => read.packages.push(word.into()),
        }
    }
    if read.packages.is_empty() { Err("name at least one package's folder".into()) } else { Ok(read) }
}

/// Opens a copy of the package that names `backend`.
fn load(package: &Path, backend: &str, onnxruntime: Option<PathBuf>) -> Result<Loaded, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for entry in std::fs::read_dir(package)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let manifest = folder.path().join("model.toml");
    let mut text: toml::Table = std::fs::read_to_string(&manifest)?.parse()?;
    let runtime = text.get_mut("runtime").and_then(toml::Value::as_table_mut).ok_or("model.toml has no [runtime]")?;
    runtime.insert("backend".to_owned(), backend.into());
    runtime.insert("instances".to_owned(), 1.into());
    std::fs::write(&manifest, text.to_string())?;
    let package = Arc::new(Package::read(folder.path())?);
    Ok(open(package, &OpenOptions { onnxruntime, ..OpenOptions::default() })?)
}

/// Texts of `tokens` tokens each, as a tokenizer would leave them.
fn batch(texts: usize, tokens: usize) -> Vec<Prepared> {
    let one = |text: usize| {
        let ids = (0..tokens).map(|at| u32::try_from(1_000 + (text * 31 + at * 17) % 4_000).unwrap_or(1_000));
        let window = Window {
            ids: ids.collect(),
            type_ids: vec![0; tokens],
            offsets: vec![(0, 0); tokens],
            words: vec![None; tokens],
        };
        Prepared { cost: 1, payload: Payload::Tokens { text: String::new(), windows: vec![window] } }
    };
    (0..texts).map(one).collect()
}

/// Least CPU and clock milliseconds a call.
fn measure(loaded: &Loaded, batch: &[Prepared], seconds: f64) -> Result<(f64, f64), Box<dyn Error>> {
    for answer in loaded.infer(batch) {
        answer?;
    }
    let (mut least_cpu, mut least_clock) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        let (begin, cpu, mut calls) = (Instant::now(), cpu_seconds()?, 0_u32);
        while begin.elapsed() < Duration::from_secs_f64(seconds) {
            std::hint::black_box(loaded.infer(batch));
            calls += 1;
        }
        least_cpu = least_cpu.min((cpu_seconds()? - cpu) * 1e3 / f64::from(calls));
        least_clock = least_clock.min(begin.elapsed().as_secs_f64() * 1e3 / f64::from(calls));
    }
    Ok((least_cpu, least_clock))
}

/// User and system seconds of this process; Linux counts them in hundredths.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |place: usize| -> Result<f64, Box<dyn Error>> { Ok(fields.get(place).ok_or("no such field")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let pages: u64 =
        std::fs::read_to_string("/proc/self/statm")?.split_whitespace().nth(1).ok_or("no such field")?.parse()?;
    Ok(pages * 4096)
}

fn cut(name: &str, characters: usize) -> String {
    let many = name.chars().count();
    name.chars().skip(many.saturating_sub(characters)).collect()
}
