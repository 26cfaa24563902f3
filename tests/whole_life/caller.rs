//! A caller of the API: knows the wire contract.

use std::time::{Duration, Instant};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::eventually;
pub(crate) use crate::program::http;

pub(crate) const TEXT: &str = "這是一個非常正面的測試語句，我很喜歡！";

#[derive(Clone)]
pub(crate) struct Caller {
    base: String,
    http: Client,
}

impl Caller {
    pub(crate) fn new(addr: &str) -> Self {
        Self { base: format!("http://{addr}"), http: http() }
    }

    /// The contract's upload; the answer as it is.
    pub(crate) async fn upload(&self, text: &str) -> Response {
        let data = json!({ "text": text }).to_string();
        let body = json!({ "data": data, "task_type": "sentiment_analysis", "model_version": "v1.0" });
        self.post("/api/data/upload", &body).await.unwrap()
    }

    /// Uploads under an id of the caller's own until it is accepted: whatever happened to the connection meanwhile, a
    /// repetition is the same task.
    pub(crate) async fn upload_as(&self, task: Uuid) {
        let data = json!({ "text": TEXT }).to_string();
        let body = json!({
            "data": data, "task_type": "sentiment_analysis", "model_version": "v1.0", "task_id": task.to_string(),
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.post("/api/data/upload", &body).await {
                Ok(answer) if answer.status() == StatusCode::ACCEPTED => return,
                Ok(answer) if answer.status().is_server_error() => {}
                Ok(answer) => panic!("{}: {}", answer.status(), answer.text().await.unwrap()),
                Err(_) => {}
            }
            assert!(Instant::now() < deadline, "{task} was not accepted within a minute");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Uploads `count` tasks, `at_once` side by side; their ids.
    pub(crate) async fn upload_many(&self, count: usize, at_once: usize) -> Vec<Uuid> {
        let tasks: Vec<Uuid> = std::iter::repeat_with(Uuid::now_v7).take(count).collect();
        let hands = tasks.chunks(count.div_ceil(at_once)).map(|share| {
            let (caller, share) = (self.clone(), share.to_vec());
            tokio::spawn(async move {
                for task in share {
                    caller.upload_as(task).await;
                }
            })
        });
        for hand in hands.collect::<Vec<_>>() {
            hand.await.unwrap();
        }
        tasks
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> reqwest::Result<Response> {
        self.http.post(format!("{}{path}", self.base)).json(body).send().await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.base)).send().await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Asks for the result until the task has ended; the last answer.
    pub(crate) async fn wait_for_end(&self, task: &str) -> Value {
        eventually("the task ends", async || {
            let result = self.get_json(&format!("/api/result/{task}")).await;
            match result["status"].as_str() {
                Some("pending" | "processing") => None,
                Some(_) => Some(result),
                None => panic!("no status in {result}"),
            }
        })
        .await
    }
}
