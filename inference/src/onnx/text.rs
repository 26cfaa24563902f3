//! From a text to windows of tokens, with any `tokenizer.json`.

use tokenizers::{Encoding, Tokenizer, TruncationDirection};

use crate::model::{InferError, Window};
use crate::onnx::section::{Overflow, Section};
use crate::open::OpenError;

/// A tokenizer with its windows' size.
pub(crate) struct TextReader {
    tokenizer: Tokenizer,
    /// Of one window, in tokens without the special ones.
    length: usize,
    overflow: Overflow,
    stride: usize,
}

impl TextReader {
    /// Reads a `tokenizer.json`. What it says of padding and truncation gives way to the manifest.
    ///
    /// # Errors
    /// [`OpenError::Broken`].
    pub(crate) fn new(json: &[u8], name: &str, section: &Section) -> Result<Self, OpenError> {
        let mut tokenizer = Tokenizer::from_bytes(json)
            .map_err(|error| OpenError::Broken(format!("{name} is no tokenizer.json: {error}")))?;
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| OpenError::Broken(format!("{name}: {error}")))?;
        let special = tokenizer
            .encode("", true)
            .map_err(|error| OpenError::Broken(format!("{name} cannot read an empty text: {error}")))?
            .len();
        if section.max_tokens <= special + section.stride {
            return Err(OpenError::Broken(format!(
                "model.toml: max_tokens must be more than stride and the tokenizer's {special} special tokens"
            )));
        }
        let length = section.max_tokens - special;
        Ok(Self { tokenizer, length, overflow: section.overflow, stride: section.stride })
    }

    /// A text's windows, at least one, none of them empty.
    pub(crate) fn read(&self, text: &str) -> Result<Vec<Window>, InferError> {
        let unread = |_| InferError::bad_input("the tokenizer cannot read this text");
        let mut first = self.tokenizer.encode(text, false).map_err(unread)?;
        let stride = if self.overflow == Overflow::Windows { self.stride } else { 0 };
        first.truncate(self.length, stride, TruncationDirection::Right);
        let mut parts = vec![first];
        if self.overflow == Overflow::Windows {
            let others = parts[0].take_overflowing();
            parts.extend(others);
        } else {
            parts[0].take_overflowing();
        }
        let mut windows = Vec::with_capacity(parts.len());
        for part in parts {
            let whole = self.tokenizer.post_process(part, None, true).map_err(unread)?;
            if !whole.is_empty() {
                windows.push(window(&whole));
            }
        }
        if windows.is_empty() {
            return Err(InferError::bad_input("the tokenizer finds no tokens in this text"));
        }
        Ok(windows)
    }
}

fn window(encoding: &Encoding) -> Window {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let special = encoding.get_special_tokens_mask();
    Window {
        ids: encoding.get_ids().to_vec(),
        type_ids: encoding.get_type_ids().to_vec(),
        offsets: encoding
            .get_offsets()
            .iter()
            .zip(special)
            .map(|((start, end), special)| if *special == 1 { (0, 0) } else { (offset(*start), offset(*end)) })
            .collect(),
        words: encoding.get_word_ids().to_vec(),
    }
}
