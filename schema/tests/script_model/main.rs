//! The scripts against a reference model: random interleavings of every step, in any order and with tokens of any age, on
//! a real Redis. After each step the script's answer is the model's; after each sequence journal, lane, pending entries,
//! delayed tasks, deadlines, idempotency keys, dead letters and records are the model's too, nothing is out of reach, and an
//! honest worker brings every task to its one end, also when keys were deleted that are derived from the journal. One partition, one lane.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod model;
mod stage;

use proptest::prelude::*;
use proptest::test_runner::Config;

use model::{Answer, Model};
use stage::Stage;

/// Callers' tasks a sequence can name.
pub(crate) const TASKS: usize = 4;
/// Workers.
pub(crate) const WORKERS: usize = 3;
/// Idempotency keys.
const KEYS: usize = 2;

/// One step of somebody. Tasks and entries are named by number; what there is none of is taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Submit {
        task: usize,
        other_body: bool,
        key: Option<usize>,
        deadline: Deadline,
    },
    Read {
        worker: usize,
    },
    Start {
        worker: usize,
        entry: usize,
    },
    Finish {
        entry: usize,
        failed: bool,
    },
    Retry {
        entry: usize,
        due: i64,
    },
    /// Of the entry's holder, silent for long or just now.
    Reap {
        entry: usize,
        silent: bool,
        last: bool,
        stale: bool,
    },
    Cancel {
        task: usize,
    },
    Move {
        now: i64,
    },
    Redrive {
        task: usize,
    },
    Beat {
        worker: usize,
        entry: usize,
    },
    LoseGroup,
    /// A key that is derived from the journal is deleted.
    Lose(Derived),
    /// The record too, and it is made anew as the journal has it.
    LoseRecord {
        task: usize,
    },
    /// Whoever finds tasks that are not where their records say.
    PutBack,
    /// A deadline that was far has passed.
    TimePasses {
        task: usize,
    },
    /// Of whatever waits beyond its deadline.
    Expire,
    Purge {
        task: usize,
    },
    /// Of a shadow's answer.
    Note {
        task: usize,
    },
    /// Of all but the last so many events.
    Trim {
        keep: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    Lane,
    Delayed,
    Deadlines,
}

/// By Redis' clock, so that only what has passed for certain or will not for long can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Deadline {
    #[default]
    None,
    Past,
    Far,
}

fn step() -> impl Strategy<Value = Step> {
    let (task, entry, worker) = (0..TASKS, 0..16_usize, 0..WORKERS);
    prop_oneof![
        4 => (task.clone(), prop::bool::weighted(0.1), prop::option::weighted(0.3, 0..KEYS), deadline())
            .prop_map(|(task, other_body, key, deadline)| Step::Submit { task, other_body, key, deadline }),
        6 => worker.clone().prop_map(|worker| Step::Read { worker }),
        6 => (worker.clone(), entry.clone()).prop_map(|(worker, entry)| Step::Start { worker, entry }),
        4 => (entry.clone(), any::<bool>()).prop_map(|(entry, failed)| Step::Finish { entry, failed }),
        3 => (entry.clone(), 1..4_i64).prop_map(|(entry, due)| Step::Retry { entry, due }),
        4 => (entry.clone(), prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(entry, silent, last, stale)| Step::Reap { entry, silent, last, stale }),
        1 => task.clone().prop_map(|task| Step::Cancel { task }),
        3 => (1..4_i64).prop_map(|now| Step::Move { now }),
        2 => task.clone().prop_map(|task| Step::Redrive { task }),
        2 => task.clone().prop_map(|task| Step::TimePasses { task }),
        2 => Just(Step::Expire),
        2 => task.clone().prop_map(|task| Step::Purge { task }),
        2 => task.clone().prop_map(|task| Step::Note { task }),
        2 => task.prop_map(|task| Step::LoseRecord { task }),
        1 => prop::sample::select(vec![Derived::Lane, Derived::Delayed, Derived::Deadlines]).prop_map(Step::Lose),
        2 => Just(Step::PutBack),
        2 => (0..6_usize).prop_map(|keep| Step::Trim { keep }),
        2 => (worker, entry).prop_map(|(worker, entry)| Step::Beat { worker, entry }),
        1 => Just(Step::LoseGroup),
    ]
}

fn deadline() -> impl Strategy<Value = Deadline> {
    prop_oneof![6 => Just(Deadline::None), 1 => Just(Deadline::Past), 2 => Just(Deadline::Far)]
}

/// Sequences tried; more of them when `INSIGHTFORGE_TEST_CASES` says so.
fn cases() -> u32 {
    match std::env::var("INSIGHTFORGE_TEST_CASES") {
        Ok(text) if !text.is_empty() => text.parse().expect("INSIGHTFORGE_TEST_CASES is a number"),
        _ => 24,
    }
}

#[test]
fn whatever_the_order_the_scripts_do_what_the_model_does_and_every_task_can_be_brought_to_one_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: cases(), max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..50))| {
        runtime.block_on(check(&steps))?;
    });
}

async fn check(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut stage = Stage::new().await;
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let (answer, expected) = take(&mut stage, &mut model, *step).await;
        prop_assert_eq!(answer, expected, "step {}: {:?}", number, step);
        stage.learn(&model).await?;
    }
    prop_assert_eq!(stage.picture(&model).await, model.picture());
    let (answer, expected) = take(&mut stage, &mut model, Step::PutBack).await;
    prop_assert_eq!(answer, expected, "whatever was lost");
    stage.learn(&model).await?;
    prop_assert_eq!(stage.picture(&model).await, model.picture());
    prop_assert_eq!(model.out_of_reach(), Vec::<usize>::new(), "no task is where nobody looks");
    bring_to_an_end(&mut stage, &mut model).await?;
    let picture = model.picture();
    prop_assert_eq!(stage.picture(&model).await, picture);
    prop_assert!(model.every_task_has_one_end(), "{:?}", model);
    stage.remove().await;
    Ok(())
}

/// Makes a step here and there; both answers.
async fn take(stage: &mut Stage, model: &mut Model, step: Step) -> (Answer, Answer) {
    match model.prepare(step) {
        Some(prepared) => {
            let answer = stage.take(model, prepared).await;
            (answer, model.take(prepared))
        }
        // There is nothing yet that it could be about.
        None => (Answer::Nothing, Answer::Nothing),
    }
}

/// What honest workers and janitors do, until there is nothing left.
async fn bring_to_an_end(stage: &mut Stage, model: &mut Model) -> Result<(), TestCaseError> {
    for _round in 0..20 {
        if model.every_task_has_one_end() && model.lane_is_empty() {
            return Ok(());
        }
        let mut steps = vec![Step::Move { now: 1_000 }];
        steps.extend(std::iter::repeat_n(Step::Read { worker: 0 }, TASKS * 2));
        // Whoever holds an entry is silent by now.
        steps.extend((0..model.entries()).map(|entry| Step::Reap { entry, silent: true, last: true, stale: false }));
        for step in steps {
            let (answer, expected) = take(stage, model, step).await;
            prop_assert_eq!(answer, expected, "at the end: {:?}", step);
            stage.learn(model).await?;
        }
    }
    Ok(())
}
