//! The state machine: what the events make of a task.
//!
//! ```text
//!              submitted
//!                  │
//!                  ▼        processing            completed
//!              ┌─────────┐ ───────────► ┌────────────┐ ──────► completed ■
//!              │ pending │              │ processing │ ──────► failed    ■ ──► dead_lettered ──► redriven
//!              └─────────┘ ◄─────────── └────────────┘  failed
//!                  │      retry_scheduled      │
//!                  └───────── cancelled ───────┴───────────► cancelled ■ ──► redriven
//! ```
//!
//! A dead letter may also be `purged`: it leaves the list, and the task stays failed.
//!
//! A pending task whose deadline has passed is `failed` with the code `expired`, and is no dead letter.
//!
//! A completed task may be `shadowed` afterwards, any number of times: noted, and nothing else changes.
//!
//! The same machine stands in the SQL `CHECK` of `analysis_tasks.status` and in the guards of the Redis scripts.
//! [`apply`] is pure and total: no I/O, no clock, no logging, an answer for every event in every state.

use crate::event::{Change, Event, Webhook};
use crate::id::{Position, TaskId};

/// A task's status, in the words of the wire contract and of `analysis_tasks.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Pending,
    Processing,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status written as `text`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// No event changes the outcome any more.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What is known of a task after some of its events. Large documents (the input, the result) stay in their events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    /// Its `submitted` event: the identity of its rows.
    pub first: Position,
    /// The last event folded in; events at or before it are already contained.
    pub last_n: u64,
    pub tenant: String,
    pub task_type: String,
    pub model_version: String,
    pub webhook: Option<Webhook>,
    pub status: Status,
    /// The attempt running or last run; 0 before the first.
    pub attempt: u32,
    pub worker: Option<String>,
    /// The last error: of the failure, or of the attempt that is being repeated.
    pub error: Option<TaskError>,
    /// All in microseconds since 1970-01-01 UTC.
    pub submitted_us: i64,
    pub started_us: Option<i64>,
    pub finished_us: Option<i64>,
    pub updated_us: i64,
    pub dead_lettered: bool,
    pub redriven_as: Option<TaskId>,
}

/// An attempt's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    pub code: String,
    pub message: String,
}

/// An event that cannot have happened in the state it meets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    #[error("`{event}` at {position} before the task was submitted")]
    NotSubmitted { event: String, position: Position },
    #[error("`submitted` at {position} for a task that was already submitted at {first}")]
    SubmittedTwice { position: Position, first: Position },
    #[error("`batch_received` at {position} for a batch that had ended before")]
    BatchEndedTwice { position: Position },
    #[error("`{event}` at {position} while the task is {status}", status = .status.as_str())]
    WrongStatus { event: String, position: Position, status: Status },
    #[error("`{event}` at {position} is of another task than the one submitted at {first}")]
    OtherTask { event: String, position: Position, first: Position },
    #[error("the entry at {position} cannot be read: {reason}")]
    Unreadable { position: Position, reason: String },
}

/// Folds one event into a task.
///
/// An event at or before `task.last_n` is already contained and changes nothing: folding twice is folding once. Other
/// partitions' events and batch notes are the caller's to keep away.
///
/// # Errors
/// [`IllegalEvent`] when the event cannot follow the state; the caller records it, and the task stays as it was.
pub fn apply(task: Option<Task>, event: &Event) -> Result<Task, IllegalEvent> {
    if let Change::Unknown(unknown) = &event.change {
        return Err(IllegalEvent::Unreadable { position: event.position, reason: unknown.reason.clone() });
    }
    let Some(mut task) = task else {
        return submitted(event);
    };
    if event.position.n <= task.last_n {
        return Ok(task);
    }
    if event.task != task.id {
        // A journal that lost its end gives its numbers out again.
        let (event_type, position) = (event.change.event_type().to_owned(), event.position);
        return Err(IllegalEvent::OtherTask { event: event_type, position, first: task.first });
    }
    let at = event.meta.at_us;
    match (&event.change, task.status) {
        (Change::Submitted(_), _) => {
            return Err(IllegalEvent::SubmittedTwice { position: event.position, first: task.first });
        }
        (Change::Processing(processing), Status::Pending) => {
            task.status = Status::Processing;
            task.attempt = event.meta.attempt;
            task.worker = Some(processing.worker.clone());
            task.started_us = Some(task.started_us.unwrap_or(at));
        }
        (Change::Completed(completed), Status::Processing) => {
            task.status = Status::Completed;
            task.model_version.clone_from(&completed.model_version);
            task.finished_us = Some(at);
            task.error = None;
        }
        (Change::Failed(failed), Status::Pending | Status::Processing) => {
            task.status = Status::Failed;
            task.finished_us = Some(at);
            task.error = Some(TaskError { code: failed.code.clone(), message: failed.message.clone() });
        }
        (Change::RetryScheduled(retry), Status::Processing) => {
            task.status = Status::Pending;
            task.worker = None;
            task.error = Some(TaskError { code: retry.code.clone(), message: retry.message.clone() });
        }
        (Change::Cancelled(cancelled), Status::Pending | Status::Processing) => {
            task.status = Status::Cancelled;
            task.finished_us = Some(at);
            task.error = Some(TaskError { code: "cancelled".to_owned(), message: cancelled.reason.clone() });
        }
        (Change::DeadLettered(_), Status::Failed) => task.dead_lettered = true,
        (Change::Redriven(redriven), Status::Failed | Status::Cancelled) => {
            task.dead_lettered = false;
            task.redriven_as = Some(redriven.as_task);
        }
        (Change::Purged(_), Status::Failed) => task.dead_lettered = false,
        (Change::Shadowed(_), Status::Completed) => {
            task.last_n = event.position.n;
            return Ok(task);
        }
        (change, status) => {
            return Err(IllegalEvent::WrongStatus {
                event: change.event_type().to_owned(),
                position: event.position,
                status,
            });
        }
    }
    task.last_n = event.position.n;
    task.updated_us = at;
    Ok(task)
}

/// A task's first event.
fn submitted(event: &Event) -> Result<Task, IllegalEvent> {
    let Change::Submitted(submitted) = &event.change else {
        let event_type = event.change.event_type().to_owned();
        return Err(IllegalEvent::NotSubmitted { event: event_type, position: event.position });
    };
    Ok(Task {
        id: event.task,
        first: event.position,
        last_n: event.position.n,
        tenant: event.meta.tenant.clone(),
        task_type: submitted.task_type.clone(),
        model_version: submitted.model_version.clone(),
        webhook: submitted.webhook.clone(),
        status: Status::Pending,
        attempt: 0,
        worker: None,
        error: None,
        submitted_us: event.meta.at_us,
        started_us: None,
        finished_us: None,
        updated_us: event.meta.at_us,
        dead_lettered: false,
        redriven_as: None,
    })
}
