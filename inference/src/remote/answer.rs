//! What a server's answer must be before it is anybody's result.

use serde_json::Value;

use crate::model::InferError;
use crate::open::OpenError;
use crate::package::{Package, PackageError};

/// The package's output schema at work.
pub(super) struct Answers {
    schema: jsonschema::Validator,
}

impl Answers {
    pub(super) fn of(package: &Package) -> Result<Self, OpenError> {
        let schema = jsonschema::validator_for(&package.output_schema()?)
            .map_err(|error| PackageError::BadSchema { name: "output.schema".to_owned(), reason: error.to_string() })?;
        Ok(Self { schema })
    }

    /// The result as text, when it is one.
    pub(super) fn judge(&self, result: &Value) -> Result<String, InferError> {
        match self.schema.iter_errors(result).next() {
            None => Ok(result.to_string()),
            Some(error) => {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "the result".to_owned() } else { place };
                Err(InferError::bad_output(format!("{place}: {}", error.masked())))
            }
        }
    }
}
