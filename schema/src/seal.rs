//! How a secret travels inside an event: AES-256-GCM under the installation's key.
//!
//! Sealed form: one version byte `1`, a 96-bit random nonce, then ciphertext and tag (NIST SP 800-38D).

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Seals and opens secrets. Its key never shows in `Debug`.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes256Gcm,
    digest_key: [u8; 32],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

/// A sealed secret that cannot be opened: another key, another task, or damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed secret cannot be opened with this key")]
pub struct CannotOpen;

impl Sealer {
    /// From the installation's 32-byte key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let digest_key = Sha256::new().chain_update(b"insightforge digest").chain_update(key).finalize().into();
        Self { cipher: Aes256Gcm::new(&(*key).into()), digest_key }
    }

    /// Tells two secrets apart without keeping either: HMAC-SHA256 under a key derived from the installation's, so that
    /// a short secret cannot be guessed from it.
    #[must_use]
    pub fn digest(&self, secret: &[u8]) -> [u8; 32] {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.digest_key).expect("HMAC takes a key of any length");
        mac.update(secret);
        mac.finalize().into_bytes().into()
    }

    /// Seals `secret` for `context` (the task's id): it opens only there.
    #[must_use]
    pub fn seal(&self, secret: &[u8], context: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: secret, aad: context })
            .expect("AES-GCM takes any message below 64 GiB");
        [&[VERSION][..], &nonce, &sealed].concat()
    }

    /// Opens what [`Self::seal`] made for the same context.
    ///
    /// # Errors
    /// [`CannotOpen`].
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Vec<u8>, CannotOpen> {
        let (&version, rest) = sealed.split_first().ok_or(CannotOpen)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(CannotOpen)?;
        if version != VERSION {
            return Err(CannotOpen);
        }
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| CannotOpen)?;
        self.cipher.decrypt(&Nonce::from(nonce), Payload { msg: sealed, aad: context }).map_err(|_| CannotOpen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_only_with_the_same_key_and_for_the_same_task() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal(b"a webhook secret", b"task-1");
        assert_eq!(sealer.open(&sealed, b"task-1").as_deref(), Ok(&b"a webhook secret"[..]));
        assert_eq!(sealer.open(&sealed, b"task-2"), Err(CannotOpen));
        assert_eq!(Sealer::new(&[8; 32]).open(&sealed, b"task-1"), Err(CannotOpen));
        assert_eq!(sealer.open(&sealed[..sealed.len() - 1], b"task-1"), Err(CannotOpen));
        assert_eq!(sealer.open(b"", b"task-1"), Err(CannotOpen));
        assert_ne!(sealed, sealer.seal(b"a webhook secret", b"task-1"), "a nonce is never used twice");
        assert_ne!(sealer.digest(b"one"), sealer.digest(b"two"));
        assert_ne!(sealer.digest(b"one"), Sealer::new(&[8; 32]).digest(b"one"));
        assert!(!sealed.windows(7).any(|window| window == b"webhook"));
    }
}
