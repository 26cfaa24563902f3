//! The way of a batch, step by step: [`Ingest::run`].
//!
//! Lines are stored while the file is still coming in; it is never held as a whole. The first mebibyte, though, is looked
//! through before anything is stored, so that a file that is of no use at all (empty, not UTF-8, no such column, no line
//! in order) is refused as a whole. After that a wrong line is rejected alone.
//!
//! With an `Idempotency-Key` the batch's id is kept under the key, and a line's task follows from that id and the line's
//! number: a batch that broke off is sent again, and what was there before stays the same task. Once the key is forgotten
//! it names another batch, whose tasks are others.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use axum::http::StatusCode;
use insightforge_schema::DEFAULT_TENANT;
use insightforge_schema::event::{BatchLine, BatchReceived, Change, Meta, encode, now_us};
use insightforge_schema::id::TaskId;
use insightforge_schema::script::{self, Submission};
use metrics::counter;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::app::App;
use crate::asked::{Asked, Defaults, Door, Rules};
use crate::backlog::Place;
use crate::batch::account::Account;
use crate::batch::in_flight::InFlight;
use crate::batch::line::{Content, Line, Reader};
use crate::batch::source::Source;
use crate::body::Share;
use crate::idempotency::Key;
use crate::problem::{Fields, Problem};
use crate::submit::{Answer, Refused, judge};
use crate::trace::Arrival;
use crate::upload::{USED, conflict, prepare, refuse};

/// How much of a file is looked through before anything of it is stored.
const HEAD_BYTES: usize = 1 << 20;
/// Lines on their way to Redis at once.
const WINDOW: usize = 1_024;

/// One batch being taken in.
pub(crate) struct Ingest {
    app: Arc<App>,
    source: Source,
    reader: Reader,
    defaults: Defaults,
    key: Option<Key>,
    trace: Option<String>,
    account: Account,
    window: VecDeque<OnTheWay>,
    /// Ids that lines brought themselves, as they came: one that comes again in this batch is no other task.
    brought: HashSet<TaskId>,
    /// Memory for the head and then for the lines that were made of it and for the line that is coming in.
    share: Share,
}

/// A line whose answer is awaited.
struct OnTheWay {
    line: u32,
    task: TaskId,
    /// A line before it brought the same id.
    again: bool,
    answer: Answer,
    arrival: Arrival,
}

/// A task that is in order.
struct Good {
    line: u32,
    asked: Asked,
}

/// How it went.
pub(crate) enum Outcome {
    /// To its end.
    Whole(Account),
    /// Nothing was stored.
    Refused(Problem),
    /// Not to its end, and something had been stored before.
    Stopped(Problem, Account),
}

impl Ingest {
    pub(crate) fn new(
        app: Arc<App>,
        source: Source,
        defaults: Defaults,
        key: Option<Key>,
        trace: Option<String>,
    ) -> Self {
        let reader = Reader::new(source.format, app.config.max_body_bytes);
        let (account, window, brought) = (Account::new(Uuid::now_v7()), VecDeque::new(), HashSet::new());
        Self { app, source, reader, defaults, key, trace, account, window, brought, share: Share::default() }
    }

    /// Takes the batch in.
    pub(crate) async fn run(mut self) -> Outcome {
        let (result, _in_flight) = match self.begin().await {
            Ok((rest, good, in_flight)) => (self.store_all(rest, good).await, in_flight),
            Err(problem) => return Outcome::Refused(problem),
        };
        let drained = self.drain().await;
        let result = result.and(drained);
        self.account.ignored_columns = self.reader.ignored_columns().to_vec();
        let stored = self.account.accepted + self.account.repeated > 0;
        // A batch with a key that was stopped may be sent again; until then it stays open.
        let over = result.is_ok() || (stored && self.key.is_none());
        let closed = if over && stored { self.close().await } else { Ok(()) };
        match result.and(closed) {
            Ok(()) if stored => Outcome::Whole(self.account),
            Ok(()) => Outcome::Refused(self.account.nothing_good()),
            Err(problem) if stored => Outcome::Stopped(problem, self.account),
            Err(problem) => Outcome::Refused(problem),
        }
    }

    /// Looks through the head of the file and takes the key. Nothing is stored before this has gone well. Gives what was
    /// read beyond the head (`None` at the end of the file) and the head's good lines.
    async fn begin(&mut self) -> Result<(Option<Bytes>, Vec<Good>, Option<InFlight>), Problem> {
        let mut head = Vec::new();
        let mut rest = None;
        while let Some(piece) = self.source.next().await? {
            self.app.batch_budget.take(&mut self.share, piece.len())?;
            let room = (HEAD_BYTES - head.len()).min(piece.len());
            head.extend_from_slice(&piece[..room]);
            if head.len() == HEAD_BYTES {
                rest = Some(piece.slice(room..));
                break;
            }
        }
        let bytes = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&head);
        let mut lines = Vec::new();
        let mut read = self.reader.push(bytes, &mut lines);
        if rest.is_none() {
            self.account.ignored_fields = self.source.finish().await?;
            read = read.and_then(|()| self.reader.finish(&mut lines));
        }
        read.map_err(|bad| self.of_no_use(bad.0))?;
        if lines.is_empty() && rest.is_none() {
            return Err(self.of_no_use("holds no line that could become a task"));
        }
        if let Some((line, faults)) = lines.iter().find_map(|line| match &line.content {
            Content::NotText(faults) => Some((line.number, faults)),
            _ => None,
        }) {
            return Err(self.of_no_use(format!("is not UTF-8: line {line}, {}", faults.summary())));
        }
        let good = self.check(lines).await;
        if good.is_empty() && rest.is_none() {
            return Err(self.account.nothing_good());
        }
        let in_flight = self.take_key(&head).await?;
        Ok((rest, good, in_flight))
    }

    fn of_no_use(&self, what: impl Into<String>) -> Problem {
        Problem::invalid(Fields::one(self.source.name, what))
    }

    /// The same key with the same head is the batch it was before; with another head it is another, and refused.
    async fn take_key(&mut self, head: &[u8]) -> Result<Option<InFlight>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let app = &self.app;
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?}\n", self.source.format, self.defaults));
        let fingerprint = hex::encode(&hash.chain_update(head).finalize()[..16]);
        let value = format!("{fingerprint}|{}", self.account.batch_id);
        if let Some(taken) = key.reserve(&app.link, &app.keys, app.config.partitions, &value).await? {
            let batch = taken.strip_prefix(&format!("{fingerprint}|")).and_then(|batch| batch.parse().ok());
            self.account.batch_id = batch.ok_or_else(|| conflict(Some(key)))?;
        }
        let lease = app.keys.lease(key.partition(app.config.partitions), &format!("batch:{}", self.account.batch_id));
        InFlight::take(&app.link, lease).await.map(Some)
    }

    /// Stores the head's lines, then whatever still comes.
    async fn store_all(&mut self, mut rest: Option<Bytes>, good: Vec<Good>) -> Result<(), Problem> {
        self.store(good).await?;
        let mut lines = Vec::new();
        while let Some(piece) = rest {
            self.reader.push(&piece, &mut lines).map_err(|bad| self.of_no_use(bad.0))?;
            let good = self.check(std::mem::take(&mut lines)).await;
            self.store(good).await?;
            rest = self.next().await?;
            if rest.is_none() {
                self.reader.finish(&mut lines).map_err(|bad| self.of_no_use(bad.0))?;
                self.account.ignored_fields = self.source.finish().await?;
                let good = self.check(std::mem::take(&mut lines)).await;
                self.store(good).await?;
            }
        }
        Ok(())
    }

    /// The next piece, unless this process is told to stop: then the batch ends here, in order.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let stop = self.app.shutdown.clone();
        stop.run_until_cancelled(self.source.next()).await.unwrap_or_else(|| {
            let detail = "this process is being stopped; what follows of the file was not read";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "Stopping", detail).retry_after(1))
        })
    }

    /// Keeps the lines that are in order; the others are rejected.
    async fn check(&mut self, lines: Vec<Line>) -> Vec<Good> {
        let mut good = Vec::with_capacity(lines.len());
        for Line { number: line, content } in lines {
            let checked = match content {
                Content::Fields(fields) => {
                    let models = self.app.models.seen_for(&fields, &self.defaults).await;
                    let rules = Rules {
                        door: Door::Upload,
                        models: &models,
                        addresses: &self.app.config.addresses,
                        defaults: &self.defaults,
                    };
                    Asked::check(fields, &rules)
                }
                Content::NotText(faults) | Content::Wrong(faults) => Err(faults),
            };
            match checked {
                Ok(asked) => good.push(Good { line, asked }),
                Err(faults) => self.account.reject(line, faults),
            }
        }
        let brought: Vec<TaskId> = good.iter().filter_map(|good| good.asked.task_id).collect();
        let used = self.app.used.among(&self.app, &brought).await;
        good.retain(|Good { line, asked }| {
            let is_used = asked.task_id.is_some_and(|task| used.contains(&task));
            if is_used {
                self.account.reject(*line, Fields::one("task_id", USED));
            }
            !is_used
        });
        good
    }

    async fn store(&mut self, good: Vec<Good>) -> Result<(), Problem> {
        for Good { line, asked } in good {
            let batch = BatchLine { id: self.account.batch_id, line };
            let again = asked.task_id.is_some_and(|task| !self.brought.insert(task));
            let (submit, arrival) = prepare(&self.app, asked, self.key.as_ref(), self.trace.clone(), Some(batch));
            let task = submit.task;
            let share = self.room_for(submit.event.len()).await?;
            let place = self.place_for(task).await?;
            let answer = match self.app.submitter.hand_over(submit, share, place).await {
                Ok(answer) => answer,
                Err(refused) => return Err(refuse(refused, task)),
            };
            self.window.push_back(OnTheWay { line, task, again, answer, arrival });
            while self.window.len() >= WINDOW {
                self.settle_first().await?;
            }
        }
        Ok(())
    }

    /// Memory for a line on its way; waits until lines before it have gone when there is none.
    async fn room_for(&mut self, bytes: usize) -> Result<Share, Problem> {
        let mut share = Share::default();
        loop {
            match self.app.budget.take(&mut share, bytes) {
                Ok(()) => return Ok(share),
                Err(problem) if self.window.is_empty() => return Err(problem),
                Err(_) => self.settle_first().await?,
            }
        }
    }

    /// A place in the backlog; lines on their way may give theirs back, when their tasks were there before.
    async fn place_for(&mut self, task: TaskId) -> Result<Place, Problem> {
        loop {
            match self.app.submitter.place() {
                Some(place) => return Ok(place),
                None if self.window.is_empty() => return Err(refuse(Refused::Backlog, task)),
                None => self.settle_first().await?,
            }
        }
    }

    /// Waits for every answer that is still to come; the first problem counts.
    async fn drain(&mut self) -> Result<(), Problem> {
        let mut outcome = Ok(());
        while !self.window.is_empty() {
            outcome = outcome.and(self.settle_first().await);
        }
        outcome
    }

    /// Enters the answer to the line that has waited longest.
    async fn settle_first(&mut self) -> Result<(), Problem> {
        let Some(OnTheWay { line, task, again, answer, arrival }) = self.window.pop_front() else { return Ok(()) };
        match judge(answer.await) {
            Ok(Submission::Accepted { .. }) => {
                arrival.end(task);
                self.account.accepted += 1;
                self.account.fresh += 1;
                self.account.list(line, task);
            }
            Ok(Submission::Known { .. }) => {
                // Under a key, it was this batch that brought it.
                if self.key.is_some() && !again {
                    self.account.accepted += 1;
                } else {
                    self.account.repeated += 1;
                }
                self.account.list(line, task);
            }
            Ok(Submission::Conflict { .. } | Submission::Full) => {
                let (field, what) = match &self.key {
                    Some(_) => {
                        ("line", "was another under the same Idempotency-Key before, or its task_id is another's")
                    }
                    None => ("task_id", "belongs to a task with other fields"),
                };
                self.account.reject(line, Fields::one(field, what));
            }
            Err(refused) => return Err(refuse(refused, task)),
        }
        Ok(())
    }

    /// Appends the batch's closing event.
    async fn close(&mut self) -> Result<(), Problem> {
        let (app, account) = (&self.app, &self.account);
        let (accepted, rejected) = (account.accepted, account.rejected);
        let meta = Meta {
            at_us: now_us(),
            tenant: DEFAULT_TENANT.to_owned(),
            actor: "api".to_owned(),
            attempt: 0,
            trace: self.trace.clone(),
        };
        let event = encode(&meta, &Change::BatchReceived(BatchReceived { accepted, rejected }));
        let partition = app.config.partitions.of(account.batch_id.as_bytes());
        let batch = account.batch_id;
        script::close_batch(&app.link, &app.keys, partition, batch, &event, accepted, rejected).await.map_err(
            |error| {
                tracing::warn!(%batch, %error, "a batch could not be closed");
                let detail = "every line was stored, but the batch could not be closed; sent again with the same \
                Idempotency-Key, it is";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available", detail).retry_after(2)
            },
        )?;
        counter!("if_events_appended_total", "type" => "batch_received").increment(1);
        Ok(())
    }
}
