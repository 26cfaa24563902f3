//! A receiver of webhooks that checks who sent them, and keeps what it got, and when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Signs what the configured receiver is told, …
pub(crate) const SECRET: &str = "the receiver's own secret";
/// … and what a task's own is told.
pub(crate) const OWN_SECRET: &str = "a caller's own secret";
/// How far a timestamp may be from now, as Standard Webhooks' libraries have it.
const TOLERANCE: Duration = Duration::from_mins(5);

#[derive(Clone, Default)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    /// By `webhook-id`: every delivery that was answered well.
    deliveries: HashMap<String, Vec<Delivery>>,
    /// Of so many first deliveries one is answered 500; 0 for none.
    refuse_one_in: usize,
    refused: HashMap<String, Instant>,
    /// Whether senders' clocks are known to be wrong.
    any_time: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) body: Bytes,
    /// What a receiver that checks its headers would refuse it for.
    pub(crate) flaw: Option<String>,
}

impl Receiver {
    pub(crate) async fn listen() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let receiver = Self { url, ..Self::default() };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    /// From now on, of so many first deliveries one is answered 500.
    pub(crate) fn refuse_one_in(&self, count: usize) {
        self.kept.lock().unwrap().refuse_one_in = count;
    }

    /// Timestamps are not looked at.
    pub(crate) fn accept_any_time(&self) {
        self.kept.lock().unwrap().any_time = true;
    }

    pub(crate) fn distinct(&self) -> usize {
        self.kept.lock().unwrap().deliveries.len()
    }

    pub(crate) fn deliveries(&self) -> HashMap<String, Vec<Delivery>> {
        self.kept.lock().unwrap().deliveries.clone()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(id) = headers.get("webhook-id").and_then(|id| id.to_str().ok()).map(str::to_owned) else {
        return StatusCode::BAD_REQUEST;
    };
    let at = Instant::now();
    let mut kept = receiver.kept.lock().unwrap();
    let new = !kept.deliveries.contains_key(&id) && !kept.refused.contains_key(&id);
    let seen = kept.deliveries.len() + kept.refused.len() + 1;
    if new && kept.refuse_one_in > 0 && seen.is_multiple_of(kept.refuse_one_in) {
        kept.refused.insert(id, at);
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    let now = (!kept.any_time).then(SystemTime::now);
    let flaw = flaw(&id, &headers, &body, now);
    kept.deliveries.entry(id).or_default().push(Delivery { at, body, flaw });
    StatusCode::NO_CONTENT
}

/// What is wrong with a delivery's signatures and time, by what the two schemes say of themselves and nothing of the program.
fn flaw(id: &str, headers: &HeaderMap, body: &[u8], now: Option<SystemTime>) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = if id.ends_with("_task") { OWN_SECRET } else { SECRET };
    let mac = |parts: &[&[u8]]| {
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(key.as_bytes()).expect("any length will do");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    };
    let at = header("webhook-timestamp");
    let standard = format!("v1,{}", STANDARD.encode(mac(&[id.as_bytes(), b".", at.as_bytes(), b".", body])));
    if !header("webhook-signature").split(' ').any(|signature| signature == standard) {
        return Some(format!("its webhook-signature is {:?}", header("webhook-signature")));
    }
    if header("x-webhook-signature") != hex::encode(mac(&[body])) {
        return Some(format!("its X-Webhook-Signature is {:?}", header("x-webhook-signature")));
    }
    let now = now?;
    let sent = at.parse().ok().and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let apart = sent.map(|sent| now.duration_since(sent).unwrap_or_else(|error| error.duration()));
    apart.is_none_or(|apart| apart > TOLERANCE).then(|| format!("its webhook-timestamp is {at:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(key: &str, id: &str, at: u64, body: &[u8]) -> HeaderMap {
        let mac = |text: &[u8]| {
            let mut mac: Hmac<Sha256> = Hmac::new_from_slice(key.as_bytes()).unwrap();
            mac.update(text);
            mac.finalize().into_bytes()
        };
        let content = [format!("{id}.{at}.").as_bytes(), body].concat();
        let headers = [
            ("webhook-timestamp", at.to_string()),
            ("webhook-signature", format!("v1,{}", STANDARD.encode(mac(&content)))),
            ("x-webhook-signature", hex::encode(mac(body))),
        ];
        headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_delivery_that_a_receiver_would_refuse_is_found() {
        let (now, body) = (1_700_000_000, &b"{}"[..]);
        let judge = |key: &str, id: &str, at: u64, body: &[u8]| {
            flaw(id, &signed(key, id, at, b"{}"), body, Some(UNIX_EPOCH + Duration::from_secs(now)))
        };
        assert_eq!(judge(SECRET, "msg_1_default", now, body), None);
        assert_eq!(judge(OWN_SECRET, "msg_1_task", now - 100, body), None);
        assert!(judge(OWN_SECRET, "msg_1_default", now, body).unwrap().contains("webhook-signature"));
        assert!(judge(SECRET, "msg_1_default", now, b"{ }").unwrap().contains("webhook-signature"));
        assert!(judge(SECRET, "msg_1_default", now - 3_600, body).unwrap().contains("timestamp"));
        let mut headers = signed(SECRET, "msg_1_default", now, body);
        headers.insert("x-webhook-signature", "00".parse().unwrap());
        assert!(flaw("msg_1_default", &headers, body, None).unwrap().contains("X-Webhook-Signature"));
    }

    #[test]
    fn the_signature_is_the_one_that_the_reference_libraries_of_standard_webhooks_make() {
        // Their published vector, with the key behind `whsec_` decoded.
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut mac: Hmac<Sha256> = Hmac::new_from_slice(&key).unwrap();
        mac.update(b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}");
        assert_eq!(STANDARD.encode(mac.finalize().into_bytes()), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
