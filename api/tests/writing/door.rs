//! An installation of its own for every test, with its door open on a port of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use insightforge_api::{Config, Deps};
use insightforge_projector::Upkeep;
use insightforge_projector::lag::Lag;
use insightforge_projector::project::{Projector, Step};
use insightforge_projector::webhook::WebhookConfig;
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::catalogue::ModelCard;
use insightforge_schema::event::{Change, Event, Submitted};
use insightforge_schema::id::{PartitionCount, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, MySqlPool};
use tokio_util::sync::CancellationToken;

pub(crate) struct Door {
    pub(crate) addr: SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) partitions: PartitionCount,
    pub(crate) sealer: Sealer,
    pool: MySqlPool,
    stop: CancellationToken,
}

fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} must name a server for the tests"))
}

fn card(task_type: &str, version: &str) -> ModelCard {
    ModelCard {
        task_type: task_type.to_owned(),
        version: version.to_owned(),
        name: format!("{task_type}-{version}"),
        description: String::new(),
        languages: vec!["zh".to_owned()],
        limits: String::new(),
        input_schema: json!({
            "type": "object",
            "required": ["text"],
            "properties": { "text": { "type": "string", "minLength": 1 } },
        }),
        output_schema: json!({}),
        ..ModelCard::default()
    }
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    /// With a database of its own, its tables empty.
    pub(crate) async fn open_with_tables() -> Self {
        let server_url = server("INSIGHTFORGE_TEST_MARIADB_URL");
        let name = format!("if_api_{}", uuid::Uuid::new_v4().simple());
        let server = tables::pool(&server_url, 1).unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&server).await.unwrap();
        let door = Self::open_on(&format!("{}/{name}", server_url.trim_end_matches('/')), |_| {}).await;
        tables::migrate(&door.pool).await.unwrap();
        door
    }

    pub(crate) async fn open_with(set: impl FnOnce(&mut Config)) -> Self {
        Self::open_on(&server("INSIGHTFORGE_TEST_MARIADB_URL"), set).await
    }

    pub(crate) async fn open_on(database_url: &str, set: impl FnOnce(&mut Config)) -> Self {
        let link = Link::new(&server("INSIGHTFORGE_TEST_REDIS_URL"), Duration::from_secs(10)).unwrap();
        Self::open_between(link, database_url, set).await
    }

    /// On a Redis of the test's own, whose silence is borne for `patience`.
    pub(crate) async fn open_on_redis(url: &str, patience: Duration) -> Self {
        let link = Link::new(url, patience).unwrap();
        Self::open_between(link, &server("INSIGHTFORGE_TEST_MARIADB_URL"), |_| {}).await
    }

    async fn open_between(link: Link, database_url: &str, set: impl FnOnce(&mut Config)) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        let mut config = Config {
            http_addr: "127.0.0.1:0".parse().unwrap(),
            internal_addr: None,
            partitions: PartitionCount::new(4).unwrap(),
            max_backlog: 1_000_000,
            max_body_bytes: 1 << 20,
            max_batch_bytes: 100 << 20,
            wait_limit_s: 30,
            addresses: AddressPolicy::default(),
            version: "test",
        };
        set(&mut config);
        let deps = Deps {
            link: link.clone(),
            keys: keys.clone(),
            pool: tables::pool(database_url, 2).unwrap(),
            sealer: Sealer::new(&[7; 32]),
            archive: None,
            models: vec![
                card("sentiment_analysis", "v1.0"),
                card("sentiment_analysis", "v2.0"),
                card("named_entity_recognition", "v1.0"),
            ],
            inspection: Default::default(),
        };
        let (partitions, sealer, stop) = (config.partitions, deps.sealer.clone(), CancellationToken::new());
        let pool = deps.pool.clone();
        let (tell, told) = tokio::sync::oneshot::channel();
        let listening = move |addr| tell.send(addr).unwrap();
        tokio::spawn(insightforge_api::run(config, deps, listening, stop.clone()));
        let addr = told.await.unwrap();
        Self { addr, client: reqwest::Client::new(), link, keys, partitions, sealer, pool, stop }
    }

    /// As by SIGTERM.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Takes the database of [`Self::open_with_tables`] away.
    pub(crate) async fn end(self) {
        let mine: String = sqlx::query_scalar("SELECT DATABASE()").fetch_one(&self.pool).await.unwrap();
        assert!(mine.starts_with("if_api_"), "{mine}");
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {mine}"))).execute(&self.pool).await.unwrap();
    }

    /// Nobody reads the tasks' rows until the connection is closed.
    pub(crate) async fn lock_tables(&self) -> sqlx::pool::PoolConnection<sqlx::MySql> {
        let mut connection = self.pool.acquire().await.unwrap();
        sqlx::query("LOCK TABLES analysis_tasks WRITE").execute(&mut *connection).await.unwrap();
        connection
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.addr))
    }

    pub(crate) async fn upload(&self, body: &Value) -> Answer {
        Answer::of(self.post("/api/data/upload").json(body)).await
    }

    /// Every event, partition by partition.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for partition in self.partitions.iter() {
            let range = journal::range(&self.link, &self.keys, partition, 1, None, 100_000).await.unwrap();
            assert!(range.iter().zip(1..).all(|(event, n)| event.position.n == n), "numbers have no gap");
            events.extend(range);
        }
        events
    }

    /// The first task that is submitted, as soon as it is.
    pub(crate) async fn first_task(&self) -> TaskId {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some((task, ..)) = self.submitted().await.into_iter().next() {
                return task;
            }
            assert!(tokio::time::Instant::now() < deadline, "no task is submitted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Folds the whole journal into the tables.
    pub(crate) async fn fold(&self) {
        let config = insightforge_projector::Config {
            partitions: self.partitions,
            owner: "test".to_owned(),
            batch_events: 1_000,
            webhook: WebhookConfig::default(),
            upkeep: Upkeep::default(),
        };
        let (link, keys) = (self.link.clone(), self.keys.clone());
        let (pool, sealer) = (self.pool.clone(), self.sealer.clone());
        let deps = insightforge_projector::Deps { link, keys, pool, sealer, archive: None };
        let (handoff, _handed_over) = tokio::sync::mpsc::channel(1_000);
        let mut projector = Projector::new(&config, &deps, handoff, Lag::new(self.partitions));
        while !matches!(projector.step().await.unwrap(), Step::Idle) {}
    }

    /// Every submitted task.
    pub(crate) async fn submitted(&self) -> Vec<(TaskId, Submitted, Event)> {
        let events = self.events().await.into_iter();
        let submitted = events.filter_map(|event| match &event.change {
            Change::Submitted(submitted) => Some((event.task, submitted.clone(), event)),
            _ => None,
        });
        submitted.collect()
    }

    pub(crate) async fn submitted_ids(&self) -> BTreeSet<TaskId> {
        let submitted = self.submitted().await;
        let ids: BTreeSet<TaskId> = submitted.iter().map(|(task, ..)| *task).collect();
        assert_eq!(ids.len(), submitted.len(), "each task is submitted once");
        ids
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The task that was accepted.
    pub(crate) fn task(&self) -> TaskId {
        assert!(self.status.is_success(), "{self:?}");
        self.body["task_id"].as_str().unwrap().parse().unwrap()
    }

    /// A problem with this status that names `field` (or has `part` in its detail).
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, part: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["detail"], self.body["message"]);
        let detail = self.body["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail:?} says {part:?}");
    }
}

/// An upload that is in order.
pub(crate) fn good() -> Value {
    json!({ "data": "{\"text\":\"好消息!\"}", "task_type": "sentiment_analysis", "model_version": "v1.0" })
}

/// [`good`] with some fields set anew.
pub(crate) fn good_with(fields: &[(&str, Value)]) -> Value {
    let mut upload = good();
    for (name, value) in fields {
        upload[*name] = value.clone();
    }
    upload
}
