//! Every fault, again and again, for a given time: `bin/faults`.

use std::panic::AssertUnwindSafe;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::faults::{self, Fault};
use crate::load::Plan;
use crate::request::Extra;
use crate::run::{Outcome, run};
use crate::site::Slot;
use crate::table;

/// What `bin/faults` was told.
struct Orders {
    time: Duration,
    seed: u64,
    plan: Plan,
    faults: Vec<Fault>,
    at_once: usize,
}

impl Orders {
    fn read() -> Self {
        let only: String = read("ONLY", String::new());
        let names: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
        let faults = match faults::named(&names) {
            Ok(_) if names.is_empty() => faults::all(),
            Ok(faults) => faults,
            Err(unknown) => panic!("--only {only}: no fault is called {unknown}; known are {}", self::names()),
        };
        Self {
            time: Duration::from_secs(60 * read("MINUTES", 10)),
            seed: read("SEED", 1),
            plan: Plan { tasks: read("TASKS", 2_000), rate: read("RATE", 200), extra: Extra::None },
            faults,
            at_once: read("AT_ONCE", 1),
        }
    }
}

fn names() -> String {
    faults::all().iter().map(|fault| fault.name.clone()).collect::<Vec<_>>().join(" ")
}

fn read<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(format!("INSIGHTFORGE_FAULTS_{name}")) {
        Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("--{}: {text}", name.to_lowercase())),
        _ => default,
    }
}

/// What there is still to do, and what came of what was done.
struct Shared {
    orders: Orders,
    begun: Instant,
    next: Mutex<usize>,
    outcomes: Mutex<Vec<Outcome>>,
    /// Runs in which the harness itself failed.
    unjudged: AtomicUsize,
}

impl Shared {
    /// The next fault and its seed: all faults with the first seed, then all with the second.
    fn next(&self) -> Option<(Fault, u64)> {
        if self.begun.elapsed() >= self.orders.time {
            return None;
        }
        let mut next = self.next.lock().unwrap();
        let (round, place) = (*next / self.orders.faults.len(), *next % self.orders.faults.len());
        *next += 1;
        Some((self.orders.faults[place].clone(), self.orders.seed + round as u64))
    }
}

pub(crate) fn run_all() {
    let orders = Orders::read();
    let at_once = orders.at_once;
    println!("\n{}", table::HEAD);
    let shared = Arc::new(Shared {
        orders,
        begun: Instant::now(),
        next: Mutex::new(0),
        outcomes: Mutex::default(),
        unjudged: AtomicUsize::new(0),
    });
    let hands = (0..at_once).map(|_| {
        let shared = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(work(&shared));
        })
    });
    for hand in hands.collect::<Vec<_>>() {
        hand.join().unwrap();
    }
    conclude(&shared.outcomes.lock().unwrap(), shared.unjudged.load(Ordering::Relaxed));
}

async fn work(shared: &Shared) {
    let mut slot = Slot::new().await;
    while let Some((fault, seed)) = shared.next() {
        // Who looks may be at a loss: that run counts for nothing, and the others go on, on servers of their own.
        let ended = AssertUnwindSafe(run(&mut slot, &fault, seed, shared.orders.plan)).catch_unwind().await;
        let Ok(ended) = ended else {
            let kept = slot.keep_last(&format!("{}-{seed}", fault.name));
            println!("NOT JUDGED: {} with seed {seed}: the harness failed; see {}", fault.name, kept.display());
            shared.unjudged.fetch_add(1, Ordering::Relaxed);
            slot = Slot::new().await;
            continue;
        };
        match ended {
            Ok(outcome) => {
                println!("{outcome}");
                print!("{}", table::explain(&outcome));
                shared.outcomes.lock().unwrap().push(outcome);
            }
            Err(impossible) => println!("NOT TRIED: {}: {}", fault.name, impossible.0),
        }
    }
}

fn conclude(outcomes: &[Outcome], unjudged: usize) {
    println!("\n{}", table::summary(outcomes));
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.findings.passed()).collect();
    let tasks: usize = outcomes.iter().map(|outcome| outcome.findings.tasks).sum();
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (archived, trimmed) = (sum(|outcome| outcome.left_redis.0), sum(|outcome| outcome.left_redis.1));
    println!("{} runs, {tasks} tasks, {} runs failed, {unjudged} not judged", outcomes.len(), failed.len());
    println!("{archived} events were archived and {trimmed} left the stream");
    for outcome in &failed {
        println!("failed: bin/faults --only {} --seed {}", outcome.fault, outcome.seed);
    }
    assert!(failed.is_empty() && unjudged == 0, "{} runs failed, {unjudged} were not judged", failed.len());
}
