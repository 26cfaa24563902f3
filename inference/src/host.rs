//! A model in a process of its own, for packages whose code or weights nobody vouches for: it may crash, hang, or want all
//! memory there is, and only the input that made it do so fails.
//!
//! The parent ([`open`]) starts the same program again as a child and speaks with it over its standard input and output
//! ([`wire`]). The child ([`serve`]) holds itself to the package's memory, opens the package and answers until its input
//! ends, which it does when the parent is gone.

mod child;
mod command;
mod hosted;
mod last_words;
mod limit;
mod serve;
mod wire;

use std::sync::Arc;

pub use self::command::{HostCommand, Job, Place};
pub use self::serve::serve;

use self::hosted::Hosted;
use crate::loaded::Loaded;
use crate::open::{OpenError, OpenOptions};
use crate::package::Package;

/// Starts the children of a package, each of which asks the model the package's checks; then asks them over the pipe.
///
/// # Errors
/// [`OpenError`]; no child stays.
pub fn open(package: Arc<Package>, command: &HostCommand, options: &OpenOptions) -> Result<Loaded, OpenError> {
    let hosted = Hosted::start(&package, command, options)?;
    let mut loaded = Loaded::new(package, Box::new(hosted))?;
    loaded.apart = true;
    loaded.check()?;
    Ok(loaded)
}
