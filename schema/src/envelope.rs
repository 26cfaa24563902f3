//! The MessagePack document in field `e` of a stream's entry: a map with named fields, the same for every stream of events.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Stored<M, B> {
    /// The stream's encoding version when it was written.
    v: u8,
    meta: M,
    body: B,
}

/// [`Stored`], borrowed for writing.
#[derive(Serialize)]
struct StoredRef<'a, M, B> {
    v: u8,
    meta: &'a M,
    body: &'a B,
}

/// Encodes an event in `version` of its stream's encoding.
pub(crate) fn pack<M: Serialize, B: Serialize>(version: u8, meta: &M, body: &B) -> Vec<u8> {
    rmp_serde::to_vec_named(&StoredRef { v: version, meta, body })
        .expect("writing to memory cannot fail, and every map has a known length")
}

/// Decodes an event of any encoding version up to `newest`; else says why it cannot.
pub(crate) fn unpack<M: DeserializeOwned, B: DeserializeOwned>(newest: u8, bytes: &[u8]) -> Result<(M, B), String> {
    let stored: Stored<M, B> = rmp_serde::from_slice(bytes).map_err(|error| error.to_string())?;
    if stored.v == 0 || stored.v > newest {
        return Err(format!("encoding version {} is not known to this release", stored.v));
    }
    Ok((stored.meta, stored.body))
}
