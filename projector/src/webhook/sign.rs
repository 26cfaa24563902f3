//! Signatures over the bytes that are sent.
//!
//! - Standard Webhooks 1.0.0 (`spec/standard-webhooks.md` of that project): `webhook-id`, `webhook-timestamp`, and
//!   `webhook-signature: v1,` base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`. Key: what is base64 behind `whsec_`.
//! - `X-Webhook-Signature`: hex of HMAC-SHA256 over the body, keyed with the secret as it is written (what
//!   `hash_hmac('sha256', $body, $secret)` gives in PHP). It covers neither id nor time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A secret made ready: the keys' inner and outer hash states are computed once.
#[derive(Clone)]
pub struct Signer {
    standard: Hmac<Sha256>,
    legacy: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

impl Signer {
    /// From a secret as it is written. Without `whsec_` in front, its bytes are the key of both schemes. `None` when
    /// it is empty, or what follows `whsec_` is not base64.
    #[must_use]
    pub fn new(secret: &[u8], legacy: bool) -> Option<Self> {
        let decoded;
        let key = match secret.strip_prefix(b"whsec_") {
            Some(encoded) => {
                decoded = STANDARD.decode(encoded).ok()?;
                &decoded[..]
            }
            None => secret,
        };
        if key.is_empty() {
            return None;
        }
        Some(Self { standard: keyed(key), legacy: legacy.then(|| keyed(secret)) })
    }

    /// The value of `webhook-signature`; `at_s` in seconds since 1970-01-01 UTC is what `webhook-timestamp` says.
    #[must_use]
    pub fn standard(&self, id: &str, at_s: i64, body: &[u8]) -> String {
        let mut mac = self.standard.clone();
        mac.update(format!("{id}.{at_s}.").as_bytes());
        mac.update(body);
        let mut value = String::with_capacity(48);
        value.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
        value
    }

    /// The value of `X-Webhook-Signature`, when the endpoint wants it.
    #[must_use]
    pub fn legacy(&self, body: &[u8]) -> Option<String> {
        let mut mac = self.legacy.clone()?;
        mac.update(body);
        Some(hex::encode(mac.finalize().into_bytes()))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(secret: &str) -> Signer {
        Signer::new(secret.as_bytes(), true).unwrap()
    }

    #[test]
    fn the_published_vectors_of_standard_webhooks_come_out() {
        // From the unit tests of the reference libraries of Standard Webhooks and of Svix.
        for (secret, id, at_s, body, signature) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            assert_eq!(signer(secret).standard(id, at_s, body.as_bytes()), signature);
        }
    }

    #[test]
    fn the_legacy_header_is_the_published_hmac_sha256_vector_in_hex() {
        // RFC 4231 §4.3, test case 2.
        assert_eq!(
            signer("Jefe").legacy(b"what do ya want for nothing?").as_deref(),
            Some("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
    }

    #[test]
    fn the_legacy_header_is_keyed_with_the_secret_as_it_is_written() {
        let written = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let decoded = STANDARD.decode(&written["whsec_".len()..]).unwrap();
        assert_ne!(signer(written).legacy(b"x"), Signer::new(&decoded, true).unwrap().legacy(b"x"));
        assert_eq!(signer(written).standard("a", 1, b"x"), Signer::new(&decoded, true).unwrap().standard("a", 1, b"x"));
        assert_eq!(Signer::new(b"Jefe", false).unwrap().legacy(b"x"), None);
    }

    #[test]
    fn a_secret_that_is_no_key_is_refused_and_none_shows_in_debug() {
        for bad in ["", "whsec_", "whsec_not base64", "whsec_%%%"] {
            assert!(Signer::new(bad.as_bytes(), true).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", signer("Jefe")), "Signer(…)");
    }
}
