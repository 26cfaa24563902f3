//! An installation of its own for every test, and the lives of tasks in it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use insightforge_api::app::App;
use insightforge_api::system::Inspection;
use insightforge_api::{Config, Deps, router};
use insightforge_archive::Archive;
use insightforge_projector::Upkeep;
use insightforge_projector::lag::Lag;
use insightforge_projector::project::{Projector, Step};
use insightforge_projector::webhook::{Delivery, Endpoint, Secret, WebhookConfig};
use insightforge_schema::address::AddressPolicy;
use insightforge_schema::catalogue::ModelCard;
use insightforge_schema::event::{
    BatchLine, Cancelled, Change, Completed, DeadLettered, Failed, Meta, Processing, Route, ShadowError, Shadowed,
    Submitted, Webhook, encode, now_us,
};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::script::{
    self, Cancellation, Context, Finish, Held, Noted, Shadow, Start, Started, Submission, Submit,
};
use insightforge_schema::seal::Sealer;
use insightforge_schema::tables;
use serde_json::Value;
use sqlx::{AssertSqlSafe, MySqlPool};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub(crate) fn redis_url() -> String {
    std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL must name a server for the tests")
}

/// A journal, and what appends to it.
pub(crate) struct Journal {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) partitions: PartitionCount,
    pub(crate) archive: Option<Archive>,
}

/// A task to submit.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) task: TaskId,
    pub(crate) at_us: i64,
    pub(crate) submitted: Submitted,
}

impl Asked {
    pub(crate) fn new(task_type: &str, data: &str) -> Self {
        let submitted = Submitted {
            task_type: task_type.to_owned(),
            model_version: "v1.0".to_owned(),
            data: data.to_owned(),
            user_id: None,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        };
        Self { task: TaskId::new(), at_us: now_us(), submitted }
    }

    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.submitted.model_version);
        self
    }

    pub(crate) fn line(mut self, batch: uuid::Uuid, line: u32) -> Self {
        self.submitted.batch = Some(BatchLine { id: batch, line });
        self
    }

    pub(crate) fn webhook(mut self, url: &str) -> Self {
        self.submitted.webhook = Some(Webhook { url: url.to_owned(), sealed_secret: Some(b"sealed bytes".to_vec()) });
        self
    }

    /// With a deadline.
    pub(crate) fn expiring(mut self, expires_us: i64) -> Self {
        self.submitted.expires_us = Some(expires_us);
        self
    }

    pub(crate) fn at(mut self, at_us: i64) -> Self {
        self.at_us = at_us;
        self
    }

    /// With an id that lives in `partition`.
    pub(crate) fn placed(mut self, partition: Partition, partitions: PartitionCount) -> Self {
        self.task = TaskId::new_in(partition, partitions);
        self
    }

    fn lane(&self) -> Lane {
        Lane::new(&self.submitted.task_type, &self.submitted.model_version)
    }
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            link: Link::new(&redis_url(), Duration::from_secs(10)).unwrap(),
            keys: Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())),
            partitions: PartitionCount::new(4).unwrap(),
            archive: None,
        }
    }

    pub(crate) fn partition(&self, task: TaskId) -> Partition {
        self.partitions.of_task(task)
    }

    pub(crate) async fn submit(&self, asked: &Asked) -> TaskId {
        self.submit_all(std::slice::from_ref(asked)).await;
        asked.task
    }

    pub(crate) async fn submit_all(&self, asked: &[Asked]) {
        for partition in self.partitions.iter() {
            let submits: Vec<Submit> =
                asked.iter().filter(|it| self.partition(it.task) == partition).map(submit).collect();
            for chunk in submits.chunks(500) {
                let answers = script::submit(&self.link, &self.keys, partition, chunk, 0).await.unwrap();
                assert!(answers.iter().all(|answer| matches!(answer, Submission::Accepted { .. })), "{answers:?}");
            }
        }
    }

    /// Begins the task's next attempt.
    pub(crate) async fn start(&self, asked: &Asked) {
        let (partition, token) = (self.partition(asked.task), self.token(asked.task).await);
        let event = encode(&meta("analyzer/a", 1), &Change::Processing(Processing { worker: "a".to_owned() }));
        let start = Start { token, task: asked.task, event };
        let started = script::start(&self.link, &self.keys, partition, &asked.lane(), "a", &[start]).await.unwrap();
        assert!(matches!(started[..], [Started::Ours { .. }]), "{started:?}");
    }

    pub(crate) async fn complete(&self, asked: &Asked, result: &str) {
        self.complete_as(asked, "stable", result).await;
    }

    /// Completes a task whose caller asked for `asked_as`.
    pub(crate) async fn complete_as(&self, asked: &Asked, asked_as: &str, result: &str) {
        self.start(asked).await;
        let completed = Change::Completed(Completed {
            task_type: asked.submitted.task_type.clone(),
            model_version: asked.submitted.model_version.clone(),
            result: result.to_owned(),
            inference_us: 1_500,
            batch_size: 1,
            route: Some(route(asked_as)),
        });
        self.finish(asked, "completed", &completed, None).await;
    }

    pub(crate) async fn fail(&self, asked: &Asked, code: &str) {
        self.fail_at(asked, None, code).await;
    }

    /// Fails a task at this version, which the registry chose; with `None` before one was chosen.
    pub(crate) async fn fail_at(&self, asked: &Asked, version: Option<&str>, code: &str) {
        self.start(asked).await;
        let failed = Change::Failed(Failed {
            task_type: asked.submitted.task_type.clone(),
            model_version: version.map_or_else(|| asked.submitted.model_version.clone(), str::to_owned),
            code: code.to_owned(),
            message: format!("{code} it is"),
            permanent: true,
            route: version.map(|_| route(&asked.submitted.model_version)),
        });
        let letter = Change::DeadLettered(DeadLettered { code: code.to_owned() });
        self.finish(asked, "failed", &failed, Some(&letter)).await;
    }

    /// A shadow version was asked too.
    pub(crate) async fn shadow(&self, asked: &Asked, version: &str, result: Option<&str>, agrees: bool) {
        let error = result.is_none().then(|| ShadowError { code: "timeout".to_owned(), message: "late".to_owned() });
        let change = Change::Shadowed(Shadowed {
            task_type: asked.submitted.task_type.clone(),
            model_version: version.to_owned(),
            digest: "5".repeat(64),
            backend: "linear".to_owned(),
            device: "cpu".to_owned(),
            result: result.map(str::to_owned),
            error,
            agrees,
            took_us: 600,
            batch_size: 3,
        });
        let event = encode(&meta("analyzer/a", 1), &change);
        let shadow = Shadow { task: asked.task, version: version.to_owned(), event };
        let noted = script::shadow(&self.link, &self.keys, self.partition(asked.task), &[shadow]).await.unwrap();
        assert_eq!(noted, [Noted::Done]);
    }

    pub(crate) async fn cancel(&self, asked: &Asked) {
        let (partition, change) = (self.partition(asked.task), Cancelled { reason: "not needed".to_owned() });
        let event = encode(&meta("api", 0), &Change::Cancelled(change));
        let cancelled = script::cancel(&self.link, &self.keys, partition, &asked.lane(), asked.task, &event).await;
        assert_eq!(cancelled.unwrap(), Cancellation::Done);
    }

    async fn finish(&self, asked: &Asked, event_type: &'static str, change: &Change, letter: Option<&Change>) {
        let (partition, token) = (self.partition(asked.task), self.token(asked.task).await);
        let meta = meta("analyzer/a", 1);
        let dead_letter = letter.map(|letter| encode(&meta, letter));
        let end = Finish { token, task: asked.task, event_type, event: encode(&meta, change), dead_letter };
        let now_ms = now_us() / 1_000;
        let ended = script::finish(&self.link, &self.keys, partition, &asked.lane(), now_ms, &[end]).await.unwrap();
        assert_eq!(ended, [Held::Done]);
    }

    async fn token(&self, task: TaskId) -> String {
        let record = self.keys.record(self.partition(task), task);
        self.link.query(redis::cmd("HGET").arg(record).arg("q")).await.unwrap()
    }
}

fn route(asked_as: &str) -> Route {
    Route {
        asked: asked_as.to_owned(),
        reason: "canary".to_owned(),
        digest: "d".repeat(64),
        backend: "linear".to_owned(),
        device: "cpu".to_owned(),
        registry_n: 7,
    }
}

fn submit(asked: &Asked) -> Submit {
    let meta = Meta { at_us: asked.at_us, ..meta("api", 0) };
    Submit {
        task: asked.task,
        lane: asked.lane(),
        event: encode(&meta, &Change::Submitted(asked.submitted.clone())),
        fingerprint: None,
        idempotency_key: None,
        context: Context::default(),
        expires_ms: asked.submitted.expires_us.map(|us| us / 1_000),
    }
}

fn meta(actor: &str, attempt: u32) -> Meta {
    Meta { at_us: now_us(), tenant: "default".to_owned(), actor: actor.to_owned(), attempt, trace: None }
}

/// A whole door: a journal, a database of its own, the real projector, and what callers reach.
pub(crate) struct Stage {
    pub(crate) journal: Journal,
    pub(crate) app: Arc<App>,
    pub(crate) pool: MySqlPool,
    /// Of its database.
    pub(crate) url: String,
    pub(crate) shutdown: CancellationToken,
    pub(crate) router: Router,
    projector: tokio::sync::Mutex<(Projector, mpsc::Receiver<Vec<Delivery>>)>,
    server: MySqlPool,
    database: String,
    /// The journal's archive; removed with this.
    _folder: TempDir,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

impl Stage {
    pub(crate) async fn new(variable: &str) -> Self {
        let url = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} must name a server for the tests"));
        let server = tables::pool(&url, 1).unwrap();
        let database = format!("t_{}", uuid::Uuid::new_v4().simple());
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&server).await.unwrap();
        let url = format!("{}/{database}", url.trim_end_matches('/'));
        let pool = tables::pool(&url, 4).unwrap();
        tables::migrate(&pool).await.unwrap();
        let folder = TempDir::new().unwrap();
        let mut journal = Journal::new();
        let archive = Archive::open(folder.path().to_str().unwrap(), [], journal.keys.prefix()).unwrap();
        journal.archive = Some(archive);
        let projector = projector(&journal, &pool);
        let reading = tables::reading_pool(&url, 4).unwrap();
        let shutdown = CancellationToken::new();
        let app = app(&journal, reading, &shutdown).await;
        let router = router::public(&app);
        let projector = projector.into();
        Self { journal, app, pool, url, shutdown, router, projector, server, database, _folder: folder }
    }

    /// Folds what is in the journal.
    pub(crate) async fn fold(&self) {
        let mut projector = self.projector.lock().await;
        while let Step::Folded(_) = projector.0.step().await.unwrap() {}
    }

    /// Takes the first events of every partition out of Redis, into the archive.
    pub(crate) async fn archive(&self, upto: u64) {
        let Journal { link, keys, partitions, archive } = &self.journal;
        for partition in partitions.iter() {
            let (first, last) = (upto / 2, upto);
            for (from, to) in [(1, first), (first + 1, last)] {
                let entries = journal::entries(link, keys, partition, from, Some(to), 10_000).await.unwrap();
                assert_eq!(entries.len() as u64, to + 1 - from, "{partition}");
                archive.as_ref().unwrap().put(partition, &entries).await.unwrap();
            }
            let mut trim = redis::cmd("XTRIM");
            trim.arg(keys.journal(partition)).arg("MINID").arg(format!("0-{}", upto + 1));
            let _: i64 = link.query(&trim).await.unwrap();
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        post(&self.router, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(header::HeaderName, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        ask(&self.router, request.body(Body::empty()).unwrap()).await
    }

    /// The JSON of an answer that is 200.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()
    }

    /// The same door with another road to the database.
    pub(crate) async fn with_pool(&self, pool: MySqlPool) -> Router {
        router::public(&app(&self.journal, pool, &self.shutdown).await)
    }

    /// The same door with an internal listener: what outsiders reach, and what the private network reaches.
    pub(crate) async fn behind_an_internal_listener(&self) -> (Router, Router) {
        let set = |config: &mut Config| config.internal_addr = Some(([127, 0, 0, 1], 0).into());
        let app = app_with(&self.journal, self.app.pool.clone(), &self.shutdown, set).await;
        (router::public(&app), router::internal(&app))
    }

    /// The same door where no more than so many tasks may wait.
    pub(crate) async fn with_room_for(&self, tasks: u64) -> Router {
        let set = |config: &mut Config| config.max_backlog = tasks;
        router::public(&app_with(&self.journal, self.app.pool.clone(), &self.shutdown, set).await)
    }

    pub(crate) async fn end(self) {
        self.shutdown.cancel();
        self.app.pool.close().await;
        self.pool.close().await;
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE {}", self.database))).execute(&self.server).await.unwrap();
    }
}

pub(crate) async fn post(router: &Router, path: &str, body: &Value) -> Answer {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    ask(router, request.body(Body::from(body.to_string())).unwrap()).await
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&body).into_owned() }
}

async fn app(journal: &Journal, pool: MySqlPool, shutdown: &CancellationToken) -> Arc<App> {
    app_with(journal, pool, shutdown, |_| {}).await
}

async fn app_with(
    journal: &Journal,
    pool: MySqlPool,
    shutdown: &CancellationToken,
    set: impl FnOnce(&mut Config),
) -> Arc<App> {
    let mut config = Config {
        http_addr: ([127, 0, 0, 1], 0).into(),
        internal_addr: None,
        partitions: journal.partitions,
        max_backlog: 1_000,
        max_body_bytes: 1 << 20,
        max_batch_bytes: 1 << 24,
        wait_limit_s: 20,
        addresses: AddressPolicy::parse("").unwrap(),
        version: "0.0.0-test",
    };
    set(&mut config);
    let deps = Deps {
        link: journal.link.clone(),
        keys: journal.keys.clone(),
        pool,
        sealer: Sealer::new(&[7; 32]),
        archive: journal.archive.clone(),
        models: vec![card("sentiment_analysis"), card("named_entity_recognition")],
        inspection: Inspection::default(),
    };
    App::new(config, deps, shutdown).await.unwrap()
}

pub(crate) fn card(task_type: &str) -> ModelCard {
    ModelCard {
        task_type: task_type.to_owned(),
        version: "v1.0".to_owned(),
        name: "words".to_owned(),
        description: "counts words".to_owned(),
        languages: vec!["zh-TW".to_owned(), "en".to_owned()],
        limits: "irony".to_owned(),
        input_schema: serde_json::json!({ "type": "object" }),
        output_schema: serde_json::json!({ "type": "object" }),
        ..ModelCard::default()
    }
}

fn projector(journal: &Journal, pool: &MySqlPool) -> (Projector, mpsc::Receiver<Vec<Delivery>>) {
    let endpoint = Endpoint {
        name: "default".to_owned(),
        url: "http://127.0.0.1:9/".to_owned(),
        secret: Secret::new("0123456789abcdef"),
        legacy_header: true,
    };
    let config = insightforge_projector::Config {
        partitions: journal.partitions,
        owner: "test".to_owned(),
        batch_events: 4_000,
        webhook: WebhookConfig { endpoints: vec![endpoint], ..WebhookConfig::default() },
        upkeep: Upkeep::default(),
    };
    let deps = insightforge_projector::Deps {
        link: journal.link.clone(),
        keys: journal.keys.clone(),
        pool: pool.clone(),
        sealer: Sealer::new(&[7; 32]),
        archive: None,
    };
    let (handoff, handed_over) = mpsc::channel(4);
    (Projector::new(&config, &deps, handoff, Lag::new(journal.partitions)), handed_over)
}

/// Each test once a database server.
macro_rules! on_each_server {
    ($($test:ident),* $(,)?) => {
        mod on_mariadb {
            $(#[tokio::test] async fn $test() { super::$test($crate::stage::Stage::new("INSIGHTFORGE_TEST_MARIADB_URL").await).await })*
        }
        mod on_mysql {
            $(#[tokio::test] async fn $test() { super::$test($crate::stage::Stage::new("INSIGHTFORGE_TEST_MYSQL_URL").await).await })*
        }
    };
}
pub(crate) use on_each_server;
