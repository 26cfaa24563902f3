//! A query asked about one event: of the task, as it is right after it.

use insightforge_schema::event::{Change, Event};

use super::parse::QueryError;
use super::{Query, Standing, Term, Word};
use crate::live::kinds::Kind;
use crate::shape::TaskStatus;

/// Refuses the words that one event cannot answer.
pub(crate) fn check(query: &Query) -> Result<(), QueryError> {
    let unanswerable = |word: &&Word| {
        matches!(word.term, Term::Older(_) | Term::Younger(_) | Term::From(_) | Term::To(_) | Term::Text(_))
    };
    match query.words.iter().find(unanswerable) {
        None => Ok(()),
        Some(word) => {
            let what = "a live query can have status, type, model, error, batch and id".to_owned();
            let name = match word.term {
                Term::Text(_) => "text",
                Term::From(_) => "from",
                Term::To(_) => "to",
                _ => "age",
            };
            Err(QueryError { at: word.at, word: name.to_owned(), what })
        }
    }
}

/// Whether more must be known than the event itself says.
pub(crate) fn needs_kind(query: &Query) -> bool {
    query.words.iter().any(|word| matches!(word.term, Term::Type(_) | Term::Model(_) | Term::Batch(_)))
}

/// Whether the event is meant. What nobody knows of its task fits no word, and no word turned round.
pub(crate) fn fits(query: &Query, event: &Event, kind: Option<&Kind>) -> bool {
    query.words.iter().all(|word| answer(&word.term, event, kind).is_some_and(|fits| fits != word.negated))
}

fn answer(term: &Term, event: &Event, kind: Option<&Kind>) -> Option<bool> {
    match term {
        Term::Status(standings) => {
            let status = status_after(&event.change)?;
            Some(standings.iter().any(|standing| stands(*standing, status, &event.change)))
        }
        Term::Type(types) => kind.map(|kind| types.contains(&kind.task_type)),
        Term::Model(versions) => {
            let version = match &event.change {
                Change::Completed(it) => Some(&it.model_version),
                Change::Failed(it) => Some(&it.model_version),
                _ => kind.map(|kind| &kind.model_version),
            };
            version.map(|version| versions.contains(version))
        }
        Term::Error(codes) => {
            let code = match &event.change {
                Change::Failed(it) => Some(&it.code),
                Change::RetryScheduled(it) => Some(&it.code),
                Change::DeadLettered(it) => Some(&it.code),
                _ => None,
            };
            Some(code.is_some_and(|code| codes.contains(code)))
        }
        Term::Batch(ids) => match &event.change {
            Change::BatchReceived(_) => Some(ids.contains(&event.task.0)),
            _ => kind.map(|kind| kind.batch.is_some_and(|batch| ids.contains(&batch))),
        },
        Term::Id(prefixes) => {
            let id = event.task.to_string();
            Some(prefixes.iter().any(|prefix| id.starts_with(&prefix.0)))
        }
        Term::Older(_) | Term::Younger(_) | Term::From(_) | Term::To(_) | Term::Text(_) => None,
    }
}

fn stands(standing: Standing, status: TaskStatus, change: &Change) -> bool {
    match standing {
        Standing::Is(wanted) => wanted == status,
        Standing::Open => !status.is_final(),
        Standing::Dead => matches!(change, Change::DeadLettered(_)),
    }
}

/// Where the task stands right after the event; `None` when the event says nothing of it.
fn status_after(change: &Change) -> Option<TaskStatus> {
    match change {
        Change::Submitted(_) | Change::RetryScheduled(_) => Some(TaskStatus::Pending),
        Change::Processing(_) => Some(TaskStatus::Processing),
        Change::Completed(_) | Change::Shadowed(_) => Some(TaskStatus::Completed),
        Change::Failed(_) | Change::DeadLettered(_) => Some(TaskStatus::Failed),
        Change::Cancelled(_) => Some(TaskStatus::Cancelled),
        Change::Redriven(_) | Change::Purged(_) | Change::BatchReceived(_) | Change::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::event::{Failed, Meta, Processing};
    use insightforge_schema::id::{Partition, Position, TaskId};

    use super::*;

    fn event(change: Change) -> Event {
        let position = Position { partition: Partition(0), n: 1 };
        let task: TaskId = "0190a6f0-0000-7000-8000-000000000001".parse().unwrap();
        let meta = Meta { at_us: 1, tenant: String::new(), actor: String::new(), attempt: 1, trace: None };
        Event { position, task, first: position, meta, change }
    }

    #[test]
    fn an_event_is_meant_when_every_word_fits_its_task_after_it() {
        let kind = Kind { task_type: "acting".to_owned(), model_version: "stable".to_owned(), batch: None };
        let failed = event(Change::Failed(Failed {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            code: "timeout".to_owned(),
            message: String::new(),
            permanent: false,
            route: None,
        }));
        let processing = event(Change::Processing(Processing { worker: String::new() }));
        for (query, of_failed, of_processing) in [
            ("", true, true),
            ("status:failed", true, false),
            ("status:open", false, true),
            ("-status:failed", false, true),
            ("type:acting", true, true),
            ("-type:acting", false, false),
            ("type:acting,b status:failed error:timeout", true, false),
            ("model:v1", true, false),
            ("model:stable", false, true),
            ("error:panic", false, false),
            ("id:0190a6f0", true, true),
            ("id:0190a6f1", false, false),
        ] {
            let query: Query = query.parse().unwrap();
            check(&query).unwrap();
            let found = (fits(&query, &failed, Some(&kind)), fits(&query, &processing, Some(&kind)));
            assert_eq!(found, (of_failed, of_processing), "{query:?}");
        }
        let query: Query = "-type:acting".parse().unwrap();
        assert!(!fits(&query, &processing, None), "nobody knows");
    }

    #[test]
    fn what_one_event_cannot_answer_is_refused_with_its_place() {
        for (query, at) in [("status:failed age:>5m", 15), ("\"no answer\"", 1)] {
            assert_eq!(check(&query.parse().unwrap()).unwrap_err().at, at);
        }
    }
}
