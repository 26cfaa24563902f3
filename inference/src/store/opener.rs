//! From a package to a model that can be asked.

use std::sync::Arc;

use crate::loaded::Loaded;
use crate::open::{OpenError, OpenOptions, open};
use crate::package::Package;

/// Makes a model of a package and asks it the package's checks. Called on threads that may block.
pub trait Open: Send + Sync + 'static {
    /// # Errors
    /// [`OpenError`]; nothing of the model stays.
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError>;
}

/// The way of the product.
#[derive(Debug, Clone, Default)]
pub struct Opener {
    pub options: OpenOptions,
}

impl Open for Opener {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        open(package, &self.options)
    }
}
