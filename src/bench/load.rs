//! The load: uploads over kept-alive connections, on schedule (open loop) or one after the other (closed loop).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use url::Url;
use uuid::Uuid;

use super::Args;
use super::ledger::{Ledger, Micros};
use super::wire::{self, Connection, Message};

/// Stands for the running number in a request; as long as the largest one.
const NUMBER: &str = "#NUMBER#";

pub(super) struct Load {
    target: Target,
    /// The request, and where each of its tasks' running number belongs.
    request: Vec<u8>,
    numbers: Vec<usize>,
    /// Whole requests.
    tasks: u64,
    /// Tasks a second.
    rate: Option<f64>,
    connections: u16,
}

/// Where the API listens: `host:port`.
#[derive(Clone)]
pub(super) struct Target(pub(super) Rc<str>);

/// How the uploads were answered.
#[derive(Default)]
pub(super) struct Sent {
    /// When the last upload was accepted.
    pub(super) last_accepted: Micros,
    /// Tasks not accepted, by HTTP status; 0: no answer came, so they may be in the system.
    pub(super) refused: BTreeMap<u16, u64>,
}

#[derive(Deserialize)]
struct Accepted {
    task_id: Uuid,
}

#[derive(Deserialize)]
struct AcceptedBatch {
    tasks: Vec<Accepted>,
}

/// What the connections of one run share.
struct Shared {
    load: Load,
    ledger: Rc<Ledger>,
    /// Tasks handed to a connection so far.
    taken: Cell<u64>,
    /// Open loop: one permit a request that is due.
    due: Option<Arc<Semaphore>>,
    sent: RefCell<Sent>,
}

impl Load {
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let target = Target::new(&args.target)?;
        let data = json!({ "text": format!("{} {NUMBER}", args.text) }).to_string();
        let task =
            json!({ "data": data, "task_type": args.task_type, "model_version": args.model_version }).to_string();
        let per_request = u64::from(args.batch).min(args.tasks);
        let (path, content_type, body) = if per_request == 1 {
            ("/api/data/upload", "application/json", task)
        } else {
            ("/api/data/upload/batch", "application/x-ndjson", format!("{task}\n").repeat(per_request as usize))
        };
        let request = wire::post(&target.0, path, content_type, body.as_bytes());
        let number = NUMBER.as_bytes();
        let numbers = (0..=request.len() - number.len()).filter(|at| request[*at..].starts_with(number)).collect();
        let tasks = args.tasks.next_multiple_of(per_request);
        Ok(Self { target, request, numbers, tasks, rate: args.rate, connections: args.concurrency })
    }

    pub(super) fn target(&self) -> Target {
        self.target.clone()
    }

    /// Sends every task and returns when the last was answered.
    pub(super) async fn send_all(self, ledger: &Rc<Ledger>) -> anyhow::Result<Sent> {
        let requests = self.tasks / self.per_request();
        let connections = u64::from(self.connections).min(requests);
        let due = self.rate.map(|rate| keep_time(ledger, rate / self.per_request() as f64, requests)).transpose()?;
        let shared = Rc::new(Shared {
            load: self,
            ledger: Rc::clone(ledger),
            taken: Cell::new(0),
            due,
            sent: RefCell::default(),
        });
        let mut senders = JoinSet::new();
        for _ in 0..connections {
            senders.spawn_local(send(Rc::clone(&shared)));
        }
        while let Some(ended) = senders.join_next().await {
            ended.context("a connection's task")??;
        }
        Ok(shared.sent.take())
    }
}

impl Target {
    pub(super) fn new(url: &Url) -> anyhow::Result<Self> {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            bail!("--target names no host: {url}");
        };
        if url.scheme() != "http" {
            bail!("--target must be http: TLS would be measured with it");
        }
        Ok(Self(format!("{host}:{port}").into()))
    }
}

/// Adds a permit whenever a request is due. On a thread of its own, because the runtime's timer counts milliseconds.
fn keep_time(ledger: &Ledger, requests_per_s: f64, requests: u64) -> io::Result<Arc<Semaphore>> {
    let due = Arc::new(Semaphore::new(0));
    let (permits, start) = (Arc::clone(&due), ledger.instant(0));
    std::thread::Builder::new().name("schedule".to_owned()).spawn(move || {
        for request in 0..requests {
            let at = start + Duration::from_secs_f64(request as f64 / requests_per_s);
            std::thread::sleep(at.saturating_duration_since(std::time::Instant::now()));
            permits.add_permits(1);
        }
    })?;
    Ok(due)
}

/// One connection: request after request until none is left.
async fn send(shared: Rc<Shared>) -> anyhow::Result<()> {
    let mut connection = None;
    let mut request = shared.load.request.clone();
    while let Some((first, intended)) = shared.next().await {
        shared.load.number(&mut request, first);
        let answer = match ask(&mut connection, &shared.load.target, &request[..]).await {
            Ok(answer) => answer,
            Err(error) if first == 0 => {
                return Err(error).with_context(|| format!("the first upload, to {}", shared.load.target.0));
            }
            Err(_) => {
                connection = None;
                shared.refuse(0);
                continue;
            }
        };
        if !answer.keeps_alive() {
            connection = None;
        }
        shared.judge(&answer, first, intended).await?;
    }
    Ok(())
}

async fn ask(connection: &mut Option<Connection>, target: &Target, request: &[u8]) -> io::Result<Message> {
    if connection.is_none() {
        *connection = Some(Connection::connect(&target.0).await?);
    }
    connection.as_mut().expect("it was just connected").exchange(request).await
}

impl Load {
    /// Tasks a request.
    fn per_request(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Writes the running numbers of the tasks from `first` into the request.
    fn number(&self, request: &mut [u8], first: u64) {
        for (task, at) in (first..).zip(&self.numbers) {
            let mut digits = task;
            for digit in request[*at..at + NUMBER.len()].iter_mut().rev() {
                *digit = b'0' + (digits % 10) as u8;
                digits /= 10;
            }
        }
    }
}

impl Shared {
    /// The next request to send: number of its first task and intended time; `None` when all were handed out.
    async fn next(&self) -> Option<(u64, Micros)> {
        if let Some(due) = &self.due
            && self.taken.get() < self.load.tasks
        {
            due.acquire().await.expect("it is never closed").forget();
        }
        let first = self.taken.get();
        if first >= self.load.tasks {
            return None;
        }
        self.taken.set(first + self.load.per_request());
        if self.taken.get() >= self.load.tasks
            && let Some(due) = &self.due
        {
            // Those that wait for a permit find that nothing is left.
            due.add_permits(usize::from(self.load.connections));
        }
        let intended = match self.load.rate {
            Some(rate) => (first as f64 / rate * 1e6) as Micros,
            None => self.ledger.now(),
        };
        Some((first, intended))
    }

    /// Enters an answer into the ledger.
    async fn judge(&self, answer: &Message, first: u64, intended: Micros) -> anyhow::Result<()> {
        let status = answer.status();
        if status != 202 && status != 200 {
            if first == 0 {
                bail!("the first upload was answered {status}: {}", String::from_utf8_lossy(&answer.body));
            }
            self.refuse(status);
            if self.due.is_none()
                && let Some(seconds) = answer.header("retry-after").and_then(|value| value.parse().ok())
            {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            return Ok(());
        }
        // The last tasks are always watched: they tell when the last row was there.
        let sample = first + u64::from(self.load.connections) * self.load.per_request() >= self.load.tasks;
        let ids = if self.load.per_request() == 1 {
            vec![serde_json::from_slice::<Accepted>(&answer.body).context("the answer to an upload")?]
        } else {
            serde_json::from_slice::<AcceptedBatch>(&answer.body).context("the answer to a batch")?.tasks
        };
        for (at, accepted) in ids.iter().enumerate() {
            self.ledger.accept(accepted.task_id, intended, sample && at == 0);
        }
        let mut sent = self.sent.borrow_mut();
        sent.last_accepted = self.ledger.now();
        let missing = self.load.per_request().saturating_sub(ids.len() as u64);
        if missing > 0 {
            *sent.refused.entry(status).or_default() += missing;
        }
        Ok(())
    }

    /// None of a request's tasks was accepted.
    fn refuse(&self, status: u16) {
        *self.sent.borrow_mut().refused.entry(status).or_default() += self.load.per_request();
    }
}
