//! A receiver of webhooks, and the libraries that real receivers check them with.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::eventually;

#[derive(Clone, Default)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Delivery>>>,
}

/// One request, as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
}

impl Receiver {
    /// Listens on loopback and accepts everything.
    pub(crate) async fn listen() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let receiver = Self { url, ..Self::default() };
        let router = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.received.lock().unwrap().clone()
    }

    /// How many deliveries each task has had.
    pub(crate) fn counts(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for delivery in self.received.lock().unwrap().iter() {
            *counts.entry(delivery.task()).or_default() += 1;
        }
        counts
    }

    /// The deliveries of a task, once there is one.
    pub(crate) async fn of_task(&self, task: &str) -> Vec<Delivery> {
        eventually("a webhook arrives", async || {
            let all: Vec<_> = self.deliveries().into_iter().filter(|delivery| delivery.task() == task).collect();
            (!all.is_empty()).then_some(all)
        })
        .await
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    receiver.received.lock().unwrap().push(Delivery { headers: headers.collect(), body });
    StatusCode::NO_CONTENT
}

/// Who checks signatures: the program and its script.
const LIBRARIES: [(&str, &str); 3] = [("venv/bin/python3", "verify.py"), ("node", "verify.mjs"), ("php", "verify.php")];

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn task(&self) -> String {
        self.json()["task_id"].as_str().unwrap().to_owned()
    }

    /// PyPI's and npm's `standardwebhooks` and PHP's `hash_hmac` accept it as it is; none accepts another secret, and
    /// none accepts a body in which one byte is another.
    pub(crate) async fn verify_with_every_library(&self, secret: &str) {
        let mut altered = self.clone();
        altered.body =
            String::from_utf8(self.body.to_vec()).unwrap().replacen("model_version", "model_Version", 1).into();
        assert_ne!(altered.body, self.body);
        let other_secret = format!("whsec_{}", STANDARD.encode([3; 32]));
        for (program, script) in LIBRARIES {
            assert_eq!(self.verified_by(program, script, secret).await, Ok(self.task()), "{script}");
            assert!(self.verified_by(program, script, &other_secret).await.is_err(), "{script}: another secret");
            assert!(altered.verified_by(program, script, secret).await.is_err(), "{script}: another body");
        }
    }

    /// PHP's answer alone, for a secret that is not base64.
    pub(crate) async fn legacy_signature_by_php(&self, secret: &str) -> Result<String, String> {
        self.verified_by("php", "verify.php", secret).await
    }

    /// The task a verified delivery is about, or what the library said against it.
    async fn verified_by(&self, program: &str, script: &str, secret: &str) -> Result<String, String> {
        let folder = std::env::var("INSIGHTFORGE_TEST_RECEIVERS")
            .expect("INSIGHTFORGE_TEST_RECEIVERS names the folder that bin/test installs the libraries in");
        let folder = PathBuf::from(folder);
        let program = if program.contains('/') { folder.join(program) } else { program.into() };
        let mut child = Command::new(&program)
            .arg(folder.join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let delivery = json!({ "secret": secret, "headers": self.headers, "body": STANDARD.encode(&self.body) });
        child.stdin.take().unwrap().write_all(delivery.to_string().as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
