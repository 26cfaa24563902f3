//! What parent and child say: MessagePack, each message after its length in bytes (32 bits, little-endian).

use std::io::{Error, ErrorKind, Read, Result, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::batch::Answer;
use crate::model::RunsOn;

/// The longest message.
pub(super) const MOST_BYTES: u32 = 256 << 20;

/// The child's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Hello {
    Ready { runs_on: RunsOn, resident_bytes: u64 },
    Refused { reason: String },
}

/// The parent asks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) id: u64,
    pub(super) documents: Vec<Value>,
}

/// The child answers: one answer a document, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) id: u64,
    pub(super) answers: Vec<Answer>,
}

pub(super) fn write(mut to: impl Write, message: &impl Serialize) -> Result<()> {
    let bytes = rmp_serde::to_vec_named(message).map_err(Error::other)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MOST_BYTES);
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "a message is too long"))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// The next message; `None` at the end of the stream.
pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_le_bytes(length);
    if length > MOST_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes is announced")));
    }
    // Memory is taken for what comes, not for what is announced.
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    rmp_serde::from_slice(&bytes).map(Some).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::InferError;

    #[test]
    fn what_was_said_is_what_is_heard() {
        let mut pipe = Vec::new();
        let documents = vec![json!({"text": "好消息", "rows": [1, -2.5, null, true], "big": u64::MAX})];
        write(&mut pipe, &Ask { id: 7, documents: documents.clone() }).unwrap();
        let answers = vec![Ok("{}".to_owned()), Err(InferError::bad_input("/text"))];
        write(&mut pipe, &Reply { id: 7, answers: answers.clone() }).unwrap();
        let mut pipe = pipe.as_slice();
        let ask: Ask = read(&mut pipe).unwrap().unwrap();
        assert_eq!((ask.id, ask.documents), (7, documents));
        let reply: Reply = read(&mut pipe).unwrap().unwrap();
        assert_eq!((reply.id, reply.answers), (7, answers));
        assert!(read::<Reply>(&mut pipe).unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error() {
        for nonsense in
            [&b"\xff\xff\xff\xff"[..], b"\x05\0\0\0ab", b"\x03\0\0\0abc", b"Loading model\n...", b"\0\0\0\x0f"]
        {
            assert!(read::<Reply>(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
