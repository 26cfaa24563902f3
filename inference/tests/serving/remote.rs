//! Models behind HTTP, asked through the store as callers ask them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use insightforge_inference::remote::Secrets;
use insightforge_inference::{Change, OpenOptions, Opener, Served, Store, StoreOptions};
use serde_json::{Value, json};

use crate::common::{document, manifest, write_package};
use crate::echo::soon;

const SECRET: &str = "Bearer 0123456789";
const VARIABLE: &str = "INSIGHTFORGE_MODEL_SECRET_TOKEN";

/// Who has called, and with how many inputs each time.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<(BTreeSet<SocketAddr>, Vec<usize>)>>);

impl Calls {
    fn note(&self, peer: SocketAddr, inputs: usize) {
        let mut calls = self.0.lock().unwrap();
        calls.0.insert(peer);
        calls.1.push(inputs);
    }

    fn connections(&self) -> usize {
        self.0.lock().unwrap().0.len()
    }

    fn sizes(&self) -> Vec<usize> {
        self.0.lock().unwrap().1.clone()
    }
}

/// A server that knows the secret, answers texts, and does what some of them ask for.
async fn serve() -> (String, Calls) {
    let calls = Calls::default();
    let app = Router::new()
        .route("/predict", post(predict))
        .route("/list", post(list))
        .route("/v2/models/sentiment/infer", post(infer))
        .route("/v2/models/tables/versions/3/infer", post(tables))
        .with_state(calls.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, calls)
}

async fn predict(
    State(calls): State<Calls>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Json(document): Json<Value>,
) -> Response {
    calls.note(peer, 1);
    if headers.get("authorization").is_none_or(|value| value != SECRET) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match document["text"].as_str().unwrap_or_default() {
        "slow" => {
            tokio::time::sleep(Duration::from_secs(30)).await;
            StatusCode::OK.into_response()
        }
        "long" => json!({ "echo": "a".repeat(100_000) }).to_string().into_response(),
        "nan" => "{\"echo\": NaN}".into_response(),
        "no echo" => json!({ "text": "secret" }).to_string().into_response(),
        text => match text.strip_prefix("status ").and_then(|status| status.parse::<u16>().ok()) {
            Some(status) => (StatusCode::from_u16(status).unwrap(), "secret").into_response(),
            None => Json(json!({ "echo": text })).into_response(),
        },
    }
}

async fn list(
    State(calls): State<Calls>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(documents): Json<Vec<Value>>,
) -> Response {
    calls.note(peer, documents.len());
    if documents.iter().any(|document| document["text"] == "bad") {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    Json(documents.iter().map(|document| json!({ "echo": document["text"] })).collect::<Vec<_>>()).into_response()
}

/// Open Inference Protocol v2: three scores a text, as many characters as it has.
async fn infer(
    State(calls): State<Calls>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Result<Json<Value>, StatusCode> {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let input = &body["inputs"][0];
    let texts: Vec<&str> = input["data"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    calls.note(peer, texts.len());
    if input["name"] != "text" || input["datatype"] != "BYTES" || input["shape"] != json!([texts.len(), 1]) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let scores: Vec<f64> = texts.iter().flat_map(|text| [0.0, 1.0, text.chars().count() as f64 / 10.0]).collect();
    let output = json!({"name": "scores", "datatype": "FP32", "shape": [texts.len(), 3], "data": scores});
    Ok(Json(json!({"model_name": "sentiment", "outputs": [output]})))
}

/// The sums of the rows of each table.
async fn tables(Json(body): Json<Value>) -> Json<Value> {
    let input = &body["inputs"][0];
    let shape: Vec<usize> =
        input["shape"].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
    let data: Vec<f64> = input["data"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    let (columns, rows) = shape.split_last().unwrap();
    let sums: Vec<f64> = data.chunks(*columns).map(|row| row.iter().sum()).collect();
    Json(json!({"outputs": [{"name": "sums", "datatype": "FP64", "shape": rows, "data": sums}]}))
}

/// Serves a package of this backend; the whole manifest may be changed before.
async fn load(backend: &str, section: &str, change: impl Fn(String) -> String) -> (Arc<Store>, Vec<Change>) {
    let root = tempfile::tempdir().unwrap();
    let folder = write_package(root.path(), "remote", "v1", "", ("", ""));
    let text = manifest("remote", "v1", "", ("timeout_ms = 500", section))
        .replace("backend = \"linear\"", &format!("backend = \"{backend}\""))
        .replace("schema = { type = \"object\" }", "schema = { type = \"object\", required = [\"echo\"] }");
    std::fs::write(folder.join("model.toml"), change(text)).unwrap();
    let url = section.split('"').nth(1).unwrap().to_owned();
    let secrets = Secrets::of([
        (VARIABLE.to_owned(), SECRET.to_owned()),
        (format!("{VARIABLE}_ORIGIN"), url),
        ("INSIGHTFORGE_MODEL_SECRET_ELSEWHERE".to_owned(), SECRET.to_owned()),
        ("INSIGHTFORGE_MODEL_SECRET_ELSEWHERE_ORIGIN".to_owned(), "https://models.internal".to_owned()),
        ("PATH".to_owned(), "/bin".to_owned()),
    ]);
    let options = OpenOptions { secrets, ..OpenOptions::default() };
    assert!(!format!("{options:?}").contains("0123456789"));
    let store = Store::new(StoreOptions {
        built_in: false,
        folders: vec![root.path().to_owned()],
        open: Arc::new(Opener { options, ..Opener::default() }),
        memory_bytes: 1 << 30,
        compute: 1,
    });
    let changes = store.scan().await;
    (store, changes)
}

async fn served(backend: &str, section: &str, change: impl Fn(String) -> String) -> Arc<Served> {
    let (store, changes) = load(backend, section, change).await;
    assert!(matches!(changes[..], [Change::Loaded(_)]), "{changes:?}");
    store.get("remote", "v1").unwrap()
}

fn section(url: &str, more: &str) -> String {
    format!("[json_http]\nurl = \"{url}\"\nsecret_headers = {{ Authorization = \"{VARIABLE}\" }}\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_answers_over_one_connection_and_each_failure_has_its_name() {
    let (url, calls) = serve().await;
    let served = served("json_http", &section(&format!("{url}/predict"), "max_response_bytes = 10000"), |it| it).await;
    assert_eq!(served.runs_on().device, "remote");
    for turn in 0..20 {
        let text = format!("好消息 {turn}");
        let answer = served.infer_one(&document(&text), soon()).await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!({ "echo": text }));
    }
    assert_eq!(calls.connections(), 1);
    for (text, code, permanent) in [
        ("status 422", "bad_input", true),
        ("status 404", "model_unavailable", false),
        ("status 429", "server_overloaded", false),
        ("status 500", "model_unavailable", false),
        ("status 302", "model_unavailable", false),
        ("slow", "timeout", false),
        ("long", "bad_output", true),
        ("nan", "bad_output", true),
        ("no echo", "bad_output", true),
    ] {
        let error = served.infer_one(&document(text), soon()).await.unwrap_err();
        assert_eq!((error.code.as_ref(), error.permanent), (code, permanent), "{text}: {error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_takes_lists_gets_them_and_one_bad_document_fails_alone() {
    let (url, calls) = serve().await;
    let served = served("json_http", &section(&format!("{url}/list"), "batch = true"), |it| it).await;
    let ask = |texts: &[&str]| served.infer(texts.iter().map(|text| document(text)).collect(), soon());
    assert!(ask(&["a", "b", "c"]).await.iter().all(Result::is_ok));
    assert_eq!(calls.sizes().last(), Some(&3));
    let answers = ask(&["a", "bad", "c"]).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().code, "bad_input");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_asks_for_what_it_may_not_have_is_refused() {
    let (url, _) = serve().await;
    let sound = section(&format!("{url}/predict"), "");
    for (from, to, named) in [
        (VARIABLE, "PATH", "INSIGHTFORGE_MODEL_SECRET_"),
        (VARIABLE, "INSIGHTFORGE_MODEL_SECRET_OTHER", "is not set"),
        (VARIABLE, "INSIGHTFORGE_MODEL_SECRET_ELSEWHERE", "does not name"),
        ("http://", "file://", "http://"),
        ("http://", "http://user:password@", "secret_headers"),
        ("secret_headers", "secrets_headers", "secrets_headers"),
        ("/predict", "/nowhere", "404"),
    ] {
        let (_, changes) = load("json_http", &sound.replace(from, to), |it| it).await;
        let [Change::Refused { reason, .. }] = &changes[..] else { panic!("{to}: {changes:?}") };
        assert!(reason.contains(named) && !reason.contains("0123456789"), "{to}: {reason}");
    }
}

const OIP: &str = r#"
    model = "sentiment"
    [[oip.input]]
    name = "text"
    from = "/text"
    datatype = "BYTES"
    shape = [1]
    [oip.answer]
    kind = "labels"
    output = "scores"
    softmax = true
    label_field = "echo"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_open_inference_protocol_gives_labels_to_a_batch_of_texts() {
    let (url, calls) = serve().await;
    let change = |text: String| {
        text.replace("[output]", "[output]\nlabels = [\"low\", \"middle\", \"high\"]")
            .replace("\"hello\" }", "\"middle\" }")
    };
    let served = served("oip", &format!("[oip]\nurl = \"{url}/\"\n{OIP}"), change).await;
    let texts = ["short", "a text of more than ten characters"];
    let answers = served.infer(texts.map(document).to_vec(), soon()).await;
    let answers: Vec<Value> =
        answers.into_iter().map(|answer| serde_json::from_str(&answer.unwrap()).unwrap()).collect();
    assert_eq!((&answers[0]["echo"], &answers[1]["echo"]), (&json!("middle"), &json!("high")));
    // softmax of 0, 1 and 0.5
    assert_eq!(answers[0]["scores"], json!({"low": 0.186_324, "middle": 0.506_48, "high": 0.307_196}));
    assert_eq!(calls.sizes().last(), Some(&2));
}

/// Of `tables`; `more` belongs to `[oip]`.
async fn table_sums(more: &str) -> Arc<Served> {
    let (url, _) = serve().await;
    let oip = format!(
        "[oip]\nurl = \"{url}\"\nmodel = \"tables\"\nmodel_version = \"3\"\n{more}\n[[oip.input]]\nname = \"x\"\nfrom = \"/rows\"\ndatatype = \"FP64\"\n[oip.answer]\nkind = \"tensors\""
    );
    let change = |text: String| {
        text.replace("required = [\"text\"]", "required = [\"rows\"]")
            .replace("required = [\"echo\"]", "required = [\"outputs\"]")
            .replace(r#"{"text": "hello"}"#, r#"{"rows": [[1, 2], [3, 4]]}"#)
            .replace("{ echo = \"hello\" }", "{ outputs = { sums = [3.0, 7.0] } }")
    };
    served("oip", &oip, change).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_one_input_at_a_time_answers_in_the_shape_it_gives() {
    let served = table_sums("batch = false").await;
    for (rows, sums) in [
        (json!([[1, 2], [3, 4], [5, 6]]), json!([3.0, 7.0, 11.0])),
        (json!([1, 2]), json!(3.0)),
        (json!([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]), json!([[3.0, 7.0], [11.0, 15.0]])),
    ] {
        let answer = served.infer_one(&json!({ "rows": rows }).to_string(), soon()).await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["outputs"]["sums"], sums);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_different_shapes_are_asked_apart_and_come_back_as_nested_lists() {
    let served = table_sums("").await;
    let documents = [json!([[1, 2, 3]]), json!([[1], [2]]), json!([[5], [6]]), json!([[1], [2, 3]])];
    let documents = documents.map(|rows| json!({ "rows": rows }).to_string()).to_vec();
    let answers = served.infer(documents, soon()).await;
    let sums: Vec<Value> = answers[..3]
        .iter()
        .map(|answer| serde_json::from_str::<Value>(answer.as_ref().unwrap()).unwrap()["outputs"]["sums"].clone())
        .collect();
    assert_eq!(sums, [json!([6.0]), json!([1.0, 2.0]), json!([5.0, 6.0])]);
    let error = answers[3].as_ref().unwrap_err();
    assert!(error.code == "bad_input" && error.message.contains("/rows"), "{error}");
}
