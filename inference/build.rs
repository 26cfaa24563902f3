//! Makes the packages below `analyzer/models/` part of the program: one table a package.
//!
//! Packages of more than [`MOST_BYTES`] stay out; they are given to a process as a folder.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const MOST_BYTES: u64 = 8 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let models = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../analyzer/models");
    println!("cargo::rerun-if-changed={}", models.display());
    let mut table = String::from("const PACKAGES: &[(&str, &str, Files)] = &[\n");
    for task_type in folders(&models)? {
        for version in folders(&task_type)? {
            let mut files = Vec::new();
            collect(&version, &mut files)?;
            let bytes: u64 = files.iter().map(|file| fs::metadata(file).map_or(0, |meta| meta.len())).sum();
            if !version.join("model.toml").is_file() || bytes > MOST_BYTES {
                continue;
            }
            writeln!(table, "    ({:?}, {:?}, &[", name(&task_type)?, name(&version)?)?;
            for file in files {
                let inside =
                    file.strip_prefix(&version)?.to_str().ok_or("a file's name is no text")?.replace('\\', "/");
                writeln!(table, "        ({inside:?}, include_bytes!({:?})),", file.canonicalize()?)?;
            }
            writeln!(table, "    ]),")?;
        }
    }
    table.push_str("];\n");
    fs::write(PathBuf::from(std::env::var("OUT_DIR")?).join("built_in.rs"), table)?;
    Ok(())
}

/// The folders in a folder, in order; none when it is not there.
fn folders(root: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    Ok(entries(root)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for path in entries(folder)? {
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    found.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    found.sort();
    Ok(found)
}

fn name(folder: &Path) -> Result<&str, Box<dyn Error>> {
    Ok(folder.file_name().and_then(|name| name.to_str()).ok_or("a folder's name is no text")?)
}
