//! A receiver of webhooks that keeps what it got, and when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};

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
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) at: Instant,
    pub(crate) body: Bytes,
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
    kept.deliveries.entry(id).or_default().push(Delivery { at, body });
    StatusCode::NO_CONTENT
}
