//! Every state change, as one atomic step in Redis. Each function here runs one script of `schema/scripts/`, whose file
//! opens with its KEYS, ARGV and reply. All are idempotent: an ambiguous call is simply made again.
//!
//! Steps take many tasks of one partition at once: the round trip, the script call and the disk flush of
//! `appendfsync always` are then shared. Each task is judged and changed on its own.

use std::borrow::Cow;
use std::sync::LazyLock;

use redis::{Cmd, Value};

use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::{DEDUPE_TTL_S, DEFAULT_TENANT, RESULT_TTL_S};

/// A Lua script and the hash Redis knows it by.
#[derive(Debug)]
pub struct Script {
    body: &'static str,
    hash: LazyLock<String>,
}

/// One argument of a script.
pub type Arg<'a> = Cow<'a, [u8]>;

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(pub(crate) static $name: Script = Script {
            body: include_str!(concat!("../scripts/", $file)),
            hash: LazyLock::new(|| redis::Script::new(include_str!(concat!("../scripts/", $file))).get_hash().to_owned()),
        };)*
    };
}

scripts! {
    SUBMIT = "submit.lua",
    START = "start.lua",
    FINISH = "finish.lua",
    RETRY = "retry.lua",
    SILENT = "silent.lua",
    REAP = "reap.lua",
    MOVE = "move.lua",
    CANCEL = "cancel.lua",
    REDRIVE = "redrive.lua",
    PURGE = "purge.lua",
    BATCH = "batch.lua",
    BEAT = "beat.lua",
    PRUNE = "prune.lua",
    DUTY = "duty.lua",
    GROUP = "group.lua",
    NOTE = "note.lua",
    VIEW = "view.lua",
    RANGE = "range.lua",
    MARK = "mark.lua",
    TRIM = "trim.lua",
    REGISTER = "register.lua",
    SHADOW = "shadow.lua",
    CONFIRM = "confirm.lua",
    STANDING = "standing.lua",
    AHEAD = "ahead.lua",
    RECENT = "recent.lua",
    EXPIRE = "expire.lua",
    PAST = "past.lua",
    RESTORE = "restore.lua",
}

impl Script {
    pub(crate) fn by_hash(&self, keys: &[String], args: &[Arg<'_>]) -> Cmd {
        self.command("EVALSHA", &self.hash, keys, args)
    }

    /// Also loads the script, for the next call by hash.
    pub(crate) fn by_body(&self, keys: &[String], args: &[Arg<'_>]) -> Cmd {
        self.command("EVAL", self.body, keys, args)
    }

    pub(crate) fn writes(&self) -> bool {
        !self.body.starts_with("#!lua flags=no-writes")
    }

    fn command(&self, verb: &str, script: &str, keys: &[String], args: &[Arg<'_>]) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(keys.len());
        for key in keys {
            command.arg(key.as_str());
        }
        for arg in args {
            command.arg(&arg[..]);
        }
        command
    }
}

/// A task to accept.
#[derive(Debug, Clone)]
pub struct Submit {
    pub task: TaskId,
    pub lane: Lane,
    /// The encoded `submitted` event.
    pub event: Vec<u8>,
    /// Set when the caller brought the id or an idempotency key: the same id or key with another fingerprint is another
    /// request. Any bytes; a truncated SHA-256 of the request is usual.
    pub fingerprint: Option<Vec<u8>>,
    /// Key of [`Keys::idempotency`], in the task's partition.
    pub idempotency_key: Option<String>,
    /// What the worker's events repeat.
    pub context: Context,
    /// No attempt begins after this, in milliseconds since 1970-01-01 UTC by Redis' clock.
    pub expires_ms: Option<i64>,
}

/// What every event of a task repeats and a worker must know before it has read the task: it travels with the lane
/// entry (field `m`). The default writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    pub tenant: String,
    pub trace: Option<String>,
}

impl Default for Context {
    fn default() -> Self {
        Self { tenant: DEFAULT_TENANT.to_owned(), trace: None }
    }
}

impl Context {
    /// The lane entry's field `m`: `<tenant> <traceparent>`, empty for the default.
    #[must_use]
    pub fn encode(&self) -> String {
        match &self.trace {
            None if self.tenant == DEFAULT_TENANT => String::new(),
            trace => format!("{} {}", self.tenant, trace.as_deref().unwrap_or("")),
        }
    }

    /// Reads [`Self::encode`] back; anything else reads as the default.
    #[must_use]
    pub fn decode(text: &str) -> Self {
        match text.split_once(' ') {
            Some((tenant, trace)) => {
                Self { tenant: tenant.to_owned(), trace: (!trace.is_empty()).then(|| trace.to_owned()) }
            }
            None => Self::default(),
        }
    }
}

/// What became of a [`Submit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// Stored now, as event `n`.
    Accepted { task: TaskId, n: u64 },
    /// This request was accepted before, as this task.
    Known { task: TaskId },
    /// The id or key belongs to another request.
    Conflict { task: TaskId },
    /// The lane is at its capacity.
    Full,
}

/// Accepts tasks of one partition. A lane longer than `lane_capacity` (0 = no bound) takes no more.
///
/// # Errors
/// [`LinkError::OutOfMemory`] when Redis is full; else see [`LinkError`]. Calling again is safe.
pub async fn submit(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    tasks: &[Submit],
    lane_capacity: u64,
) -> Result<Vec<Submission>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lanes(partition), keys.expiring(partition)];
    let mut args = vec![number(lane_capacity), number(DEDUPE_TTL_S)];
    for task in tasks {
        let record = keys.record(partition, task.task);
        names.push(keys.lane(partition, &task.lane));
        names.push(record.clone());
        names.push(task.idempotency_key.clone().unwrap_or(record));
        args.push(word(task.task.to_string()));
        args.push(bytes(&task.event));
        args.push(word(task.lane.to_string()));
        args.push(task.fingerprint.as_deref().map_or(Cow::Borrowed(&[][..]), bytes));
        args.push(if task.fingerprint.is_some() { number(DEDUPE_TTL_S) } else { Cow::Borrowed(&[]) });
        args.push(word(task.context.encode()));
        args.push(task.expires_ms.map_or(Cow::Borrowed(&[]), number));
    }
    let replies: Vec<Vec<Value>> = link.eval(&SUBMIT, &names, &args).await?;
    replies.iter().map(|reply| read_submission(reply)).collect()
}

fn read_submission(reply: &[Value]) -> Result<Submission, LinkError> {
    let task = || text(reply, 1)?.parse().map_err(|_| unexpected("a task id"));
    Ok(match text(reply, 0)? {
        "OK" => Submission::Accepted { task: task()?, n: parsed(reply, 2)? },
        "DUP" => Submission::Known { task: task()? },
        "CONFLICT" => Submission::Conflict { task: task()? },
        "FULL" => Submission::Full,
        _ => return Err(unexpected("an outcome of submit")),
    })
}

/// One lane entry to begin: its id (the attempt's token), its task, and the encoded `processing` event.
#[derive(Debug, Clone)]
pub struct Start {
    pub token: String,
    pub task: TaskId,
    pub event: Vec<u8>,
}

/// What became of a [`Start`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The attempt is ours. `submitted` is the encoded `submitted` event, empty when the journal no longer holds it.
    Ours { first: u64, submitted: Vec<u8> },
    /// Another live worker holds this very entry.
    Busy,
    /// The entry is no task's token any more; it has been taken off the lane.
    Lost,
    /// Its deadline has passed: it is not begun, and [`crate::deadline::end`] ends it.
    Expired,
}

/// Begins attempts read from one lane.
///
/// # Errors
/// See [`LinkError`].
pub async fn start(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    worker: &str,
    starts: &[Start],
) -> Result<Vec<Started>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lane(partition, lane), keys.expiring(partition)];
    let mut args = vec![bytes(lane.group().as_bytes()), bytes(worker.as_bytes())];
    for start in starts {
        names.push(keys.record(partition, start.task));
        args.push(bytes(start.token.as_bytes()));
        args.push(bytes(&start.event));
    }
    let replies: Vec<Vec<Value>> = link.eval(&START, &names, &args).await?;
    replies
        .into_iter()
        .map(|mut reply| {
            Ok(match text(&reply, 0)? {
                "OK" => Started::Ours { first: parsed(&reply, 1)?, submitted: take_bytes(&mut reply, 2) },
                "BUSY" => Started::Busy,
                "LOST" => Started::Lost,
                "EXPIRED" => Started::Expired,
                _ => return Err(unexpected("an outcome of start")),
            })
        })
        .collect()
}

/// An attempt that ended its task.
#[derive(Debug, Clone)]
pub struct Finish {
    pub token: String,
    pub task: TaskId,
    /// `completed` or `failed`.
    pub event_type: &'static str,
    /// The encoded terminal event.
    pub event: Vec<u8>,
    /// The encoded `dead_lettered` event of a failed task.
    pub dead_letter: Option<Vec<u8>>,
}

/// What became of a step that only the attempt's holder may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Done, now or by an earlier call of the same attempt.
    Done,
    /// The attempt was taken over, cancelled, or ended otherwise: nothing was changed.
    Lost,
}

/// Ends attempts for good.
///
/// # Errors
/// See [`LinkError`].
pub async fn finish(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    now_ms: i64,
    ends: &[Finish],
) -> Result<Vec<Held>, LinkError> {
    let mut names = vec![keys.journal(partition), keys.lane(partition, lane), keys.dead(partition)];
    let mut args = vec![bytes(lane.group().as_bytes()), number(now_ms), number(RESULT_TTL_S)];
    for end in ends {
        names.push(keys.record(partition, end.task));
        args.push(bytes(end.token.as_bytes()));
        args.push(bytes(end.event_type.as_bytes()));
        args.push(bytes(&end.event));
        args.push(end.dead_letter.as_deref().map_or(Cow::Borrowed(&[][..]), bytes));
    }
    let replies: Vec<Vec<Value>> = link.eval(&FINISH, &names, &args).await?;
    replies.iter().map(|reply| read_held(reply)).collect()
}

fn read_held(reply: &[Value]) -> Result<Held, LinkError> {
    match text(reply, 0)? {
        "OK" | "DONE" => Ok(Held::Done),
        "LOST" => Ok(Held::Lost),
        _ => Err(unexpected("an outcome of an attempt's step")),
    }
}

/// What a shadow version made of a completed task.
#[derive(Debug, Clone)]
pub struct Shadow {
    pub task: TaskId,
    /// At most one event a task and version is stored.
    pub version: String,
    /// The encoded `shadowed` event.
    pub event: Vec<u8>,
}

/// What became of a [`Shadow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Stored, now or by an earlier call.
    Done,
    /// The task is not completed, or it ended longer ago than records are kept.
    Gone,
}

/// Notes what shadow versions made of completed tasks of one partition.
///
/// # Errors
/// See [`LinkError`].
pub async fn shadow(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    shadows: &[Shadow],
) -> Result<Vec<Noted>, LinkError> {
    let mut names = vec![keys.journal(partition)];
    let mut args = Vec::with_capacity(2 * shadows.len());
    for shadow in shadows {
        names.push(keys.record(partition, shadow.task));
        args.extend([bytes(shadow.version.as_bytes()), bytes(&shadow.event)]);
    }
    let replies: Vec<i64> = link.eval(&SHADOW, &names, &args).await?;
    Ok(replies.into_iter().map(|reply| if reply == 1 { Noted::Done } else { Noted::Gone }).collect())
}

/// An attempt that will be repeated.
#[derive(Debug, Clone)]
pub struct Retry {
    pub token: String,
    pub task: TaskId,
    /// The encoded `retry_scheduled` event.
    pub event: Vec<u8>,
    pub next_attempt: u32,
    pub due_ms: i64,
}

/// Ends attempts that will be repeated later.
///
/// # Errors
/// See [`LinkError`].
pub async fn retry(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    retries: &[Retry],
) -> Result<Vec<Held>, LinkError> {
    let mut names =
        vec![keys.journal(partition), keys.lane(partition, lane), keys.delayed(partition), keys.expiring(partition)];
    let mut args = vec![bytes(lane.group().as_bytes())];
    for retry in retries {
        names.push(keys.record(partition, retry.task));
        args.push(bytes(retry.token.as_bytes()));
        args.push(bytes(&retry.event));
        args.push(number(retry.next_attempt));
        args.push(number(retry.due_ms));
    }
    let replies: Vec<Vec<Value>> = link.eval(&RETRY, &names, &args).await?;
    replies.iter().map(|reply| read_held(reply)).collect()
}

/// A page of a lane's entries that are held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Tokens whose holders have been silent for long enough.
    pub tokens: Vec<String>,
    /// Where the next page begins (after this one); `None` behind the last.
    pub next: Option<String>,
}

/// Looks at `count` entries of a lane that are held, from the id `from` on (`-` the first, `(id` behind one), for those whose
/// holders have been silent for `min_idle_ms`.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Refused`] with `NOGROUP` when the lane or its group does not exist.
pub async fn silent(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    min_idle_ms: u64,
    from: &str,
    count: usize,
) -> Result<Silent, LinkError> {
    let names = [keys.lane(partition, lane)];
    let args = [bytes(lane.group().as_bytes()), number(min_idle_ms), bytes(from.as_bytes()), number(count)];
    let (last, tokens): (String, Vec<String>) = link.eval(&SILENT, &names, &args).await?;
    Ok(Silent { tokens, next: (!last.is_empty()).then(|| format!("({last}")) })
}

/// What to do with a silent holder's entry.
#[derive(Debug, Clone)]
pub enum Takeover {
    /// The entry is nobody's token: take it off the lane.
    Drop,
    /// Its holder died before it began: a new entry, the same attempt.
    Requeue,
    /// Its holder died at work: the encoded `retry_scheduled` event and when the next attempt is due.
    Retry { event: Vec<u8>, next_attempt: u32, due_ms: i64 },
    /// The attempts are used up: the encoded `failed` and `dead_lettered` events.
    Fail { event: Vec<u8>, dead_letter: Vec<u8> },
}

/// What became of a takeover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    Done,
    /// The holder showed itself again.
    Alive,
    /// The record changed since it was read: read it and decide again.
    Changed,
}

/// One silent entry: its token, its task, and the record's state (`Q`, `P`; empty for a token that is not live) the
/// decision was made on.
#[derive(Debug, Clone)]
pub struct Reap {
    pub token: String,
    pub task: TaskId,
    pub expected_state: &'static str,
    pub min_idle_ms: u64,
    pub takeover: Takeover,
}

/// Takes over one entry of a holder that has been silent for longer than the lease.
///
/// # Errors
/// See [`LinkError`].
pub async fn reap(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    now_ms: i64,
    reap: &Reap,
) -> Result<Reaped, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lane(partition, lane),
        keys.delayed(partition),
        keys.dead(partition),
        keys.record(partition, reap.task),
        keys.expiring(partition),
    ];
    let mut args = vec![
        bytes(lane.group().as_bytes()),
        bytes(reap.token.as_bytes()),
        number(reap.min_idle_ms),
        bytes(reap.expected_state.as_bytes()),
        number(RESULT_TTL_S),
        number(now_ms),
    ];
    match &reap.takeover {
        Takeover::Drop => args.push(bytes(b"drop")),
        Takeover::Requeue => args.push(bytes(b"requeue")),
        Takeover::Retry { event, next_attempt, due_ms } => {
            args.extend([bytes(b"retry"), bytes(event), number(next_attempt), number(due_ms)]);
        }
        Takeover::Fail { event, dead_letter } => args.extend([bytes(b"fail"), bytes(event), bytes(dead_letter)]),
    }
    let reply: String = link.eval(&REAP, &names, &args).await?;
    match reply.as_str() {
        "OK" => Ok(Reaped::Done),
        "ALIVE" => Ok(Reaped::Alive),
        "CHANGED" => Ok(Reaped::Changed),
        _ => Err(unexpected("an outcome of reap")),
    }
}

/// Puts delayed tasks that are due back on their lanes; says how many.
///
/// # Errors
/// See [`LinkError`].
pub async fn move_due(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    now_ms: i64,
    due: &[(TaskId, Lane)],
) -> Result<u64, LinkError> {
    let mut names = vec![keys.delayed(partition), keys.lanes(partition)];
    let mut args = vec![number(now_ms)];
    for (task, lane) in due {
        names.push(keys.lane(partition, lane));
        names.push(keys.record(partition, *task));
        args.push(word(task.to_string()));
        args.push(word(lane.to_string()));
    }
    link.eval(&MOVE, &names, &args).await
}

/// What became of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancellation {
    Done,
    /// The task had ended before; its outcome (`completed`, `failed`, `cancelled`).
    Ended(String),
    /// No live record: unknown, or ended longer ago than records are kept.
    Unknown,
}

/// Withdraws a task, waiting or running.
///
/// # Errors
/// See [`LinkError`].
pub async fn cancel(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    task: TaskId,
    event: &[u8],
) -> Result<Cancellation, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lane(partition, lane),
        keys.delayed(partition),
        keys.record(partition, task),
        keys.expiring(partition),
    ];
    let args = [bytes(lane.group().as_bytes()), bytes(event), number(RESULT_TTL_S)];
    let reply: Vec<Value> = link.eval(&CANCEL, &names, &args).await?;
    Ok(match text(&reply, 0)? {
        "OK" => Cancellation::Done,
        "ENDED" => Cancellation::Ended(text(&reply, 1)?.to_owned()),
        "UNKNOWN" => Cancellation::Unknown,
        _ => return Err(unexpected("an outcome of cancel")),
    })
}

/// An ended task and the new one that repeats it, both of one partition (see [`TaskId::derived`]).
#[derive(Debug, Clone)]
pub struct Redrive {
    pub old: TaskId,
    /// Number of the old task's `submitted` event.
    pub old_first: u64,
    /// The encoded `redriven` event of the old task.
    pub redriven: Vec<u8>,
    pub new: TaskId,
    /// The encoded `submitted` event of the new task.
    pub submitted: Vec<u8>,
    pub lane: Lane,
    pub context: Context,
}

/// Repeats an ended task as a new one and takes the old one off the dead-letter list.
///
/// # Errors
/// See [`LinkError`].
pub async fn redrive(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    redrive: &Redrive,
) -> Result<Submission, LinkError> {
    let names = [
        keys.journal(partition),
        keys.lanes(partition),
        keys.lane(partition, &redrive.lane),
        keys.dead(partition),
        keys.record(partition, redrive.new),
    ];
    let args = [
        word(redrive.old.to_string()),
        number(redrive.old_first),
        bytes(&redrive.redriven),
        word(redrive.new.to_string()),
        bytes(&redrive.submitted),
        word(redrive.lane.to_string()),
        number(DEDUPE_TTL_S),
        word(redrive.context.encode()),
    ];
    let reply: Vec<Value> = link.eval(&REDRIVE, &names, &args).await?;
    read_submission(&reply)
}

/// A dead letter to take off its list.
#[derive(Debug, Clone)]
pub struct Purge {
    pub task: TaskId,
    /// Number of its `submitted` event.
    pub first: u64,
    /// The encoded `purged` event.
    pub event: Vec<u8>,
}

/// Takes dead letters of one partition off their list; says for each whether it was on it.
///
/// # Errors
/// See [`LinkError`].
pub async fn purge(link: &Link, keys: &Keys, partition: Partition, letters: &[Purge]) -> Result<Vec<bool>, LinkError> {
    let names = [keys.journal(partition), keys.dead(partition)];
    let mut args = Vec::with_capacity(3 * letters.len());
    for letter in letters {
        args.extend([word(letter.task.to_string()), number(letter.first), bytes(&letter.event)]);
    }
    let replies: Vec<i64> = link.eval(&PURGE, &names, &args).await?;
    Ok(replies.into_iter().map(|purged| purged == 1).collect())
}

/// Closes a batch upload: one `batch_received` event. `event` is its encoding.
///
/// # Errors
/// See [`LinkError`].
pub async fn close_batch(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    batch: uuid::Uuid,
    event: &[u8],
    accepted: u32,
    rejected: u32,
) -> Result<(), LinkError> {
    let names = [keys.journal(partition), keys.batch(partition, batch)];
    let args = [word(batch.to_string()), bytes(event), number(accepted), number(rejected), number(DEDUPE_TTL_S)];
    link.eval::<String>(&BATCH, &names, &args).await.map(|_| ())
}

/// Renews the leases of a worker's running attempts in one lane; says for each whether it is still held.
///
/// # Errors
/// See [`LinkError`].
pub async fn beat(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    worker: &str,
    held: &[(TaskId, String)],
) -> Result<Vec<bool>, LinkError> {
    let mut names = vec![keys.lane(partition, lane)];
    let mut args = vec![bytes(lane.group().as_bytes()), bytes(worker.as_bytes())];
    for (task, token) in held {
        names.push(keys.record(partition, *task));
        args.push(bytes(token.as_bytes()));
    }
    let replies: Vec<i64> = link.eval(&BEAT, &names, &args).await?;
    Ok(replies.into_iter().map(|held| held == 1).collect())
}

/// Takes consumers off a lane's group that hold nothing and have been silent for `min_idle_ms`; says how many.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Refused`] when the lane or its group does not exist.
pub async fn prune(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    lane: &Lane,
    min_idle_ms: u64,
) -> Result<u64, LinkError> {
    let names = [keys.lane(partition, lane)];
    link.eval(&PRUNE, &names, &[bytes(lane.group().as_bytes()), number(min_idle_ms)]).await
}

/// Takes a janitor's duty for `term_ms`, or keeps it; says whether it is this process's.
///
/// # Errors
/// See [`LinkError`].
pub async fn duty(link: &Link, key: &str, process: &str, term_ms: u64) -> Result<bool, LinkError> {
    let ours: i64 = link.eval(&DUTY, &[key.to_owned()], &[bytes(process.as_bytes()), number(term_ms)]).await?;
    Ok(ours == 1)
}

/// Creates a lane's group where it does not exist; it begins at the lane's first entry.
///
/// # Errors
/// See [`LinkError`].
pub async fn create_group(link: &Link, keys: &Keys, partition: Partition, lane: &Lane) -> Result<(), LinkError> {
    let names = [keys.lane(partition, lane)];
    link.eval::<i64>(&GROUP, &names, &[bytes(lane.group().as_bytes())]).await.map(|_| ())
}

/// A task as Redis holds it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveView {
    /// `Q` queued, `P` processing, `D` waiting for its next attempt, `Z` ended.
    pub state: String,
    /// The attempt running, or the next one.
    pub attempt: u32,
    pub worker: Option<String>,
    pub first: u64,
    pub lane: String,
    /// Type of the terminal event, once ended.
    pub outcome: Option<String>,
    /// The encoded `submitted` event; empty when the journal no longer holds it.
    pub submitted: Vec<u8>,
    /// Number and encoding of the terminal event, once ended.
    pub terminal: Option<(u64, Vec<u8>)>,
    /// For how many seconds it has been ended, once ended.
    pub ended_for_s: Option<u64>,
}

/// Reads one task with its first and its last event; `None` when Redis holds no record of it.
///
/// # Errors
/// See [`LinkError`].
pub async fn view(link: &Link, keys: &Keys, partition: Partition, task: TaskId) -> Result<Option<LiveView>, LinkError> {
    let names = [keys.journal(partition), keys.record(partition, task)];
    let Some(mut reply) = link.eval::<Option<Vec<Value>>>(&VIEW, &names, &[]).await? else {
        return Ok(None);
    };
    let optional = |index| text(&reply, index).map(|text| (!text.is_empty()).then(|| text.to_owned()));
    let kept_s = optional(10)?.and_then(|kept| kept.parse::<u64>().ok()).unwrap_or(RESULT_TTL_S);
    let left_s = match reply.get(9) {
        Some(Value::Int(left)) => u64::try_from(*left).ok(),
        _ => None,
    };
    let (state, worker, outcome) = (text(&reply, 0)?.to_owned(), optional(2)?, optional(5)?);
    let (attempt, first, lane) = (parsed(&reply, 1)?, parsed(&reply, 3)?, text(&reply, 4)?.to_owned());
    let terminal_n = optional(7)?.and_then(|n| n.parse().ok());
    Ok(Some(LiveView {
        state,
        attempt,
        worker,
        first,
        lane,
        outcome,
        submitted: take_bytes(&mut reply, 6),
        terminal: terminal_n.map(|n| (n, take_bytes(&mut reply, 8))),
        ended_for_s: left_s.map(|left| kept_s.saturating_sub(left)),
    }))
}

pub(crate) fn bytes(value: &[u8]) -> Arg<'_> {
    Cow::Borrowed(value)
}

pub(crate) fn word(value: String) -> Arg<'static> {
    Cow::Owned(value.into_bytes())
}

pub(crate) fn number(value: impl ToString) -> Arg<'static> {
    word(value.to_string())
}

pub(crate) fn text(reply: &[Value], index: usize) -> Result<&str, LinkError> {
    match reply.get(index) {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).map_err(|_| unexpected("text")),
        Some(Value::SimpleString(text)) => Ok(text),
        _ => Err(unexpected("text")),
    }
}

pub(crate) fn parsed<T: std::str::FromStr>(reply: &[Value], index: usize) -> Result<T, LinkError> {
    text(reply, index)?.parse().map_err(|_| unexpected("a number"))
}

pub(crate) fn take_bytes(reply: &mut [Value], index: usize) -> Vec<u8> {
    match reply.get_mut(index).map(|value| std::mem::replace(value, Value::Nil)) {
        Some(Value::BulkString(bytes)) => bytes,
        _ => Vec::new(),
    }
}

pub(crate) fn unexpected(what: &str) -> LinkError {
    LinkError::Refused(format!("a script's reply was not {what}"))
}
