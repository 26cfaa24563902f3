//! One child, from its start to its end.

use std::io::{BufReader, Error, ErrorKind};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::last_words;
use super::wire::{self, Ask, Hello, Reply};
use crate::batch::Answer;
use crate::model::{InferError, RunsOn};

/// How long a dead child's last words are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A child that is ready. Dropping it kills it.
pub(super) struct Child {
    process: std::process::Child,
    asks: Sender<Ask>,
    replies: Receiver<std::io::Result<Option<Reply>>>,
    no_memory: Receiver<bool>,
    next_id: u64,
    pub(super) runs_on: RunsOn,
    pub(super) resident_bytes: u64,
}

/// Why a child gave no answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    Timeout(Duration),
    /// How it ended.
    Crashed(String),
    OutOfMemory,
    Nonsense(String),
}

impl Child {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// What it says against the package, or how it failed.
    pub(super) fn start(mut command: Command, model: String, patience: Duration) -> Result<Self, String> {
        // A group of its own: an interrupt from the keyboard is for the parent, which ends its children in time.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut process = command.spawn().map_err(|error| format!("no process for it: {error}"))?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(mut input), Some(output), Some(stderr)) = pipes else { return Err("no pipes for it".to_owned()) };
        let (asks, asked) = channel::<Ask>();
        let (reply, replies) = channel();
        let (greet, greeting) = channel();
        let threads = last_words::pass_on(stderr, model).and_then(|no_memory| {
            let speak = move || {
                let mut output = BufReader::new(output);
                drop(greet.send(wire::read::<Hello>(&mut output)));
                for ask in asked {
                    let answer = wire::write(&mut input, &ask).and_then(|()| wire::read::<Reply>(&mut output));
                    if reply.send(answer).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name("model-pipe".to_owned()).spawn(speak)?;
            Ok(no_memory)
        });
        let no_memory = threads.unwrap_or_else(|_| channel().1);
        let (runs_on, resident_bytes) = (RunsOn { engine: String::new(), device: String::new() }, 0);
        let mut child = Self { process, asks, replies, no_memory, next_id: 0, runs_on, resident_bytes };
        match greeting.recv_timeout(patience) {
            Ok(Ok(Some(Hello::Ready { runs_on, resident_bytes }))) => {
                (child.runs_on, child.resident_bytes) = (runs_on, resident_bytes);
                Ok(child)
            }
            Ok(Ok(Some(Hello::Refused { reason }))) => Err(reason),
            Ok(Ok(None)) | Err(RecvTimeoutError::Disconnected) => Err(format!("its process ended: {}", child.end())),
            Ok(Err(error)) => Err(format!("its process does not speak as it should: {error}")),
            Err(RecvTimeoutError::Timeout) => Err(format!("its process was not ready within {} s", patience.as_secs())),
        }
    }

    /// One call. After any trouble the child is to be dropped.
    pub(super) fn call(&mut self, documents: Vec<Value>, timeout: Duration) -> Result<Vec<Answer>, Trouble> {
        self.next_id += 1;
        let (id, count) = (self.next_id, documents.len());
        // Closed when the child is gone, as are the replies.
        drop(self.asks.send(Ask { id, documents }));
        match self.replies.recv_timeout(timeout) {
            Ok(Ok(Some(reply))) if reply.id == id && reply.answers.len() == count => Ok(reply.answers),
            Ok(Ok(Some(reply))) => Err(Trouble::Nonsense(format!(
                "{} answers to {count} inputs came from its process",
                reply.answers.len()
            ))),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => Err(nonsense(&error)),
            Ok(Ok(None) | Err(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.end()),
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Timeout(timeout)),
        }
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// How a child that closed its output ended.
    fn end(&mut self) -> Trouble {
        let no_memory = self.no_memory.recv_timeout(LAST_WORDS).unwrap_or(false);
        let patience = Instant::now() + LAST_WORDS;
        loop {
            match self.process.try_wait() {
                // The system kills with this signal when memory runs out; we did not.
                Ok(Some(status)) if no_memory || status.signal() == Some(rustix::process::Signal::KILL.as_raw()) => {
                    return Trouble::OutOfMemory;
                }
                Ok(Some(status)) => return Trouble::Crashed(status.to_string()),
                // Its output closes a moment before it is dead.
                Ok(None) if Instant::now() < patience => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) | Err(_) => return Trouble::Nonsense("its process closed its output and went on".to_owned()),
            }
        }
    }

    fn kill(&mut self) -> std::io::Result<ExitStatus> {
        self.process.kill()?;
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::warn!(%error, "a model's process could not be ended");
        }
    }
}

impl From<Trouble> for InferError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Timeout(after) => {
                Self::unavailable("timeout", format!("the model gave no answer within {} ms", after.as_millis()))
            }
            Trouble::OutOfMemory => Self::unavailable("out_of_memory", "the model needed more memory than it may have"),
            Trouble::Crashed(end) => Self::unavailable("model_crashed", format!("the model's process ended: {end}")),
            Trouble::Nonsense(what) => Self::unavailable("model_crashed", what),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout(after) => write!(f, "no answer within {} ms", after.as_millis()),
            Self::Crashed(end) => f.write_str(end),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Nonsense(what) => f.write_str(what),
        }
    }
}

fn nonsense(error: &Error) -> Trouble {
    Trouble::Nonsense(format!("its process does not speak as it should: {error}"))
}
