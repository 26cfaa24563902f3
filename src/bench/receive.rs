//! The receiver of webhooks: checks the signature, notes the outcome, answers 204.

use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};
use uuid::Uuid;

use super::ledger::Ledger;
use super::wire::{Connection, Message};

const ACCEPTED: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// Not retried by a sender that follows the specification, and counted here.
const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";

type HmacSha256 = Hmac<Sha256>;

#[derive(Deserialize)]
struct Announcement {
    task_id: Uuid,
    status: String,
}

/// Listens until the runtime ends.
pub(super) async fn listen(
    addr: SocketAddr,
    secret: Option<Vec<u8>>,
    ledger: Rc<Ledger>,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen for webhooks on {addr}"))?;
    let key = secret.map(|secret| HmacSha256::new_from_slice(&secret).expect("HMAC takes keys of any length"));
    Ok(spawn_local(async move {
        loop {
            // An accept fails when this process is out of descriptors; the sender tries again.
            if let Ok((stream, _)) = listener.accept().await {
                spawn_local(serve(stream, key.clone(), Rc::clone(&ledger)));
            }
        }
    }))
}

async fn serve(stream: TcpStream, key: Option<HmacSha256>, ledger: Rc<Ledger>) {
    let Ok(mut connection) = Connection::new(stream) else { return };
    while let Ok(Some(request)) = connection.receive().await {
        let answer = match read(&request, key.as_ref()) {
            Ok(announcement) => {
                ledger.announce(announcement.task_id, announcement.status == "completed");
                ACCEPTED
            }
            Err(why) => {
                ledger.reject_webhook(why);
                REFUSED
            }
        };
        if connection.send(answer).await.is_err() || !request.keeps_alive() {
            return;
        }
    }
}

/// What the webhook announces, or why it cannot be believed.
fn read(request: &Message, key: Option<&HmacSha256>) -> Result<Announcement, String> {
    if let Some(key) = key {
        let signature = request.header("x-webhook-signature").ok_or("no X-Webhook-Signature")?;
        let signature = hex::decode(signature).map_err(|_| "X-Webhook-Signature is not hex")?;
        let mut mac = key.clone();
        mac.update(&request.body);
        mac.verify_slice(&signature).map_err(|_| "X-Webhook-Signature does not match the body")?;
    }
    serde_json::from_slice(&request.body).map_err(|error| format!("the body: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire;

    /// Sends one body with a signature to a receiver that knows the secret `s3cret`.
    async fn deliver(body: &str, signature: &str) -> (u16, Rc<Ledger>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Connection::connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let ledger = Rc::new(Ledger::default());
        let key = HmacSha256::new_from_slice(b"s3cret").unwrap();
        let server = serve(listener.accept().await.unwrap().0, Some(key), Rc::clone(&ledger));
        let request =
            wire::post("x", "/hook", &format!("application/json\r\nX-Webhook-Signature: {signature}"), body.as_bytes());
        let status = tokio::select! {
            answer = client.exchange(&request) => answer.unwrap().status(),
            () = server => panic!("the receiver left"),
        };
        (status, ledger)
    }

    const BODY: &str =
        r#"{"task_id":"5e3a1f0e-2f4f-4b5e-9d1a-0a8a5f4f1c11","status":"completed","result":{},"error_message":null}"#;

    #[tokio::test]
    async fn a_webhook_counts_only_with_the_right_signature() {
        let mut mac = HmacSha256::new_from_slice(b"s3cret").unwrap();
        mac.update(BODY.as_bytes());
        let right = hex::encode(mac.finalize().into_bytes());
        let (status, ledger) = deliver(BODY, &right).await;
        assert_eq!((status, ledger.foreign(), ledger.bad_webhooks().len()), (204, 1, 0));
        for (body, signature) in [(BODY, "00"), (BODY, "zz"), ("{}", right.as_str())] {
            let (status, ledger) = deliver(body, signature).await;
            assert_eq!((status, ledger.foreign(), ledger.bad_webhooks().len()), (400, 0, 1), "{body} {signature}");
        }
    }
}
