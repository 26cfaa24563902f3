//! How inputs of many callers become batches.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use insightforge_inference::batch::{Answer, Batcher, Compute, Limits, Settings};
use insightforge_inference::manifest::Cost;
use insightforge_inference::model::RunsOn;
use insightforge_inference::{InferError, Loaded, Model, Package, Payload, Prepared};
use serde_json::Value;
use tokio::sync::oneshot::Receiver;

use crate::common::write_package;
use crate::echo::soon;

/// Holds each call that has `hold` among its inputs until the gate opens, and notes every batch.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    inside: usize,
    most_inside: usize,
    batches: Vec<Vec<String>>,
}

struct Gated(Arc<Gate>);

impl Model for Gated {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "gate".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        1
    }

    fn prepare(&self, _: &Value) -> Result<Prepared, InferError> {
        Ok(text("", 1))
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Answer> {
        let texts: Vec<String> = batch.iter().map(said).collect();
        let mut state = self.0.state.lock().unwrap();
        state.inside += 1;
        state.most_inside = state.most_inside.max(state.inside);
        state.batches.push(texts.clone());
        self.0.changed.notify_all();
        while texts.iter().any(|text| text == "hold") && !state.open {
            state = self.0.changed.wait(state).unwrap();
        }
        state.inside -= 1;
        texts.into_iter().map(|text| Ok(format!("{text:?}"))).collect()
    }
}

impl Gate {
    fn open(&self) {
        self.state.lock().unwrap().open = true;
        self.changed.notify_all();
    }

    /// Waits until so many batches have been begun.
    fn begun(&self, batches: usize) {
        let state = self.state.lock().unwrap();
        let wait = Duration::from_secs(20);
        let (state, _) = self.changed.wait_timeout_while(state, wait, |state| state.batches.len() < batches).unwrap();
        assert!(state.batches.len() >= batches, "{:?}", state.batches);
    }

    fn batches(&self) -> Vec<Vec<String>> {
        self.state.lock().unwrap().batches.clone()
    }
}

fn text(text: &str, cost: u32) -> Prepared {
    Prepared { cost, payload: Payload::Text(text.to_owned()) }
}

fn said(input: &Prepared) -> String {
    let Payload::Text(text) = &input.payload else { panic!("a text was prepared") };
    text.clone()
}

fn gated() -> (Arc<Gate>, Arc<Loaded>) {
    let root = tempfile::tempdir().unwrap();
    let package = Package::read(&write_package(root.path(), "gate", "v1", "", ("", ""))).unwrap();
    let gate = Arc::new(Gate::default());
    let loaded = Loaded::new(Arc::new(package), Box::new(Gated(gate.clone()))).unwrap();
    (gate, Arc::new(loaded))
}

fn settings() -> Settings {
    let limits = Limits { max_items: 64, max_cost: 1_000, cost: Cost::Tokens };
    Settings { limits, max_queue: 100, instances: 1, timeout: None, compute: Some(Compute::new(2)) }
}

fn submit(batcher: &Batcher, texts: &[&str]) -> Vec<Receiver<Answer>> {
    batcher.submit(texts.iter().map(|one| text(one, one.len() as u32)).collect(), soon())
}

fn answers(receivers: Vec<Receiver<Answer>>) -> Vec<Answer> {
    receivers.into_iter().map(|receiver| receiver.blocking_recv().unwrap()).collect()
}

#[test]
fn one_input_goes_at_once_and_what_comes_meanwhile_goes_together() {
    let (gate, loaded) = gated();
    let batcher = Batcher::start(loaded, settings()).unwrap();
    let first = submit(&batcher, &["hold"]);
    gate.begun(1);
    let later: Vec<_> = ["a", "bb", "ccc"].iter().flat_map(|text| submit(&batcher, &[text])).collect();
    gate.open();
    assert!(answers(first).iter().all(Result::is_ok));
    assert_eq!(answers(later), ["\"a\"", "\"bb\"", "\"ccc\""].map(|text| Ok(text.to_owned())));
    assert_eq!(gate.batches(), [vec!["hold"], vec!["a", "bb", "ccc"]]);
}

#[test]
fn free_threads_share_what_waits() {
    let (gate, loaded) = gated();
    let batcher = Batcher::start(loaded, Settings { instances: 2, ..settings() }).unwrap();
    let receivers = submit(&batcher, &["hold", "hold", "hold", "hold"]);
    gate.begun(2);
    gate.open();
    assert_eq!(answers(receivers).len(), 4);
    assert_eq!(gate.batches().iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn what_finds_no_place_is_told_so_at_once() {
    let (gate, loaded) = gated();
    let batcher = Batcher::start(loaded, Settings { max_queue: 2, ..settings() }).unwrap();
    let first = submit(&batcher, &["hold"]);
    gate.begun(1);
    let mut later = submit(&batcher, &["a", "b", "c"]);
    let error = later.pop().unwrap().try_recv().unwrap().unwrap_err();
    assert_eq!((error.code.as_ref(), error.permanent), ("overloaded", false));
    assert_eq!(batcher.waiting(), 2);
    gate.open();
    assert!(answers(first).into_iter().chain(answers(later)).all(|answer| answer.is_ok()));
}

#[test]
fn what_nobody_waits_for_is_never_computed() {
    let (gate, loaded) = gated();
    let batcher = Batcher::start(loaded, settings()).unwrap();
    let first = submit(&batcher, &["hold"]);
    gate.begun(1);
    drop(submit(&batcher, &["cancelled"]));
    let late = batcher.submit(vec![text("late", 4)], Instant::now());
    let wanted = submit(&batcher, &["wanted"]);
    gate.open();
    assert_eq!(answers(first).len() + answers(wanted).len(), 2);
    assert!(late.into_iter().all(|late| late.blocking_recv().is_err()));
    assert_eq!(gate.batches(), [vec!["hold"], vec!["wanted"]]);
}

#[test]
fn a_call_that_does_not_come_back_is_left_behind_and_its_neighbours_are_answered() {
    let (gate, loaded) = gated();
    let timeout = Some(Duration::from_millis(100));
    let batcher = Batcher::start(loaded, Settings { timeout, ..settings() }).unwrap();
    let answered = answers(submit(&batcher, &["a", "hold", "b"]));
    let codes: Vec<_> = answered.iter().map(|answer| answer.as_ref().map_err(|error| error.code.as_ref())).collect();
    assert!(matches!(codes[..], [Ok(_), Err("timeout"), Ok(_)]), "{codes:?}");
    // The whole batch, and the one alone.
    assert_eq!(batcher.stuck(), 2);
    gate.open();
    while batcher.stuck() > 0 {
        std::thread::yield_now();
    }
    assert!(answers(submit(&batcher, &["hold"]))[0].is_ok());
}

#[test]
fn a_model_that_hangs_at_everything_is_given_up_and_what_it_was_not_asked_for_is_for_later() {
    let (gate, loaded) = gated();
    let timeout = Some(Duration::from_millis(20));
    let batcher = Batcher::start(loaded, Settings { timeout, ..settings() }).unwrap();
    let codes = |answers: Vec<Answer>| -> Vec<String> {
        answers
            .into_iter()
            .map(|answer| answer.err().map_or_else(String::new, |error| error.code.into_owned()))
            .collect()
    };
    let first = codes(answers(submit(&batcher, &["hold"; 64])));
    assert_eq!(first.iter().filter(|code| *code == "timeout").count(), 3);
    assert_eq!(first.iter().filter(|code| *code == "overloaded").count(), 61);
    // The whole batch, and three alone.
    assert_eq!(batcher.stuck(), 4);
    while !batcher.hangs() {
        drop(answers(submit(&batcher, &["hold"; 8])));
    }
    assert_eq!(codes(answers(submit(&batcher, &["a", "b"]))), ["overloaded", "overloaded"]);
    assert_eq!(batcher.stuck(), 16);
    gate.open();
    while batcher.stuck() > 0 {
        std::thread::yield_now();
    }
    assert!(answers(submit(&batcher, &["a", "b"])).iter().all(Result::is_ok));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_asked_again_alone() {
    let (gate, loaded) = gated();
    let timeout = Some(Duration::from_millis(200));
    let batcher = Batcher::start(loaded, Settings { timeout, ..settings() }).unwrap();
    let mut receivers = submit(&batcher, &["a", "hold", "b"]);
    gate.begun(1);
    receivers.remove(1);
    assert!(answers(receivers).iter().all(Result::is_ok));
    assert_eq!(gate.batches(), [vec!["a", "hold", "b"], vec!["a"], vec!["b"]]);
    gate.open();
}

#[test]
fn models_of_a_process_compute_within_one_budget() {
    let compute = Some(Compute::new(1));
    let (gate, loaded) = gated();
    let batchers: Vec<_> = (0..2)
        .map(|_| Batcher::start(loaded.clone(), Settings { compute: compute.clone(), ..settings() }).unwrap())
        .collect();
    let receivers: Vec<_> = (0..200).flat_map(|turn| submit(&batchers[turn % 2], &["a"])).collect();
    assert!(answers(receivers).iter().all(Result::is_ok));
    assert_eq!(gate.state.lock().unwrap().most_inside, 1);
}

#[test]
fn the_threads_end_with_the_batcher() {
    let (_, loaded) = gated();
    let batcher = Batcher::start(loaded.clone(), Settings { instances: 4, ..settings() }).unwrap();
    assert!(answers(submit(&batcher, &["a"]))[0].is_ok());
    drop(batcher);
    while Arc::strong_count(&loaded) > 1 {
        std::thread::yield_now();
    }
}
