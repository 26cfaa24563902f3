//! How good and how fast the built-in models are, on texts of your own:
//!
//! ```text
//! measure_models speed                   # texts a second and core, on texts of its own
//! measure_models sentiment FILE          # lines `Positive<TAB>text`, `Negative<TAB>…`, `Neutral<TAB>…`
//! measure_models entities FILE [spaces]  # word, then tag (O, B-PER, I-LOC …), last on each line; blank line between texts
//! ```
//!
//! `spaces` puts a space between words, as English wants. It prints figures and judges nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use insightforge_analyzer::model::{Model, Registry};
use insightforge_schema::keys::Lane;
use serde_json::{Value, json};

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["speed"] => speed(),
        ["sentiment", file] => sentiment(&fs::read_to_string(file)?),
        ["entities", file] => entities(&fs::read_to_string(file)?, ""),
        ["entities", file, "spaces"] => entities(&fs::read_to_string(file)?, " "),
        _ => {
            eprintln!("measure_models speed | sentiment FILE | entities FILE [spaces]");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn model(task_type: &str) -> Arc<dyn Model> {
    Registry::built_in().get(&Lane::new(task_type, "v1.0")).expect("it is built in")
}

const TEXTS: [&str; 8] = [
    "好消息!",
    "這家餐廳的服務很好，東西也好吃，不過價錢有點貴。",
    "手机很好用，但是电池太差，充满电用不了一天，不推荐。",
    "「蘋果公司在台灣設有研發中心，張三是其員工。」",
    "台積電董事長魏哲家昨天在新竹表示，公司將在美國亞利桑那州設廠。",
    "I love this phone, but the battery life is not good at all.",
    "Tim Cook said on Monday that Apple would open a store in Taipei next year.",
    "The meeting is at 3pm in room 5.",
];

fn speed() {
    let documents: Vec<String> = TEXTS.iter().map(|text| json!({ "text": text }).to_string()).collect();
    // As full as the batches of a busy lane.
    let batch: Vec<&str> = documents.iter().map(String::as_str).cycle().take(64).collect();
    for task_type in ["sentiment_analysis", "named_entity_recognition"] {
        let begun = Instant::now();
        let model = model(task_type);
        model.infer(&batch[..1]);
        let first_ms = begun.elapsed().as_secs_f64() * 1_000.0;
        // The best of many short rounds: what the machine does when nobody else is on this core.
        let round = || {
            let begun = Instant::now();
            std::hint::black_box(model.infer(&batch));
            begun.elapsed().as_secs_f64()
        };
        let best = (0..20_000).map(|_| round()).fold(f64::MAX, f64::min);
        let per_second = batch.len() as f64 / best;
        println!(
            "{task_type}: {per_second:.0} texts/s on one core ({:.1} us a text); the first took {first_ms:.0} ms",
            1e6 / per_second
        );
    }
}

fn sentiment(lines: &str) {
    let texts: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once('\t')).collect();
    let answers = ask("sentiment_analysis", texts.iter().map(|(_, text)| *text));
    let mut counts: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut by_score: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
    for ((label, _), answer) in texts.iter().zip(&answers) {
        let given = answer["sentiment"].as_str().unwrap_or("an error").to_owned();
        let tenth = answer["score"].as_f64().map_or(0, |score| ((score * 10.0) as u64).min(9));
        let tally = by_score.entry(tenth).or_default();
        *tally = (tally.0 + 1, tally.1 + usize::from(given == *label));
        *counts.entry((label, given)).or_default() += 1;
    }
    for ((label, given), count) in &counts {
        println!("{label} judged {given}: {count}");
    }
    let right: usize = by_score.values().map(|tally| tally.1).sum();
    println!("right: {} of {}", share(right, texts.len()), texts.len());
    for (tenth, (all, right)) in by_score {
        println!("scored 0.{tenth}…: {} of {all} right", share(right, all));
    }
}

type Span = (usize, usize, String);

fn entities(lines: &str, between: &str) {
    let texts: Vec<(String, BTreeSet<Span>)> =
        lines.replace('\r', "").split("\n\n").map(|block| read(block, between)).collect();
    let answers = ask("named_entity_recognition", texts.iter().map(|(text, _)| text.as_str()));
    let mut tallies: BTreeMap<String, (usize, usize, usize)> = BTreeMap::new();
    for ((_, right), answer) in texts.iter().zip(&answers) {
        let found: BTreeSet<Span> = answer["entities"].as_array().into_iter().flatten().filter_map(span).collect();
        for kind in ["PERSON", "LOCATION", "ORGANIZATION"] {
            let of =
                |spans: &BTreeSet<Span>| spans.iter().filter(|span| span.2 == kind).cloned().collect::<BTreeSet<_>>();
            let (found, right) = (of(&found), of(right));
            for name in [kind, "all"] {
                let tally = tallies.entry(name.to_owned()).or_default();
                tally.0 += found.intersection(&right).count();
                tally.1 += found.len();
                tally.2 += right.len();
            }
        }
    }
    for (name, (both, found, right)) in tallies {
        let f1 = share(2 * both, found + right);
        println!("{name}: precision {}, recall {}, F1 {f1}, of {right}", share(both, found), share(both, right));
    }
}

/// A text of tagged words, and its names.
fn read(block: &str, between: &str) -> (String, BTreeSet<Span>) {
    let (mut text, mut at, mut spans) = (String::new(), 0, Vec::<Span>::new());
    let mut open = false;
    for line in block.lines().filter(|line| !line.starts_with("# ")) {
        let mut columns = line.split(['\t', ' ']).filter(|column| !column.is_empty());
        let words: Vec<&str> = columns.by_ref().collect();
        // CoNLL-U style lines are numbered and end with two columns of no use here.
        let (word, tag) = match words[..] {
            [_, word, tag, _, _] => (word, tag),
            [word, .., tag] => (word, tag),
            _ => continue,
        };
        if at > 0 {
            text.push_str(between);
            at += between.chars().count();
        }
        let (start, end) = (at, at + word.chars().count());
        (text, at) = (text + word, end);
        let kind = match tag.split_once('-').map(|(_, kind)| kind) {
            Some("PER" | "person" | "PERSON") => "PERSON",
            Some("LOC" | "location" | "LOCATION" | "GPE") => "LOCATION",
            Some("ORG" | "corporation" | "group" | "ORGANIZATION") => "ORGANIZATION",
            _ => {
                open = false;
                continue;
            }
        };
        match spans.last_mut() {
            Some(last) if open && !tag.starts_with('B') && last.2 == kind => last.1 = end,
            _ => spans.push((start, end, kind.to_owned())),
        }
        open = true;
    }
    (text, spans.into_iter().collect())
}

fn span(entity: &Value) -> Option<Span> {
    let place = |name: &str| usize::try_from(entity[name].as_u64()?).ok();
    Some((place("start")?, place("end")?, entity["type"].as_str()?.to_owned()))
}

fn ask<'a>(task_type: &str, texts: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let documents: Vec<String> = texts.map(|text| json!({ "text": text }).to_string()).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let answers = model(task_type).infer(&documents);
    let read = |answer: String| serde_json::from_str(&answer).expect("a result is JSON");
    answers.into_iter().map(|answer| answer.map_or(Value::Null, read)).collect()
}

fn share(part: usize, whole: usize) -> String {
    format!("{:.3}", part as f64 / whole.max(1) as f64)
}
