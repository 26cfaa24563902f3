//! Models in a process of their own: this very program, started again, with a model that misbehaves when asked to.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod common;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insightforge_inference::host::{self, HostCommand, Job, Place};
use insightforge_inference::model::RunsOn;
use insightforge_inference::{InferError, Loaded, Model, Open, OpenError, OpenOptions, Package, Payload, Prepared};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

use common::{document, write_package};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "model-host") {
        let value = |flag: &str| arguments.iter().skip_while(|one| *one != flag).nth(1).cloned().unwrap();
        let job = Job { place: Place::Folder(PathBuf::from(value("--package"))), digest: value("--digest") };
        return host::serve(&job, &OpenUnruly);
    }
    let tests: [(&str, fn()); 7] = [
        ("what_a_poisonous_input_does_to_its_process_happens_to_it_alone", poison),
        ("a_long_run_of_deaths_makes_starts_wait_and_answers_end_it", many_deaths),
        ("a_package_that_cannot_be_served_is_refused_with_its_reason", refusals),
        ("several_children_answer_at_once", at_once),
        ("a_child_that_died_while_idle_is_replaced_unnoticed", idle_death),
        ("a_child_ends_when_its_parent_is_gone_even_out_of_a_call", orphan),
        ("a_child_ends_when_its_parent_is_gone_even_while_it_is_opened", unopened_orphan),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

struct Unruly;

impl Model for Unruly {
    fn runs_on(&self) -> RunsOn {
        RunsOn { engine: "unruly".to_owned(), device: "cpu".to_owned() }
    }

    fn resident_bytes(&self) -> u64 {
        1
    }

    fn prepare(&self, document: &Value) -> Result<Prepared, InferError> {
        let text = document["text"].as_str().unwrap_or_default().to_owned();
        Ok(Prepared { cost: 1, payload: Payload::Text(text) })
    }

    fn infer(&self, batch: &[Prepared]) -> Vec<Result<String, InferError>> {
        let texts = batch.iter().map(|input| match &input.payload {
            Payload::Text(text) => text.as_str(),
            _ => panic!("a text was prepared"),
        });
        let mut answers = Vec::new();
        for text in texts {
            match text {
                "panic" => panic!("asked to"),
                "abort" => std::process::abort(),
                "exit" => std::process::exit(3),
                "loop" => loop {
                    std::thread::sleep(Duration::from_secs(1));
                },
                "grow" => {
                    let mut all = Vec::new();
                    loop {
                        all.push(vec![1_u8; 1 << 20]);
                    }
                }
                "nan" => answers.push(Ok("{\"score\": NaN}".to_owned())),
                "twice" => answers.extend([Ok("1".to_owned()), Ok("2".to_owned())]),
                "garbage" => {
                    for descriptor in 3..20 {
                        let file = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{descriptor}"));
                        drop(file.and_then(|mut file| file.write_all(b"\x04\0\0\0this is no message")));
                    }
                }
                "print" => {
                    println!("{}", "a library that talks ".repeat(1_000));
                    answers.push(Ok("\"printed\"".to_owned()));
                }
                "pid" => answers.push(Ok(std::process::id().to_string())),
                "slow pid" => {
                    std::thread::sleep(Duration::from_millis(150));
                    answers.push(Ok(std::process::id().to_string()));
                }
                text => answers.push(Ok(json!({ "echo": text }).to_string())),
            }
        }
        answers
    }
}

struct OpenUnruly;

impl Open for OpenUnruly {
    fn open(&self, package: Arc<Package>) -> Result<Loaded, OpenError> {
        match &*package.file("salt.txt")? {
            b"broken" => return Err(OpenError::Broken("the weights are no weights".to_owned())),
            b"crash" => std::process::abort(),
            b"loop" => loop {
                std::hint::spin_loop();
            },
            _ => {}
        }
        let loaded = Loaded::new(package, Box::new(Unruly))?;
        loaded.check()?;
        Ok(loaded)
    }
}

fn command() -> HostCommand {
    HostCommand {
        program: std::env::current_exe().unwrap(),
        arguments: vec!["model-host".into()],
        environment: Vec::new(),
    }
}

fn start(salt: &str, runtime: &str) -> Result<Loaded, OpenError> {
    let root = tempfile::tempdir().unwrap().keep();
    let more = format!("isolation = \"process\"\ntimeout_ms = 2000\n{runtime}");
    let package = Package::read(&write_package(&root, "unruly", "v1", salt, (&more, ""))).unwrap();
    host::open(Arc::new(package), &command(), &OpenOptions::default())
}

fn ask(loaded: &Loaded, texts: &[&str]) -> Vec<Result<String, InferError>> {
    let batch: Vec<Prepared> = texts.iter().map(|text| loaded.read(&document(text)).unwrap()).collect();
    loaded.infer(&batch)
}

fn poison() {
    let loaded = start("", "").unwrap();
    assert_eq!(loaded.runs_on().engine, "unruly");
    for (poison, code) in [
        ("panic", "panic"),
        ("abort", "model_crashed"),
        ("exit", "model_crashed"),
        ("loop", "timeout"),
        ("grow", "out_of_memory"),
        ("nan", "bad_output"),
        ("twice", "wrong_answer_count"),
        ("garbage", "model_crashed"),
    ] {
        let answers = ask(&loaded, &["a", poison, "b"]);
        assert_eq!(answers[0].as_deref(), Ok(r#"{"echo":"a"}"#), "{poison}");
        assert_eq!(answers[1].as_ref().map_err(|error| error.code.as_ref()), Err(code), "{poison}: {answers:?}");
        assert_eq!(answers[2].as_deref(), Ok(r#"{"echo":"b"}"#), "{poison}");
    }
    assert_eq!(ask(&loaded, &["print"]), [Ok("\"printed\"".to_owned())]);
}

fn many_deaths() {
    let loaded = start("", "").unwrap();
    let answers = ask(&loaded, &["abort"; 12]);
    let codes: Vec<&str> = answers.iter().map(|answer| answer.as_ref().unwrap_err().code.as_ref()).collect();
    assert_eq!(codes.first(), Some(&"model_crashed"));
    assert_eq!(codes.last(), Some(&"overloaded"), "while it rests nobody's attempt is used up: {codes:?}");
    let begun = Instant::now();
    while ask(&loaded, &["a"])[0].is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    // Forgiven: the next one is started again at once.
    assert_eq!(ask(&loaded, &["abort"])[0].as_ref().unwrap_err().code, "model_crashed");
    assert!(ask(&loaded, &["a"])[0].is_ok());
}

fn refusals() {
    for (salt, reason) in [("broken", "no weights"), ("crash", "signal: 6")] {
        let error = start(salt, "").err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let root = tempfile::tempdir().unwrap();
    let folder = write_package(root.path(), "unruly", "v1", "", ("isolation = \"process\"", ""));
    let package = Arc::new(Package::read(&folder).unwrap());
    write_package(root.path(), "unruly", "v1", "other", ("isolation = \"process\"", ""));
    let error = host::open(package.clone(), &command(), &OpenOptions::default()).err().unwrap().to_string();
    assert!(error.contains("changed"), "{error}");
    let nobody = HostCommand { program: "/nonexistent".into(), ..command() };
    let error = host::open(package, &nobody, &OpenOptions::default()).err().unwrap().to_string();
    assert!(error.contains("no process"), "{error}");
}

fn at_once() {
    let loaded = start("", "instances = 3").unwrap();
    let mut pids: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..3).map(|_| scope.spawn(|| ask(&loaded, &["slow pid"]).remove(0).unwrap())).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 3);
}

fn idle_death() {
    let loaded = start("", "").unwrap();
    let pid = ask(&loaded, &["pid"]).remove(0).unwrap();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    let begun = Instant::now();
    // A zombie until its parent looks; its first thread is one before the others are gone.
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    while !(state().contains(") Z ") && threads() == 1) {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    let other = ask(&loaded, &["pid"]).remove(0).unwrap();
    assert_ne!(pid, other);
}

fn unopened_orphan() {
    let mut child = child("loop");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

fn child(salt: &str) -> Child {
    let root = tempfile::tempdir().unwrap().keep();
    let folder = write_package(&root, "unruly", "v1", salt, ("", ""));
    let digest = Package::read(&folder).unwrap().digest;
    Command::new(std::env::current_exe().unwrap())
        .arg("model-host")
        .arg("--package")
        .arg(&folder)
        .args(["--digest", &digest])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn orphan() {
    let mut child = child("");
    let mut input = child.stdin.take().unwrap();
    let mut greeting = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut greeting).unwrap();
    let ask = rmp_serde::to_vec_named(&json!({"id": 1, "documents": [{"text": "loop"}]})).unwrap();
    input.write_all(&(ask.len() as u32).to_le_bytes()).unwrap();
    input.write_all(&ask).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}
