//! What every test here stands on: a real Redis under a prefix of its own, a worker driven step by step, and model
//! packages in a folder of its own whose models do what their input says.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use insightforge_analyzer::end::Tally;
use insightforge_analyzer::move_due::move_due;
use insightforge_analyzer::packages;
use insightforge_analyzer::process::process;
use insightforge_analyzer::reap::{self, Round};
use insightforge_analyzer::take::{Batch, Taker};
use insightforge_analyzer::{Config, Deps, Worker, follow, shadow};
use insightforge_inference::model::RunsOn;
use insightforge_inference::{
    InferError, Loaded, Model, Open, OpenError, Package, Payload, Prepared, Store, StoreOptions,
};
use insightforge_schema::event::{Cancelled, Change, Event, Failed, Meta, Submitted, encode, now_us};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::{Keys, Lane};
use insightforge_schema::link::Link;
use insightforge_schema::registry::{Command, Registry, Routes, Written};
use insightforge_schema::script::{self, Cancellation, Context, Submission, Submit};
use insightforge_schema::task::{Task, apply};
use redis::FromRedisValue;
use tokio_util::sync::CancellationToken;

pub(crate) const PARTITION: Partition = Partition(0);

pub(crate) fn link() -> Link {
    let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
        .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
    Link::new(&url, std::time::Duration::from_secs(10)).expect("the test server's URL can be read")
}

/// One installation with one partition, and nobody in it yet.
pub(crate) struct Stage {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    /// Of `acting` `v1`.
    pub(crate) actor: Arc<Actor>,
    pub(crate) actors: Arc<Actors>,
    pub(crate) models: tempfile::TempDir,
}

impl Stage {
    /// With one package: `acting` `v1`.
    pub(crate) fn new() -> Self {
        Self::with_model("")
    }

    /// As [`Stage::new`]; `more` is a part of the manifest, see [`Stage::put_model`].
    pub(crate) fn with_model(more: &str) -> Self {
        let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
        let actors = Arc::new(Actors::default());
        let models = tempfile::tempdir().unwrap();
        let stage = Self { link: link(), keys, actor: actors.of("acting", "v1"), actors, models };
        stage.put_model("acting", "v1", more);
        stage
    }

    /// Puts a package into the folder; `more` is appended to the sections `[runtime]`, so that it can begin others.
    pub(crate) fn put_model(&self, task_type: &str, version: &str, more: &str) {
        let folder = self.models.path().join(task_type).join(version);
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = format!(
            r#"
            format = 1
            task_type = "{task_type}"
            version = "{version}"
            name = "actor {version}"
            [input]
            schema = {{ type = "string" }}
            [output]
            schema = {{}}
            labels = ["ham", "spam"]
            [runtime]
            backend = "onnx"
            isolation = "none"
            memory_mb = 1
            timeout_ms = {timeout_ms}
            {more}
            "#,
            timeout_ms = self.actors.timeout_ms.load(Ordering::Relaxed),
        );
        // Renamed into place, as whoever publishes a package does.
        std::fs::write(folder.join(".model.toml"), manifest).unwrap();
        std::fs::rename(folder.join(".model.toml"), folder.join("model.toml")).unwrap();
    }

    pub(crate) fn remove_model(&self, task_type: &str, version: &str) {
        std::fs::remove_dir_all(self.models.path().join(task_type).join(version)).unwrap();
    }

    pub(crate) fn config(name: &str) -> Config {
        Config {
            partitions: PartitionCount::new(1).unwrap(),
            worker_name: name.to_owned(),
            max_in_flight: 64,
            lease_ms: 15_000,
            task_timeout_ms: 30_000,
            max_attempts: 3,
            backoff_base_ms: 1_000,
            backoff_cap_ms: 60_000,
            serve: Vec::new(),
            infer_addr: None,
            drain_ms: 8_000,
        }
    }

    /// A store of its own for every worker, over the same folder.
    pub(crate) fn store(&self, memory_bytes: u64) -> Arc<Store> {
        Store::new(StoreOptions {
            built_in: false,
            folders: vec![self.models.path().to_owned()],
            open: self.actors.clone(),
            memory_bytes,
            compute: 4,
        })
    }

    pub(crate) fn deps(&self) -> Deps {
        Deps { link: self.link.clone(), keys: self.keys.clone(), store: self.store(1 << 30) }
    }

    pub(crate) async fn worker(&self, name: &str) -> Hand {
        self.worker_with(Self::config(name)).await
    }

    pub(crate) async fn worker_with(&self, config: Config) -> Hand {
        Self::hand(config, self.deps()).await
    }

    pub(crate) async fn hand(config: Config, deps: Deps) -> Hand {
        let worker = Worker::new(config, deps, &CancellationToken::new());
        packages::keep_to_settings(&worker).await;
        packages::look(&worker).await.unwrap();
        Hand::new(worker)
    }

    /// Carries out an operator's command; says how many events it made.
    pub(crate) async fn command(&self, command: Command) -> usize {
        let mut registry = Registry::new(self.link.clone(), self.keys.clone());
        match registry.write(&command, "test", Some("a test")).await.unwrap() {
            Written::Events(events) => events.len(),
            Written::Unchanged => 0,
        }
    }

    /// The routes as they were after the registry's event `n`.
    pub(crate) async fn routes_at(&self, n: u64) -> Routes {
        let mut routes = Routes::default();
        let entries = insightforge_schema::registry::history(&self.link, &self.keys, 1, 10_000).await.unwrap();
        entries.iter().filter(|entry| entry.n <= n).for_each(|entry| routes.apply(entry));
        routes
    }

    /// The types of the registry's events, joined by spaces.
    pub(crate) async fn registry(&self) -> String {
        let entries = insightforge_schema::registry::history(&self.link, &self.keys, 1, 10_000).await.unwrap();
        entries.iter().map(|entry| entry.change.event_type().to_owned()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) async fn submit(&self, data: &str) -> TaskId {
        self.submit_to(&lane(), &lane(), data).await
    }

    pub(crate) async fn submit_all(&self, data: &[&str]) -> Vec<TaskId> {
        let mut tasks = Vec::new();
        for data in data {
            tasks.push(self.submit(data).await);
        }
        tasks
    }

    /// Submits to `lane` what asks for `asked`; the document is the text `data`.
    pub(crate) async fn submit_to(&self, lane: &Lane, asked: &Lane, data: &str) -> TaskId {
        self.submit_document(lane, asked, None, &serde_json::json!(data).to_string()).await
    }

    /// Submits a text for a version or alias of `acting`, on behalf of a user.
    pub(crate) async fn submit_as(&self, asked: &str, user_id: Option<u64>, data: &str) -> TaskId {
        let lane = Lane::new("acting", asked);
        self.submit_document(&lane, &lane, user_id, &serde_json::json!(data).to_string()).await
    }

    async fn submit_document(&self, lane: &Lane, asked: &Lane, user_id: Option<u64>, data: &str) -> TaskId {
        let task = TaskId::new();
        let context = Context { tenant: "acme".to_owned(), trace: Some("00-aa-bb-01".to_owned()) };
        let submitted = Change::Submitted(Submitted {
            task_type: asked.task_type.clone(),
            model_version: asked.model_version.clone(),
            data: data.to_owned(),
            user_id,
            webhook: None,
            batch: None,
            retry_of: None,
            expires_us: None,
        });
        let meta = meta(&context);
        let submit = Submit {
            task,
            lane: lane.clone(),
            event: encode(&meta, &submitted),
            fingerprint: None,
            idempotency_key: None,
            context,
            expires_ms: None,
        };
        let answer = script::submit(&self.link, &self.keys, PARTITION, &[submit], 0).await.unwrap();
        assert!(matches!(answer[..], [Submission::Accepted { .. }]), "{answer:?}");
        task
    }

    pub(crate) async fn cancel(&self, task: TaskId) -> Cancellation {
        let event = encode(&meta(&Context::default()), &Change::Cancelled(Cancelled { reason: "test".to_owned() }));
        script::cancel(&self.link, &self.keys, PARTITION, &lane(), task, &event).await.unwrap()
    }

    pub(crate) async fn journal(&self) -> Vec<Event> {
        journal::range(&self.link, &self.keys, PARTITION, 1, None, 10_000).await.unwrap()
    }

    pub(crate) async fn events(&self, task: TaskId) -> Vec<Event> {
        self.journal().await.into_iter().filter(|event| event.task == task).collect()
    }

    /// The `failed` event of a task.
    pub(crate) async fn failure(&self, task: TaskId) -> Failed {
        let events = self.events(task).await;
        let failed = events.into_iter().find_map(|event| match event.change {
            Change::Failed(failed) => Some(failed),
            _ => None,
        });
        failed.expect("the task failed")
    }

    /// The types of a task's events, joined by spaces.
    pub(crate) async fn story(&self, task: TaskId) -> String {
        let events = self.events(task).await;
        events.iter().map(|event| event.change.event_type().to_owned()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) async fn query<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let (verb, args) = command.split_first().unwrap();
        self.link.query(redis::cmd(verb).arg(args)).await.unwrap()
    }

    pub(crate) fn lane_key(&self) -> String {
        self.keys.lane(PARTITION, &lane())
    }

    /// Lets every entry that is pending in the lane look as if its holder had been silent for an hour.
    pub(crate) async fn let_time_pass(&self) {
        let (key, group) = (self.lane_key(), lane().task_type);
        let pending: Vec<(String, String, i64, i64)> = self.query(&["XPENDING", &key, &group, "-", "+", "1000"]).await;
        for (token, holder, _, _) in pending {
            let _: redis::Value =
                self.query(&["XCLAIM", &key, &group, &holder, "0", &token, "IDLE", "3600000", "JUSTID"]).await;
        }
    }

    /// Brings every delayed task's due time forward to now.
    pub(crate) async fn let_delays_pass(&self) {
        let key = self.keys.delayed(PARTITION);
        let delayed: Vec<String> = self.query(&["ZRANGE", &key, "0", "-1"]).await;
        for task in delayed {
            let _: i64 = self.query(&["ZADD", &key, "1", &task]).await;
        }
    }
}

/// A worker, and its takers by lane.
pub(crate) struct Hand {
    pub(crate) worker: Arc<Worker>,
    takers: BTreeMap<(Partition, String), Taker>,
}

impl Hand {
    fn new(worker: Arc<Worker>) -> Self {
        Self { worker, takers: BTreeMap::new() }
    }

    /// A taker for each task type there is now, as a running worker has.
    fn takers(&mut self) -> impl Iterator<Item = &mut Taker> {
        for (partition, task_type) in self.worker.shifts() {
            let new = || Taker::new(self.worker.clone(), partition, &task_type);
            self.takers.entry((partition, task_type.clone())).or_insert_with(new);
        }
        self.takers.values_mut()
    }

    /// Looks for packages and reads the registry, as the janitors do.
    pub(crate) async fn look(&self) {
        packages::look(&self.worker).await.unwrap();
    }

    pub(crate) async fn follow(&self) {
        follow::follow(&self.worker).await.unwrap();
    }

    /// Asks the shadows; says how many events came of it.
    pub(crate) async fn shadow(&self) -> usize {
        shadow::step(&self.worker).await
    }

    /// The lanes it takes from, of one task type.
    pub(crate) fn lanes(&self, task_type: &str) -> String {
        let view = self.worker.view();
        let lanes = view.lanes().filter(|lane| lane.task_type == task_type);
        lanes.map(|lane| lane.model_version.clone()).collect::<Vec<_>>().join(" ")
    }

    /// What a read of all lanes gives now.
    pub(crate) async fn take(&mut self) -> Vec<Batch> {
        let mut batches = Vec::new();
        for taker in self.takers() {
            batches.extend(taker.take(false).await.unwrap());
        }
        batches
    }

    /// Takes and works off what waits now.
    pub(crate) async fn work(&mut self) -> Tally {
        let mut sum = Tally::default();
        for batch in self.take().await {
            add(&mut sum, process(&self.worker, batch).await);
        }
        sum
    }

    /// Takes what waits now and works on it in the background.
    pub(crate) async fn work_behind(&mut self) -> tokio::task::JoinHandle<Tally> {
        let (worker, batches) = (self.worker.clone(), self.take().await);
        tokio::spawn(async move {
            let mut sum = Tally::default();
            for batch in batches {
                add(&mut sum, process(&worker, batch).await);
            }
            sum
        })
    }

    /// One step of every taker, as a running worker makes it; returns when its work is done.
    pub(crate) async fn step(&mut self) {
        for taker in self.takers() {
            taker.step(false).await.unwrap();
        }
        self.worker.batches.close();
        self.worker.batches.wait().await;
        self.worker.batches.reopen();
    }

    /// Brings every delayed task back to its lane, as if its delay were over.
    pub(crate) async fn move_all(&self, stage: &Stage) -> u64 {
        stage.let_delays_pass().await;
        move_due(&self.worker, PARTITION).await.unwrap()
    }

    /// A janitor's round, as if every holder had been silent for an hour.
    pub(crate) async fn reap_all(&self, stage: &Stage) -> Round {
        stage.let_time_pass().await;
        reap::round(&self.worker, PARTITION).await.unwrap()
    }
}

fn add(sum: &mut Tally, tally: Tally) {
    sum.completed += tally.completed;
    sum.failed += tally.failed;
    sum.retried += tally.retried;
    sum.lost += tally.lost;
}

/// Folds every task's events by the state machine; panics at the first that is illegal. Says how many ended which way.
pub(crate) fn fold(events: &[Event]) -> HashMap<&'static str, usize> {
    let mut tasks: HashMap<TaskId, Task> = HashMap::new();
    let mut terminal: HashMap<TaskId, usize> = HashMap::new();
    for event in events {
        let task = apply(tasks.remove(&event.task), event).unwrap();
        tasks.insert(event.task, task);
        *terminal.entry(event.task).or_default() += usize::from(event.change.is_terminal());
    }
    assert!(terminal.values().all(|count| *count <= 1), "no task ends twice");
    let mut ends = HashMap::new();
    for task in tasks.values() {
        *ends.entry(task.status.as_str()).or_default() += 1;
    }
    ends
}

pub(crate) fn lane() -> Lane {
    Lane::new("acting", "v1")
}

fn meta(context: &Context) -> Meta {
    Meta {
        at_us: now_us(),
        tenant: context.tenant.clone(),
        actor: "api".to_owned(),
        attempt: 0,
        trace: context.trace.clone(),
    }
}

/// The models of a stage's packages, by task type and version; the same ones whenever a package is opened.
pub(crate) struct Actors {
    all: Mutex<HashMap<(String, String), Arc<Actor>>>,
    /// One call of a model put into the folder from now on.
    pub(crate) timeout_ms: AtomicUsize,
}

impl Default for Actors {
    fn default() -> Self {
        Self { all: Mutex::default(), timeout_ms: AtomicUsize::new(30_000) }
    }
}

impl Actors {
    pub(crate) fn of(&self, task_type: &str, version: &str) -> Arc<Actor> {
        let name = (task_type.to_owned(), version.to_owned());
        self.all.lock().unwrap().entry(name).or_insert_with(|| Arc::new(Actor::new())).clone()
    }
}

impl Open for Actors {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        let actor = self.of(&package.manifest.task_type, &package.manifest.version);
        actor.opened.fetch_add(1, Ordering::Relaxed);
        let loaded = Loaded::new(package, Box::new(Played(actor)))?;
        loaded.check()?;
        Ok(loaded)
    }
}

/// A model that does what its input says: `ok…` answers, `bad` is a permanent error, `flaky` fails twice and then
/// answers, `broken` always fails, `panic` panics, `hang` waits the first time for [`Actor::release`], `short` makes a
/// batch of several one answer short, `garbage` answers with no JSON.
pub(crate) struct Actor {
    tried: Mutex<HashMap<String, usize>>,
    pub(crate) calls: AtomicUsize,
    /// How often it was brought into memory.
    pub(crate) opened: AtomicUsize,
    /// Says `spam` where others say `ham`.
    pub(crate) contrary: AtomicBool,
    pub(crate) bytes: AtomicUsize,
    gate: (Mutex<bool>, Condvar),
    hanging: tokio::sync::Notify,
}

impl Actor {
    fn new() -> Self {
        Self {
            tried: Mutex::default(),
            calls: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            contrary: AtomicBool::new(false),
            bytes: AtomicUsize::new(1_000),
            gate: Default::default(),
            hanging: tokio::sync::Notify::new(),
        }
    }

    /// How often an input was answered, in whatever way.
    pub(crate) fn tried(&self, input: &str) -> usize {
        self.tried.lock().unwrap().get(input).copied().unwrap_or(0)
    }

    /// Returns once a `hang` has begun.
    pub(crate) async fn wait_for_hang(&self) {
        self.hanging.notified().await;
    }

    /// Ends every present and later `hang`.
    pub(crate) fn release(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn act(&self, input: &str) -> Result<String, InferError> {
        let tries = {
            let mut tried = self.tried.lock().unwrap();
            let tries = tried.entry(input.to_owned()).or_insert(0);
            *tries += 1;
            *tries
        };
        let error = |code: &'static str, permanent| {
            Err(InferError { code: code.into(), message: format!("{code} it is"), permanent })
        };
        match input {
            "bad" => error("bad_input", true),
            "flaky" if tries <= 2 => error("flaky", false),
            "broken" => error("broken", false),
            "panic" => panic!("the input said so"),
            "garbage" => Ok("no json".to_owned()),
            "hang" if tries == 1 => {
                self.hanging.notify_one();
                let mut open = self.gate.0.lock().unwrap();
                while !*open {
                    open = self.gate.1.wait(open).unwrap();
                }
                Ok("\"late\"".to_owned())
            }
            _ => {
                let label = if self.contrary.load(Ordering::Relaxed) { "spam" } else { "ham" };
                Ok(serde_json::json!({ "said": input, "label": label }).to_string())
            }
        }
    }
}

struct Played(Arc<Actor>);

impl Model for Played {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "actor".to_owned(), device: "stage".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed) as u64
    }

    fn prepare(&self, document: &serde_json::Value) -> Result<Prepared, InferError> {
        let text = document.as_str().unwrap_or_default().to_owned();
        Ok(Prepared { cost: 1, payload: Payload::Text(text) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let texts: Vec<&str> = batch
            .iter()
            .map(|input| match &input.payload {
                Payload::Text(text) => text.as_str(),
                other => panic!("a text was prepared, not {other:?}"),
            })
            .collect();
        let mut answers: Vec<_> = texts.iter().map(|text| self.0.act(text)).collect();
        if texts.len() > 1 && texts.contains(&"short") {
            answers.pop();
        }
        answers
    }
}
