//! How a child is started, and what it is told.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::open::OpenOptions;
use crate::package::{Package, PackageError};

/// The program that becomes a child, as a rule this one.
#[derive(Clone, Default)]
pub struct HostCommand {
    pub program: PathBuf,
    /// Before the job's own: the subcommand.
    pub arguments: Vec<OsString>,
    /// The child's whole environment: it inherits nothing, least of all secrets.
    pub environment: Vec<(OsString, OsString)>,
}

/// What a child is to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub place: Place,
    /// The package's digest as the parent read it; another package is refused.
    pub digest: String,
}

/// Where a child finds its package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Folder(PathBuf),
    /// Part of the program.
    BuiltIn {
        task_type: String,
        version: String,
    },
}

impl HostCommand {
    /// `… --package DIR` or `… --built-in TASK_TYPE/VERSION`, then `--digest HEX` and perhaps `--onnxruntime FILE`.
    pub(super) fn command(&self, package: &Package, options: &OpenOptions) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        match package.folder() {
            Some(folder) => command.arg("--package").arg(folder),
            None => {
                let manifest = &package.manifest;
                command.arg("--built-in").arg(format!("{}/{}", manifest.task_type, manifest.version))
            }
        };
        command.arg("--digest").arg(&package.digest);
        if let Some(library) = &options.onnxruntime {
            command.arg("--onnxruntime").arg(library);
        }
        // Reserving address space in great pieces would make the bound on it meaningless.
        command
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .env("MIMALLOC_ALLOW_LARGE_OS_PAGES", "0")
            .env("MALLOC_ARENA_MAX", "2");
        command
    }
}

impl std::fmt::Debug for HostCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.program.display(), self.arguments)
    }
}

impl Job {
    /// Reads and verifies the package.
    pub(super) fn read(&self) -> Result<Arc<Package>, String> {
        let package = match &self.place {
            Place::Folder(folder) => Package::read(folder).map(Arc::new),
            Place::BuiltIn { task_type, version } => built_in(task_type, version)?,
        };
        let package = package.map_err(|error| error.to_string())?;
        if package.digest == self.digest {
            Ok(package)
        } else {
            Err(format!("the package has changed: its digest is {}", package.digest))
        }
    }
}

fn built_in(task_type: &str, version: &str) -> Result<Result<Arc<Package>, PackageError>, String> {
    let wanted = |package: &Result<Arc<Package>, PackageError>| {
        package.as_ref().is_ok_and(|it| it.manifest.task_type == task_type && it.manifest.version == version)
    };
    crate::store::built_in()
        .into_iter()
        .find(wanted)
        .ok_or_else(|| format!("no sound package {task_type}/{version} is part of this program"))
}
