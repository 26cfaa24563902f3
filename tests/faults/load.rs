//! An open loop of uploads: what comes next does not wait for what came before. Callers behave as they should: what was
//! not answered is sent again with the same id or key, until it is accepted.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::dice::Dice;
use crate::ledger::{Accepted, Answer, Ledger, Letter};
use crate::program::http;
use crate::request::{Extra, Request, TEXTS, Then, draw, single};

/// How long a caller goes on asking.
const PATIENCE: Duration = Duration::from_secs(150);
/// The load goes on for this long after the fault, so that recovery can be seen.
const AFTER: Duration = Duration::from_secs(3);
/// Between two looks at what is not done yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) tasks: usize,
    /// Tasks a second.
    pub(crate) rate: u32,
    /// A share of the tasks goes to this model beside those of the program.
    pub(crate) extra: Extra,
}

#[derive(Clone)]
pub(crate) struct Load {
    base: String,
    /// Where a task's own webhook goes.
    webhook: String,
    client: Client,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Whether an outcome that was told may be lost, and another take its place.
    forgets: bool,
}

impl Load {
    pub(crate) fn on(api_addr: &str, webhook: &str, forgets: bool) -> Self {
        let base = format!("http://{api_addr}");
        Self { base, webhook: webhook.to_owned(), client: http(), ledger: Arc::default(), forgets }
    }

    /// Asks until the api accepts tasks of every type of the plan, and what its model says about every text; these tasks
    /// count like any other.
    pub(crate) async fn warm_up(&self, plan: Plan, dice: &mut Dice) {
        let mut types = vec!["sentiment_analysis", "named_entity_recognition", "mood"];
        match plan.extra {
            Extra::None => {}
            Extra::Rude => types.push("rude"),
            Extra::Hosted => types.push("hosted"),
        }
        for task_type in types {
            // The others are what it answers badly to.
            let texts: &[&str] = if task_type == "rude" { &["well"] } else { &TEXTS };
            for text in texts {
                let result = self.ask_model(task_type, text, dice).await;
                self.ledger.lock().unwrap().said.insert((task_type.to_owned(), (*text).to_owned()), result);
            }
        }
        // What was refused because nobody had announced it yet is no complaint.
        let mut ledger = self.ledger.lock().unwrap();
        ledger.refused.clear();
        ledger.complaints.clear();
    }

    /// What a model makes of a text while nothing is the matter.
    async fn ask_model(&self, task_type: &str, text: &str, dice: &mut Dice) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let request = single(task_type, text, dice);
            if self.ask(&request).await == Answer::Accepted {
                let task = self.task_of(&request);
                let shown = self.wait_for(task, |it| it["status"] == "completed", deadline).await;
                return shown.unwrap_or_else(|| panic!("{task_type} did not answer about {text}"))["result"].take();
            }
            assert!(Instant::now() < deadline, "no analyzer serves {task_type}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends all of the plan, and on until some time after `healed` says when the fault was over; returns when every
    /// request has come to its end.
    pub(crate) async fn run(&self, plan: Plan, mut dice: Dice, healed: watch::Receiver<Option<Instant>>) {
        let (begin, mut due, mut count) = (tokio::time::Instant::now(), Duration::ZERO, 0);
        let mut open = JoinSet::new();
        while count < plan.tasks || healed.borrow().is_none_or(|at| at.elapsed() < AFTER) {
            tokio::time::sleep_until(begin + due).await;
            let request = draw(plan.extra, &self.webhook, &mut dice);
            self.ledger.lock().unwrap().offered.push((Instant::now(), request.lines as u64));
            count += request.lines;
            due += Duration::from_secs(request.lines as u64) / plan.rate;
            let load = self.clone();
            open.spawn(async move { load.send(request).await });
            while open.try_join_next().is_some() {}
        }
        while let Some(ended) = open.join_next().await {
            ended.unwrap();
        }
    }

    /// Sends until it is accepted, and does what is to be done then.
    async fn send(&self, request: Request) {
        let deadline = Instant::now() + PATIENCE;
        let times = if request.then == Then::SendAgain { 2 } else { 1 };
        for _ in 0..times {
            if !self.submit(&request, deadline).await {
                return;
            }
        }
        let task = self.task_of(&request);
        match request.then {
            Then::Nothing | Then::SendAgain => {}
            Then::Cancel(after) => {
                tokio::time::sleep(after).await;
                let answer = self.client.post(format!("{}/api/tasks/{task}/cancel", self.base)).send().await;
                let status = answer.ok().map(|answer| answer.status().as_u16());
                self.ledger.lock().unwrap().cancels.insert(task, status);
            }
            Then::Redrive | Then::Purge => self.deal_with_letter(&request, task).await,
        }
    }

    /// Whether it was accepted, sooner or later.
    async fn submit(&self, request: &Request, deadline: Instant) -> bool {
        let mut wait = PAUSE;
        loop {
            match self.ask(request).await {
                Answer::Accepted => return true,
                Answer::Rejected => return false,
                Answer::Refused | Answer::InDoubt if request.repeatable => {}
                Answer::Refused | Answer::InDoubt => return false,
            }
            if Instant::now() > deadline {
                self.complain(format!("not accepted within {PATIENCE:?}: {}", request.body));
                return false;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(400));
        }
    }

    /// Sends it once, and notes the answer.
    async fn ask(&self, request: &Request) -> Answer {
        self.ledger.lock().unwrap().ask(request);
        let Request { path, key, content_type, body, .. } = request;
        let mut post: RequestBuilder = self.client.post(format!("{}{path}", self.base));
        post = post.header("Content-Type", *content_type).body(body.clone());
        if let Some(key) = key {
            post = post.header("Idempotency-Key", key);
        }
        match read(post).await {
            Ok((status, retry_after, body)) => {
                self.ledger.lock().unwrap().answered(request, status, retry_after, &body)
            }
            Err(_) => {
                self.ledger.lock().unwrap().unanswered(request);
                Answer::InDoubt
            }
        }
    }

    fn task_of(&self, request: &Request) -> Uuid {
        let ledger = self.ledger.lock().unwrap();
        ledger.asked.get(&request.mark).and_then(|asked| asked.told.first().copied()).unwrap_or_default()
    }

    /// Waits for the failure, and has it repeated or given up.
    async fn deal_with_letter(&self, request: &Request, task: Uuid) {
        let deadline = Instant::now() + PATIENCE;
        if self.wait_for(task, |it| it["status"] == "failed", deadline).await.is_none() {
            return self.complain(format!("{task} had not failed within {PATIENCE:?}"));
        }
        let (verb, good) = if request.then == Then::Redrive { ("redrive", 202) } else { ("purge", 200) };
        let mut in_doubt = false;
        while Instant::now() < deadline {
            let post = self.client.post(format!("{}/api/dead-letters/{task}/{verb}", self.base));
            let answer = read(post.json(&json!({ "reason": "a caller asked" }))).await;
            let mut ledger = self.ledger.lock().unwrap();
            match answer {
                Ok((status, _, body)) if status == good && verb == "redrive" => {
                    let new = body["task_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
                    ledger.accepted.insert(new, Accepted { at: Instant::now(), mark: request.mark });
                    ledger.letters.insert(task, Letter::RedrivenAs(new));
                    return;
                }
                Ok((status, ..)) if status == good => {
                    ledger.letters.insert(task, Letter::Purged);
                    return;
                }
                // An earlier call did it, and its answer was lost.
                Ok((404, ..)) if verb == "purge" && in_doubt => {
                    ledger.letters.insert(task, Letter::Purged);
                    return;
                }
                // What an analyzer wrote may be lost with a master, a failure that was told among it: it is done again.
                Ok((404 | 409, ..)) if self.forgets => {}
                Ok((429 | 503, ..)) | Err(_) => in_doubt = true,
                Ok((status, _, body)) => {
                    ledger.complaints.push(format!("to {verb} {task} was answered {status}: {body}"));
                    return;
                }
            }
            drop(ledger);
            tokio::time::sleep(4 * PAUSE).await;
        }
        self.complain(format!("{task}: {verb} was not answered well within {PATIENCE:?}"));
    }

    /// Asks for a task's result until it is as it should be.
    async fn wait_for(&self, task: Uuid, good: impl Fn(&Value) -> bool, deadline: Instant) -> Option<Value> {
        loop {
            let answer = read(self.client.get(format!("{}/api/result/{task}", self.base))).await;
            if let Ok((200, _, body)) = answer
                && good(&body)
            {
                return Some(body);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn complain(&self, text: String) {
        self.ledger.lock().unwrap().complaints.push(text);
    }
}

/// Status, whether there is a `Retry-After`, and body of the answer, when there is one.
async fn read(request: RequestBuilder) -> Result<(u16, bool, Value), reqwest::Error> {
    let answer = request.send().await?;
    let (status, retry_after) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    let text = answer.text().await?;
    Ok((status, retry_after, serde_json::from_str(&text).unwrap_or(Value::Null)))
}
