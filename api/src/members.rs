//! The members of a request's JSON object, taken out one by one; what is wrong or left over is named at the end, all at
//! once.

use serde_json::{Map, Value};

use crate::problem::{Fields, Problem};
use crate::sent::{malformed, short, text};

/// Most characters of a reason.
const MAX_REASON_CHARS: usize = 500;

/// A body's members that were not taken yet.
pub(crate) struct Members {
    members: Map<String, Value>,
    pub(crate) faults: Fields,
}

impl Members {
    /// Reads a body; an empty one has no members.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        let text = text(bytes)?;
        let members = if text.trim().is_empty() {
            Map::new()
        } else {
            serde_json::from_str(text).map_err(|error| malformed(&format!("the body is no JSON object: {error}")))?
        };
        Ok(Self { members, faults: Fields::default() })
    }

    /// `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// Why something is done, for those who read the history.
    pub(crate) fn reason(&mut self) -> Option<String> {
        match self.take("reason")? {
            Value::String(reason) if reason.chars().count() <= MAX_REASON_CHARS && !reason.contains('\0') => {
                Some(reason)
            }
            _ => {
                let what = format!("must be a string of {MAX_REASON_CHARS} characters at most, without NUL");
                self.faults.add("reason", what);
                None
            }
        }
    }

    /// # Errors
    /// 422 that names everything that was wrong or is not known here.
    pub(crate) fn finish<T>(mut self, read: T) -> Result<T, Problem> {
        for name in self.members.keys() {
            self.faults.add(short(name), "is not a field of this request");
        }
        if self.faults.is_empty() { Ok(read) } else { Err(Problem::invalid(self.faults)) }
    }
}
