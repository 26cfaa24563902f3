//! From a package to a model: the one place that knows every backend.

use std::path::PathBuf;
use std::sync::Arc;

use crate::loaded::Loaded;
use crate::manifest::{Backend, ManifestError};
use crate::model::Model;
use crate::native::linear::Linear;
use crate::native::tagger::TaggerModel;
use crate::package::{Package, PackageError};
use crate::remote::{self, Secrets};

/// What a process offers to the models it opens.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The operator's ONNX Runtime (`libonnxruntime.so`); without it the backend `onnxruntime` is refused.
    pub onnxruntime: Option<PathBuf>,
    /// What packages may send to the servers they name.
    pub secrets: Secrets,
}

/// Why a package cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("this program was built without the backend {0:?}")]
    NotBuilt(Backend),
    /// A file of the package cannot be what the backend needs.
    #[error("{0}")]
    Broken(String),
    /// The device or library it asks for cannot be had here.
    #[error("{0}")]
    Unavailable(String),
    #[error("input {input}: {reason}")]
    Check { input: String, reason: String },
}

/// Opens a package's model and asks it the package's own checks.
///
/// # Errors
/// [`OpenError`]; nothing of the model stays.
pub fn open(package: Arc<Package>, options: &OpenOptions) -> Result<Loaded, OpenError> {
    let model = model(&package, options)?;
    let loaded = Loaded::new(package, model)?;
    loaded.check()?;
    Ok(loaded)
}

/// The backend's part.
pub(crate) fn model(package: &Package, options: &OpenOptions) -> Result<Box<dyn Model>, OpenError> {
    match package.manifest.runtime.backend {
        Backend::Linear => Ok(Box::new(Linear::open(package)?)),
        Backend::Tagger => Ok(Box::new(TaggerModel::open(package)?)),
        Backend::Trees => crate::native::trees::open(package),
        #[cfg(feature = "onnx")]
        Backend::Onnx => crate::onnx::open_embedded(package),
        #[cfg(not(feature = "onnx"))]
        backend @ Backend::Onnx => Err(OpenError::NotBuilt(backend)),
        #[cfg(feature = "ort")]
        Backend::Onnxruntime => crate::onnx::open_runtime(package, options.onnxruntime.as_deref()),
        #[cfg(not(feature = "ort"))]
        backend @ Backend::Onnxruntime => Err(OpenError::NotBuilt(backend)),
        Backend::Oip | Backend::JsonHttp => remote::open(package, options),
    }
}
