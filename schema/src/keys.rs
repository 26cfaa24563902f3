//! Every Redis key, with its type and its life. All keys of a partition carry its hash tag `{<prefix>:NN}`, so that a
//! script finds everything it touches in one slot, on one node of a cluster too. A key without a tag is in a slot of its
//! own, and no script touches it together with another.

use crate::id::{Partition, TaskId};

/// The consumer group of a lane: one group per task type, named after it.
///
/// | key | type | life |
/// |---|---|---|
/// | [`Keys::config`] | hash | for ever: partition count and layout version |
/// | [`Keys::models`] | hash | announced model cards, refreshed by analyzers |
/// | [`Keys::workers`] | hash | analyzers alive, refreshed every few seconds |
/// | [`Keys::registry`] | stream | which model version answers; never trimmed |
/// | [`Keys::orders`] | stream | what people order of the projector; never trimmed |
/// | [`Keys::confirmation`] | string | a counter, written before replicas are asked what they have |
/// | [`Keys::journal`] | stream | the truth; trimmed by position only, never by age |
/// | [`Keys::archived`] | string | the last archived number; for ever |
/// | [`Keys::lane`] | stream | references to waiting tasks; an entry goes with its attempt |
/// | [`Keys::lanes`] | set | names of the lanes of the partition |
/// | [`Keys::record`] | hash | the live task; expires after its end |
/// | [`Keys::delayed`] | sorted set | tasks waiting for their next attempt, by due time |
/// | [`Keys::expiring`] | sorted set | waiting tasks that have a deadline, by it; leaves with the start or the end |
/// | [`Keys::dead`] | sorted set | dead letters, by time of death; leaves by a re-drive or a purge |
/// | [`Keys::purged`] | string | a dead letter's purge, two minutes |
/// | [`Keys::idempotency`] | string | a caller's key: fingerprint and task, 24 h |
/// | [`Keys::batch`] | hash | a batch upload's summary until the tables have it |
/// | [`Keys::lease`] | string | which process does a janitor's round; an optimisation, not a promise |
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys under `prefix` (`if` by default; tests take a random one). The prefix must not contain braces.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Hash: `partitions`, `layout`. Written once, compared at every start.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{}:config", self.prefix)
    }

    /// Hash: `<task type>:<version>` → model card as JSON (see [`crate::catalogue`]).
    #[must_use]
    pub fn models(&self) -> String {
        format!("{}:models", self.prefix)
    }

    /// Hash: worker name → presence as JSON (see [`crate::catalogue`]).
    #[must_use]
    pub fn workers(&self) -> String {
        format!("{}:workers", self.prefix)
    }

    /// Stream of what happens to model versions; see [`crate::registry`].
    #[must_use]
    pub fn registry(&self) -> String {
        format!("{}:registry", self.prefix)
    }

    /// Stream of what people order of the projector; see [`crate::orders`].
    #[must_use]
    pub fn orders(&self) -> String {
        format!("{}:orders", self.prefix)
    }

    /// String: how often replicas were asked what they have. Beside `key`, in the same slot: what a server's replicas have
    /// can be asked only through a key of its own.
    #[must_use]
    pub fn confirmation(key: &str) -> String {
        let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or(key, |(tag, _)| tag);
        format!("{{{tag}}}:confirmed")
    }

    /// Stream of a partition's events; see [`crate::event`] for the fields.
    #[must_use]
    pub fn journal(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:journal", self.prefix)
    }

    /// String: number of the last event that is in the archive, so far as is proven. Beside the journal, so that a trim
    /// reads both in one step.
    #[must_use]
    pub fn archived(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:archived", self.prefix)
    }

    /// Stream of references to waiting tasks of one task type and model version. Fields:
    /// `i` task id, `a` attempt, `m` context (see [`crate::script::Context`]).
    #[must_use]
    pub fn lane(&self, partition: Partition, lane: &Lane) -> String {
        format!("{{{}:{partition}}}:lane:{lane}", self.prefix)
    }

    /// Set of lane names, so that janitors find lanes that no running analyzer serves.
    #[must_use]
    pub fn lanes(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:lanes", self.prefix)
    }

    /// Hash of a live task. Fields:
    /// `s` state (`Q` queued, `P` processing, `D` delayed, `Z` ended), `a` attempt (the next one while `Q` or `D`),
    /// `q` token: the id of its lane entry, which fences every later step of the attempt, `w` worker,
    /// `f` number of its `submitted` event, `l` lane, `r` times requeued before a start, `t` last attempt's token,
    /// `c` number of the latest `processing` or `retry_scheduled` event,
    /// `o` outcome and `e` number of the terminal event once ended,
    /// `x:<version>` number of the `shadowed` event of a version,
    /// `d` deadline in milliseconds: no attempt begins after it,
    /// `p` the `submitted` event's bytes once the journal was trimmed beyond it before the task's end,
    /// `h` fingerprint of the request when the caller brought the id, `u` seconds to keep it after its end, `m` context.
    #[must_use]
    pub fn record(&self, partition: Partition, task: TaskId) -> String {
        format!("{{{}:{partition}}}:task:{task}", self.prefix)
    }

    /// Sorted set: task id by due time in milliseconds.
    #[must_use]
    pub fn delayed(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:delayed", self.prefix)
    }

    /// Sorted set: id of a waiting task that has a deadline, by the deadline in milliseconds.
    #[must_use]
    pub fn expiring(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:expiring", self.prefix)
    }

    /// Sorted set: task id by the time it was given up, in milliseconds.
    #[must_use]
    pub fn dead(&self, partition: Partition) -> String {
        format!("{{{}:{partition}}}:dead", self.prefix)
    }

    /// String: the `purged` event of a dead letter that was just purged.
    #[must_use]
    pub fn purged(&self, partition: Partition, task: TaskId) -> String {
        format!("{{{}:{partition}}}:purged:{task}", self.prefix)
    }

    /// String: `<fingerprint>|<task id>`. `key_hash` is the hex SHA-256 of tenant, route and the caller's key.
    #[must_use]
    pub fn idempotency(&self, partition: Partition, key_hash: &str) -> String {
        format!("{{{}:{partition}}}:idem:{key_hash}", self.prefix)
    }

    /// Hash: `accepted`, `rejected` of a batch upload.
    #[must_use]
    pub fn batch(&self, partition: Partition, batch: uuid::Uuid) -> String {
        format!("{{{}:{partition}}}:batch:{batch}", self.prefix)
    }

    /// String: the process that holds a janitor's duty in a partition.
    #[must_use]
    pub fn lease(&self, partition: Partition, duty: &str) -> String {
        format!("{{{}:{partition}}}:lease:{duty}", self.prefix)
    }
}

/// What a lane is for: one task type at one model version, so that an analyzer only ever takes what it can serve.
/// Written `sentiment_analysis:v1.0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    pub task_type: String,
    pub model_version: String,
}

impl Lane {
    #[must_use]
    pub fn new(task_type: &str, model_version: &str) -> Self {
        Self { task_type: task_type.to_owned(), model_version: model_version.to_owned() }
    }

    /// Where a task goes whose type or version no analyzer announces (`unroutable:any`): every analyzer takes from it,
    /// and only to end the task as failed. Its `submitted` event says what was asked for.
    #[must_use]
    pub fn unroutable() -> Self {
        Self::new("unroutable", "any")
    }

    /// Reads a lane's name; the task type ends at the first colon.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (task_type, model_version) = name.split_once(':')?;
        Some(Self::new(task_type, model_version))
    }

    /// The consumer group of the lane: the task type.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.task_type
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.task_type, self.model_version)
    }
}
