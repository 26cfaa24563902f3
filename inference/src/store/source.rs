//! Where packages are found.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::built_in::Files;
use crate::manifest::Manifest;
use crate::package::{MANIFEST, Package, PackageError, manifest};

/// What may be a package: a name with a place.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) task_type: String,
    pub(super) version: String,
    pub(super) place: Place,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    BuiltIn(Files),
    Folder(PathBuf),
}

/// What tells one state of a place from another without reading all of it: names, sizes and times.
pub(super) type Mark = Vec<(String, u64, Option<SystemTime>)>;

impl Candidate {
    /// Reads and verifies it.
    pub(super) fn read(&self) -> Result<Package, PackageError> {
        match &self.place {
            Place::BuiltIn(files) => Package::built_in(files),
            Place::Folder(folder) => Package::read(folder),
        }
    }

    /// Its state now. What is part of the program has always the same.
    pub(super) fn mark(&self) -> Mark {
        let Place::Folder(folder) = &self.place else { return Mark::new() };
        let names = manifest(folder)
            .ok()
            .and_then(|text| Manifest::parse(&String::from_utf8_lossy(&text)).ok())
            .map(|manifest| manifest.files.into_keys().collect::<Vec<_>>())
            .unwrap_or_default();
        std::iter::once(MANIFEST.to_owned())
            .chain(names)
            .filter_map(|name| {
                let meta = std::fs::metadata(folder.join(&name)).ok()?;
                Some((name, meta.len(), meta.modified().ok()))
            })
            .collect()
    }
}

/// The packages that are part of the program.
pub(super) fn built_in() -> Vec<Candidate> {
    let candidate = |(task_type, version, files): &(&str, &str, Files)| Candidate {
        task_type: (*task_type).to_owned(),
        version: (*version).to_owned(),
        place: Place::BuiltIn(files),
    };
    super::built_in::folders().iter().map(candidate).collect()
}

/// Every `<task_type>/<version>` below `root` that has a manifest, in order. Names that begin with a dot are left out:
/// whoever copies a package in may do it there and rename it then.
///
/// # Errors
/// When the folder cannot be read, which says nothing of its packages.
pub(super) fn folder(root: &Path) -> std::io::Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for (task_type, folder) in folders(root)? {
        for (version, folder) in folders(&folder)? {
            if folder.join(MANIFEST).is_file() {
                found.push(Candidate { task_type: task_type.clone(), version, place: Place::Folder(folder) });
            }
        }
    }
    Ok(found)
}

fn folders(root: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !name.is_empty() && !name.starts_with('.') && path.is_dir() {
            found.push((name, path));
        }
    }
    found.sort();
    Ok(found)
}
