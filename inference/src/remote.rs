//! Models that somebody else serves: asked over HTTP, one connection kept open a thread.
//!
//! [`oip`] speaks the Open Inference Protocol v2 (Triton, KServe, MLServer); [`json_http`] posts the document and takes the
//! answer for the result (a FastAPI service, as a rule). Both judge what comes back by the package's output schema.

mod answer;
mod http;
mod json_http;
mod oip;
mod secrets;
mod tensor;

pub use self::secrets::{SECRET_PREFIX, Secrets};

use crate::manifest::Backend;
use crate::model::Model;
use crate::open::{OpenError, OpenOptions};
use crate::package::Package;

/// Makes a client of a package whose backend is `oip` or `json_http`. Asks nothing yet: the package's checks do.
///
/// # Errors
/// [`OpenError`] names the field of `model.toml`, or the variable that is not set.
pub(crate) fn open(package: &Package, options: &OpenOptions) -> Result<Box<dyn Model>, OpenError> {
    match package.manifest.runtime.backend {
        Backend::Oip => Ok(Box::new(oip::Oip::open(package, options)?)),
        Backend::JsonHttp => Ok(Box::new(json_http::JsonHttp::open(package, options)?)),
        other => Err(OpenError::NotBuilt(other)),
    }
}
