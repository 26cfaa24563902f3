//! Packages in an object store (S3 and its like, Azure, Google Cloud, WebDAV, a folder), kept in a folder that a
//! [`super::Store`] reads.
//!
//! [`Mirror::pull`] is one step; its caller repeats it before each scan. A package is fetched beside its place, verified,
//! and put there whole; when the object store cannot be reached everything stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use url::Url;

use crate::manifest::{Manifest, is_task_type, is_version};
use crate::package::{MANIFEST, Package};

/// The largest manifest, in bytes.
const MOST_MANIFEST: u64 = 4 << 20;

/// One object store's packages and the folder that holds them here.
pub struct Mirror {
    objects: Box<dyn ObjectStore>,
    prefix: object_store::path::Path,
    folder: PathBuf,
    most_bytes: u64,
    /// The state of each manifest when it was last dealt with.
    seen: BTreeMap<Name, Seen>,
}

/// Task type and version.
type Name = (String, String);
/// What tells one state of an object from another.
type Seen = (u64, Option<String>, i64);

/// What a pull changed in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    Fetched {
        task_type: String,
        version: String,
    },
    /// It is gone in the object store.
    Removed {
        task_type: String,
        version: String,
    },
    /// It is not what its manifest says, or too large; what was here stays.
    Refused {
        task_type: String,
        version: String,
        reason: String,
    },
}

/// Why nothing could be pulled.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("the object store: {0}")]
    Objects(#[from] object_store::Error),
    #[error("the local folder: {0}")]
    Folder(#[from] std::io::Error),
}

impl Mirror {
    /// `url` names bucket and prefix (`s3://bucket/models`); `options` are `object_store`'s (credentials, region, endpoint).
    /// `folder` is this mirror's alone: what is in it and not in the object store is removed. Packages of more than
    /// `most_bytes` are refused.
    ///
    /// # Errors
    /// [`MirrorError`] when the URL is of no known kind or the folder cannot be made.
    pub fn open(
        url: &Url,
        options: impl IntoIterator<Item = (String, String)>,
        folder: PathBuf,
        most_bytes: u64,
    ) -> Result<Self, MirrorError> {
        let (objects, prefix) = object_store::parse_url_opts(url, options)?;
        std::fs::create_dir_all(&folder)?;
        Ok(Self { objects, prefix, folder, most_bytes, seen: BTreeMap::new() })
    }

    /// The folder for the store.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Brings the folder up to date.
    ///
    /// # Errors
    /// [`MirrorError`]; what was pulled before it stays.
    pub async fn pull(&mut self) -> Result<Vec<Pulled>, MirrorError> {
        let all: Vec<ObjectMeta> = self.objects.list(Some(&self.prefix)).try_collect().await?;
        let manifests: BTreeMap<Name, &ObjectMeta> =
            all.iter().filter_map(|object| Some((self.name(&object.location)?, object))).collect();
        let mut pulled = self.remove_gone(&manifests)?;
        for (name, manifest) in manifests {
            let now = (manifest.size, manifest.e_tag.clone(), manifest.last_modified.timestamp_micros());
            if self.seen.get(&name) == Some(&now) {
                continue;
            }
            let (task_type, version) = name.clone();
            match self.fetch(&name, manifest, &all).await {
                Ok(false) => {}
                Ok(true) => pulled.push(Pulled::Fetched { task_type, version }),
                // Asked again at the next pull: a file may still be on its way.
                Err(Trouble::Package(reason)) => {
                    pulled.push(Pulled::Refused { task_type, version, reason });
                    continue;
                }
                Err(Trouble::Mirror(error)) => return Err(error),
            }
            self.seen.insert(name, now);
        }
        Ok(pulled)
    }

    /// Task type and version, of the path of a manifest directly in such a folder.
    fn name(&self, location: &object_store::path::Path) -> Option<Name> {
        let parts: Vec<_> = location.prefix_match(&self.prefix)?.collect();
        match &parts[..] {
            [task_type, version, manifest]
                if manifest.as_ref() == MANIFEST
                    && is_task_type(task_type.as_ref())
                    && is_version(version.as_ref()) =>
            {
                Some((task_type.as_ref().to_owned(), version.as_ref().to_owned()))
            }
            _ => None,
        }
    }

    fn remove_gone(&mut self, manifests: &BTreeMap<Name, &ObjectMeta>) -> Result<Vec<Pulled>, MirrorError> {
        let mut removed = Vec::new();
        for name in here(&self.folder)? {
            if !manifests.contains_key(&name) {
                std::fs::remove_dir_all(self.folder.join(&name.0).join(&name.1))?;
                self.seen.remove(&name);
                removed.push(Pulled::Removed { task_type: name.0, version: name.1 });
            }
        }
        Ok(removed)
    }

    /// Fetches a package unless it is here already; says whether it did.
    async fn fetch(&self, name: &Name, manifest: &ObjectMeta, all: &[ObjectMeta]) -> Result<bool, Trouble> {
        let place = self.folder.join(&name.0).join(&name.1);
        if manifest.size > MOST_MANIFEST {
            return Err(Trouble::Package(format!("{MANIFEST} has {} bytes; {MOST_MANIFEST} at most", manifest.size)));
        }
        let text = self.objects.get(&manifest.location).await?.bytes().await?;
        if std::fs::read(place.join(MANIFEST)).is_ok_and(|old| old == text) && Package::read(&place).is_ok() {
            return Ok(false);
        }
        let parsed =
            Manifest::parse(&String::from_utf8_lossy(&text)).map_err(|error| Trouble::Package(error.to_string()))?;
        let fresh = tempfile::Builder::new().prefix(".pull-").tempdir_in(&self.folder)?;
        std::fs::write(fresh.path().join(MANIFEST), &text)?;
        let mut bytes = manifest.size;
        for file in parsed.files.keys() {
            let location = file
                .split('/')
                .fold(self.prefix.clone().join(name.0.as_str()).join(name.1.as_str()), |path, part| path.join(part));
            let object = all.iter().find(|object| object.location == location);
            let object = object.ok_or_else(|| Trouble::Package(format!("{file} is not there")))?;
            bytes = bytes.saturating_add(object.size);
            if bytes > self.most_bytes {
                return Err(Trouble::Package(format!("it has more than {} bytes", self.most_bytes)));
            }
            self.download(object, &fresh.path().join(file)).await?;
        }
        Package::read(fresh.path()).map_err(|error| Trouble::Package(error.to_string()))?;
        put(fresh, &place)?;
        Ok(true)
    }

    async fn download(&self, object: &ObjectMeta, path: &Path) -> Result<(), MirrorError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::File::create(path)?;
        let mut content = self.objects.get(&object.location).await?.into_stream();
        let mut left = object.size;
        while let Some(piece) = content.try_next().await? {
            // It may have grown since it was listed; its hash is wrong then anyway.
            let take = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.write_all(&piece[..take])?;
            left -= take as u64;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.prefix, self.folder.display())
    }
}

enum Trouble {
    Package(String),
    Mirror(MirrorError),
}

impl<E: Into<MirrorError>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Mirror(error.into())
    }
}

/// Puts a whole package in its place.
fn put(fresh: tempfile::TempDir, place: &Path) -> std::io::Result<()> {
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let fresh = fresh.keep();
    if !place.exists() {
        return std::fs::rename(&fresh, place);
    }
    exchange(&fresh, place)?;
    std::fs::remove_dir_all(fresh)
}

/// Puts each in the other's place: at no time is a place empty for whoever looks for packages there.
fn exchange(fresh: &Path, place: &Path) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, fresh, CWD, place, RenameFlags::EXCHANGE) {
            // The file system cannot.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            outcome => return Ok(outcome?),
        }
    }
    let old = fresh.with_extension("old");
    std::fs::rename(place, &old)?;
    std::fs::rename(fresh, place)?;
    std::fs::rename(old, fresh)
}

/// The packages in the folder; rests of a pull that was cut short are removed.
fn here(folder: &Path) -> std::io::Result<BTreeSet<Name>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let task_type = entry.file_name().to_string_lossy().into_owned();
        if task_type.starts_with(".pull-") {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.path().is_dir() {
            for version in std::fs::read_dir(entry.path())? {
                found.insert((task_type.clone(), version?.file_name().to_string_lossy().into_owned()));
            }
        }
    }
    Ok(found)
}
