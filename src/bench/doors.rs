//! `insightforge bench --inference`: ask several synchronous doors the same texts, side by side in one run, and print how
//! they compare.
//!
//! Every door is asked in short turns, one after the other and round after round, so that whatever else the machine does
//! falls on all of them alike. Each connection asks again as soon as it was answered (closed loop).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;
use url::Url;

use super::Args;
use super::load::Target;
use super::processes::{self, Watched};
use super::wire::{self, Connection};

/// What is asked when no file is given: sentences of the length people write.
const TEXTS: &str = include_str!("texts.txt");
/// Connections of a door stay open over its turns; this long it is asked before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// A door with a name for people: `name=http://host:port/path`; `/api/infer` when the path is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Door {
    name: String,
    url: Url,
}

impl FromStr for Door {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) = text.split_once('=').ok_or("name=URL")?;
        let mut url: Url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        if url.path() == "/" {
            url.set_path("/api/infer");
        }
        Ok(Self { name: name.to_owned(), url })
    }
}

/// What one door answered in all its turns.
#[derive(Serialize)]
pub(super) struct Figures {
    door: String,
    answers: u64,
    /// Answers other than 200, and requests without one.
    errors: u64,
    requests_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of the process given by `--pids` under the door's name, with its children.
    cpu_ms_per_request: Option<f64>,
    /// How many times as many requests a second as this door the first one answered.
    first_is_times_as_fast: f64,
}

#[derive(Serialize)]
pub(super) struct Report {
    load: String,
    doors: Vec<Figures>,
}

#[derive(Default)]
struct Tally {
    answers: u64,
    errors: u64,
    took_us: Vec<u32>,
    seconds: f64,
    cpu_s: Option<f64>,
}

/// Asks every door in turns.
pub(super) async fn measure(args: &Args) -> anyhow::Result<Report> {
    ensure!(!args.door.is_empty(), "--inference needs at least one --door name=URL");
    let texts = texts(args.texts.as_deref())?;
    let mut tallies = Vec::new();
    for door in &args.door {
        let requests = Rc::new(requests(door, args, &texts)?);
        turn(door, args, &requests, WARM_UP).await?;
        tallies.push((door, requests, Tally::default()));
    }
    for _ in 0..args.rounds {
        for (door, requests, tally) in &mut tallies {
            let turn = turn(door, args, requests, Duration::from_secs(args.seconds)).await?;
            tally.add(turn);
        }
    }
    let load = format!(
        "{} texts, closed loop, {} connections, {} rounds of {} s a door",
        texts.len(),
        args.concurrency,
        args.rounds,
        args.seconds
    );
    let first = tallies[0].2.rate();
    let doors = tallies.into_iter().map(|(door, _, tally)| tally.figures(&door.name, first)).collect();
    Ok(Report { load, doors })
}

fn texts(path: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let text = match path {
        Some(path) => fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => TEXTS.to_owned(),
    };
    let texts: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if texts.is_empty() {
        bail!("--texts has no line with text");
    }
    Ok(texts)
}

/// One request a text. The body is the same for every door.
fn requests(door: &Door, args: &Args, texts: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    let target = Target::new(&door.url)?;
    let request = |text: &String| {
        let body =
            json!({ "task_type": args.task_type, "model_version": args.model_version, "data": { "text": text } });
        wire::post(&target.0, door.url.path(), "application/json", body.to_string().as_bytes())
    };
    Ok(texts.iter().map(request).collect())
}

/// One turn: every connection asks until the time is up.
async fn turn(door: &Door, args: &Args, requests: &Rc<Vec<Vec<u8>>>, time: Duration) -> anyhow::Result<Tally> {
    let pid = args.pids.iter().filter(|watched| watched.name() == door.name).cloned().collect::<Vec<Watched>>();
    let target = Target::new(&door.url)?;
    let (next, tally) = (Rc::new(Cell::new(0_usize)), Rc::new(RefCell::new(Tally::default())));
    let mut askers = JoinSet::new();
    let before = processes::snapshot(&pid)?;
    let begun = Instant::now();
    for _ in 0..args.concurrency {
        let (target, requests, next, tally) = (target.clone(), requests.clone(), next.clone(), tally.clone());
        let mut connection =
            Connection::connect(&target.0).await.with_context(|| format!("{}: {}", door.name, door.url))?;
        askers.spawn_local(async move {
            while begun.elapsed() < time {
                let request = &requests[next.get() % requests.len()];
                next.set(next.get() + 1);
                let asked = Instant::now();
                let answer = connection.exchange(request).await;
                let took = u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX);
                let keeps_alive = answer.as_ref().is_ok_and(wire::Message::keeps_alive);
                tally.borrow_mut().note(answer.is_ok_and(|answer| is_answer(&answer)), took);
                if !keeps_alive {
                    match Connection::connect(&target.0).await {
                        Ok(fresh) => connection = fresh,
                        Err(_) => break,
                    }
                }
            }
        });
    }
    askers.join_all().await;
    let seconds = begun.elapsed().as_secs_f64();
    let used = processes::difference(&before, &processes::snapshot(&pid)?);
    let mut tally = tally.take();
    tally.seconds = seconds;
    tally.cpu_s = (!pid.is_empty()).then(|| used[..pid.len()].iter().map(|usage| usage.cpu_s).sum());
    Ok(tally)
}

/// Some servers say 200 and nothing, or an error: every door here answers with a document. Looked at, not read, so that
/// the asker stays cheap.
fn is_answer(answer: &wire::Message) -> bool {
    answer.status() == 200 && answer.body.first() == Some(&b'{') && !answer.body.starts_with(b"{\"error\"")
}

impl Tally {
    fn note(&mut self, answered: bool, took_us: u32) {
        if answered {
            self.answers += 1;
            self.took_us.push(took_us);
        } else {
            self.errors += 1;
        }
    }

    fn add(&mut self, turn: Self) {
        self.answers += turn.answers;
        self.errors += turn.errors;
        self.took_us.extend(turn.took_us);
        self.seconds += turn.seconds;
        self.cpu_s = match (self.cpu_s, turn.cpu_s) {
            (Some(sum), Some(more)) => Some(sum + more),
            (sum, more) => sum.or(more),
        };
    }

    fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds.max(1e-9)
    }

    fn figures(mut self, door: &str, first: f64) -> Figures {
        self.took_us.sort_unstable();
        let rank = |percent: usize| {
            let at = (self.took_us.len() * percent).div_ceil(100).saturating_sub(1);
            self.took_us.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
        };
        Figures {
            door: door.to_owned(),
            answers: self.answers,
            errors: self.errors,
            requests_per_s: self.rate(),
            p50_ms: rank(50),
            p99_ms: rank(99),
            cpu_ms_per_request: self.cpu_s.map(|cpu_s| cpu_s * 1e3 / self.answers.max(1) as f64),
            first_is_times_as_fast: first / self.rate(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.load)?;
        let first = self.doors.first().map_or("", |figures| &figures.door);
        writeln!(
            f,
            "{:<24}{:>12}{:>10}{:>10}{:>14}{:>8}  {first} is",
            "door", "requests/s", "p50 ms", "p99 ms", "CPU ms/req", "errors"
        )?;
        for figures in &self.doors {
            let cpu = figures.cpu_ms_per_request.map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.3}"));
            writeln!(
                f,
                "{:<24}{:>12.1}{:>10.2}{:>10.2}{:>14}{:>8}  {:.1} ×",
                figures.door,
                figures.requests_per_s,
                figures.p50_ms,
                figures.p99_ms,
                cpu,
                figures.errors,
                figures.first_is_times_as_fast
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_a_name_and_an_address_and_its_path_is_ours_unless_given() {
        for (text, url) in [
            ("own=http://127.0.0.1:8090", "http://127.0.0.1:8090/api/infer"),
            ("peer=http://127.0.0.1:9000/predict", "http://127.0.0.1:9000/predict"),
        ] {
            assert_eq!(text.parse::<Door>().unwrap().url.as_str(), url);
        }
        assert!("http//nowhere".parse::<Door>().is_err());
    }

    #[test]
    fn turns_add_up_and_the_first_door_is_compared_with_each() {
        let mut tally = Tally::default();
        for took_us in [1_000, 3_000] {
            let mut turn = Tally { seconds: 0.5, cpu_s: Some(0.1), ..Tally::default() };
            turn.note(true, took_us);
            turn.note(false, 1);
            tally.add(turn);
        }
        let figures = tally.figures("peer", 10.0);
        assert_eq!((figures.answers, figures.errors), (2, 2));
        assert!((figures.requests_per_s - 2.0).abs() < 1e-9 && (figures.first_is_times_as_fast - 5.0).abs() < 1e-9);
        assert!((figures.p50_ms - 1.0).abs() < 1e-9 && (figures.p99_ms - 3.0).abs() < 1e-9);
        assert!((figures.cpu_ms_per_request.unwrap() - 100.0).abs() < 1e-9);
    }
}
