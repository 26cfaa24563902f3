//! From a package to a model that can be asked.

use std::sync::Arc;

use crate::host::{self, HostCommand};
use crate::loaded::Loaded;
use crate::manifest::{Backend, Isolation, Manifest};
use crate::open::{OpenError, OpenOptions, open};
use crate::package::Package;

/// Makes a model of a package and asks it the package's checks. Called on threads that may block.
pub trait Open: Send + Sync + 'static {
    /// # Errors
    /// [`OpenError`]; nothing of the model stays.
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError>;
}

/// Who decides whether a model runs in a process of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Apart {
    /// Its package.
    #[default]
    AsPackaged,
    /// Whatever runs by code that is not of this program does, its package may say what it will.
    Foreign,
}

/// The way of the product: in this process, or in one of its own where the package asks for it.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    pub options: OpenOptions,
    /// How a model's own process is started; without it packages that ask for one are refused.
    pub host: Option<HostCommand>,
    pub apart: Apart,
}

impl Opener {
    fn isolation(&self, manifest: &Manifest) -> Isolation {
        let foreign = matches!(manifest.runtime.backend, Backend::Onnx | Backend::Onnxruntime);
        match self.apart {
            Apart::Foreign if foreign => Isolation::Process,
            Apart::Foreign | Apart::AsPackaged => manifest.isolation(),
        }
    }
}

impl Open for Opener {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        match (self.isolation(&package.manifest), &self.host) {
            (Isolation::None, _) => open(package, &self.options),
            (Isolation::Process, Some(command)) => host::open(package, command, &self.options),
            (Isolation::Process, None) => {
                Err(OpenError::Unavailable("it asks for a process of its own, and none can be started here".to_owned()))
            }
        }
    }
}

/// In this process, whatever the package asks for: the way of the child itself, and of commands that try one package.
#[derive(Debug, Clone, Default)]
pub struct InThisProcess(pub OpenOptions);

impl Open for InThisProcess {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        open(package, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_can_keep_foreign_code_apart_whatever_a_package_says() {
        let manifest = |backend: &str, said: &str| {
            let text = format!(
                "format = 1\ntask_type = \"t\"\nversion = \"v\"\nname = \"n\"\n[runtime]\nbackend = \"{backend}\"\nmemory_mb = 1\n{said}\n[input]\nschema = {{}}\n[output]\nschema = {{}}"
            );
            Manifest::parse(&text).unwrap()
        };
        for (backend, said, as_packaged, foreign) in [
            ("onnx", "", Isolation::Process, Isolation::Process),
            ("onnx", "isolation = \"none\"", Isolation::None, Isolation::Process),
            ("onnxruntime", "isolation = \"none\"", Isolation::None, Isolation::Process),
            ("linear", "", Isolation::None, Isolation::None),
            ("linear", "isolation = \"process\"", Isolation::Process, Isolation::Process),
        ] {
            let manifest = manifest(backend, said);
            let isolation = |apart| Opener { apart, ..Opener::default() }.isolation(&manifest);
            assert_eq!((isolation(Apart::AsPackaged), isolation(Apart::Foreign)), (as_packaged, foreign), "{backend}");
        }
    }
}
