//! Every state change, as one atomic step in Redis. Each function here runs one script of `schema/scripts/`, whose file
//! opens with its KEYS, ARGV and reply. All are idempotent: an ambiguous call is simply made again.
//!
//! Steps take many tasks of one partition at once: the round trip, the script call and the disk flush of
//! `appendfsync always` are then shared. Each task is judged and changed on its own.
//!
//! Files, in the order of a task's life: `submit`, `attempt`, `janitor`, `people`; `view` only reads.

mod attempt;
mod janitor;
mod people;
mod submit;
mod view;

use std::borrow::Cow;
use std::sync::LazyLock;

use redis::{Cmd, Value};

pub use attempt::{Finish, Held, Noted, Retry, Shadow, Start, Started, beat, finish, retry, shadow, start};
pub use janitor::{Reap, Reaped, Silent, Takeover, create_group, duty, move_due, prune, reap, silent};
pub use people::{Cancellation, Purge, Redrive, cancel, purge, redrive};
pub use submit::{Context, Submission, Submit, close_batch, submit};
pub use view::{LiveView, view};

use crate::link::LinkError;

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
    REPLACE = "replace.lua",
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
