//! Packages in an object store (S3 and its like, Azure, Google Cloud, WebDAV, a folder), kept in a folder that a
//! [`super::Store`] reads.
//!
//! [`Mirror::pull`] is one step; its caller repeats it before each scan. A package is fetched beside its place, verified,
//! and put there whole; when the object store cannot be reached everything stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::manifest::{Manifest, is_task_type, is_version};
use crate::package::{MANIFEST, MOST_MANIFEST, Package};

/// What is asked of an object at once, and how long the object store may take for it. A package may take as long as it is.
const PIECE: u64 = 8 << 20;
const STALL: Duration = Duration::from_secs(60);
/// Packages that are fetched at once.
const AT_ONCE: usize = 4;
/// How long a refused package rests that is still the same. Doubles.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MOST: Duration = Duration::from_secs(3_600);

/// One object store's packages and the folder that holds them here.
pub struct Mirror {
    objects: Box<dyn ObjectStore>,
    prefix: object_store::path::Path,
    folder: PathBuf,
    most_bytes: u64,
    /// The state of each package when it was last dealt with.
    seen: BTreeMap<Name, Seen>,
}

/// Task type and version.
type Name = (String, String);
/// What tells one state of a package's objects from another: path, size, tag and time of each.
type Marks = Vec<(String, u64, Option<String>, i64)>;

struct Seen {
    marks: Marks,
    refused: Option<Refusal>,
}

struct Refusal {
    reason: String,
    again: Instant,
    rest: Duration,
}

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
    /// It cannot be had, is not what its manifest says, or is too large; what was here stays. Told once a reason.
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
    #[error("the object store: no answer within {} s", STALL.as_secs())]
    Silent,
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

    /// Brings the folder up to date; what is wrong with one package keeps no other from coming.
    ///
    /// # Errors
    /// [`MirrorError`] when the object store cannot be listed, or the folder cannot be read.
    pub async fn pull(&mut self) -> Result<Vec<Pulled>, MirrorError> {
        let all: Vec<ObjectMeta> = in_time(self.objects.list(Some(&self.prefix)).try_collect()).await?;
        let manifests: BTreeMap<Name, &ObjectMeta> =
            all.iter().filter_map(|object| Some((self.name(&object.location)?, object))).collect();
        let mut pulled = self.remove_gone(&manifests).await?;
        let due: Vec<(Name, Marks, ObjectMeta)> = manifests
            .into_iter()
            .map(|(name, manifest)| (marks(manifest, &all), name, manifest))
            .filter(|(marks, name, _)| self.is_due(name, marks))
            .map(|(marks, name, manifest)| (name, marks, manifest.clone()))
            .collect();
        let (this, all) = (&*self, &all);
        let fetched: Vec<_> = futures_util::stream::iter(due)
            .map(|(name, marks, manifest)| async move {
                let outcome = this.fetch(&name, &manifest, all).await;
                (name, marks, outcome)
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (name, marks, outcome) in fetched {
            let (task_type, version) = name.clone();
            match outcome {
                Ok(false) => {}
                Ok(true) => pulled.push(Pulled::Fetched { task_type, version }),
                Err(Refused(reason)) => {
                    pulled.extend(self.refuse(name, marks, reason));
                    continue;
                }
            }
            self.seen.insert(name, Seen { marks, refused: None });
        }
        Ok(pulled)
    }

    fn is_due(&self, name: &Name, marks: &Marks) -> bool {
        let Some(seen) = self.seen.get(name).filter(|seen| seen.marks == *marks) else { return true };
        seen.refused.as_ref().is_some_and(|refusal| Instant::now() >= refusal.again)
    }

    fn refuse(&mut self, name: Name, marks: Marks, reason: String) -> Option<Pulled> {
        let old = self.seen.remove(&name).filter(|seen| seen.marks == marks).and_then(|seen| seen.refused);
        let rest = old.as_ref().map_or(RETRY, |old| (old.rest * 2).min(RETRY_MOST));
        let told = old.is_some_and(|old| old.reason == reason);
        let (task_type, version) = name.clone();
        let refused = Some(Refusal { reason: reason.clone(), again: Instant::now() + rest, rest });
        self.seen.insert(name, Seen { marks, refused });
        (!told).then_some(Pulled::Refused { task_type, version, reason })
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

    async fn remove_gone(&mut self, manifests: &BTreeMap<Name, &ObjectMeta>) -> Result<Vec<Pulled>, MirrorError> {
        self.seen.retain(|name, _| manifests.contains_key(name));
        let folder = self.folder.clone();
        let mut removed = Vec::new();
        for name in blocking(move || here(&folder)).await? {
            if manifests.contains_key(&name) {
                continue;
            }
            let place = self.folder.join(&name.0).join(&name.1);
            match tokio::fs::remove_dir_all(&place).await {
                Ok(()) => removed.push(Pulled::Removed { task_type: name.0, version: name.1 }),
                Err(error) => {
                    tracing::warn!(place = %place.display(), %error, "a model package that is gone cannot be removed");
                }
            }
        }
        Ok(removed)
    }

    /// Fetches a package unless it is here already; says whether it did.
    async fn fetch(&self, name: &Name, manifest: &ObjectMeta, all: &[ObjectMeta]) -> Result<bool, Refused> {
        let place = self.folder.join(&name.0).join(&name.1);
        if manifest.size > MOST_MANIFEST {
            return Err(Refused(format!("{MANIFEST} has {} bytes; {MOST_MANIFEST} at most", manifest.size)));
        }
        let text = in_time(self.objects.get_range(&manifest.location, 0..manifest.size)).await?;
        let (here, same) = (place.clone(), text.clone());
        let whole =
            move || Ok(std::fs::read(here.join(MANIFEST)).is_ok_and(|old| old == same) && Package::read(&here).is_ok());
        if blocking(whole).await? {
            return Ok(false);
        }
        let parsed = Manifest::parse(&String::from_utf8_lossy(&text)).map_err(|error| Refused(error.to_string()))?;
        let fresh = tempfile::Builder::new().prefix(".pull-").tempdir_in(&self.folder)?;
        tokio::fs::write(fresh.path().join(MANIFEST), &text).await?;
        let mut bytes = manifest.size;
        for file in parsed.files.keys() {
            let location = file
                .split('/')
                .fold(self.prefix.clone().join(name.0.as_str()).join(name.1.as_str()), |path, part| path.join(part));
            let object = all.iter().find(|object| object.location == location);
            let object = object.ok_or_else(|| Refused(format!("{file} is not there")))?;
            bytes = bytes.saturating_add(object.size);
            if bytes > self.most_bytes {
                return Err(Refused(format!("it has more than {} bytes", self.most_bytes)));
            }
            let fetched = self.download(object, &fresh.path().join(file)).await;
            fetched.map_err(|Refused(reason)| Refused(format!("{file}: {reason}")))?;
        }
        let put = move || {
            let read = Package::read(fresh.path()).map_err(std::io::Error::other);
            read.and_then(|_| put(fresh, &place))
        };
        blocking(put).await?;
        Ok(true)
    }

    async fn download(&self, object: &ObjectMeta, path: &Path) -> Result<(), Refused> {
        if let Some(folder) = path.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut file = tokio::fs::File::create(path).await?;
        let mut at = 0;
        // It may have changed since it was listed; its hash is wrong then anyway.
        while at < object.size {
            let end = object.size.min(at + PIECE);
            let piece = in_time(self.objects.get_range(&object.location, at..end)).await?;
            file.write_all(&piece).await?;
            at = end;
        }
        file.flush().await?;
        Ok(())
    }
}

/// The objects in the folder of a manifest.
fn marks(manifest: &ObjectMeta, all: &[ObjectMeta]) -> Marks {
    let path = manifest.location.as_ref();
    let folder = path.strip_suffix(MANIFEST).unwrap_or(path);
    let mark = |object: &ObjectMeta| {
        (object.location.to_string(), object.size, object.e_tag.clone(), object.last_modified.timestamp_micros())
    };
    let mut marks: Marks = all.iter().filter(|object| object.location.as_ref().starts_with(folder)).map(mark).collect();
    marks.sort_unstable();
    marks
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.prefix, self.folder.display())
    }
}

/// Why one package is not fetched.
struct Refused(String);

impl<E: Into<MirrorError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(match error.into() {
            MirrorError::Folder(error) => error.to_string(),
            error => error.to_string(),
        })
    }
}

/// What the object store says, unless it says nothing.
async fn in_time<T>(asked: impl Future<Output = object_store::Result<T>>) -> Result<T, MirrorError> {
    match tokio::time::timeout(STALL, asked).await {
        Ok(said) => Ok(said?),
        Err(_) => Err(MirrorError::Silent),
    }
}

/// Reads and writes gigabytes where nobody waits for the thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, MirrorError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|_| Err(std::io::Error::other("the work on the folder panicked")))?)
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
        } else if entry.file_type()?.is_dir() {
            for version in std::fs::read_dir(entry.path())? {
                let version = version?;
                // What else lies here is not ours.
                if version.file_type()?.is_dir() {
                    found.insert((task_type.clone(), version.file_name().to_string_lossy().into_owned()));
                }
            }
        }
    }
    Ok(found)
}
