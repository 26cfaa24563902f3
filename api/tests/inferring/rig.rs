//! A door of its own for every test, with models that count words, open on a port of its own.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use insightforge_api::infer::{self, Deps};
use insightforge_api::serve::Listener;
use insightforge_inference::model::{Model, Payload, Prepared, RunsOn};
use insightforge_inference::store::{Opener, Store, StoreOptions};
use insightforge_inference::{InferError, Loaded, Package};
use insightforge_schema::registry::event::{CanarySet, Promoted, Registered, Retired};
use insightforge_schema::registry::{Change, Entry, Meta, Routes};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) client: reqwest::Client,
    routes: watch::Sender<Arc<Routes>>,
    stop: CancellationToken,
}

/// Counts the words of a text; some texts make it fail, each in a way of its own.
struct Words {
    version: &'static str,
}

impl Model for Words {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "words".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        64
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let text = document["text"].as_str().ok_or_else(|| InferError::bad_input("/text: is missing"))?;
        Ok(Prepared { cost: 1, payload: Payload::Text(text.to_owned()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        batch.iter().map(|prepared| self.answer(prepared)).collect()
    }
}

impl Words {
    fn answer(&self, prepared: &Prepared) -> Result<String, InferError> {
        let Payload::Text(text) = &prepared.payload else { return Err(InferError::bad_input("no text")) };
        match text.as_str() {
            "panic" => panic!("it was told to"),
            "slow" => std::thread::sleep(Duration::from_millis(300)),
            "nan" => return Ok("NaN".to_owned()),
            "crash" => return Err(InferError::unavailable("model_crashed", "its process is gone")),
            "full" => return Err(InferError::unavailable("overloaded", "8 inputs wait for this model already")),
            "late" => return Err(InferError::unavailable("timeout", "no answer in time")),
            _ => {}
        }
        let words = text.split_whitespace().count();
        let share = 1.0 / (1.0 + words as f64);
        let label = if text.contains('好') { "Positive" } else { "Neutral" };
        let version = self.version;
        Ok(json!({ "sentiment": label, "score": share, "words": words, "long": words > 3, "model_info": version })
            .to_string())
    }
}

const MANIFEST: &str = r#"
format = 1
task_type = "sentiment_analysis"
version = "VERSION"
name = "words"
[runtime]
backend = "linear"
memory_mb = 1
[input]
text = "/text"
[input.schema]
type = "object"
required = ["text"]
[input.schema.properties.text]
type = "string"
minLength = 1
maxLength = 20000
[input.schema.properties.top]
type = "integer"
minimum = 1
[input.schema.properties.tags]
type = "array"
items = { type = "string", pattern = "^[a-z]+$" }
[output.schema]
type = "object"
required = ["sentiment", "score", "words", "long"]
properties = { sentiment = { type = "string" }, score = { type = "number" }, words = { type = "integer" }, long = { type = "boolean" } }
[[check]]
input = '{"text": "a b"}'
expect = { words = 2 }
"#;

fn model(folder: &Path, version: &'static str) -> Loaded {
    let mut file = std::fs::File::create(folder.join("model.toml")).unwrap();
    file.write_all(MANIFEST.replace("VERSION", version).as_bytes()).unwrap();
    let package = Arc::new(Package::read(folder).unwrap());
    Loaded::new(package, Box::new(Words { version })).unwrap()
}

impl Rig {
    /// With `v1.0` (stable) and `v2.0`.
    pub(crate) async fn open() -> Self {
        Self::with(&["v1.0", "v2.0"]).await
    }

    /// With these of the versions that the registry knows: `v1.0` (stable), `v2.0` and `v3.0`.
    pub(crate) async fn with(here: &[&'static str]) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = Store::new(StoreOptions {
            built_in: false,
            folders: Vec::new(),
            open: Arc::new(Opener::default()),
            memory_bytes: 1 << 30,
            compute: 2,
        });
        let mut routes = Routes::default();
        for version in here {
            let folder = tempfile::tempdir().unwrap();
            store.serve(model(folder.path(), version)).unwrap();
        }
        for version in ["v1.0", "v2.0", "v3.0"] {
            happen(&mut routes, Change::Registered(registered(version, "0")));
        }
        let (sender, receiver) = watch::channel(Arc::new(routes));
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.addr();
        let stop = CancellationToken::new();
        let deps = Deps { store, routes: receiver, version: "test" };
        tokio::spawn(infer::serve(listener, deps, stop.clone()));
        Self { addr, client: reqwest::Client::new(), routes: sender, stop }
    }

    pub(crate) fn promote(&self, version: &str) {
        let (task_type, version) = ("sentiment_analysis".to_owned(), version.to_owned());
        self.change(Change::Promoted(Promoted { task_type, version, from: None }));
    }

    pub(crate) fn canary(&self, version: &str, share: u16) {
        let (task_type, version) = ("sentiment_analysis".to_owned(), version.to_owned());
        self.change(Change::CanarySet(CanarySet { task_type, version, share }));
    }

    pub(crate) fn retire(&self, version: &str) {
        let (task_type, version) = ("sentiment_analysis".to_owned(), version.to_owned());
        self.change(Change::Retired(Retired { task_type, version }));
    }

    fn change(&self, change: Change) {
        self.routes.send_modify(|routes| happen(Arc::make_mut(routes), change));
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.addr))
    }

    pub(crate) async fn infer(&self, body: &Value) -> Answer {
        Answer::of(self.post("/api/infer").json(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.client.get(format!("http://{}{path}", self.addr))).await
    }

    /// Sends bytes as they are and gives what comes back until the door closes the connection.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // The door may have closed before it was sent everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn registered(version: &str, digest: &str) -> Registered {
    Registered {
        task_type: "sentiment_analysis".to_owned(),
        version: version.to_owned(),
        digest: digest.to_owned(),
        backend: "words".to_owned(),
        device: "cpu".to_owned(),
        folder: version.to_owned(),
        worker: "test".to_owned(),
    }
}

fn happen(routes: &mut Routes, change: Change) {
    let meta = Meta { at_us: 0, actor: "test".to_owned(), reason: None };
    routes.apply(&Entry { n: routes.position + 1, meta, change });
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) bytes: Vec<u8>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    async fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await.unwrap().to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Self { status, headers, bytes, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A problem with this status whose detail has `part`.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, part: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail:?} says {part:?}");
        assert_eq!(self.body["detail"], self.body["message"]);
    }
}

/// A question that is in order.
pub(crate) fn good() -> Value {
    json!({ "task_type": "sentiment_analysis", "data": { "text": "好 a b" } })
}

/// [`good`] with some fields set anew.
pub(crate) fn good_with(fields: &[(&str, Value)]) -> Value {
    let mut asked = good();
    for (name, value) in fields {
        asked[*name] = value.clone();
    }
    asked
}
