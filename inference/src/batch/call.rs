//! One call of the model within its time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::Answer;
use super::compute::aside;
use crate::loaded::Loaded;
use crate::model::{InferError, Prepared};

/// Calls of one version that may hang at once; it is asked no more until one of them comes back.
pub(super) const HANG_MOST: usize = 16;
/// Inputs of one batch that may hang alone; then it is the model that hangs, and the others are for later.
const ALONE_MOST: usize = 3;

/// Asks a model on behalf of one thread. A thread cannot be killed: a call that does not come back is left behind on its
/// own and counted.
pub(super) struct Caller {
    loaded: Arc<Loaded>,
    timeout: Option<Duration>,
    runner: Option<Runner>,
    stuck: Arc<AtomicUsize>,
}

/// The thread that may be left behind.
struct Runner {
    ask: Sender<Call>,
    answers: Receiver<Vec<Answer>>,
    left_behind: Arc<AtomicBool>,
}

/// Which of the inputs to answer.
type Call = (Arc<Vec<Prepared>>, Range<usize>);

impl Caller {
    pub(super) fn new(loaded: Arc<Loaded>, timeout: Option<Duration>, stuck: Arc<AtomicUsize>) -> Self {
        Self { loaded, timeout, runner: None, stuck }
    }

    /// Answers each input. A batch that takes too long is asked again one by one, so that only what hangs goes without;
    /// only what is `wanted` then, by its place.
    pub(super) fn ask(&mut self, inputs: Vec<Prepared>, wanted: impl Fn(usize) -> bool) -> Vec<Answer> {
        let Some(timeout) = self.timeout else { return self.loaded.infer(&inputs) };
        let count = inputs.len();
        let inputs = Arc::new(inputs);
        match self.run((inputs.clone(), 0..count), timeout) {
            Ok(answers) => answers,
            Err(_) if count > 1 => {
                let mut hung = 0;
                let alone = |place: usize| {
                    if hung == ALONE_MOST {
                        return Err(hangs());
                    }
                    // Other models have their turn in between.
                    aside(|| ());
                    if !wanted(place) {
                        return Err(timed_out(timeout));
                    }
                    let answers = self.run((inputs.clone(), place..place + 1), timeout);
                    hung += usize::from(answers.as_ref().is_err_and(|error| error.code == "timeout"));
                    answers?.remove(0)
                };
                (0..count).map(alone).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    fn run(&mut self, call: Call, timeout: Duration) -> Result<Vec<Answer>, InferError> {
        if self.stuck.load(Ordering::Relaxed) >= HANG_MOST {
            return Err(hangs());
        }
        let runner = match self.runner.take() {
            Some(runner) => runner,
            None => Runner::start(self.loaded.clone(), self.stuck.clone())
                .map_err(|error| InferError::unavailable("no_thread", error.to_string()))?,
        };
        let ended = || InferError::unavailable("panic", "the model's thread ended");
        runner.ask.send(call).map_err(|_| ended())?;
        match runner.answers.recv_timeout(timeout) {
            Ok(answers) => {
                self.runner = Some(runner);
                Ok(answers)
            }
            Err(RecvTimeoutError::Timeout) => {
                self.stuck.fetch_add(1, Ordering::Relaxed);
                runner.left_behind.store(true, Ordering::Release);
                Err(timed_out(timeout))
            }
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }
}

impl Runner {
    fn start(loaded: Arc<Loaded>, stuck: Arc<AtomicUsize>) -> std::io::Result<Self> {
        let (ask, asked) = channel::<Call>();
        let (answer, answers) = channel();
        let left_behind = Arc::new(AtomicBool::new(false));
        let left = left_behind.clone();
        let name = format!("model-{}", loaded.package.manifest.task_type);
        std::thread::Builder::new().name(name).spawn(move || {
            for (inputs, range) in asked {
                // Of a call that was left behind nobody wants to hear; the channel is closed then.
                drop(answer.send(loaded.infer(&inputs[range])));
            }
            // It has come back after all.
            if left.load(Ordering::Acquire) {
                stuck.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { ask, answers, left_behind })
    }
}

/// Not the input's fault: it is asked again once the model is free.
fn hangs() -> InferError {
    InferError::unavailable("overloaded", "calls of the model hang; it is asked again when they have come back")
}

fn timed_out(timeout: Duration) -> InferError {
    InferError::unavailable("timeout", format!("the model gave no answer within {} ms", timeout.as_millis()))
}
