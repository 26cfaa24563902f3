//! The packages that are part of the program.

use std::sync::Arc;

use crate::package::{Package, PackageError};

/// A package's files: name in the package, content.
pub(super) type Files = &'static [(&'static str, &'static [u8])];

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// Reads and verifies each package that is part of the program.
///
/// # Errors
/// Per package: [`PackageError`] with what is wrong with it.
#[must_use]
pub fn built_in() -> Vec<Result<Arc<Package>, PackageError>> {
    PACKAGES.iter().map(|(_, _, files)| Package::built_in(files).map(Arc::new)).collect()
}

/// Task type and version, as the folders are named, with the files.
pub(super) fn folders() -> &'static [(&'static str, &'static str, Files)] {
    PACKAGES
}
