//! The api passes the synchronous door's paths on to analyzers that are alive.

use std::net::SocketAddr;
use std::time::Duration;

use insightforge_api::{Config, Deps};
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::catalogue::{self, Worker};
use insightforge_schema::event::now_us;
use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::rig::{Answer, Rig, good, good_with};

/// An api without analyzers of its own.
struct Api {
    addr: SocketAddr,
    client: reqwest::Client,
    link: Link,
    keys: Keys,
    stop: CancellationToken,
}

impl Api {
    async fn open() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} must name a server for the tests"));
        let link = Link::new(&server("INSIGHTFORGE_TEST_REDIS_URL"), Duration::from_secs(10)).unwrap();
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        let config = Config {
            http_addr: "127.0.0.1:0".parse().unwrap(),
            internal_addr: None,
            partitions: PartitionCount::new(1).unwrap(),
            max_backlog: 1_000,
            max_body_bytes: 1 << 20,
            max_batch_bytes: 1 << 20,
            wait_limit_s: 1,
            addresses: AddressPolicy::default(),
            version: "test",
        };
        let pool = tables::pool(&server("INSIGHTFORGE_TEST_MARIADB_URL"), 1).unwrap();
        let sealer = Sealer::new(&[7; 32]);
        let deps = Deps {
            link: link.clone(),
            keys: keys.clone(),
            pool,
            sealer,
            archive: None,
            models: Vec::new(),
            inspection: Default::default(),
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let stop = CancellationToken::new();
        tokio::spawn(insightforge_api::run(config, deps, move |addr| tell.send(addr).unwrap(), stop.clone()));
        Self { addr: told.await.unwrap(), client: reqwest::Client::new(), link, keys, stop }
    }

    /// An analyzer reports itself.
    async fn be_alive(&self, name: &str, infer_addr: Option<String>) {
        let now_ms = now_us() / 1_000;
        let worker = Worker {
            name: name.to_owned(),
            lanes: Vec::new(),
            in_flight: 0,
            started_ms: now_ms,
            last_read_ms: now_ms,
            seen_ms: now_ms,
            infer_addr,
            limits: None,
        };
        catalogue::report(&self.link, &self.keys, &worker).await.unwrap();
    }

    async fn infer(&self, body: &Value) -> Answer {
        Answer::of(self.client.post(format!("http://{}/api/infer", self.addr)).json(body)).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A port on which nobody listens.
async fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn questions_go_to_an_analyzer_and_answers_come_back_unchanged() {
    let (api, rig) = (Api::open().await, Rig::open().await);
    api.be_alive("a", Some(rig.addr.to_string())).await;
    let answer = api.infer(&good()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["result"]["words"], 3);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.headers.get_all("x-content-type-options").iter().count(), 1);
    api.infer(&json!({})).await.is_problem(422, "task_type: is missing");
    let direct = rig.get("/v2/models/sentiment_analysis").await;
    let through = Answer::of(api.client.get(format!("http://{}/v2/models/sentiment_analysis", api.addr))).await;
    assert_eq!((through.status, through.bytes), (200, direct.bytes));
    let missing = Answer::of(api.client.get(format!("http://{}/v2/models/a%2Fb/versions/1?x=y", api.addr))).await;
    missing.is_problem(404, "is not known");
    let json = json!({ "parameters": { "binary_data_output": true }, "inputs": [
        { "name": "text", "datatype": "BYTES", "shape": [1], "parameters": { "binary_data_size": 5 } }
    ] })
    .to_string();
    let path = format!("http://{}/v2/models/sentiment_analysis/versions/v2.0/infer", api.addr);
    let request = api.client.post(path).header("Inference-Header-Content-Length", json.len());
    let binary = Answer::of(request.body([json.as_bytes(), b"\x01\0\0\0a"].concat())).await;
    assert_eq!(binary.status, 200, "{binary:?}");
    let length: usize = binary.header("inference-header-content-length").unwrap().parse().unwrap();
    assert!(length < binary.bytes.len());
}

#[tokio::test]
async fn an_analyzer_that_cannot_be_reached_is_passed_over() {
    let (api, rig) = (Api::open().await, Rig::open().await);
    for (name, addr) in [
        ("a", Some(closed_port().await)),
        ("b", Some("no address".to_owned())),
        ("c", None),
        ("d", Some(rig.addr.to_string())),
    ] {
        api.be_alive(name, addr).await;
    }
    for _ in 0..8 {
        assert_eq!(api.infer(&good()).await.status, 200);
    }
}

#[tokio::test]
async fn a_question_goes_on_to_an_analyzer_that_has_the_model() {
    let (api, one, other) = (Api::open().await, Rig::open().await, Rig::with(&["v3.0"]).await);
    api.be_alive("one", Some(one.addr.to_string())).await;
    let asked = |version: &str| good_with(&[("model_version", json!(version))]);
    let nobody = api.infer(&asked("v3.0")).await;
    nobody.is_problem(503, "v3.0 is not served here");
    assert_eq!(nobody.header("retry-after"), Some("2"));
    api.be_alive("other", Some(other.addr.to_string())).await;
    // Who has nobody for it looks again at who is there.
    for _ in 0..4 {
        for version in ["v1.0", "v3.0"] {
            let answer = api.infer(&asked(version)).await;
            assert_eq!((answer.status, &answer.body["model_version"]), (200, &json!(version)), "{answer:?}");
        }
    }
    // Either may be asked first; each failure is told as it is.
    for version in ["v1.0", "v3.0"] {
        let mut crashing = asked(version);
        crashing["data"] = json!({ "text": "crash" });
        api.infer(&crashing).await.is_problem(502, "its process is gone");
    }
}

#[tokio::test]
async fn without_an_analyzer_the_answer_is_that_there_is_none() {
    let api = Api::open().await;
    for _ in 0..2 {
        let answer = api.infer(&good()).await;
        answer.is_problem(503, "no analyzer serves the synchronous door");
        assert_eq!(answer.header("retry-after"), Some("2"));
        api.be_alive("a", Some(closed_port().await)).await;
    }
}

#[tokio::test]
async fn a_body_too_large_goes_no_further() {
    let (api, rig) = (Api::open().await, Rig::open().await);
    api.be_alive("a", Some(rig.addr.to_string())).await;
    let request = api.client.post(format!("http://{}/api/infer", api.addr)).header("content-type", "application/json");
    Answer::of(request.body(vec![b' '; (8 << 20) + 1])).await.is_problem(413, "larger than 8388608 bytes");
    assert_eq!(api.infer(&good()).await.status, 200);
}
