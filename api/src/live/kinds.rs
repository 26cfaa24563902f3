//! Of what kind a task is: its type, the version that was asked for, its batch. Only some events say so; of the others it is
//! looked up in the event that submitted the task, and kept for those that follow it.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use insightforge_archive::ReadError;
use insightforge_schema::event::{Change, Event, Submitted};
use insightforge_schema::id::TaskId;
use lru::LruCache;
use uuid::Uuid;

use super::told::Told;
use crate::app::App;

/// Tasks remembered: those of some minutes under load.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(50_000).expect("it is above zero");

/// What a task is, from beginning to end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) task_type: String,
    pub(crate) model_version: String,
    pub(crate) batch: Option<Uuid>,
}

/// The kinds that were needed lately.
pub(crate) struct Kinds(Mutex<LruCache<TaskId, Arc<Kind>>>);

impl Default for Kinds {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Kinds {
    /// The kind of an event's task; `None` when its beginning cannot be read. However many ask about one told event, it is
    /// found out once.
    pub(crate) async fn of(&self, app: &App, told: &Told) -> Option<Arc<Kind>> {
        told.kind.get_or_init(|| self.find(app, told)).await.clone()
    }

    async fn find(&self, app: &App, event: &Event) -> Option<Arc<Kind>> {
        if let Change::Submitted(submitted) = &event.change {
            return Some(self.keep(event.task, submitted));
        }
        if matches!(event.change, Change::BatchReceived(_)) {
            return None;
        }
        if let Some(kind) = self.kept().get(&event.task) {
            return Some(kind.clone());
        }
        match first(app, event).await {
            Ok(Some(submitted)) => Some(self.keep(event.task, &submitted)),
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, task.id = %event.task, "the beginning of a task cannot be read");
                None
            }
        }
    }

    fn keep(&self, task: TaskId, submitted: &Submitted) -> Arc<Kind> {
        let kind = Arc::new(Kind {
            task_type: submitted.task_type.clone(),
            model_version: submitted.model_version.clone(),
            batch: submitted.batch.map(|batch| batch.id),
        });
        self.kept().put(task, kind.clone());
        kind
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, LruCache<TaskId, Arc<Kind>>> {
        // Nothing panics under the lock; if it did, the list would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn first(app: &App, event: &Event) -> Result<Option<Submitted>, ReadError> {
    let first = event.first;
    let found = app.journal.range(first.partition, first.n, Some(first.n), 1).await?;
    Ok(found.into_iter().find(|found| found.task == event.task).and_then(|found| match found.change {
        Change::Submitted(submitted) => Some(submitted),
        _ => None,
    }))
}
