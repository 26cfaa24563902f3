//! A package: one model version as files, verified.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::manifest::{Manifest, ManifestError, Schema};

/// The name of the manifest in every package.
pub const MANIFEST: &str = "model.toml";
/// The largest manifest, in bytes.
pub(crate) const MOST_MANIFEST: u64 = 4 << 20;

/// A package whose files are all there and are what its manifest says.
#[derive(Debug)]
pub struct Package {
    pub manifest: Manifest,
    /// SHA-256 of `model.toml`, in hex: since that names the hash of every other file, it names the whole package.
    pub digest: String,
    /// Bytes of all files.
    pub size: u64,
    files: Files,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub enum Files {
    Folder(PathBuf),
    /// Part of the program.
    BuiltIn(&'static [(&'static str, &'static [u8])]),
}

/// Why a folder is no package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{name}: {error}")]
    Unreadable { name: String, error: std::io::Error },
    #[error("{name} is not the file the manifest names: its SHA-256 is {actual}")]
    WrongHash { name: String, actual: String },
    #[error("{name}: {reason}")]
    BadSchema { name: String, reason: String },
}

impl Package {
    /// Reads and verifies a folder.
    ///
    /// # Errors
    /// [`PackageError`] says what is missing or differs.
    pub fn read(folder: &Path) -> Result<Self, PackageError> {
        Self::verify(Files::Folder(folder.to_owned()))
    }

    /// Verifies a package that is part of the program.
    ///
    /// # Errors
    /// As [`Package::read`].
    pub fn built_in(files: &'static [(&'static str, &'static [u8])]) -> Result<Self, PackageError> {
        Self::verify(Files::BuiltIn(files))
    }

    fn verify(files: Files) -> Result<Self, PackageError> {
        let text = files.read(MANIFEST)?;
        let manifest = Manifest::parse(&String::from_utf8_lossy(&text))?;
        let mut size = text.len() as u64;
        for (name, expected) in &manifest.files {
            let (actual, bytes) = files.hash(name)?;
            if !actual.eq_ignore_ascii_case(expected) {
                return Err(PackageError::WrongHash { name: name.clone(), actual });
            }
            size += bytes;
        }
        let digest = hex::encode(Sha256::digest(&text));
        Ok(Self { manifest, digest, size, files })
    }

    /// The content of a file the manifest names, if it still is what the manifest says: what is used is what was verified.
    ///
    /// # Errors
    /// [`PackageError`], also when the manifest does not name it.
    pub fn file(&self, name: &str) -> Result<Cow<'static, [u8]>, PackageError> {
        let Some(expected) = self.manifest.files.get(name) else {
            let error = std::io::Error::new(std::io::ErrorKind::NotFound, "the manifest's [files] do not name it");
            return Err(unreadable(name, error));
        };
        let content = self.files.read(name)?;
        // What is part of the program cannot have changed since.
        if self.folder().is_some() {
            let actual = hex::encode(Sha256::digest(&content));
            if !actual.eq_ignore_ascii_case(expected) {
                return Err(PackageError::WrongHash { name: name.to_owned(), actual });
            }
        }
        Ok(content)
    }

    /// The folder it was read from; `None` when it is part of the program.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.files {
            Files::Folder(folder) => Some(folder),
            Files::BuiltIn(_) => None,
        }
    }

    /// JSON Schema of input documents.
    ///
    /// # Errors
    /// [`PackageError`] when the file that should hold it does not.
    pub fn input_schema(&self) -> Result<Value, PackageError> {
        self.schema(&self.manifest.input.schema)
    }

    /// JSON Schema of result documents.
    ///
    /// # Errors
    /// As [`Package::input_schema`].
    pub fn output_schema(&self) -> Result<Value, PackageError> {
        self.schema(&self.manifest.output.schema)
    }

    fn schema(&self, schema: &Schema) -> Result<Value, PackageError> {
        match schema {
            Schema::Here(value) => Ok(value.clone()),
            Schema::File(name) => serde_json::from_slice(&self.file(name)?)
                .map_err(|error| PackageError::BadSchema { name: name.clone(), reason: error.to_string() }),
        }
    }
}

impl Files {
    fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, PackageError> {
        match self {
            Self::Folder(folder) if name == MANIFEST => {
                manifest(folder).map(Cow::Owned).map_err(|error| unreadable(name, error))
            }
            Self::Folder(folder) => {
                let path = within(folder, name).map_err(|error| unreadable(name, error))?;
                let content = regular(&path).and_then(|_| std::fs::read(&path));
                content.map(Cow::Owned).map_err(|error| unreadable(name, error))
            }
            Self::BuiltIn(_) => self.built_in(name).map(Cow::Borrowed),
        }
    }

    /// SHA-256 in hex, and the length in bytes.
    fn hash(&self, name: &str) -> Result<(String, u64), PackageError> {
        match self {
            Self::Folder(folder) => {
                within(folder, name).and_then(|path| hash_file(&path)).map_err(|error| unreadable(name, error))
            }
            Self::BuiltIn(_) => {
                let content = self.built_in(name)?;
                Ok((hex::encode(Sha256::digest(content)), content.len() as u64))
            }
        }
    }

    fn built_in(&self, name: &str) -> Result<&'static [u8], PackageError> {
        let Self::BuiltIn(files) = self else { unreachable!("only asked of files in the program") };
        files
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, content)| *content)
            .ok_or_else(|| unreadable(name, std::io::ErrorKind::NotFound.into()))
    }
}

/// The text of a folder's manifest.
pub(crate) fn manifest(folder: &Path) -> std::io::Result<Vec<u8>> {
    let path = folder.join(MANIFEST);
    let bytes = regular(&path)?;
    if bytes > MOST_MANIFEST {
        return Err(std::io::Error::other(format!("it has {bytes} bytes; {MOST_MANIFEST} at most")));
    }
    std::fs::read(path)
}

/// Where a file is, links followed: within its package's folder, or what stands elsewhere on this machine would be shown as
/// part of it.
fn within(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    let (folder, path) = (folder.canonicalize()?, folder.join(name).canonicalize()?);
    if path.starts_with(&folder) {
        Ok(path)
    } else {
        Err(std::io::Error::other("it is a link out of the package's folder"))
    }
}

/// The length of a regular file; others (a pipe, a device) may never end, or never answer.
fn regular(path: &Path) -> std::io::Result<u64> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() { Ok(metadata.len()) } else { Err(std::io::Error::other("it is no regular file")) }
}

fn hash_file(path: &Path) -> std::io::Result<(String, u64)> {
    regular(path)?;
    let mut file = std::fs::File::open(path)?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex::encode(hasher.finalize()), bytes));
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
}

fn unreadable(name: &str, error: std::io::Error) -> PackageError {
    PackageError::Unreadable { name: name.to_owned(), error }
}
