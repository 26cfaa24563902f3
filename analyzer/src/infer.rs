//! Step three: ask the model, off the async executor.
//!
//! A batch that panics or answers with the wrong number of answers is asked again one by one, so that a poisonous input
//! fails alone. A call that does not come back cannot be killed: its thread is left behind and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::model::{InferError, Model};

/// A model with the threads that may run it.
#[derive(Clone)]
pub struct Engine {
    model: Arc<dyn Model>,
    timeout: Duration,
    /// Each model has its own, so that one that hangs does not hold up another.
    threads: Arc<Semaphore>,
    stuck: Arc<AtomicUsize>,
}

/// What came of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The result document: JSON text.
    Result(String),
    Error(InferError),
    /// The process stops and waits no longer.
    Stopping,
}

/// The answers to a batch, in order, and how long the model took for all of them.
#[derive(Debug)]
pub struct Inference {
    pub answers: Vec<Answer>,
    pub took: Duration,
}

/// Why a call of the model gave no answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Panic,
    WrongCount { expected: usize, got: usize },
    Timeout,
    Stopping,
}

impl Engine {
    #[must_use]
    pub fn new(model: Arc<dyn Model>, config: &Config) -> Self {
        Self {
            model,
            timeout: Duration::from_millis(config.task_timeout_ms),
            threads: Arc::new(Semaphore::new(config.inference_threads)),
            stuck: Arc::default(),
        }
    }

    /// Answers each input, whatever the model does. Once `stop` is cancelled, what has no answer yet gets
    /// [`Answer::Stopping`].
    pub async fn infer(&self, inputs: Vec<String>, stop: &CancellationToken) -> Inference {
        let begun = Instant::now();
        let count = inputs.len();
        let inputs = Arc::new(inputs);
        let answers = match self.call(inputs.clone(), 0..count, stop).await {
            Ok(answers) => answers,
            Err(Trouble::Panic | Trouble::WrongCount { .. }) if count > 1 => self.one_by_one(&inputs, stop).await,
            Err(trouble) => vec![self.excuse(trouble); count],
        };
        Inference { answers, took: begun.elapsed() }
    }

    /// Calls that were given up on and still run.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.stuck.load(Ordering::Relaxed)
    }

    async fn one_by_one(&self, inputs: &Arc<Vec<String>>, stop: &CancellationToken) -> Vec<Answer> {
        let mut calls = JoinSet::new();
        for index in 0..inputs.len() {
            let (engine, inputs, stop) = (self.clone(), inputs.clone(), stop.clone());
            calls.spawn(async move { (index, engine.call(inputs, index..index + 1, &stop).await) });
        }
        let mut answers = vec![self.excuse(Trouble::Panic); inputs.len()];
        while let Some(call) = calls.join_next().await {
            let (index, answer) = call.expect("a call catches the model's panics");
            answers[index] = match answer {
                Ok(mut answer) => answer.pop().expect("a call gives one answer an input"),
                Err(trouble) => self.excuse(trouble),
            };
        }
        answers
    }

    /// One call of the model: one answer an input, or none at all.
    async fn call(
        &self,
        inputs: Arc<Vec<String>>,
        range: std::ops::Range<usize>,
        stop: &CancellationToken,
    ) -> Result<Vec<Answer>, Trouble> {
        let expected = range.len();
        let thread = tokio::select! {
            thread = self.threads.acquire() => thread.expect("the semaphore is never closed"),
            () = stop.cancelled() => return Err(Trouble::Stopping),
        };
        let model = self.model.clone();
        let mut call = tokio::task::spawn_blocking(move || {
            let inputs: Vec<&str> = inputs[range].iter().map(String::as_str).collect();
            model.infer(&inputs).into_iter().map(check).collect::<Vec<_>>()
        });
        let answers = tokio::select! {
            answers = &mut call => answers.map_err(|_| Trouble::Panic)?,
            () = tokio::time::sleep(self.timeout) => {
                self.leave_behind(call);
                return Err(Trouble::Timeout);
            }
            () = stop.cancelled() => return Err(Trouble::Stopping),
        };
        // Held until here: a model never runs on more threads than it was given, except those left behind.
        drop(thread);
        if answers.len() == expected { Ok(answers) } else { Err(Trouble::WrongCount { expected, got: answers.len() }) }
    }

    fn leave_behind(&self, call: tokio::task::JoinHandle<Vec<Answer>>) {
        let stuck = self.stuck.clone();
        stuck.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            // Its answer comes too late, whatever it is.
            drop(call.await);
            stuck.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// What an input is told when the model gave no answer.
    fn excuse(&self, trouble: Trouble) -> Answer {
        let (code, message) = match trouble {
            Trouble::Panic => ("panic", "the model panicked on this input".to_owned()),
            Trouble::WrongCount { expected, got } => {
                ("wrong_answer_count", format!("the model gave {got} answers to {expected} inputs"))
            }
            Trouble::Timeout => ("timeout", format!("the model gave no answer within {} ms", self.timeout.as_millis())),
            Trouble::Stopping => return Answer::Stopping,
        };
        Answer::Error(InferError { code, message, permanent: false })
    }
}

/// A result that is no JSON would stop everybody behind us; it ends here.
fn check(answer: Result<String, InferError>) -> Answer {
    match answer {
        Ok(result) if serde_json::from_str::<&RawValue>(&result).is_ok() => Answer::Result(result),
        Ok(_) => Answer::Error(InferError {
            code: "bad_result",
            message: "the model's result is not JSON".to_owned(),
            permanent: false,
        }),
        Err(error) => Answer::Error(error),
    }
}
