//! An open loop of uploads: what comes next does not wait for what came before. Callers behave as they should: what was
//! not answered is sent again with the same id or key, until it is accepted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::dice::Dice;
use crate::model_server::MANNERS;
use crate::program::http;

/// How long a caller goes on asking.
const PATIENCE: Duration = Duration::from_secs(150);
/// The load goes on for this long after the fault, so that recovery can be seen.
const AFTER: Duration = Duration::from_secs(3);
/// Lines of a batch.
const LINES: u64 = 20;

const TEXTS: [&str; 6] = [
    "這是一個非常正面的測試語句，我很喜歡！",
    "蘋果公司在台灣設有研發中心，張三是其員工。",
    "It broke after a day and nobody answers.",
    "Angela Merkel met Tim Cook in Berlin.",
    "普通",
    "I love it",
];

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) tasks: usize,
    /// Tasks a second.
    pub(crate) rate: u32,
    /// A share of the tasks goes to this model beside those of the program.
    pub(crate) extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    None,
    /// A model server that answers badly.
    Rude,
    /// A model in a process of its own.
    Hosted,
}

/// What a caller may expect of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Completed,
    Failed,
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) at: Instant,
    pub(crate) expect: Expect,
    /// It has a webhook of its own beside the configured one.
    pub(crate) own_webhook: bool,
}

/// What callers know.
#[derive(Default)]
pub(crate) struct Ledger {
    /// When a request was sent for the first time, as the plan has it, and how many tasks it is.
    pub(crate) offered: Vec<(Instant, u64)>,
    pub(crate) accepted: HashMap<Uuid, Accepted>,
    /// Answers that were none, by status; 0 for no answer at all.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests without id or key whose fate is not known: each may have become a task, or not.
    pub(crate) unknown: u64,
    /// Keys that were answered with two tasks.
    pub(crate) doubled: Vec<String>,
    pub(crate) complaints: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Load {
    base: String,
    /// Where a task's own webhook goes.
    webhook: String,
    client: Client,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// One request.
struct Request {
    path: &'static str,
    key: Option<String>,
    content_type: &'static str,
    body: String,
    /// Sent again, it is the same.
    repeatable: bool,
    expect: Expect,
    own_webhook: bool,
    then: Then,
}

/// What the caller does once it is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    SendAgain,
    Cancel(Duration),
}

impl Load {
    pub(crate) fn on(api_addr: &str, webhook: &str) -> Self {
        Self { base: format!("http://{api_addr}"), webhook: webhook.to_owned(), client: http(), ledger: Arc::default() }
    }

    /// Asks until the api accepts tasks of every type of the plan; these tasks count like any other.
    pub(crate) async fn warm_up(&self, plan: Plan, dice: &mut Dice) {
        let mut types = vec!["sentiment_analysis", "named_entity_recognition"];
        match plan.extra {
            Extra::None => {}
            Extra::Rude => types.push("rude"),
            Extra::Hosted => types.push("hosted"),
        }
        for task_type in types {
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                let request = single(task_type, TEXTS[0], dice);
                let answer = self.ask(&request).await;
                if answer.is_ok_and(|answer| self.take(&request, &answer, None).is_some()) {
                    break;
                }
                assert!(Instant::now() < deadline, "no analyzer serves {task_type}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // What was refused because nobody had announced it yet is no complaint.
        let mut ledger = self.ledger.lock().unwrap();
        ledger.refused.clear();
        ledger.complaints.clear();
    }

    /// Sends all of the plan, and on until some time after `healed` says when the fault was over; returns when every
    /// request has come to its end.
    pub(crate) async fn run(&self, plan: Plan, mut dice: Dice, healed: watch::Receiver<Option<Instant>>) {
        let (begin, mut due, mut count) = (tokio::time::Instant::now(), Duration::ZERO, 0);
        let mut open = JoinSet::new();
        while count < plan.tasks || healed.borrow().is_none_or(|at| at.elapsed() < AFTER) {
            tokio::time::sleep_until(begin + due).await;
            let (request, tasks) = self.draw(plan.extra, &mut dice);
            self.ledger.lock().unwrap().offered.push((Instant::now(), tasks));
            let load = self.clone();
            open.spawn(async move { load.send(request).await });
            count += usize::try_from(tasks).expect("it fits");
            due += Duration::from_secs(tasks) / plan.rate;
            while open.try_join_next().is_some() {}
        }
        while let Some(ended) = open.join_next().await {
            ended.unwrap();
        }
    }

    /// The next request, and how many tasks it is.
    fn draw(&self, extra: Extra, dice: &mut Dice) -> (Request, u64) {
        let text = *dice.pick(&TEXTS);
        let roll = dice.below(1000);
        if extra != Extra::None && roll >= 700 {
            return (extra_task(extra, text, dice), 1);
        }
        let request = match roll {
            0..40 => return (batch(dice), LINES),
            40..90 => Request { repeatable: false, ..anonymous(text) },
            90..240 => Request {
                key: Some(dice.uuid().to_string()),
                then: if dice.below(5) == 0 { Then::SendAgain } else { Then::Nothing },
                ..anonymous(text)
            },
            240..290 => self.analyze("sentiment_analysis", "no JSON at all", dice),
            290..340 => self.analyze("nobody_serves_this", "{\"text\":\"x\"}", dice),
            340..370 => {
                let then = Then::Cancel(dice.millis(0, 30));
                Request { then, expect: Expect::Any, ..single("sentiment_analysis", text, dice) }
            }
            _ => single("sentiment_analysis", text, dice),
        };
        (request, 1)
    }

    /// As the former back end sends it: whatever is wrong with the input becomes the failure of the task.
    fn analyze(&self, task_type: &str, data: &str, dice: &mut Dice) -> Request {
        let body = json!({
            "task_id": dice.uuid(), "data": data, "task_type": task_type, "webhook_url": self.webhook,
            "webhook_secret": "a caller's own secret",
        });
        Request { path: "/analyze", body: body.to_string(), expect: Expect::Failed, own_webhook: true, ..anonymous("") }
    }

    /// Sends until it is accepted.
    async fn send(&self, request: Request) {
        let deadline = Instant::now() + PATIENCE;
        let mut wait = Duration::from_millis(50);
        let mut known = None;
        loop {
            if let Ok(answer) = self.ask(&request).await
                && let Some(task) = self.take(&request, &answer, known)
            {
                match request.then {
                    Then::SendAgain if known.is_none() => known = Some(task),
                    Then::Cancel(after) => {
                        tokio::time::sleep(after).await;
                        let _ = self.client.post(format!("{}/api/tasks/{task}/cancel", self.base)).send().await;
                        return;
                    }
                    Then::SendAgain | Then::Nothing => return,
                }
                continue;
            }
            if !request.repeatable {
                self.ledger.lock().unwrap().unknown += 1;
                return;
            }
            if Instant::now() > deadline {
                let text = format!("not accepted within {PATIENCE:?}: {}", request.body);
                let mut ledger = self.ledger.lock().unwrap();
                ledger.complaints.push(text);
                // Some of it may be stored.
                ledger.unknown += LINES;
                return;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(400));
        }
    }

    /// Status and body of the answer, when there is one.
    async fn ask(&self, request: &Request) -> Result<(StatusCode, bool, Value), ()> {
        let Request { path, key, content_type, body, .. } = request;
        let mut post: RequestBuilder = self.client.post(format!("{}{path}", self.base));
        post = post.header("Content-Type", *content_type).body(body.clone());
        if let Some(key) = key {
            post = post.header("Idempotency-Key", key);
        }
        let answer = async {
            let answer = post.send().await?;
            let retry_after = answer.headers().contains_key("retry-after");
            Ok::<_, reqwest::Error>((answer.status(), retry_after, answer.text().await?))
        };
        match answer.await {
            Ok((status, retry_after, text)) => {
                Ok((status, retry_after, serde_json::from_str(&text).unwrap_or(Value::Null)))
            }
            Err(_) => {
                *self.ledger.lock().unwrap().refused.entry(0).or_default() += 1;
                Err(())
            }
        }
    }

    /// Notes what an answer says; one of its tasks when it was accepted. `known`: what an earlier answer to the same
    /// request said.
    fn take(&self, request: &Request, answer: &(StatusCode, bool, Value), known: Option<Uuid>) -> Option<Uuid> {
        let (status, retry_after, body) = answer;
        let mut ledger = self.ledger.lock().unwrap();
        if !status.is_success() {
            *ledger.refused.entry(status.as_u16()).or_default() += 1;
            match status.as_u16() {
                503 | 429 if *retry_after => {}
                // The same batch, whose uploader is thought to be gone, is still coming in: a little later, again.
                409 if *retry_after && body["type"] == "urn:insightforge:problem:in-flight" => {}
                503 | 429 => ledger.complaints.push(format!("{status} without Retry-After")),
                _ => ledger.complaints.push(format!("{} was answered {status}: {body}", request.path)),
            }
            return None;
        }
        let at = Instant::now();
        let of = |value: &Value| value["task_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
        let tasks: Vec<Uuid> = match body["tasks"].as_array() {
            Some(lines) => lines.iter().filter_map(of).collect(),
            None => of(body).into_iter().collect(),
        };
        if let (Some(known), Some(now)) = (known, tasks.first())
            && known != *now
        {
            ledger.doubled.push(format!("one key was answered with {known} and {now}"));
        }
        let accepted = Accepted { at, expect: request.expect, own_webhook: request.own_webhook };
        for task in &tasks {
            ledger.accepted.entry(*task).or_insert(accepted);
        }
        if tasks.is_empty() {
            ledger.complaints.push(format!("accepted without a task: {body}"));
        }
        tasks.first().copied()
    }
}

/// The contract's upload, without id or key.
fn anonymous(text: &str) -> Request {
    let task_type = "named_entity_recognition";
    let body = json!({ "data": json!({ "text": text }).to_string(), "task_type": task_type, "model_version": "v1.0" });
    Request {
        path: "/api/data/upload",
        key: None,
        content_type: "application/json",
        body: body.to_string(),
        repeatable: true,
        expect: Expect::Completed,
        own_webhook: false,
        then: Then::Nothing,
    }
}

/// An upload under an id of the caller's own.
fn single(task_type: &str, text: &str, dice: &mut Dice) -> Request {
    let version = if matches!(task_type, "rude" | "hosted") { "v1" } else { "v1.0" };
    let body = json!({
        "data": json!({ "text": text }).to_string(), "task_type": task_type, "model_version": version,
        "task_id": dice.uuid(),
    });
    Request { body: body.to_string(), ..anonymous("") }
}

fn extra_task(extra: Extra, text: &str, dice: &mut Dice) -> Request {
    if extra == Extra::Hosted {
        // One whose process is killed three times is failed, and rightly so.
        return Request { expect: Expect::Any, ..single("hosted", text, dice) };
    }
    // A server that hangs holds up the others: few do.
    let manner = if dice.below(20) == 0 { "hang" } else { *dice.pick(&MANNERS[..5]) };
    let expect = match manner {
        // It may be asked beside one that hangs.
        "well" => Expect::Any,
        _ => Expect::Failed,
    };
    Request { expect, ..single("rude", manner, dice) }
}

/// Many lines at once, under a key.
fn batch(dice: &mut Dice) -> Request {
    let lines: Vec<String> = (0..LINES).map(|_| json!({ "text": dice.pick(&TEXTS) }).to_string()).collect();
    Request {
        path: "/api/data/upload/batch?task_type=sentiment_analysis&model_version=v1.0",
        key: Some(dice.uuid().to_string()),
        content_type: "application/x-ndjson",
        body: lines.join("\n"),
        ..anonymous("")
    }
}
