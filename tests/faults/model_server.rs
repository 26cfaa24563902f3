//! A model server that answers badly when the text asks for it, and the package that names it.

use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};

/// What a text can ask for, and whether the task then completes, fails, or may do either.
pub(crate) const MANNERS: [&str; 6] = ["well", "nonsense", "long", "refuse", "broken", "hang"];

/// Listens; its URL.
pub(crate) async fn listen() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/predict", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/predict", post(predict))).await });
    url
}

async fn predict(Json(document): Json<Value>) -> Response {
    match document["text"].as_str().unwrap_or_default() {
        "nonsense" => "{\"label\": NaN".into_response(),
        "long" => json!({ "label": "a".repeat(200_000) }).to_string().into_response(),
        "refuse" => StatusCode::UNPROCESSABLE_ENTITY.into_response(),
        "broken" => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "hang" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::OK.into_response()
        }
        _ => Json(json!({ "label": "fine" })).into_response(),
    }
}

/// Puts the package `rude:v1`, which asks the server at `url`.
pub(crate) fn put_package(models: &Path, url: &str) {
    let folder = models.join("rude").join("v1");
    std::fs::create_dir_all(&folder).unwrap();
    let manifest = format!(
        r#"
        format = 1
        task_type = "rude"
        version = "v1"
        name = "rude"
        [runtime]
        backend = "json_http"
        memory_mb = 1
        timeout_ms = 700
        instances = 4
        [input]
        schema = {{ type = "object", required = ["text"], properties = {{ text = {{ type = "string" }} }} }}
        text = "/text"
        [output]
        schema = {{ type = "object", required = ["label"], properties = {{ label = {{ type = "string" }} }} }}
        draw = "labels"
        [json_http]
        url = "{url}"
        max_response_bytes = 65536
        [[check]]
        input = '{{"text": "hello"}}'
        expect = {{ label = "fine" }}
        "#
    );
    std::fs::write(folder.join("model.toml"), manifest).unwrap();
}
