//! Named steps at which a process can be told to die, so that a test can try a crash between any two of them.
//!
//! Compiled in only with the feature `fail-points`, which only tests switch on: without it [`reached`] is empty and no
//! release can be told to die.

/// Writes the table once: a step, its name, and what has happened by then.
macro_rules! steps {
    ($($step:ident = $name:literal: $when:literal,)*) => {
        /// A step of a task's way.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Step {
            $(#[doc = $when] $step,)*
        }

        impl Step {
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    SubmitUnsent = "submit-unsent": "api: tasks were checked, Redis knows nothing of them",
    SubmitStored = "submit-stored": "api: tasks are in the journal, their callers were not answered",
    StartUnsent = "start-unsent": "analyzer: entries were delivered, their attempts have not begun",
    StartWritten = "start-written": "analyzer: attempts have begun, no model was asked",
    FinishUnsent = "finish-unsent": "analyzer: models have answered, nothing of it is written",
    FinishWritten = "finish-written": "analyzer: outcomes are in the journal, this process does not know",
    RetryWritten = "retry-written": "analyzer: repetitions are in the journal, this process does not know",
    ReapUnsent = "reap-unsent": "analyzer: a silent holder was found, nothing was done",
    ReapWritten = "reap-written": "analyzer: an entry was taken over, this process does not know",
    MoveUnsent = "move-unsent": "analyzer: delayed tasks are due, nothing was done",
    MoveWritten = "move-written": "analyzer: delayed tasks are back on their lanes, this process does not know",
    FoldRead = "fold-read": "projector: events were read, no transaction has begun",
    FoldFenced = "fold-fenced": "projector: the checkpoint was moved, no row is written",
    FoldUncommitted = "fold-uncommitted": "projector: rows and outbox are written, nothing is committed",
    FoldCommitted = "fold-committed": "projector: everything is committed, the sender knows nothing of it",
    OutboxClaimed = "outbox-claimed": "projector: due announcements were leased, nothing was sent",
    SendUnsent = "send-unsent": "projector: an announcement is about to be sent",
    SendAnswered = "send-answered": "projector: the receiver has answered, nothing of it is recorded",
    RecordUncommitted = "record-uncommitted": "projector: answers are written, nothing is committed",
    RecordCommitted = "record-committed": "projector: answers are committed, this process does not know",
    ArchiveWritten = "archive-written": "projector: a segment is in the archive and proven, the mark does not reach it",
    ArchiveMarked = "archive-marked": "projector: the mark reaches a new segment, nothing was trimmed for it",
    ArchiveTrimmed = "archive-trimmed": "projector: a stretch has left the stream, this process does not know",
}

/// Whether this build can be told to die.
pub const COMPILED: bool = cfg!(feature = "fail-points");

/// Here the process dies, if it was told to.
#[inline(always)]
pub fn reached(step: Step) {
    #[cfg(feature = "fail-points")]
    armed::reached(step);
    #[cfg(not(feature = "fail-points"))]
    let _ = step;
}

/// Tells the process to die at `<step>:<nth>`, the nth time it gets there.
///
/// # Errors
/// When the text is no such plan, or this build cannot be told.
pub fn arm(plan: &str) -> Result<(), String> {
    #[cfg(feature = "fail-points")]
    return armed::arm(plan);
    #[cfg(not(feature = "fail-points"))]
    Err(format!("{plan}: this build has no fail points"))
}

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Step;

    struct Plan {
        step: Step,
        /// Times it is still passed.
        left: AtomicU32,
    }

    static PLAN: OnceLock<Plan> = OnceLock::new();

    pub(super) fn arm(text: &str) -> Result<(), String> {
        let plan = parse(text).ok_or_else(|| format!("{text}: no `<step>:<nth>`, such as `finish-written:2`"))?;
        PLAN.set(plan).map_err(|_| format!("{text}: there is a plan already"))
    }

    fn parse(text: &str) -> Option<Plan> {
        let (name, nth) = text.split_once(':')?;
        let step = *Step::ALL.iter().find(|step| step.name() == name)?;
        let left = nth.parse::<u32>().ok()?.checked_sub(1)?;
        Some(Plan { step, left: AtomicU32::new(left) })
    }

    pub(super) fn reached(step: Step) {
        let Some(plan) = PLAN.get() else { return };
        if plan.step != step {
            return;
        }
        // Only the call that finds nothing left dies; those before it count down.
        if plan.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
            // Nothing is tidied up, flushed or said: as by `kill -9`.
            std::process::abort();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_plan_names_a_step_and_a_count_from_one() {
            let plan = parse("finish-written:3").unwrap();
            assert_eq!((plan.step, plan.left.into_inner()), (Step::FinishWritten, 2));
            for bad in ["", "finish-written", "finish-written:0", "finish-written:x", "elsewhere:1"] {
                assert!(parse(bad).is_none(), "{bad}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Step::ALL.iter().map(|step| step.name()).collect();
        assert_eq!(names.len(), Step::ALL.len());
    }

    #[test]
    #[cfg(not(feature = "fail-points"))]
    fn without_the_feature_nobody_can_be_told_to_die() {
        assert!(arm("finish-written:1").is_err());
        Step::ALL.iter().for_each(|step| reached(*step));
    }
}
