//! The children of one package, as a model.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::child::{Child, Trouble};
use super::command::HostCommand;
use crate::batch::{Answer, aside};
use crate::manifest::{Cost, Manifest};
use crate::model::{InferError, Model, Payload, Prepared, RunsOn};
use crate::open::{OpenError, OpenOptions};
use crate::package::Package;

/// How long a start may take, before the calls of the package's checks.
const START: Duration = Duration::from_secs(30);
/// Children that may die in a row and be started again at once; then each start waits, twice as long each time.
const AT_ONCE: u32 = 3;
const REST: Duration = Duration::from_millis(100);
const REST_MOST: Duration = Duration::from_secs(10);
/// A rest as short as this is waited for; during a longer one inputs are turned away.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Hosted {
    start: Start,
    timeout: Duration,
    guess: Guess,
    runs_on: RunsOn,
    resident_bytes: u64,
    places: Mutex<Vec<Place>>,
    returned: Condvar,
}

/// Room for one child.
struct Place {
    child: Option<Child>,
    /// Deaths since the last answer.
    deaths: u32,
    not_before: Instant,
}

/// What it takes to start a child.
struct Start {
    package: Arc<Package>,
    command: HostCommand,
    options: OpenOptions,
}

impl Hosted {
    pub(super) fn start(
        package: &Arc<Package>,
        command: &HostCommand,
        options: &OpenOptions,
    ) -> Result<Self, OpenError> {
        let manifest = &package.manifest;
        let start = Start { package: package.clone(), command: command.clone(), options: options.clone() };
        let children: Result<Vec<Child>, String> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..manifest.runtime.instances).map(|_| scope.spawn(|| start.child())).collect();
            starting
                .into_iter()
                .map(|child| child.join().unwrap_or_else(|_| Err("its start panicked".to_owned())))
                .collect()
        });
        let children = children.map_err(OpenError::Broken)?;
        let Some(first) = children.first() else { return Err(OpenError::Broken("it has no instances".to_owned())) };
        Ok(Self {
            timeout: Duration::from_millis(manifest.runtime.timeout_ms),
            guess: Guess::new(manifest),
            runs_on: first.runs_on.clone(),
            resident_bytes: children.iter().map(|child| child.resident_bytes).sum(),
            places: Mutex::new(children.into_iter().map(Place::of).collect()),
            returned: Condvar::new(),
            start,
        })
    }

    fn take_place(&self) -> Place {
        let mut places = self.lock();
        loop {
            match places.pop() {
                Some(place) => return place,
                None => places = self.returned.wait(places).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn give_back(&self, place: Place) {
        self.lock().push(place);
        self.returned.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call of the place's child; one that gives no answer is dead afterwards.
    fn call(&self, place: &mut Place, batch: &[Prepared]) -> Result<Vec<Answer>, InferError> {
        let child = self.child(place)?;
        match child.call(batch.iter().map(document).collect(), self.timeout) {
            Ok(answers) => {
                place.deaths = 0;
                Ok(answers)
            }
            Err(trouble) => {
                self.bury(place, &trouble);
                Err(trouble.into())
            }
        }
    }

    /// The place's child, started again if it has died.
    fn child<'a>(&self, place: &'a mut Place) -> Result<&'a mut Child, InferError> {
        if place.child.as_mut().is_some_and(Child::has_ended) {
            self.bury(place, &Trouble::Crashed("it ended while it was idle".to_owned()));
        }
        if place.child.is_none() {
            let rest = place.not_before.saturating_duration_since(Instant::now());
            if rest > PATIENCE {
                // Not this input's fault: it may be asked again.
                let message = format!("it has died {} times; the next start is in {rest:.1?}", place.deaths);
                return Err(InferError::unavailable("overloaded", message));
            }
            let started = aside(|| {
                std::thread::sleep(rest);
                self.start.child()
            });
            match started {
                Ok(child) => place.child = Some(child),
                Err(reason) => {
                    place.died();
                    return Err(unavailable(reason));
                }
            }
        }
        place.child.as_mut().ok_or_else(|| unavailable("it did not start".to_owned()))
    }

    fn bury(&self, place: &mut Place, trouble: &Trouble) {
        let Manifest { task_type, version, .. } = &self.start.package.manifest;
        tracing::warn!(task_type, version, reason = %trouble, "a model's process is started again");
        metrics::counter!("if_model_restarts_total", "task_type" => task_type.clone(), "model_version" => version.clone())
            .increment(1);
        place.child = None;
        place.died();
    }
}

impl Model for Hosted {
    fn runs_on(&self) -> RunsOn {
        self.runs_on.clone()
    }

    fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        // Nothing of the package is trusted here, its tokenizer neither: the child reads the document.
        Ok(Prepared { cost: self.guess.cost(document), payload: Payload::Document(document.clone()) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Answer> {
        let mut place = self.take_place();
        let answers = match self.call(&mut place, batch) {
            Ok(answers) => answers,
            // One of them may be poison: each alone, so that the others are answered.
            Err(_) if batch.len() > 1 => {
                batch.iter().map(|one| self.call(&mut place, std::slice::from_ref(one))?.remove(0)).collect()
            }
            Err(error) => vec![Err(error)],
        };
        self.give_back(place);
        answers
    }
}

impl Place {
    fn of(child: Child) -> Self {
        Self { child: Some(child), deaths: 0, not_before: Instant::now() }
    }

    fn died(&mut self) {
        self.deaths += 1;
        let doublings = self.deaths.saturating_sub(AT_ONCE);
        let rest = if doublings == 0 { Duration::ZERO } else { (REST * (1 << (doublings - 1).min(16))).min(REST_MOST) };
        self.not_before = Instant::now() + rest;
    }
}

impl Start {
    fn child(&self) -> Result<Child, String> {
        let manifest = &self.package.manifest;
        let checks = u32::try_from(manifest.checks.len()).unwrap_or(u32::MAX);
        let patience = START + Duration::from_millis(manifest.runtime.timeout_ms).saturating_mul(checks);
        let model = format!("{}/{}", manifest.task_type, manifest.version);
        Child::start(self.command.command(&self.package, &self.options), model, patience)
    }
}

/// What a document may cost, guessed without the package's tokenizer.
struct Guess {
    unit: Cost,
    text: Option<String>,
    most: u32,
}

impl Guess {
    fn new(manifest: &Manifest) -> Self {
        let window =
            manifest.onnx.as_ref().and_then(|section| section.get("max_tokens")).and_then(toml::Value::as_integer);
        let most = match manifest.batch.cost {
            Cost::Tokens => window.and_then(|window| u32::try_from(window).ok()).unwrap_or(u32::MAX),
            Cost::Chars | Cost::Rows | Cost::Items => u32::MAX,
        };
        Self { unit: manifest.batch.cost, text: manifest.input.text.clone(), most }
    }

    fn cost(&self, document: &Value) -> u32 {
        let text = self.text.as_ref().and_then(|pointer| document.pointer(pointer)).and_then(Value::as_str);
        let cost = match (self.unit, text) {
            (Cost::Items, _) | (Cost::Chars | Cost::Tokens, None) => 1,
            (Cost::Chars, Some(text)) => text.chars().count(),
            (Cost::Tokens, Some(text)) => tokens(text),
            (Cost::Rows, _) => rows(document),
        };
        u32::try_from(cost).unwrap_or(u32::MAX).clamp(1, self.most.max(1))
    }
}

/// About as many tokens as WordPiece or BPE makes: one for four letters of a word, one for any other sign, and two that
/// frame the text.
fn tokens(text: &str) -> usize {
    let words: usize = text.split(|c: char| !c.is_ascii_alphanumeric()).map(|word| word.len().div_ceil(4)).sum();
    words + text.chars().filter(|c| !c.is_ascii_alphanumeric() && !c.is_whitespace()).count() + 2
}

/// The longest list directly in the document, or in an object in it.
fn rows(document: &Value) -> usize {
    match document {
        Value::Array(rows) => rows.len(),
        Value::Object(fields) => fields.values().map(rows).max().unwrap_or(1),
        _ => 1,
    }
}

fn document(input: &Prepared) -> Value {
    match &input.payload {
        Payload::Document(document) => document.clone(),
        Payload::Text(_) | Payload::Tokens { .. } | Payload::Tensors(_) => Value::Null,
    }
}

fn unavailable(reason: String) -> InferError {
    InferError::unavailable("model_unavailable", reason)
}
