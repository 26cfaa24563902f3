//! `Idempotency-Key`: the same key with the same body is the same task, and gets the same answer.
//!
//! The key lives in the partition its hash names; a task that is stored under a key gets an id in that partition, so that
//! one script sees both. A repeat that arrives while the first is still on its way is stored after it and finds it.

use axum::http::{HeaderMap, HeaderName};
use insightforge_schema::id::{Partition, PartitionCount};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::{Link, LinkError};
use insightforge_schema::{DEDUPE_TTL_S, DEFAULT_TENANT};
use sha2::{Digest, Sha256};

use crate::problem::Fields;

/// The request header.
pub(crate) const HEADER: &str = "Idempotency-Key";
/// Tells an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in characters.
const MAX_CHARS: usize = 255;

/// A caller's key for one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// Hex SHA-256 of tenant, route and key: never what the caller wrote.
    hash: String,
}

impl Key {
    /// Reads the header; `None` when there is none or, noted in `faults`, when it is wrong.
    pub(crate) fn read(headers: &HeaderMap, route: &str, faults: &mut Fields) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        let value = values.next()?;
        if values.next().is_some() {
            faults.add(HEADER, "is there twice");
            return None;
        }
        let bytes = value.as_bytes();
        if !(1..=MAX_CHARS).contains(&bytes.len()) || !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
            faults.add(HEADER, format!("must have 1 to {MAX_CHARS} printable ASCII characters"));
            return None;
        }
        let mut hash = Sha256::new();
        for part in [DEFAULT_TENANT.as_bytes(), route.as_bytes()] {
            hash.update(part);
            hash.update([0]);
        }
        Some(Self { hash: hex::encode(hash.chain_update(bytes).finalize()) })
    }

    pub(crate) fn partition(&self, partitions: PartitionCount) -> Partition {
        partitions.of(self.hash.as_bytes())
    }

    /// The Redis key.
    pub(crate) fn name(&self, keys: &Keys, partition: Partition) -> String {
        keys.idempotency(partition, &self.hash)
    }

    /// Takes the key for `value` (`<fingerprint>|<id>`, as the submit script writes it) unless it is taken; says for
    /// what it was. For requests that cannot be stored in the key's own partition. Safe to repeat: a second call finds
    /// the first one's value.
    pub(crate) async fn reserve(
        &self,
        link: &Link,
        keys: &Keys,
        partitions: PartitionCount,
        value: &str,
    ) -> Result<Option<String>, LinkError> {
        let mut command = redis::cmd("SET");
        command.arg(self.name(keys, self.partition(partitions))).arg(value);
        link.write(command.arg("NX").arg("GET").arg("EX").arg(DEDUPE_TTL_S)).await
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(values: &[&[u8]]) -> (Option<Key>, String) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        let mut faults = Fields::default();
        let key = Key::read(&headers, "upload", &mut faults);
        (key, faults.summary())
    }

    #[test]
    fn a_key_is_printable_and_not_too_long() {
        let longest = "k".repeat(MAX_CHARS);
        assert_eq!(read(&[]), (None, String::new()));
        assert!(read(&[b"a key ~"]).0.is_some());
        assert!(read(&[longest.as_bytes()]).0.is_some());
        let too_long = format!("{longest}k");
        for wrong in [&b""[..], b"tab\t", "好".as_bytes(), too_long.as_bytes()] {
            let (key, fault) = read(&[wrong]);
            assert_eq!((key, fault.contains("1 to 255 printable")), (None, true));
        }
        assert_eq!(read(&[b"a", b"b"]).1, "Idempotency-Key: is there twice");
    }

    #[test]
    fn a_key_names_something_else_on_another_route() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static("k"));
        let key = |route| Key::read(&headers, route, &mut Fields::default()).unwrap();
        assert_eq!(key("upload"), key("upload"));
        assert_ne!(key("upload"), key("batch"));
        assert!(!format!("{:?}", key("upload")).contains("\"k\""));
    }
}
