//! From a package to a model that can be asked.

use std::sync::Arc;

use crate::host::{self, HostCommand};
use crate::loaded::Loaded;
use crate::manifest::Isolation;
use crate::open::{OpenError, OpenOptions, open};
use crate::package::Package;

/// Makes a model of a package and asks it the package's checks. Called on threads that may block.
pub trait Open: Send + Sync + 'static {
    /// # Errors
    /// [`OpenError`]; nothing of the model stays.
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError>;
}

/// The way of the product: in this process, or in one of its own where the package asks for it.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    pub options: OpenOptions,
    /// How a model's own process is started; without it packages that ask for one are refused.
    pub host: Option<HostCommand>,
}

impl Open for Opener {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        match (package.manifest.isolation(), &self.host) {
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
