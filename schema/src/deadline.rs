//! Waiting tasks that are out of time, and their end: `failed` with the code [`EXPIRED`], once, without a retry and without
//! a dead letter. Analyzers end those they meet, the api looks for those that nobody takes.
//!
//! A deadline has passed when Redis' clock says so: the clocks of processes differ, and one of them must decide.

use std::borrow::Cow;

use crate::RESULT_TTL_S;
use crate::event::{Change, Failed, Meta, encode, now_us, rfc3339};
use crate::id::{Partition, TaskId};
use crate::keys::{Keys, Lane};
use crate::link::{Link, LinkError};
use crate::script::{Arg, Context, EXPIRE, PAST, number, unexpected, word};

/// The code of a task whose deadline passed while it waited.
pub const EXPIRED: &str = "expired";

/// Waiting tasks of a partition whose deadline has passed, the longest past first.
///
/// # Errors
/// See [`LinkError`].
pub async fn past(link: &Link, keys: &Keys, partition: Partition, limit: usize) -> Result<Vec<TaskId>, LinkError> {
    let expiring = keys.expiring(partition);
    let ids: Vec<String> = link.eval(&PAST, std::slice::from_ref(&expiring), &[number(limit)]).await?;
    let mut tasks = Vec::with_capacity(ids.len());
    for id in ids {
        match id.parse() {
            Ok(task) => tasks.push(task),
            // It would be listed first for ever and hold up the others.
            Err(_) => link.query::<i64>(redis::cmd("ZREM").arg(&expiring).arg(id)).await.map(|_| ())?,
        }
    }
    Ok(tasks)
}

/// Ends those of `tasks` that wait and whose deadline has passed; says how many were ended now.
///
/// # Errors
/// See [`LinkError`]. Calling again is safe.
pub async fn end(
    link: &Link,
    keys: &Keys,
    partition: Partition,
    tasks: &[TaskId],
    actor: &str,
) -> Result<usize, LinkError> {
    let mut names = vec![keys.journal(partition), keys.expiring(partition), keys.delayed(partition)];
    let mut args = vec![number(RESULT_TTL_S)];
    for task in tasks {
        let Some(waiting) = waiting(link, keys, partition, *task).await? else {
            // Without a record there is nothing to end.
            let forget = redis::cmd("ZREM").arg(keys.expiring(partition)).arg(task.to_string()).to_owned();
            let _: i64 = link.query(&forget).await?;
            continue;
        };
        names.extend([keys.lane(partition, &waiting.lane), keys.record(partition, *task)]);
        let event: Arg<'_> = Cow::Owned(waiting.event(actor));
        args.extend([word(task.to_string()), word(waiting.lane.group().to_owned()), event]);
    }
    if names.len() == 3 {
        return Ok(0);
    }
    let replies: Vec<String> = link.eval(&EXPIRE, &names, &args).await?;
    Ok(replies.iter().filter(|reply| *reply == "OK").count())
}

/// What a record says of a waiting task.
struct Waiting {
    lane: Lane,
    next_attempt: u32,
    context: Context,
    deadline_ms: i64,
}

async fn waiting(link: &Link, keys: &Keys, partition: Partition, task: TaskId) -> Result<Option<Waiting>, LinkError> {
    type Fields = (Option<String>, Option<String>, Option<String>, Option<String>);
    let mut fields = redis::cmd("HMGET");
    fields.arg(keys.record(partition, task)).arg(&["l", "a", "m", "d"]);
    let (lane, attempt, context, deadline): Fields = link.query(&fields).await?;
    let Some(lane) = lane else { return Ok(None) };
    let number = |field: Option<String>| field.map_or(Ok(0), |text| text.parse::<i64>());
    Ok(Some(Waiting {
        lane: Lane::parse(&lane).ok_or_else(|| unexpected("a lane"))?,
        next_attempt: number(attempt).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
        context: context.map(|context| Context::decode(&context)).unwrap_or_default(),
        deadline_ms: number(deadline).map_err(|_| unexpected("a deadline"))?,
    }))
}

impl Waiting {
    fn event(&self, actor: &str) -> Vec<u8> {
        let meta = Meta {
            at_us: now_us(),
            tenant: self.context.tenant.clone(),
            actor: actor.to_owned(),
            attempt: self.next_attempt.saturating_sub(1),
            trace: self.context.trace.clone(),
        };
        let deadline = rfc3339(self.deadline_ms.saturating_mul(1_000)).unwrap_or_default();
        let failed = Failed {
            task_type: self.lane.task_type.clone(),
            model_version: self.lane.model_version.clone(),
            code: EXPIRED.to_owned(),
            message: format!("its deadline {deadline} passed before an attempt could begin"),
            permanent: true,
            route: None,
        };
        encode(&meta, &Change::Failed(failed))
    }
}
