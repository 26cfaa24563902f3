//! `insightforge submit`: a text, a document, or a file of many becomes tasks.
//!
//! Every request goes under an idempotency key, so that one whose answer was lost is simply sent again.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use insightforge_schema::id::TaskId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::door::{Door, DoorArgs, Failure};
use super::{file, plain, result};

/// The longest single document that is read; longer ones are refused by the api anyway.
const LONGEST: u64 = 8 << 20;

#[derive(clap::Args)]
#[command(after_help = result::EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    door: DoorArgs,
    /// A text to analyse; `-` reads it from standard input, as does no text when something is piped in
    #[arg(conflicts_with_all = ["data", "file"])]
    text: Option<String>,
    /// A JSON document to analyse; `-` reads it from standard input
    #[arg(long, value_name = "JSON", conflicts_with = "file")]
    data: Option<String>,
    /// Many: a CSV file with a header row, or JSON Lines; `-` reads standard input
    #[arg(long, short)]
    pub(super) file: Option<PathBuf>,
    /// What the file is, where its name does not tell
    #[arg(long, requires = "file")]
    pub(super) format: Option<Format>,
    /// What is to be done with it; a file's lines may name their own
    #[arg(long = "type", default_value = "sentiment_analysis")]
    pub(super) task_type: String,
    /// A version, or an alias (`stable`, `candidate`, `latest`); `stable` unless given
    #[arg(long)]
    pub(super) model: Option<String>,
    /// Wait so many seconds for the outcome and print it
    #[arg(long, value_name = "SECONDS")]
    pub(super) wait: Option<u64>,
    /// The idempotency key: the same command with the same key is the same tasks, for 24 hours. A random one unless given
    #[arg(long)]
    key: Option<String>,
    /// No attempt begins later than this from now: 30s, 10m, 2h, 1d
    #[arg(long, value_parser = span)]
    pub(super) expires_in: Option<u32>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Csv,
    Jsonl,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let door = Door::open(&args.door)?;
    let key = args.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let done = if args.file.is_some() { file::send(&door, &args, &key).await } else { one(&door, &args, &key).await };
    match done.as_ref().map_err(|error| error.downcast_ref::<Failure>()) {
        // Whether it is stored is not known; the key makes asking again harmless.
        Err(Some(Failure::Away { .. })) => {
            done.with_context(|| format!("send it again with --key {key}: nothing is doubled"))
        }
        _ => done,
    }
}

async fn one(door: &Door, args: &Args, key: &str) -> anyhow::Result<ExitCode> {
    let document = document(args)?;
    let mut body = json!({ "data": document, "task_type": args.task_type });
    if let Some(model) = &args.model {
        body["model_version"] = json!(model);
    }
    if let Some(seconds) = args.expires_in {
        body["expires_in_s"] = json!(seconds);
    }
    let (status, answer) = door
        .insist(async || {
            let request = door.request(Method::POST, "api/data/upload", &[], wait(args)).header("Idempotency-Key", key);
            let request = if let Some(seconds) = args.wait {
                request.header("Prefer", format!("wait={seconds}"))
            } else {
                request
            };
            Ok(request.json(&body))
        })
        .await?;
    let task =
        answer["task_id"].as_str().and_then(|id| id.parse::<TaskId>().ok()).context("the answer names no task")?;
    let Some(seconds) = args.wait else {
        println!("{}", if args.json { plain::json(&answer) } else { task.to_string() });
        return Ok(ExitCode::SUCCESS);
    };
    // The api waits no longer than its own limit.
    let outcome: Value = if status == StatusCode::OK { answer } else { result::wait_for(door, task, seconds).await? };
    if !args.json {
        println!("{task}");
    }
    Ok(result::print(&outcome, args.json))
}

fn wait(args: &Args) -> Duration {
    Duration::from_secs(args.wait.unwrap_or(0).min(60))
}

/// The document as it goes out: JSON in a string.
fn document(args: &Args) -> anyhow::Result<String> {
    let given = match (&args.data, &args.text) {
        (Some(data), _) if data == "-" => standard_input()?,
        (Some(data), _) => data.clone(),
        (None, Some(text)) if text != "-" => return Ok(text_document(text)),
        (None, None) if std::io::stdin().is_terminal() => {
            bail!("nothing to submit: give a text, --data, --file, or pipe something in")
        }
        (None, _) => {
            let text = standard_input()?;
            let text = text.trim_end_matches(['\r', '\n']);
            anyhow::ensure!(!text.is_empty(), "nothing to submit: standard input is empty");
            return Ok(text_document(text));
        }
    };
    serde_json::from_str::<serde::de::IgnoredAny>(&given).context("--data is not JSON")?;
    Ok(given)
}

fn text_document(text: &str) -> String {
    json!({ "text": text }).to_string()
}

fn standard_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(LONGEST + 1).read_to_string(&mut text).context("standard input is not UTF-8")?;
    anyhow::ensure!(
        text.len() as u64 <= LONGEST,
        "standard input is longer than {} MiB; --file sends many",
        LONGEST >> 20
    );
    Ok(text)
}

/// Seconds, minutes, hours or days.
fn span(text: &str) -> Result<u32, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3_600,
        Some('d') => 86_400,
        _ => 0,
    };
    let count = text.get(..text.len().saturating_sub(1)).and_then(|count| count.parse::<u32>().ok());
    let seconds = count.filter(|_| unit > 0).and_then(|count| count.checked_mul(unit));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "must be a time such as 30s, 10m, 2h or 1d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_a_unit() {
        assert_eq!(["30s", "10m", "2h", "1d"].map(|text| span(text).unwrap()), [30, 600, 7_200, 86_400]);
        for wrong in ["", "30", "0s", "-1s", "1w", "99999999d", "好"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_text_becomes_a_document() {
        assert_eq!(text_document("say \"好\"\n"), r#"{"text":"say \"好\"\n"}"#);
    }
}
