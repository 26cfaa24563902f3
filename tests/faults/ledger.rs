//! What callers know: which requests they made, what they were told, and what they asked for afterwards.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use serde_json::Value;
use uuid::Uuid;

use crate::request::{Expect, Mark, Request};

#[derive(Default)]
pub(crate) struct Ledger {
    /// When a request was sent for the first time, as the plan has it, and how many tasks it is.
    pub(crate) offered: Vec<(Instant, u64)>,
    pub(crate) asked: HashMap<Mark, Asked>,
    /// By the task that an answer named.
    pub(crate) accepted: HashMap<Uuid, Accepted>,
    /// What a model said about a text before anything struck, by task type and text.
    pub(crate) said: HashMap<(String, String), Value>,
    /// What was answered to those who withdrew a task: the status, or nothing.
    pub(crate) cancels: HashMap<Uuid, Option<u16>>,
    /// Dead letters that were dealt with.
    pub(crate) letters: HashMap<Uuid, Letter>,
    /// Answers that were none, by status; 0 for no answer at all.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Requests that were answered in two ways.
    pub(crate) doubled: Vec<String>,
    pub(crate) complaints: Vec<String>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Tasks it is.
    pub(crate) lines: usize,
    pub(crate) expect: Expect,
    /// Its tasks have a webhook of their own beside the configured one.
    pub(crate) own_webhook: bool,
    /// The tasks it was accepted as, in the order of its lines.
    pub(crate) told: Vec<Uuid>,
    /// An answer, or the want of one, left open whether it is stored.
    pub(crate) in_doubt: bool,
}

/// What must have become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its tasks are there, each once.
    Stored,
    /// Each of its tasks is there once or not at all.
    Open,
    /// Every answer said that nothing was stored.
    Refused,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Accepted {
    pub(crate) at: Instant,
    pub(crate) mark: Mark,
}

/// What was done with a dead letter, as the answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    RedrivenAs(Uuid),
    Purged,
}

/// What one answer makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// It says that nothing of the request was stored, …
    Refused,
    /// … and that nothing ever will be.
    Rejected,
    InDoubt,
}

impl Asked {
    pub(crate) fn fate(&self) -> Fate {
        match (self.told.is_empty(), self.in_doubt) {
            (false, _) => Fate::Stored,
            (true, true) => Fate::Open,
            (true, false) => Fate::Refused,
        }
    }
}

impl Ledger {
    /// A request is about to be sent, for the first time or again.
    pub(crate) fn ask(&mut self, request: &Request) {
        self.asked.entry(request.mark).or_insert_with(|| Asked {
            lines: request.lines,
            expect: request.expect,
            own_webhook: request.own_webhook,
            told: Vec::new(),
            in_doubt: false,
        });
    }

    /// There was no answer, or not all of it.
    pub(crate) fn unanswered(&mut self, request: &Request) {
        *self.refused.entry(0).or_default() += 1;
        self.doubt(request);
    }

    fn doubt(&mut self, request: &Request) {
        if let Some(asked) = self.asked.get_mut(&request.mark) {
            asked.in_doubt = true;
        }
    }

    /// Notes an answer.
    pub(crate) fn answered(&mut self, request: &Request, status: u16, retry_after: bool, body: &Value) -> Answer {
        if !(200..300).contains(&status) {
            *self.refused.entry(status).or_default() += 1;
            self.complain_of(request, status, retry_after, body);
            if (400..500).contains(&status) && !matches!(status, 409 | 429) {
                return Answer::Rejected;
            }
            if clearly_refused(request, status, body) {
                return Answer::Refused;
            }
            self.doubt(request);
            return Answer::InDoubt;
        }
        let tasks = named(body);
        if tasks.len() != request.lines {
            self.complaints.push(format!("{} tasks were accepted of {}: {body}", tasks.len(), request.lines));
        }
        let at = Instant::now();
        for task in &tasks {
            self.accepted.entry(*task).or_insert(Accepted { at, mark: request.mark });
        }
        let Some(asked) = self.asked.get_mut(&request.mark) else { return Answer::Accepted };
        if asked.told.is_empty() {
            asked.told = tasks;
        } else if asked.told != tasks {
            self.doubled.push(format!("one request was answered with {:?} and {tasks:?}", asked.told));
        }
        Answer::Accepted
    }

    fn complain_of(&mut self, request: &Request, status: u16, retry_after: bool, body: &Value) {
        match status {
            503 | 429 if retry_after => {}
            // The same batch, whose uploader is thought to be gone, is still coming in: a little later, again.
            409 if retry_after && body["type"] == "urn:insightforge:problem:in-flight" => {}
            503 | 429 => self.complaints.push(format!("{status} without Retry-After")),
            _ => self.complaints.push(format!("{} was answered {status}: {body}", request.path)),
        }
    }
}

/// Whether the answer says that nothing of the request was stored. Of a batch a part may be, whatever is said in the end.
fn clearly_refused(request: &Request, status: u16, body: &Value) -> bool {
    let says = |names: &[&str]| {
        let problem = body["type"].as_str().and_then(|it| it.strip_prefix("urn:insightforge:problem:"));
        problem.is_some_and(|it| names.contains(&it))
    };
    request.lines == 1
        && match status {
            429 => says(&["backlog"]),
            503 => says(&["busy", "journal-full"]),
            _ => false,
        }
}

/// The tasks that an answer names.
fn named(body: &Value) -> Vec<Uuid> {
    let of = |value: &Value| value["task_id"].as_str().and_then(|id| id.parse::<Uuid>().ok());
    match body["tasks"].as_array() {
        Some(lines) => lines.iter().filter_map(of).collect(),
        None => of(body).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dice::Dice;
    use crate::request::{anonymous, batch};

    fn problem(name: &str) -> Value {
        json!({ "type": format!("urn:insightforge:problem:{name}") })
    }

    #[test]
    fn what_must_have_become_of_a_request_follows_from_all_that_was_answered() {
        let one = anonymous("x", &mut Dice::new(1));
        let task = json!({ "task_id": Uuid::from_u128(7) });
        let refusals: [(u16, Value); 3] =
            [(429, problem("backlog")), (503, problem("busy")), (503, problem("journal-full"))];
        for (status, body) in &refusals {
            let mut ledger = Ledger::default();
            ledger.ask(&one);
            assert_eq!(ledger.answered(&one, *status, true, body), Answer::Refused);
            assert_eq!(ledger.asked[&one.mark].fate(), Fate::Refused);
            ledger.unanswered(&one);
            assert_eq!(ledger.asked[&one.mark].fate(), Fate::Open);
            assert_eq!(ledger.answered(&one, 202, false, &task), Answer::Accepted);
            assert_eq!(ledger.asked[&one.mark].fate(), Fate::Stored);
            assert!(ledger.complaints.is_empty(), "{:?}", ledger.complaints);
        }
        let mut ledger = Ledger::default();
        ledger.ask(&one);
        assert_eq!(ledger.answered(&one, 503, true, &problem("unavailable")), Answer::InDoubt);
        assert_eq!(ledger.asked[&one.mark].fate(), Fate::Open);
    }

    #[test]
    fn of_a_refused_batch_a_part_may_be_stored() {
        let (mut ledger, batch) = (Ledger::default(), batch(&mut Dice::new(1)));
        ledger.ask(&batch);
        assert_eq!(ledger.answered(&batch, 503, true, &problem("busy")), Answer::InDoubt);
        assert_eq!(ledger.asked[&batch.mark].fate(), Fate::Open);
    }

    #[test]
    fn what_is_rejected_is_a_complaint_and_nothing_of_it_may_be_stored() {
        let (mut ledger, one) = (Ledger::default(), anonymous("x", &mut Dice::new(1)));
        ledger.ask(&one);
        assert_eq!(ledger.answered(&one, 422, false, &problem("invalid")), Answer::Rejected);
        assert_eq!((ledger.asked[&one.mark].fate(), ledger.complaints.len()), (Fate::Refused, 1));
    }

    #[test]
    fn two_answers_to_one_request_must_name_the_same_task() {
        let (mut ledger, one) = (Ledger::default(), anonymous("x", &mut Dice::new(1)));
        ledger.ask(&one);
        for (task, doubled) in [(7, 0), (7, 0), (8, 1)] {
            ledger.answered(&one, 202, false, &json!({ "task_id": Uuid::from_u128(task) }));
            assert_eq!(ledger.doubled.len(), doubled);
        }
    }
}
