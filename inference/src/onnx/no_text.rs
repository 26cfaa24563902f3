//! Stands for `text` where no tokenizers were built in: text models are refused, nothing else changes.

use crate::model::{InferError, Window};
use crate::onnx::section::Section;
use crate::open::OpenError;

/// There is none.
pub(crate) enum TextReader {}

impl TextReader {
    pub(crate) fn new(_json: &[u8], _name: &str, _section: &Section) -> Result<Self, OpenError> {
        Err(OpenError::Unavailable("this program was built without tokenizers".to_owned()))
    }

    pub(crate) fn read(&self, _text: &str) -> Result<Vec<Window>, InferError> {
        match *self {}
    }
}
